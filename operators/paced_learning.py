"""Adaptation and scheduling in step: results are learnt from, and links are judged, in the order of one process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from camlink.operators.adaptation import AdaptationOperator
from camlink.operators.pacing import CROWDED, HOLD_S, Guard, PacedCamera, Refused, Seconds, queued
from camlink.operators.scheduler import SchedulerOperator
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.records import Decision, FrameResult, LinkPromotion, Record, RelabelRequest, Settled


class _Camera(PacedCamera):
    def __init__(self, seconds: Seconds, hold_s: float) -> None:
        super().__init__(seconds, hold_s)
        self.asked: FrameResult | None = None  # adaptation: its frame is being relabelled
        self.promotions: list[LinkPromotion] = []  # scheduler: not yet in force, in order
        self.settled: datetime | None = None  # scheduler: everything that follows from frames up to here is known


class _Paced(ABC):
    """What both have in common: queues of results, and cameras that come and go."""

    def __init__(
        self, operator: AdaptationOperator | SchedulerOperator, seconds: Seconds, in_step: bool, hold_s: float
    ) -> None:
        self._operator = operator
        self._guard = Guard(operator)
        self._seconds = seconds
        self._hold_s = hold_s
        self._in_step = in_step
        self._cameras: dict[str, _Camera] = {}

    def on_time(self, now: datetime) -> Iterable[Record]:
        yield from self._release(list(self._cameras))

    def next_time(self) -> datetime | None:
        return EPOCH

    def on_end(self) -> Iterable[Record]:
        return ()

    def crowded(self) -> Collection[str]:
        return [name for name, camera in self._cameras.items() if len(camera.queue) >= 4 * CROWDED]

    def forget(self, cameras: Collection[str]) -> None:
        for name in cameras:
            self._cameras.pop(name, None)
            self._operator.forget(name)

    def knows(self, camera_id: str) -> bool:
        return True  # what matters after a move comes from the topics of promotions and decisions

    def resume(self, camera_id: str, snapshot: bytes | None) -> None:  # noqa: B027 (nothing to resume is an answer)
        """See `knows`."""

    def refused(self) -> Sequence[Refused]:
        return self._guard.drain()

    def snapshots(self) -> dict[str, bytes]:
        return {}

    def held(self) -> Collection[Record]:
        asked = [camera.asked for camera in self._cameras.values() if camera.asked is not None]
        return [*asked, *queued(self._cameras.values())]

    def _camera(self, camera_id: str) -> _Camera:
        if camera_id not in self._cameras:
            self._cameras[camera_id] = _Camera(self._seconds, self._hold_s)
        return self._cameras[camera_id]

    @abstractmethod
    def _release(self, names: Iterable[str]) -> Iterable[Record]:
        """Give what may go on now for these cameras."""


class PacedAdaptation(_Paced):
    """Stands before an `AdaptationOperator`; marks each frame from which nothing follows any more as `Settled`."""

    def __init__(
        self, operator: AdaptationOperator, seconds: Seconds, *, in_step: bool, hold_s: float = HOLD_S
    ) -> None:
        super().__init__(operator, seconds, in_step, hold_s)
        self._adaptation = operator

    def on_records(self, records: Sequence[Record]) -> Iterable[Record]:
        for record in records:
            if isinstance(record, LinkPromotion):
                self._adaptation.resume(record)
            elif isinstance(record, FrameResult):
                camera = self._camera(record.camera_id)
                if record.purpose != "relabel":
                    camera.queue.append(record)
                    continue
                yield from self._guard.on_records([record])
                if camera.asked is not None and camera.asked.frame_index == record.frame_index:
                    yield from self._settle(camera)
        yield from self._release(list(self._cameras))

    def _release(self, names: Iterable[str]) -> Iterable[Record]:
        for name in names:
            camera = self._cameras[name]
            if camera.asked is not None and camera.patience.is_over(name, "the relabelled frame"):
                yield from self._settle(camera)
            while camera.queue and camera.asked is None:
                yield from self._take(camera)

    def _take(self, camera: _Camera) -> Iterable[Record]:
        result = camera.queue.popleft()
        assert isinstance(result, FrameResult)
        if camera.seen is None or result.captured_at > camera.seen:
            camera.seen = result.captured_at
            for record in self._guard.on_records([result]):
                if isinstance(record, RelabelRequest) and self._in_step:
                    camera.asked = result
                    camera.patience.start()
                yield record
        if camera.asked is None:
            yield from self._mark(result)

    def _settle(self, camera: _Camera) -> Iterable[Record]:
        result, camera.asked = camera.asked, None
        if result is not None:
            yield from self._mark(result)

    def _mark(self, result: FrameResult) -> Iterable[Record]:
        if self._in_step:
            quiet_until = self._adaptation.quiet_until(result.camera_id)
            yield Settled(result.camera_id, result.frame_index, result.captured_at, quiet_until)


class PacedScheduler(_Paced):
    """Stands before a `SchedulerOperator`: a frame is scored with exactly the links that earlier frames led to."""

    def __init__(self, operator: SchedulerOperator, seconds: Seconds, *, in_step: bool, hold_s: float = HOLD_S) -> None:
        super().__init__(operator, seconds, in_step, hold_s)
        self._scheduler = operator

    def on_records(self, records: Sequence[Record]) -> Iterable[Record]:
        for record in records:
            if isinstance(record, Decision):
                self._scheduler.resume(record)
                continue
            if not isinstance(record, FrameResult | LinkPromotion | Settled):
                continue
            camera = self._camera(record.camera_id)
            if isinstance(record, LinkPromotion):
                camera.promotions.append(record)
            elif isinstance(record, Settled):
                camera.settled = record.captured_at
            elif record.purpose != "relabel":
                camera.queue.append(record)
                camera.patience.start()
        yield from self._release(list(self._cameras))

    def _release(self, names: Iterable[str]) -> Iterable[Record]:
        for name in names:
            camera = self._cameras[name]
            while camera.queue and self._may_go(name, camera):
                result = camera.queue.popleft()
                assert isinstance(result, FrameResult)
                due = [p for p in camera.promotions if p.at < result.captured_at]
                camera.promotions = [p for p in camera.promotions if p.at >= result.captured_at]
                camera.seen = result.captured_at
                yield from self._guard.on_records([*due, result])

    def _may_go(self, name: str, camera: _Camera) -> bool:
        result = camera.queue[0]
        assert isinstance(result, FrameResult)
        if not self._in_step or result.purpose == "serve" or camera.seen is None:
            return True
        if camera.settled is not None and camera.settled >= camera.seen:
            return True
        return camera.patience.is_over(name, "word that the frame before is settled")
