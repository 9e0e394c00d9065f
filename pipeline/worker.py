"""One operator as a process: takes its share of the cameras from the bus, and gives on what follows.

The order of things is what nothing is lost by: results are published, state and snapshots are written, all of that is
durable, and only then is committed what was dealt with. After a crash the rest comes again, here or elsewhere.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from camlink.operators.base import Outputs, StateStore
from camlink.operators.inference import state_key
from camlink.operators.pacing import PacedOperator, SnapshotKey
from camlink.pipeline.bus.base import Bus
from camlink.pipeline.clock import Clock
from camlink.pipeline.errors import StateError
from camlink.pipeline.graph import Step, camera_of, topic_of
from camlink.pipeline.records import Frame, FrameDropped, OutputReady, Record

logger = logging.getLogger(__name__)

CHECKPOINT_S = 1.0
POLL_S = 0.05
MOST_TAKEN = 2_000  # records taken at once by a worker that drains its topics
SNAPSHOT_TTL_S = 7 * 24 * 3600.0


class Worker:
    """Runs one step of the graph until told to stop. ``counts`` are monotonic, for metrics and health pages."""

    def __init__(
        self,
        step: Step,
        operator: PacedOperator,
        bus: Bus,
        state: StateStore,
        clock: Clock,
        *,
        checkpoint_s: float = CHECKPOINT_S,
        batch: int = 1,
        batch_wait_s: float = 0.0,
        drains: bool = False,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take records as they come; or up to ``batch`` at once, for which the first waits ``batch_wait_s`` at most.

        ``drains``: take all that has come before any of it is dealt with, for an operator that runs the newest.
        """
        self.counts: Counter[str] = Counter()
        self._drains = drains
        self._step = step
        self._operator = operator
        self._bus = bus
        self._state = state
        self._clock = clock
        self._checkpoint_s = checkpoint_s
        self._batch, self._batch_wait_s = batch, batch_wait_s
        self._together = batch  # shared records that came at once when any came last
        self._seconds = seconds
        self._due = seconds() + checkpoint_s
        self._unsaved: dict[SnapshotKey, bytes] = {}  # the latest snapshots that the state store did not take
        self._subscription = bus.subscribe(step.shares, step.name, follow=step.follows, restore=step.restores)
        self.beat = seconds()  # when the loop last went round

    def run(self, stop: Callable[[], bool]) -> None:
        """Work until ``stop`` says so, then give what is ready, commit, and leave the group.

        Raises `BusError` when the bus is away for longer than its retries last; nothing was committed then that is not
        durable, so the process may simply be started again.
        """
        try:
            while not stop():
                self.once(POLL_S)
            self._publish(self._operator.on_end())
            self.checkpoint()
        finally:
            self._subscription.close()

    def once(self, timeout_s: float = 0.0) -> int:
        """Take what has come, give on what follows; return the number of records taken."""
        self.beat = self._seconds()
        records = self._gathered(timeout_s)
        self._forget(self._subscription.gone())
        shared = [record for record in records if topic_of(record) in self._step.shares]
        beside = [record for record in records if topic_of(record) not in self._step.shares]
        self._publish(self._operator.on_records(beside))
        self._resume(shared)
        self._publish([*self._operator.on_records(shared), *self._operator.on_time(self._clock.now())])
        self._put_aside()
        self.counts["taken"] += len(records)
        self._subscription.hold_back(self._operator.crowded())
        if self._seconds() >= self._due:
            self.checkpoint()
        return len(records)

    def _gathered(self, timeout_s: float) -> list[Record]:
        """Return what has come; where records come together, wait a little for others to share their batch.

        One that comes alone after one that came alone goes at once: waiting would cost it time and win it no company.
        """
        records = list(self._subscription.poll(timeout_s))
        due = self._seconds() + self._batch_wait_s
        while self._may_grow(records) and (left_s := due - self._seconds()) > 0:
            records += self._subscription.poll(left_s)
        while self._drains and len(records) < MOST_TAKEN and (more := self._subscription.poll()):
            records += more
        self._together = self._shared(records) or self._together
        return records

    def _may_grow(self, records: Sequence[Record]) -> bool:
        came = self._shared(records)
        return 0 < came < self._batch and max(came, self._together) > 1

    def _shared(self, records: Sequence[Record]) -> int:
        return sum(topic_of(record) in self._step.shares for record in records)

    def checkpoint(self) -> None:
        """Make all that was done durable, then commit what needs not come again."""
        self._bus.flush()
        self._unsaved |= self._operator.snapshots()
        for (camera_id, part), snapshot in self._unsaved.items():
            self._state.put_blob(self._key(camera_id, part), snapshot, SNAPSHOT_TTL_S)
        if self._flush_state():
            self._unsaved = {}
        held = self._operator.held()
        self.counts["held"] = len(held)  # the one count that also falls
        self._subscription.commit(held)
        self._due = self._seconds() + self._checkpoint_s

    def _forget(self, cameras: Collection[str]) -> None:
        """Drop cameras that another worker has now, and snapshots that would overwrite that worker's."""
        self._operator.forget(cameras)
        self._unsaved = {key: snapshot for key, snapshot in self._unsaved.items() if key[0] not in cameras}

    def _key(self, camera_id: str, part: str) -> str:
        return f"snapshot/{self._step.name}/{part}/{camera_id}"

    def _resume(self, records: Sequence[Record]) -> None:
        """Take up the cameras that are new here."""
        new = [camera_id for camera_id in sorted(set(map(camera_of, records))) if not self._operator.knows(camera_id)]
        if not new:
            return
        keys = [(camera_id, part) for camera_id in new for part in self._operator.parts]
        try:
            found = self._state.get_blobs([self._key(*key) for key in keys])
        except StateError as error:
            logger.warning("no snapshots: %s; %d cameras start anew", error, len(new))
            found = [None] * len(keys)
        there = {key: snapshot for key, snapshot in zip(keys, found, strict=True) if snapshot is not None}
        for camera_id in new:
            self._operator.resume(camera_id, {part: data for (name, part), data in there.items() if name == camera_id})

    def _put_aside(self) -> None:
        """Records that break the operator go to the dead-letter topic; their frames count as dropped."""
        for record, reason in ((entry.record, entry.reason) for entry in self._operator.refused()):
            self.counts["refused"] += 1
            self._bus.refuse(topic_of(record), record, f"{self._step.name}: {reason}")
            index = record.index if isinstance(record, Frame) else getattr(record, "frame_index", None)
            if isinstance(record, Frame | OutputReady) and index is not None:
                dropped = FrameDropped(record.camera_id, index, 1, record.captured_at, f"refused by {self._step.name}")
                self._publish([dropped])

    def _publish(self, records: Iterable[Record]) -> None:
        """Publish after the state store has what the records speak of; what it did not take travels with them."""
        ready = list(records)
        untaken = {} if self._flush_state() else self._state.untaken()
        for record in ready:
            self._bus.publish(topic_of(record), _with_outputs(record, untaken) if untaken else record)
        self.counts["given"] += len(ready)

    def _flush_state(self) -> bool:
        """Say whether the state store took what was put."""
        try:
            self._state.flush()
            return True
        except StateError as error:  # a cache: who needs what it lost waits for it, then abstains with the reason
            self.counts["state_failures"] += 1
            logger.warning("%s", error)
            return False


def _with_outputs(record: Record, untaken: Mapping[str, Outputs]) -> Record:
    """Return word of executed outputs with the outputs themselves, if they are among ``untaken``."""
    if not isinstance(record, OutputReady):
        return record
    return replace(record, outputs=untaken.get(state_key(record.camera_id, record.frame_index, record.purpose), ()))
