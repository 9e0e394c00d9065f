"""The results log as a process: what it has written is on disk before the bus forgets it."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import camlink
from camlink.links.store import LinkStore
from camlink.models.base import OutputSpec
from camlink.pipeline.bus.base import Bus
from camlink.pipeline.config.watch import described_cameras
from camlink.pipeline.durable import write_durably
from camlink.pipeline.errors import ResultsError
from camlink.pipeline.graph import Step, topic_of
from camlink.pipeline.learnt_elsewhere import judged_oracle
from camlink.pipeline.records import FrameDropped, FrameResult, LinkPromotion, Record
from camlink.pipeline.results import ResultsLog
from camlink.pipeline.run_info import FILE_NAME, RunInfo, described
from camlink.pipeline.session import Listener

if TYPE_CHECKING:
    from camlink.pipeline.config import SiteConfig
    from camlink.pipeline.distributed import ModelFacts

logger = logging.getLogger(__name__)

FLUSH_S = 10.0
RETRY_S = 5.0
FLUSH_RECORDS = 20_000


class ResultsWorker:
    """Writes all that the step "results" reads into a run folder. Several may share the cameras and the folder.

    A full disk stops the log, not the bus: nothing is committed, nothing more is read, and writing is tried again.
    """

    def __init__(
        self,
        step: Step,
        bus: Bus,
        out: Path,
        specs: dict[str, OutputSpec],
        header: RunInfo,
        *,
        describe: Callable[[], Mapping[str, Mapping[str, Any]]] = dict,
        flush_s: float = FLUSH_S,
        seconds: Callable[[], float] = time.monotonic,
        listeners: Sequence[Listener] = (),
    ) -> None:
        """``describe`` gives the cameras' entries of the header anew; asked when results of an unknown one come.

        ``listeners`` see what the log has taken, before it is committed; what they ask for is published.
        """
        self._bus, self._listeners = bus, tuple(listeners)
        self.counts: Counter[str] = Counter()
        self._log = ResultsLog(out, flush_rows=10**12, specs=specs)  # it is flushed here, where that may fail
        self._batch: Sequence[Record] = ()  # polled, not yet dealt with
        self._is_logged = False  # the batch is in the log, and the listeners are still to take it
        self._unflushed = 0
        self._captured = dict(header.captured)
        self._gaps = _Gaps(out, bus.generation, self._captured)
        self._links = LinkStore(out / "links")
        self._out = out
        self._describe = describe
        self._asked: set[str] = set()  # cameras that nobody could describe
        self.info = replace(header, stopped_by=None)
        self._flush_s = flush_s
        self._seconds = seconds
        self._due = seconds() + flush_s
        self._failing = False
        self._subscription = bus.subscribe(step.shares, group=step.name)
        self.beat = seconds()
        self.info.save(out)

    def run(self, stop: Callable[[], bool]) -> None:
        """Write until ``stop`` says so; then make everything durable, commit, and leave the group.

        The header then says that this was stopped, not that the run is over: another start goes on with it.
        """
        try:
            while not stop():
                self.once(0.1)
            self.info = replace(self.info, stopped_by="the user")
            self.checkpoint()
        finally:
            self._subscription.close()
            self._log.leave()

    def once(self, timeout_s: float = 0.0) -> int:
        """Take what has come; return the number of records taken."""
        self.beat = self._seconds()
        taken = 0
        if not self._batch and not self._failing:
            polled = self._subscription.poll(timeout_s)
            self._batch, self._is_logged = [*self._gaps.found(polled), *polled], False
            taken = len(polled)
            self._attempt(self._take)
        if self._seconds() >= self._due or (self._unflushed >= FLUSH_RECORDS and not self._failing):
            self.checkpoint()
        self.counts["taken"] += taken
        return taken

    def checkpoint(self) -> None:
        """Make all rows durable, then commit; not what the log or a listener could not take."""
        self._attempt(self._take)
        if not self._failing:
            self._attempt(self._log.flush)
        if not self._failing:
            self._unflushed = 0
            self._subscription.commit()
            self.info = replace(self.info, captured=dict(self._captured), cameras=self._cameras())
            self._attempt(lambda: self.info.save(self._out))
            self._attempt(self._gaps.save)
        self._due = self._seconds() + (RETRY_S if self._failing else self._flush_s)

    def _take(self) -> None:
        """Give the batch to the log, then to the listeners. Who fails is given it again: repeats fall out."""
        if not self._is_logged:
            self._to_log()
        for asked in (asked for listen in self._listeners for asked in listen(self._batch)):
            self._bus.publish(topic_of(asked), asked)
        self._unflushed += len(self._batch)
        self._batch = ()

    def _to_log(self) -> None:
        self._count(self._batch)
        for record in self._batch:
            if isinstance(record, LinkPromotion):
                self._links.save(record.camera_id, record.target, record.version, record.payload)
                self._links.promote(record.camera_id, record.target, record.version)
        self._log.write(self._batch)
        self._is_logged = True

    def _count(self, records: Sequence[Record]) -> None:
        """Keep, per camera, how many frames were captured: indexes count them, dropped ones included."""
        captured = self._captured
        for record in records:
            if isinstance(record, FrameResult):
                captured[record.camera_id] = max(captured.get(record.camera_id, 0), record.frame_index + 1)
            elif isinstance(record, FrameDropped):
                end = record.first_index + record.count
                captured[record.camera_id] = max(captured.get(record.camera_id, 0), end)

    def _cameras(self) -> Mapping[str, Mapping[str, Any]]:
        unknown = self._captured.keys() - self.info.cameras.keys() - self._asked
        if not unknown:
            return self.info.cameras
        self._asked |= unknown
        return {**self.info.cameras, **self._describe()}

    def _attempt(self, write: Callable[[], None]) -> None:
        try:
            write()
            self._failing = False
        except (ResultsError, OSError) as error:
            self.counts["failures"] += 1
            self._failing = True
            logger.error("%s; trying again, nothing is lost", error)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


class _Gaps:
    """Accounts for frames that a bus has lost: those between what is on disk and the first that comes of its next life.

    The life of the bus that rows came from is noted beside them, in ``bus.json``.
    """

    def __init__(self, out: Path, generation: str, captured: Mapping[str, int]) -> None:
        self._file = out / "bus.json"
        self._generation = generation
        before = json.loads(self._file.read_bytes())["generation"] if self._file.exists() else generation
        self._expected = dict(captured) if before != generation else {}
        if self._expected:
            logger.error("the bus has lost what it held since rows were last written; lost frames will be counted")

    def found(self, records: Sequence[Record]) -> list[FrameDropped]:
        """Return what was lost before ``records``, of the cameras that are heard of for the first time."""
        lost = []
        for record in records:
            if not isinstance(record, FrameResult | FrameDropped):
                continue
            first = record.frame_index if isinstance(record, FrameResult) else record.first_index
            expected = self._expected.pop(record.camera_id, first)
            if first > expected:
                gap = first - expected
                lost.append(FrameDropped(record.camera_id, expected, gap, record.captured_at, "lost with the bus"))
        return lost

    def save(self) -> None:
        """Note the present life of the bus. Raises `ResultsError`."""
        told = json.dumps({"generation": self._generation}).encode()
        if not self._file.exists() or self._file.read_bytes() != told:
            write_durably(self._file, lambda path: _write(path, told))


def header_of(site: SiteConfig, facts: ModelFacts, out: Path) -> RunInfo:
    """Return the header of the run in ``out``, which is gone on with, or of a new one."""
    if (out / FILE_NAME).exists():
        return RunInfo.load(out)
    costs = facts.costs
    models = {
        name: described(spec) | {"time_ms": costs.time_ms[name], "memory_gb": costs.memory_gb[name]}
        for name, spec in facts.specs.items()
    }
    return RunInfo(
        name=out.name,
        camlink_version=camlink.__version__,
        seed=site.seed,
        policy=site.policy,
        models=models,
        cameras=described_cameras(site),
        started_at=datetime.now(UTC),
        config=site.masked(),
        oracle=judged_oracle(site, facts.specs),
    )
