"""One run from start to report: sources, models, the embedded pipeline, the results log, and the run's header."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import camlink
from camlink.links.store import LinkStore
from camlink.models.pool import ModelPool
from camlink.operators.previews import Encode
from camlink.pipeline.assembly import CameraFacts, build_embedded, check_budgets, throttle_of
from camlink.pipeline.clock import WallClock
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.embedded import Reading
from camlink.pipeline.errors import RequestError
from camlink.pipeline.learnt_elsewhere import judged_oracle
from camlink.pipeline.learnt_folder import LearntFolder
from camlink.pipeline.progress import Progress
from camlink.pipeline.records import FrameResult, LinkPromotion, Record, RelabelRequest
from camlink.pipeline.results import ResultsLog
from camlink.pipeline.run_info import RunInfo, described

logger = logging.getLogger(__name__)

Listener = Callable[[Sequence[Record]], Iterable[RelabelRequest]]

HEADER_EVERY_S = 10.0
FLUSH_EVERY_S = 10.0


@dataclass(frozen=True)
class Camera:
    """What a run says of one of its cameras."""

    domain: str
    source: str  # passwords masked
    fps: float | None


def check_free(out: Path) -> None:
    """Raise `RequestError` if the folder holds a run already."""
    if (out / "run.json").exists():
        raise RequestError(f"{out} already holds a run; choose another folder")


class Session:
    """Runs a site over readings and leaves a results folder that `camlink report` can read at any time."""

    def __init__(
        self,
        config: SiteConfig,
        pool: ModelPool,
        cameras: Mapping[str, Camera],
        out: Path,
        *,
        model_notes: Mapping[str, Mapping[str, Any]] | None = None,
        encode_picture: Encode | None = None,
        tick: int = 1,
        live: bool = False,
        synthetic: bool = False,
        listeners: Sequence[Listener] = (),
        learnt: LearntFolder | None = None,
    ) -> None:
        """``model_notes`` adds description and licence to the report; ``live``: event time is the present;
        ``synthetic``: no camera has seen what is read.

        ``listeners`` see every record that reaches the results log, after it, and may ask for relabelled frames.
        ``learnt``: where cameras go on from what they had learnt, and keep it. Raises `RequestError` if ``out`` holds a
        run.
        """
        check_free(out)
        check_budgets(config, pool)
        self._pool = pool
        self._out = out
        self._links = LinkStore(out / "links")
        self._log = ResultsLog(out, specs=pool.specs)
        self.progress = Progress(pool.specs)
        self._listeners = tuple(listeners)
        self._facts = {camera_id: CameraFacts(camera.fps) for camera_id, camera in cameras.items()}
        self.throttle = throttle_of(config, pool) if live else None
        self._pipeline = build_embedded(
            *(config, pool, self._facts, self._receive),
            encode_picture=encode_picture,
            tick=tick,
            live_clock=WallClock() if live else None,
            throttle=self.throttle,
        )
        self.info = RunInfo(
            name=out.name,
            camlink_version=camlink.__version__,
            seed=config.seed,
            policy=config.policy,
            models=_describe(pool, model_notes or {}),
            cameras={camera_id: vars(camera) for camera_id, camera in cameras.items()},
            started_at=datetime.now(UTC),
            config=config.masked(),
            captured=dict.fromkeys(cameras, 0),
            oracle=judged_oracle(config, pool.specs),
            synthetic=synthetic,
            live=live,
        )
        self._learnt = learnt
        if learnt is not None:
            learnt.attach(self._pipeline.operators)
            self._take_up(cameras)
        self._tell_learning_frames()

    def run(
        self,
        readings: Iterable[Reading | None],
        captured: Callable[[], Mapping[str, int]],
        *,
        stop: Callable[[], bool] = lambda: False,
        on_tick: Callable[[], None] = lambda: None,
    ) -> RunInfo:
        """Carry all readings through; return the finished header, which is also written to the folder.

        ``captured`` counts sampled frames per camera at the source; ``stop`` ends the run early and cleanly;
        ``on_tick`` is called after each reading, for a progress display.
        """
        started = time.monotonic()
        self._write_header(started, captured())
        stopped_by: str | None = "an error"
        try:
            self._pipeline.run(self._watched(readings, captured, started, on_tick), stop)
            stopped_by = "the user" if stop() else None
            if self._learnt is not None:
                self._learnt.keep(everything=True)
        except KeyboardInterrupt:  # a second Ctrl-C
            stopped_by = "the user"
            raise
        finally:
            with ExitStack() as closing:  # last first; one that fails keeps none of the others from being done
                closing.callback(self._pool.close)
                closing.callback(self._finish, stopped_by, started, captured)
                closing.callback(self._log.close)
        return self.info

    def update_cameras(self, config: SiteConfig, cameras: Mapping[str, Camera]) -> Mapping[str, str]:
        """Take in cameras that were edited while the run goes on; the header keeps those that were removed.

        Returns which of them went on from what they had learnt, and until when that was, as `RunInfo.taken_up`.
        """
        self._facts.update({camera_id: CameraFacts(camera.fps) for camera_id, camera in cameras.items()})
        taken_up = self._take_up([camera_id for camera_id in cameras if camera_id not in self.info.cameras])
        known = {**self.info.cameras, **{camera_id: vars(camera) for camera_id, camera in cameras.items()}}
        self.info = replace(self.info, cameras=known, config=config.masked())
        self._tell_learning_frames()
        return taken_up

    def _take_up(self, cameras: Iterable[str]) -> Mapping[str, str]:
        if self._learnt is None:
            return {}
        taken_up = {camera_id: until.isoformat() for camera_id, until in self._learnt.take_up(cameras).items()}
        self.info = replace(self.info, taken_up={**self.info.taken_up, **taken_up})
        self._pipeline.publish(self._learnt.owed())
        return taken_up

    def _tell_learning_frames(self) -> None:
        self.progress.learning_frames.update({name: self.info.learning_frames(name) for name in self.info.cameras})

    def _finish(self, stopped_by: str | None, started: float, captured: Callable[[], Mapping[str, int]]) -> None:
        self.info = replace(
            self.info, finished_at=datetime.now(UTC), complete=stopped_by is None, stopped_by=stopped_by
        )
        self._write_header(started, captured())

    def _receive(self, records: Sequence[Record]) -> list[Record]:
        self._log.write(records)
        self.progress.observe(records)
        for record in records:
            if isinstance(record, LinkPromotion):
                self._links.save(record.camera_id, record.target, record.version, record.payload)
                self._links.promote(record.camera_id, record.target, record.version)
            elif isinstance(record, FrameResult) and self._learnt is not None:
                self._learnt.changed(record.camera_id)
        return [asked for listen in self._listeners for asked in listen(records)]

    def _watched(
        self,
        readings: Iterable[Reading | None],
        captured: Callable[[], Mapping[str, int]],
        started: float,
        on_tick: Callable[[], None],
    ) -> Iterator[Reading | None]:
        header_due = time.monotonic() + HEADER_EVERY_S
        flush_due = time.monotonic() + FLUSH_EVERY_S
        for reading in readings:
            yield reading
            on_tick()
            if self._learnt is not None:
                self._learnt.keep()
            now = time.monotonic()
            if now >= header_due:
                self._write_header(started, captured())
                header_due = now + HEADER_EVERY_S
            if now >= flush_due:
                self._log.flush()
                flush_due = now + FLUSH_EVERY_S

    def _write_header(self, started: float, captured: Mapping[str, int]) -> None:
        self.info = replace(
            self.info,
            captured=dict(captured),
            wall_s=time.monotonic() - started,
            busy_ms=dict(self._pool.busy_ms),
            loads=self._pool.loads,
            loaded=list(self._pool.loaded),
            batch_sizes={name: {str(k): n for k, n in sizes.items()} for name, sizes in self._pool.batch_sizes.items()},
        )
        self.info.save(self._out)


def _describe(pool: ModelPool, notes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: described(spec)
        | {"time_ms": pool.time_ms(name), "memory_gb": pool.memory_gb(name)}
        | dict(notes.get(name, {}))
        for name, spec in pool.specs.items()
    }
