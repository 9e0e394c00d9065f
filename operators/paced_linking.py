"""Linking in step: a frame is linked once what earlier frames taught has been promoted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from camlink.operators.linking import LinkingOperator
from camlink.operators.pacing import CROWDED, HOLD_S, Guard, PacedCamera, Refused, Seconds, SnapshotKey, queued
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.records import NOT_FULL, FrameResult, LinkPromotion, OutputReady, Record, Settled

FrameKey = tuple[int, bool]  # index, relabelled


class _Camera(PacedCamera):
    def __init__(self, seconds: Seconds, hold_s: float) -> None:
        super().__init__(seconds, hold_s)
        self.waits_for: datetime | None = None  # the last frame linked that may have taught something
        self.quiet_until: datetime | None = None  # no served frame before this will be relabelled
        self.waits_always = False  # it may be relabelled: no result may overtake what that teaches
        self.running: dict[FrameKey, OutputReady] = {}  # handed to the operator, no result yet


class PacedLinking:
    """Stands before a `LinkingOperator`. ``relabels``: served frames may be relabelled and then teach, too."""

    parts: tuple[str, ...] = ()

    def __init__(
        self, operator: LinkingOperator, seconds: Seconds, *, in_step: bool, relabels: bool, hold_s: float = HOLD_S
    ) -> None:
        self._operator = operator
        self._guard = Guard(operator)
        self._seconds = seconds
        self._hold_s = hold_s
        self._in_step = in_step
        self._relabels = relabels
        self._cameras: dict[str, _Camera] = {}

    def on_records(self, records: Sequence[Record]) -> Iterable[Record]:
        at_once: list[Record] = []
        for record in records:
            if isinstance(record, LinkPromotion):
                at_once.append(record)
            elif isinstance(record, OutputReady):
                camera = self._camera(record.camera_id)
                self._operator.expect(record)
                if record.purpose == "relabel":
                    at_once.append(self._running(camera, record))
                else:
                    camera.queue.append(record)
            elif isinstance(record, Settled):
                camera = self._camera(record.camera_id)
                camera.quiet_until = record.quiet_until
                if camera.waits_for is not None and camera.waits_for <= record.captured_at:
                    camera.waits_for = None
                # promotions that came before this mark must be in force before a frame goes after it
        yield from self._noted(self._guard.on_records(at_once))
        yield from self._release()

    def on_time(self, now: datetime) -> Iterable[Record]:
        due = self._operator.next_time()
        if due is not None:
            yield from self._noted(self._operator.on_time(now))
        yield from self._release()

    def next_time(self) -> datetime | None:
        return EPOCH

    def on_end(self) -> Iterable[Record]:
        return ()  # what waits for its outputs is held, and delivered again to whoever goes on

    def held(self) -> Collection[Record]:
        running = [ready for camera in self._cameras.values() for ready in camera.running.values()]
        return [*running, *queued(self._cameras.values())]

    def crowded(self) -> Collection[str]:
        return [name for name, c in self._cameras.items() if len(c.queue) + len(c.running) >= 4 * CROWDED]

    def forget(self, cameras: Collection[str]) -> None:
        for name in cameras:
            self._cameras.pop(name, None)
            self._operator.forget(name)

    def knows(self, camera_id: str) -> bool:
        return True  # its links come from the topic of promotions

    def resume(self, camera_id: str, snapshot: Mapping[str, bytes]) -> None:
        """Nothing is kept but the links, and those come from the topic of promotions."""

    def refused(self) -> Sequence[Refused]:
        refused = self._guard.drain()
        for record in (entry.record for entry in refused):
            if isinstance(record, OutputReady):
                camera = self._camera(record.camera_id)
                camera.running.pop((record.frame_index, record.purpose == "relabel"), None)
                camera.waits_for = None  # no result, so nothing will be learnt from it
        return refused

    def snapshots(self) -> dict[SnapshotKey, bytes]:
        return {}

    def _camera(self, camera_id: str) -> _Camera:
        if camera_id not in self._cameras:
            self._cameras[camera_id] = _Camera(self._seconds, self._hold_s)
        return self._cameras[camera_id]

    def _running(self, camera: _Camera, ready: OutputReady) -> OutputReady:
        camera.running[ready.frame_index, ready.purpose == "relabel"] = ready
        return ready

    def _release(self) -> Iterable[Record]:
        while True:
            batch: list[Record] = []
            for name, camera in self._cameras.items():
                while camera.queue and self._may_go(name, camera):
                    batch.append(self._next(camera))
            if not batch:
                return
            yield from self._noted(self._guard.on_records(batch))

    def _may_go(self, name: str, camera: _Camera) -> bool:
        head = camera.queue[0]
        assert isinstance(head, OutputReady)
        if camera.waits_for is None or not (head.needs_links or camera.waits_always):
            return True
        if not camera.patience.is_over(name, "word that its last frame is settled"):
            return False
        camera.waits_for = None
        return True

    def _next(self, camera: _Camera) -> OutputReady:
        ready = camera.queue.popleft()
        assert isinstance(ready, OutputReady)
        is_quiet = camera.quiet_until is not None and ready.captured_at < camera.quiet_until
        may_be_relabelled = self._relabels and ready.purpose == "serve" and not is_quiet
        if self._in_step and (ready.purpose not in NOT_FULL or may_be_relabelled):
            camera.waits_for, camera.waits_always = ready.captured_at, may_be_relabelled
            camera.patience.start()
        return self._running(camera, ready)

    def _noted(self, records: Iterable[Record]) -> Iterable[Record]:
        for record in records:
            if isinstance(record, FrameResult):
                self._camera(record.camera_id).running.pop((record.frame_index, record.purpose == "relabel"), None)
            yield record
