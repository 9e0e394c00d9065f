"""Adaptation and scheduling in step: results are learnt from, and links are judged, in the order of one process."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from camlink.operators.adaptation import AdaptationOperator
from camlink.operators.pacing import CROWDED, HOLD_S, Guard, PacedCamera, Refused, Seconds, SnapshotKey, queued
from camlink.operators.scheduler import SchedulerOperator
from camlink.operators.snapshots import Snapshot, reading
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import NOT_FULL, Decision, FrameResult, LinkPromotion, Record, RelabelRequest, Settled

logger = logging.getLogger(__name__)


class _Camera(PacedCamera):
    def __init__(self, seconds: Seconds, hold_s: float) -> None:
        super().__init__(seconds, hold_s)
        self.has_learnt = False  # since the last snapshot
        self.asked: FrameResult | None = None  # adaptation: its frame is being relabelled
        self.to_ask: int | None = None  # adaptation: the index of that frame, from the snapshot; it will come again
        self.early: dict[int, FrameResult] = {}  # adaptation: relabelled frames whose first result is still queued
        self.promotions: list[LinkPromotion] = []  # scheduler: not yet in force, in order
        self.settled: datetime | None = None  # scheduler: everything that follows from frames up to here is known


class _Paced(ABC):
    """What both have in common: queues of results, and cameras that come and go."""

    parts = ("place", "learnt")

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
        return camera_id in self._cameras and self._cameras[camera_id].resumed

    def resume(self, camera_id: str, snapshot: Mapping[str, bytes]) -> None:
        camera = self._camera(camera_id)
        camera.resumed = True
        try:
            if "learnt" in snapshot:
                self._operator.restore(camera_id, snapshot["learnt"])
            if "place" in snapshot:
                self._take_place(camera_id, Snapshot.from_bytes(snapshot["place"]))
        except StateError as error:
            logger.warning('camera "%s": %s; going on with its links alone', camera_id, error)

    def refused(self) -> Sequence[Refused]:
        return self._guard.drain()

    def snapshots(self) -> dict[SnapshotKey, bytes]:
        """What was learnt is large and changes seldom; where a camera stands is small and changes with each frame."""
        made = {}
        for name, camera in self._cameras.items():
            if not camera.resumed or not camera.is_due():
                continue
            made[name, "place"] = self._place(name).to_bytes()
            if camera.has_learnt:
                camera.has_learnt = False
                made[name, "learnt"] = self._operator.snapshot(name)
        return made

    def _place(self, camera_id: str) -> Snapshot:
        return Snapshot({"seen": self._cameras[camera_id].told()}, {})

    def _take_place(self, camera_id: str, place: Snapshot) -> None:
        with reading():
            self._cameras[camera_id].take_up(place.told["seen"])

    def held(self) -> Collection[Record]:
        asked = [camera.asked for camera in self._cameras.values() if camera.asked is not None]
        early = [answer for camera in self._cameras.values() for answer in camera.early.values()]
        return [*asked, *early, *queued(self._cameras.values())]

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
        self._promoted: dict[str, list[LinkPromotion]] = {}  # as the topic has them, until a camera's first result

    def forget(self, cameras: Collection[str]) -> None:
        super().forget(cameras)
        for name in cameras:
            self._promoted.pop(name, None)

    def _place(self, camera_id: str) -> Snapshot:
        asked, place = self._cameras[camera_id].asked, super()._place(camera_id)
        told = {
            "asked": None if asked is None else asked.frame_index,
            "relabelling": self._adaptation.relabelling(camera_id),
        }
        return Snapshot({**place.told, **told}, {})

    def _take_place(self, camera_id: str, place: Snapshot) -> None:
        told = place.told
        with reading():
            asked = None if told["asked"] is None else int(told["asked"])
            self._adaptation.resume_relabelling(camera_id, told["relabelling"])
        super()._take_place(camera_id, place)
        self._cameras[camera_id].to_ask = asked

    def on_records(self, records: Sequence[Record]) -> Iterable[Record]:
        return _last_marks(self._taken(records))

    def on_time(self, now: datetime) -> Iterable[Record]:
        return _last_marks(super().on_time(now))

    def _taken(self, records: Sequence[Record]) -> Iterable[Record]:
        for record in records:
            if isinstance(record, LinkPromotion):
                self._promoted.setdefault(record.camera_id, []).append(record)
            elif isinstance(record, FrameResult):
                self._take_up_links(record)
                camera = self._camera(record.camera_id)
                if record.purpose != "relabel":
                    camera.queue.append(record)
                elif any(isinstance(r, FrameResult) and r.frame_index == record.frame_index for r in camera.queue):
                    camera.early[record.frame_index] = record  # after a crash both come at once
                else:
                    yield from self._learn(camera, record)
        yield from self._release(list(self._cameras))

    def _take_up_links(self, first: FrameResult) -> None:
        """Put in force what the topic has, but for what follows from results that come again: that will follow anew."""
        for promotion in self._promoted.pop(first.camera_id, ()):
            if promotion.at < first.captured_at:
                self._adaptation.resume(promotion)
            else:
                self._adaptation.expect(promotion)

    def _release(self, names: Iterable[str]) -> Iterable[Record]:
        yield from self._adaptation.owed()
        for name in names:
            camera = self._cameras[name]
            if camera.asked is not None and camera.patience.is_over(name, "the relabelled frame"):
                yield from self._settle(camera)
            while camera.queue and camera.asked is None:
                yield from self._take(camera)

    def _take(self, camera: _Camera) -> Iterable[Record]:
        result = camera.queue.popleft()
        assert isinstance(result, FrameResult)
        if not camera.repeats(result):
            camera.hand_on(result)
            camera.has_learnt |= result.purpose not in NOT_FULL
            for record in self._guard.on_records([result]):
                if isinstance(record, RelabelRequest) and self._in_step:
                    self._ask(camera, result)
                yield record
        elif result.frame_index == camera.to_ask:
            self._ask(camera, result)
        if camera.asked is None:
            yield from self._mark(result)
        if result.frame_index in camera.early:
            yield from self._learn(camera, camera.early.pop(result.frame_index))

    def _learn(self, camera: _Camera, answer: FrameResult) -> Iterable[Record]:
        """Hand on a relabelled frame; those that waited for it may go on."""
        yield from self._guard.on_records([answer])
        camera.has_learnt = camera.changed = True
        if camera.asked is not None and camera.asked.frame_index == answer.frame_index:
            yield from self._settle(camera)

    @staticmethod
    def _ask(camera: _Camera, result: FrameResult) -> None:
        """Let later results wait until this one's frame was relabelled."""
        camera.asked, camera.to_ask = result, None
        camera.patience.start()

    def _settle(self, camera: _Camera) -> Iterable[Record]:
        result, camera.asked = camera.asked, None
        if result is not None:
            yield from self._mark(result)

    def _mark(self, result: FrameResult) -> Iterable[Record]:
        if self._in_step:
            quiet_until = self._adaptation.quiet_until(result.camera_id)
            yield Settled(result.camera_id, result.frame_index, result.captured_at, quiet_until)


def _last_marks(records: Iterable[Record]) -> Iterable[Record]:
    """Leave out the marks that a later one of their camera makes idle, and give the others after all else.

    Who has not read a mark yet waits for nothing beyond it, so the last one says it all; unless the clock was set back.
    """
    marks: dict[str, Settled] = {}
    for record in records:
        if not isinstance(record, Settled):
            yield record
            continue
        before = marks.pop(record.camera_id, None)
        if before is not None and before.captured_at > record.captured_at:
            yield before
        marks[record.camera_id] = record
    yield from marks.values()


class PacedScheduler(_Paced):
    """Stands before a `SchedulerOperator`: a frame is scored with exactly the links that earlier frames led to."""

    def __init__(self, operator: SchedulerOperator, seconds: Seconds, *, in_step: bool, hold_s: float = HOLD_S) -> None:
        super().__init__(operator, seconds, in_step, hold_s)
        self._scheduler = operator

    def _place(self, camera_id: str) -> Snapshot:
        place, tally = super()._place(camera_id), self._scheduler.tally(camera_id)
        return Snapshot({**place.told, "tally": tally.told}, tally.parts)

    def _take_place(self, camera_id: str, place: Snapshot) -> None:
        with reading():
            self._scheduler.resume_tally(camera_id, Snapshot(place.told["tally"], place.parts))
        super()._take_place(camera_id, place)

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
            elif record.purpose != "relabel" and not camera.repeats(record):
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
                camera.hand_on(result)
                given = self._guard.on_records([*due, result])
                camera.has_learnt |= result.purpose not in NOT_FULL or bool(due) or bool(given)
                yield from given

    def _may_go(self, name: str, camera: _Camera) -> bool:
        result = camera.queue[0]
        assert isinstance(result, FrameResult)
        if not self._in_step or result.purpose in NOT_FULL or camera.seen is None:
            return True
        if camera.settled is not None and camera.settled >= camera.seen:
            return True
        return camera.patience.is_over(name, "word that the frame before is settled")
