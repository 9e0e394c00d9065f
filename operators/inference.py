"""Inference: runs on each frame what the decision asks for, batched across cameras.

Profile and audit frames run every model. When not all models fit the memory budget together, such frames wait in a
small buffer and the models are loaded in turn (design ruling 2).

Where a policy decides on every frame (`camlink.operators.policy`), it is asked here, model by model, and its answers
for the others go out with the word of the executed ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from camlink.models.base import Inference
from camlink.models.pool import ModelPool
from camlink.operators.base import Operator, StateStore
from camlink.operators.frame_jobs import Job, waves
from camlink.operators.gate import Gate
from camlink.operators.previews import Encode, Previews
from camlink.operators.recent_frames import RecentFrames
from camlink.operators.sampling import FramePlan, FramePlanner
from camlink.operators.throttle import Throttle
from camlink.pipeline.errors import ModelError
from camlink.pipeline.records import (
    AdaptationEvent,
    Decision,
    Frame,
    FrameDropped,
    ModelOutput,
    OutputReady,
    Prospect,
    Record,
    RelabelRequest,
)

logger = logging.getLogger(__name__)

DEFER_FRAMES = 16  # fully executed frames that wait for models to be loaded in turn
OUTPUT_TTL_S = 120.0


def state_key(camera_id: str, frame_index: int, purpose: str) -> str:
    """Return the key under which the outputs of one frame wait; relabelled ones stand beside the served ones."""
    return f"{camera_id}/{frame_index}/{'relabel' if purpose == 'relabel' else 'serve'}"


@dataclass
class _Camera:
    planner: FramePlanner
    decision: Decision | None = None
    neither: tuple[str, ...] = ()  # models that the decision neither executes nor predicts
    recent: RecentFrames = field(default_factory=RecentFrames)
    latest: datetime | None = None  # captured_at of the frame that was planned last


class InferenceOperator(Operator):
    """Frames, decisions and relabel requests in; executed outputs into the state store, and word of them out."""

    def __init__(
        self,
        pool: ModelPool,
        planner: Callable[[str], FramePlanner],
        state: StateStore,
        encode_picture: Encode | None = None,
        gate: Gate | None = None,
        throttle: Throttle | None = None,
    ) -> None:
        """``gate``: the policies that decide on every frame, where there are such; ``throttle``: for live ones, what
        the machine has time for.
        """
        self._pool = pool
        self._gate, self._throttle = gate, throttle
        self._models = tuple(pool.specs)
        self._planner = planner
        self._state = state
        self._previews = Previews(encode_picture)
        self._cameras: dict[str, _Camera] = {}
        self._deferred: list[Job] = []
        self._awaiting: list[Job] = []  # for models that are being loaded beside
        self._failing: set[tuple[str, str]] = set()  # cameras with models that failed on their last frame, as was told

    def on_records(self, records: Sequence[Record]) -> Iterable[Record]:
        jobs: list[Job] = []
        for record in records:
            if isinstance(record, Decision):
                self._decide(record)
            elif isinstance(record, Frame):
                if record.overtaken and not self._can_answer(record.camera_id):
                    yield FrameDropped(record.camera_id, record.index, 1, record.captured_at, "overload")
                else:
                    jobs.append(self._plan(record))
            elif isinstance(record, RelabelRequest):
                yield from self._relabel(record, jobs)
        yield from self._process(jobs)

    def on_time(self, now: datetime) -> Iterable[Record]:
        yield from self._run_arrived()

    def on_end(self) -> Iterable[Record]:
        awaiting, self._awaiting = self._awaiting, []
        yield from self._run_late(awaiting)
        yield from self.run_deferred()

    def plan_of(self, camera_id: str) -> dict[str, int]:
        """Return where a camera's plan stands, for a snapshot."""
        return self._camera(camera_id).planner.state()

    def policy_of(self, camera_id: str) -> bytes | None:
        """Return what a camera's policy knows, for a snapshot; None where none is kept."""
        return None if self._gate is None else self._gate.snapshot(camera_id)

    def resume_policy(self, camera_id: str, snapshot: bytes, *, account: bool = True) -> None:
        """Let a camera's policy go on from its snapshot; ``account``: also with what it has spent and saved.

        Raises `StateError`; it then starts anew.
        """
        if self._gate is not None:
            self._gate.resume(camera_id, snapshot, account=account)

    def resume(self, camera_id: str, plan: Mapping[str, int] | None, decided: datetime | None = None) -> None:
        """Take a camera up from its snapshot; without one, from the start of its last decision, if there is one.

        Raises `StateError`, and leaves it as it was, for a plan that is none.
        """
        planner = self._camera(camera_id).planner
        if plan is not None:
            planner.resume(plan)
        elif decided is not None:
            planner.skip_to(decided)

    def forget(self, camera_id: str) -> None:
        """Drop a camera that another worker has now."""
        self._cameras.pop(camera_id, None)
        self._previews.forget(camera_id)
        self._failing = {(camera, model) for camera, model in self._failing if camera != camera_id}
        if self._gate is not None:
            self._gate.forget(camera_id)
        self._deferred = [job for job in self._deferred if job.frame.camera_id != camera_id]
        self._awaiting = [job for job in self._awaiting if job.frame.camera_id != camera_id]

    def _camera(self, camera_id: str) -> _Camera:
        if camera_id not in self._cameras:
            self._cameras[camera_id] = _Camera(self._planner(camera_id))
        return self._cameras[camera_id]

    def _decide(self, decision: Decision) -> None:
        """Put a decision in force. Where its models do not fit after all, those loaded stay, and frames say so."""
        camera, named = self._camera(decision.camera_id), {*decision.execute, *decision.predict}
        camera.decision = decision
        camera.neither = tuple(model for model in self._models if model not in named)
        try:
            self._pool.set_loaded(decision.loaded)
        except ModelError as error:
            logger.error('camera "%s": %s', decision.camera_id, error)
        if self._gate is not None:
            self._gate.decide(decision)

    def _can_answer(self, camera_id: str) -> bool:
        """Say whether a frame can be answered without a model: not while earlier ones wait to be learnt from."""
        learns = {job.frame.camera_id for job in (*self._deferred, *self._awaiting) if job.plan.purpose == "profile"}
        return self._gate is not None and camera_id not in learns

    def _plan(self, frame: Frame) -> Job:
        camera = self._camera(frame.camera_id)
        decision, camera.latest = camera.decision, frame.captured_at
        share = decision.audit_share if decision else None
        plan = camera.planner.plan(frame.index, frame.captured_at, share, overtaken=frame.overtaken)
        if frame.overtaken:  # what is served is judged on audit frames as on any others
            camera.recent.keep(frame)
            return Job(frame, plan, self._models if plan.purpose == "audit" else (), self._models, asks=True)
        if plan.purpose == "profile" or decision is None:
            return Job(frame, plan, self._models)
        # even where all models have to execute, a limit on each frame may keep some of them from it
        asks = self._gate is not None and (bool(decision.predict) or self._gate.is_limited)
        if plan.purpose == "audit":
            return Job(frame, plan, self._models, decision.predict, camera.neither, decision.trial, asks)
        if decision.predict or asks:
            camera.recent.keep(frame)
        return Job(frame, plan, decision.execute, decision.predict, camera.neither, decision.trial, asks)

    def _relabel(self, request: RelabelRequest, jobs: list[Job]) -> Iterable[Record]:
        frame = self._camera(request.camera_id).recent.take(request.frame_index)
        if frame is None:
            detail = f"frame {request.frame_index} was gone when it was to be relabelled"
            yield AdaptationEvent(request.camera_id, request.captured_at, "relabel_missed", "", 0, detail)
            # An answer without outputs: who asked would wait for one, and while it waits fall behind further frames.
            at = request.captured_at
            yield OutputReady(request.camera_id, request.frame_index, at, "relabel", ran=(), predict=())
        else:
            jobs.append(Job(frame, FramePlan("relabel"), request.models))

    def _process(self, jobs: Sequence[Job]) -> Iterable[Record]:
        if self._gate is not None:
            yield from self._process_gated(self._gate, jobs)
        elif self._pool.fits_together:
            yield from self._run(jobs)
        else:
            yield from self._process_in_turn(jobs)

    def _process_gated(self, gate: Gate, jobs: Sequence[Job]) -> Iterable[Record]:
        """Take the frames one per camera at a time: what a policy learns from one, it knows on the next."""
        for wave in waves(jobs):
            asked = self._ask(gate, wave)
            yield from self._run(asked) if self._pool.fits_together else self._process_in_turn(asked)
            if self._throttle is not None and self._throttle.see([(j.frame.camera_id, j.plan.purpose) for j in wave]):
                gate.limit(self._throttle.share, self._throttle.shared(gate.demands()))

    def _ask(self, gate: Gate, jobs: Sequence[Job]) -> list[Job]:
        """Let the policies choose and answer; what they choose runs here, the rest of a full frame later."""
        outputs: list[list[ModelOutput]] = [[] for _ in jobs]
        failed: list[dict[str, str]] = [{} for _ in jobs]
        asked = {i: job for i, job in enumerate(jobs) if job.asks}
        for i, job in enumerate(jobs):
            if job.plan.purpose != "relabel" and (self._pool.fits_together or i in asked):
                gate.begin(job.frame)
        open_ = {i: job for i, job in asked.items() if not job.frame.overtaken}
        if self._throttle is not None:
            self._throttle.choosing(len(open_))
        while open_:
            choices = {i: gate.choose(job.frame, outputs[i]) for i, job in open_.items()}
            for model in self._models:
                places = [i for i, choice in choices.items() if choice == model]
                self._run_model(model, jobs, outputs, failed, places)
            open_ = {i: job for i, job in open_.items() if choices[i] is not None and choices[i] not in failed[i]}
        if self._throttle is not None:
            self._throttle.chose(o.model for found in outputs for o in found)
        return [self._answered(gate, job, outputs[i], failed[i]) if i in asked else job for i, job in enumerate(jobs)]

    def _answered(self, gate: Gate, job: Job, outputs: Sequence[ModelOutput], failed: Mapping[str, str]) -> Job:
        ran = {o.model for o in outputs}
        left = tuple(m for m in self._models if m not in ran)
        answers = gate.answer(job.frame, job.plan, outputs, [m for m in left if m not in failed], job.trial)
        late = gate.is_limited and job.plan.purpose == "serve"  # what was not chosen has no time left
        done, put_off = gate.explained(job.frame.camera_id, outputs), None
        if not self._pool.fits_together:  # a full frame has to wait for its other models: later frames come first
            put_off = gate.put_off(job.frame.camera_id)
            gate.learn(job.frame.camera_id, outputs, chosen=True)
        return replace(
            job,
            run=() if late else tuple(m for m in job.run if m not in ran and m not in failed),
            predict=left,
            answers=answers,
            done=done,
            failed=failed,
            put_off=put_off,
        )

    def _process_in_turn(self, jobs: Sequence[Job]) -> Iterable[Record]:
        yield from self._run_arrived()
        coming = {model for model in self._models if self._pool.is_coming(model)}
        loaded = set(self._pool.loaded)
        yield from self._run([job for job in jobs if loaded.issuperset(job.run)])
        later = [job for job in jobs if not loaded.issuperset(job.run)]
        learning = {job.frame.camera_id for job in self._deferred if job.plan.bootstrap}
        if any(job.frame.camera_id in learning and not job.plan.bootstrap for job in later):
            yield from self.run_deferred()  # links are learnt from them: what comes now is to score these links
        self._awaiting += [job for job in later if (loaded | coming).issuperset(job.run)]
        self._deferred += [job for job in later if not (loaded | coming).issuperset(job.run)]
        if len(self._deferred) >= DEFER_FRAMES or any(job.plan.profile_ends for job in self._deferred):
            yield from self.run_deferred()

    def _run_arrived(self) -> Iterable[Record]:
        """Run the frames whose models have been loaded meanwhile; those that will not come are tried, and say why."""
        arrived = [job for job in self._awaiting if not any(map(self._pool.is_coming, job.run))]
        if arrived:
            self._awaiting = [job for job in self._awaiting if job not in arrived]
            yield from self._run_late(arrived)

    def run_deferred(self) -> Iterable[Record]:
        """Run the frames that wait for models to be loaded in turn, however few they are."""
        if not self._deferred:
            return
        jobs, self._deferred = self._deferred, []
        yield from self._run_late(jobs)
        self._pool.restore()

    def _run_late(self, jobs: Sequence[Job]) -> Iterable[Record]:
        yield from self._run([replace(j, known_after=self._camera(j.frame.camera_id).latest) for j in jobs])

    def _run(self, jobs: Sequence[Job]) -> Iterable[Record]:
        if not jobs:
            return
        outputs = [list(job.done) for job in jobs]
        failed = [dict(job.failed) for job in jobs]
        for model in self._models:
            places = [i for i, job in enumerate(jobs) if model in job.run]
            self._run_model(model, jobs, outputs, failed, places)
        for job, done, reasons in zip(jobs, outputs, failed, strict=True):
            if self._gate is not None and job.plan.purpose != "relabel":
                self._learn(self._gate, job, done)
                self._gate.tell(job.frame.camera_id, (o.model for o in done), reasons)
            yield from self._announce(job, tuple(done), reasons)

    def _learn(self, gate: Gate, job: Job, done: Sequence[ModelOutput]) -> None:
        """Tell the camera's policy what executed on a frame."""
        camera_id = job.frame.camera_id
        if self._pool.fits_together:
            gate.learn(camera_id, done, chosen=job.plan.purpose == "serve")
        elif job.plan.purpose == "profile":  # served frames come after it
            gate.begin(job.frame)
            gate.learn(camera_id, done, chosen=False)
        elif job.plan.purpose == "audit" and job.put_off is not None:
            gate.learn_late(camera_id, job.put_off, done)

    def _run_model(
        self,
        model: str,
        jobs: Sequence[Job],
        outputs: Sequence[list[ModelOutput]],
        failed: Sequence[dict[str, str]],
        places: Sequence[int],
    ) -> None:
        """Run ``model`` on the jobs at ``places`` as one batch."""
        if not places:
            return
        for i, inference in self._infer(model, {i: jobs[i].frame for i in places}, failed).items():
            job = jobs[i]
            outputs[i].append(
                ModelOutput(
                    job.frame.camera_id,
                    job.frame.index,
                    job.frame.captured_at,
                    model,
                    inference.value,
                    job.plan.purpose,
                    "executed",
                    served=job.plan.purpose != "relabel",
                    audit_probability=job.plan.audit_probability,
                    detections=inference.detections,
                    known_after=job.known_after,
                )
            )

    def _infer(self, model: str, frames: Mapping[int, Frame], failed: Sequence[dict[str, str]]) -> dict[int, Inference]:
        """Run a batch; where it fails, frame by frame, so that one bad frame harms no other camera."""
        try:
            found = dict(zip(frames, self._pool.run(model, list(frames.values())), strict=True))
            if self._failing:
                self._failing -= {(frame.camera_id, model) for frame in frames.values()}
            return found
        except ModelError as error:
            if len(frames) == 1:
                ((place, frame),) = frames.items()
                failed[place][model] = str(error)
                if (frame.camera_id, model) not in self._failing:  # once: it may fail on every frame for days
                    self._failing.add((frame.camera_id, model))
                    logger.warning('camera "%s", from frame %d on: %s', frame.camera_id, frame.index, error)
                return {}
        alone = [self._infer(model, {place: frame}, failed) for place, frame in frames.items()]
        return {place: inference for found in alone for place, inference in found.items()}

    def _announce(self, job: Job, outputs: tuple[ModelOutput, ...], failed: Mapping[str, str]) -> Iterable[Record]:
        frame, plan = job.frame, job.plan
        self._state.put(state_key(frame.camera_id, frame.index, plan.purpose), outputs, OUTPUT_TTL_S)
        yield OutputReady(
            frame.camera_id,
            frame.index,
            frame.captured_at,
            plan.purpose,
            ran=tuple(o.model for o in outputs),
            predict=job.predict,
            abstain=job.abstain,
            failed=failed,
            audit_probability=plan.audit_probability,
            stats=frame.stats,
            profile_ends=plan.profile_ends,
            trial=job.trial,
            answers=job.answers,
            prospects=self._prospects(job),
        )
        yield from self._previews.of(frame, plan, predicted=bool(job.predict))

    def _prospects(self, job: Job) -> Mapping[str, Prospect]:
        """Return what the camera's policy expects of its models, when what is loaded is to be decided."""
        if self._gate is None or self._pool.fits_together or not job.plan.profile_ends:
            return {}
        return self._gate.prospects(job.frame.camera_id)
