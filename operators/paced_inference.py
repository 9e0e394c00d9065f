"""Inference in step: frames wait for their period's decision, and run no further ahead than relabelling reaches."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from camlink.operators.inference import DEFER_FRAMES, InferenceOperator
from camlink.operators.pacing import CROWDED, HOLD_S, Guard, PacedCamera, Refused, Seconds, SnapshotKey, queued
from camlink.operators.recent_frames import MOST_FRAMES
from camlink.operators.snapshots import Snapshot, get_time, put_time, reading
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Decision, Frame, FrameDropped, OutputReady, Record, RelabelRequest, Settled

logger = logging.getLogger(__name__)

LIVE_QUEUE = 8  # frames of a live camera that may wait to be run
MOST_RUNNING = 2 * DEFER_FRAMES  # frames of a camera that may wait in the operator, for models to be loaded
POLICY_S = 5.0  # between snapshots of a camera's policy: they are larger than the rest, and may be a little behind
IDLE_S = 2.0  # without new frames, those that wait for models to be loaded in turn are run


class _Camera(PacedCamera):
    def __init__(self, seconds: Seconds, hold_s: float) -> None:
        super().__init__(seconds, hold_s)
        self.decisions: list[Decision] = []  # not yet in force, by start
        self.awaits: datetime | None = None  # the decision that the profile frame of this time lets the scheduler make
        self.running: dict[int, Frame] = {}  # handed to the operator, not yet announced
        self.ahead: deque[datetime] = deque()  # announced, not yet settled
        self.policy_due_s = seconds()


class PacedInference:
    """Stands before an `InferenceOperator`. ``in_step``: also wait for what relabelling may ask of earlier frames."""

    parts = ("place", "policy")

    def __init__(
        self,
        operator: InferenceOperator,
        seconds: Seconds,
        *,
        in_step: bool,
        hold_s: float = HOLD_S,
        drops_oldest: bool = False,
    ) -> None:
        """``drops_oldest``: of a camera with more than `LIVE_QUEUE` frames waiting, models run on the newest."""
        self._drops_oldest = drops_oldest
        self._operator = operator
        self._guard = Guard(operator)
        self._seconds = seconds
        self._hold_s = hold_s
        self._in_step = in_step
        self._cameras: dict[str, _Camera] = {}
        self._last_frame = 0.0
        self._ending = False

    def on_records(self, records: Sequence[Record]) -> Iterable[Record]:
        requests: list[Record] = []
        for record in records:
            camera = self._camera(record)
            if isinstance(record, Frame):
                if not camera.repeats(record):
                    camera.queue.append(record)
            elif isinstance(record, Decision):
                camera.decisions.append(record)
            elif isinstance(record, RelabelRequest):
                requests.append(record)
            elif isinstance(record, Settled):
                while camera.ahead and camera.ahead[0] <= record.captured_at:
                    camera.ahead.popleft()
                camera.patience.start()
        yield from self._noted(self._guard.on_records(requests))
        yield from self._overload()
        yield from self._release()

    def on_time(self, now: datetime) -> Iterable[Record]:
        yield from self._release()
        yield from self._noted(self._operator.on_time(now))
        if self._seconds() - self._last_frame > IDLE_S and any(c.running for c in self._cameras.values()):
            yield from self._noted(self._operator.run_deferred())

    def next_time(self) -> datetime | None:
        return EPOCH

    def on_end(self) -> Iterable[Record]:
        self._ending = True
        yield from self._noted(self._operator.on_end())

    def held(self) -> Collection[Record]:
        running = [frame for camera in self._cameras.values() for frame in camera.running.values()]
        return [*running, *queued(self._cameras.values())]

    def crowded(self) -> Collection[str]:
        if self._drops_oldest:
            return ()
        return [name for name, camera in self._cameras.items() if len(camera.queue) >= CROWDED]

    def forget(self, cameras: Collection[str]) -> None:
        for name in cameras:
            self._cameras.pop(name, None)
            self._operator.forget(name)

    def knows(self, camera_id: str) -> bool:
        return camera_id in self._cameras and self._cameras[camera_id].resumed

    def resume(self, camera_id: str, snapshot: Mapping[str, bytes]) -> None:
        camera = self._cameras.setdefault(camera_id, _Camera(self._seconds, self._hold_s))
        camera.resumed = True
        decided = max((decision.start for decision in camera.decisions), default=None)
        try:
            plan = self._take_up(camera, snapshot["place"]) if "place" in snapshot else None
            self._operator.resume(camera_id, plan, decided)
        except StateError as error:
            logger.warning('camera "%s": %s; going on from its last decision', camera_id, error)
            self._operator.resume(camera_id, None, decided)
        try:
            if "policy" in snapshot:
                self._operator.resume_policy(camera_id, snapshot["policy"])
        except StateError as error:
            logger.warning('camera "%s": %s; its policy starts anew', camera_id, error)

    def refused(self) -> Sequence[Refused]:
        refused = self._guard.drain()
        for record in (entry.record for entry in refused):
            if isinstance(record, Frame):
                self._camera(record).running.pop(record.index, None)
        return refused

    def snapshots(self) -> dict[SnapshotKey, bytes]:
        """Cameras with frames on their way through the operator are left for later: their plan is ahead of results.

        A policy is written every `POLICY_S`, and at the end: after a crash it has not learnt from the frames since.
        """
        made = {}
        for name, camera in self._cameras.items():
            if not camera.running and camera.resumed and camera.is_due():
                told = {"seen": camera.told(), "awaits": put_time(camera.awaits)}
                made[name, "place"] = Snapshot(told | {"plan": self._operator.plan_of(name)}, {}).to_bytes()
                made |= self._policy(name, camera)
        return made

    def _policy(self, name: str, camera: _Camera) -> dict[SnapshotKey, bytes]:
        now = self._seconds()
        if now < camera.policy_due_s and not self._ending:
            return {}
        camera.policy_due_s = now + POLICY_S
        policy = self._operator.policy_of(name)
        return {} if policy is None else {(name, "policy"): policy}

    @staticmethod
    def _take_up(camera: _Camera, snapshot: bytes) -> dict[str, int]:
        """Return the plan in a snapshot, and take up the rest. Raises `StateError`."""
        told = Snapshot.from_bytes(snapshot).told
        with reading():
            plan = {str(name): int(number) for name, number in told["plan"].items()}
            awaits = get_time(told["awaits"])
            camera.take_up(told["seen"])
        camera.awaits = awaits
        camera.patience.start()
        return plan

    def _camera(self, record: Record) -> _Camera:
        name = getattr(record, "camera_id", "")
        if name not in self._cameras:
            self._cameras[name] = _Camera(self._seconds, self._hold_s)
        return self._cameras[name]

    def _release(self) -> Iterable[Record]:
        """Hand on one frame of each camera at a time, as many rounds as there are frames that may go."""
        while True:
            batch: list[Record] = []
            for name, camera in self._cameras.items():
                if camera.queue and self._may_go(name, camera):
                    batch += self._next(camera)
            if not batch:
                return
            self._last_frame = self._seconds()
            yield from self._noted(self._guard.on_records(batch))
            if self._drops_oldest:
                return  # newer frames may have come meanwhile

    def _overload(self) -> Iterable[Record]:
        """Hand on what live cameras have sent beyond what can be run, oldest first, to be answered without running.

        Where a camera's frames have to wait, and not only for a decision, they are dropped.
        """
        while crowds := [c for c in self._cameras.items() if len(c[1].queue) > LIVE_QUEUE and self._drops_oldest]:
            batch: list[Record] = []
            for _, camera in crowds:
                if self._has_room(camera):
                    batch += self._next(camera, overtaken=True)
                else:
                    frame = camera.queue.popleft()
                    assert isinstance(frame, Frame)
                    yield FrameDropped(frame.camera_id, frame.index, 1, frame.captured_at, "overload")
            yield from self._noted(self._guard.on_records(batch))

    def _has_room(self, camera: _Camera) -> bool:
        """Say whether no frames have to be dealt with before another may come, decisions apart."""
        return len(camera.running) < MOST_RUNNING and not (self._in_step and len(camera.ahead) >= MOST_FRAMES)

    def _may_go(self, name: str, camera: _Camera) -> bool:
        if len(camera.running) >= MOST_RUNNING:
            return False
        if camera.awaits is not None:
            decided = any(decision.start >= camera.awaits for decision in camera.decisions)
            if not decided and not camera.patience.is_over(name, "the decision of this period"):
                return False
            camera.awaits = None
        if self._in_step and len(camera.ahead) >= MOST_FRAMES:
            if not camera.patience.is_over(name, "word that earlier frames are settled"):
                return False
            camera.ahead.clear()
        return True

    def _next(self, camera: _Camera, *, overtaken: bool = False) -> list[Record]:
        """Return a camera's next frame, after the decision that is in force for it (those start before it)."""
        frame = camera.queue.popleft()
        assert isinstance(frame, Frame)
        due = [decision for decision in camera.decisions if decision.start < frame.captured_at]
        camera.decisions = [decision for decision in camera.decisions if decision.start >= frame.captured_at]
        camera.running[frame.index] = frame  # as it came: what is held is known by that
        camera.hand_on(frame)
        return [*due[-1:], replace(frame, overtaken=True) if overtaken else frame]

    def _noted(self, records: Iterable[Record]) -> Iterable[Record]:
        for record in records:
            if isinstance(record, FrameDropped):  # overtaken, and not to be answered
                self._camera(record).running.pop(record.first_index, None)
            elif isinstance(record, OutputReady) and record.purpose != "relabel":
                camera = self._camera(record)
                camera.running.pop(record.frame_index, None)
                camera.ahead.append(record.captured_at)
                if len(camera.ahead) == MOST_FRAMES or record.profile_ends:
                    camera.patience.start()
                if record.profile_ends:
                    camera.awaits = record.captured_at
            yield record
