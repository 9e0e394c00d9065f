"""Adaptation: relabels, retrains, and lets a new version of the links serve only once it has proved better.

Test, then train (design ruling 3): a frame is scored with the candidate, the current and the previous version before
it joins the frames that the next version learns from. Source: MLink extended, Sec. 4.1.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

import numpy as np

from camlink.links.base import Array
from camlink.links.ensemble import Ensemble
from camlink.links.inputs import LinkInputs
from camlink.links.train import LinkKind, train_ensembles
from camlink.models.base import OutputSpec
from camlink.operators.base import Operator
from camlink.operators.learning import (
    CameraLearning,
    Duel,
    Learnt,
    TargetLinks,
    Version,
    relabelling_of,
    restore,
    resume_relabelling,
    to_snapshot,
)
from camlink.operators.relabelling import RelabelPolicy
from camlink.operators.snapshots import EnsembleBytes
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.errors import LinkError
from camlink.pipeline.records import (
    EXECUTIONS,
    NOT_FULL,
    AdaptationEvent,
    FrameResult,
    LinkPromotion,
    Record,
    RelabelRequest,
)

logger = logging.getLogger(__name__)

PENDING_RELABELS = 64  # requests whose answer is awaited, per camera
GROWTH = 0.2  # retraining waits for this share of new frames, so that its cost stays bounded as history grows


@dataclass(frozen=True)
class LearningRules:
    """When to train and how long to watch. All numbers count frames on which every model ran, or failed.

    ``trains``: whether anybody reads what links say; where nobody does, none are learnt, and no frame is kept.
    """

    first_train_frames: int
    retrain_after_frames: int
    shadow_frames: int
    history_frames: int
    seed: int = 0
    kind: LinkKind = "count_distribution"
    trains: bool = True


class AdaptationOperator(Operator):
    """Results in; relabel requests, link promotions and events out."""

    def __init__(
        self,
        specs: Mapping[str, OutputSpec],
        rules: LearningRules,
        relabel: Callable[[], RelabelPolicy],
        inputs: LinkInputs | None = None,
        start: Mapping[str, Ensemble] = MappingProxyType({}),
    ) -> None:
        """``inputs``: what links read of a frame, where that is more than the executed values.

        ``start``: target -> links that a camera begins with, learnt elsewhere; later versions must prove better.
        """
        self._start = start
        self._specs = specs
        self._inputs = inputs or LinkInputs(specs)
        self._rules = rules
        self._relabel = relabel
        self._cameras: dict[str, CameraLearning] = {}
        self._payloads = EnsembleBytes()
        self._owed: list[LinkPromotion] = []

    def on_records(self, records: Sequence[Record]) -> Iterable[Record]:
        for record in records:
            if isinstance(record, FrameResult) and self._rules.trains:
                yield from self._on_result(record)

    def quiet_until(self, camera_id: str) -> datetime | None:
        """Return the time before which no served frame of a camera will be relabelled; None if that is not known."""
        return self._camera(camera_id).relabel.quiet_until()

    def resume(self, promotion: LinkPromotion) -> None:
        """Take up links that another worker put in force, unless this one knows of later ones.

        Those that cannot be read, of another version of camlink for one, and those of other models under the same
        names, are gone: a first version is trained anew.
        """
        self.expect(promotion)
        targets = self._camera(promotion.camera_id).targets
        if promotion.target not in targets or promotion.version <= targets[promotion.target].last_number:
            return
        try:
            current = Version(promotion.version, self._payloads.read(promotion.payload))
            if others := current.ensemble.strangers(self._inputs.sources, self._specs):
                raise LinkError(f"learnt for other models than are deployed now as {', '.join(others)}")
        except LinkError as error:
            logger.warning('camera "%s": links to %s: %s', promotion.camera_id, promotion.target, error)
            targets[promotion.target].last_number = promotion.version
            return
        targets[promotion.target] = TargetLinks(current=current, last_number=promotion.version)

    def expect(self, promotion: LinkPromotion) -> None:
        """Know that the topic has links to a target: they are not `owed` to it."""
        place = (promotion.camera_id, promotion.target)
        self._owed = [owed for owed in self._owed if (owed.camera_id, owed.target) != place]

    def snapshot(self, camera_id: str) -> bytes:
        """Return what a camera's links were and are learnt from, for `restore`: large, changes with learnt frames."""
        return to_snapshot(self._camera(camera_id), self._specs, self._inputs, self._payloads)

    def restore(self, camera_id: str, snapshot: bytes) -> None:
        """Take up a camera from its snapshot. Raises `StateError`, and leaves it as it was, if that cannot be read.

        Links that are in force there are `owed` to the topic of promotions, unless it has some (`resume`, `expect`).
        """
        camera = self._camera(camera_id)
        restore(camera, snapshot, self._specs, self._inputs, self._payloads)
        at = max((frame.captured_at for frame in camera.history), default=EPOCH)
        for name, target in camera.targets.items():
            if target.current is not None:
                version, payload = target.current.number, self._payloads.of(target.current.ensemble)
                self._owed.append(LinkPromotion(camera_id, name, version, at, payload))

    def owed(self) -> list[LinkPromotion]:
        """Return promotions that must be published again: the bus has lost them."""
        owed, self._owed = self._owed, []
        return owed

    def relabelling(self, camera_id: str) -> dict[str, Any]:
        """Return where relabelling stands, as plain values: small, changes with every frame."""
        return relabelling_of(self._camera(camera_id))

    def resume_relabelling(self, camera_id: str, told: Mapping[str, Any]) -> None:
        """Go on where another worker's relabelling stood. Raises `StateError`."""
        resume_relabelling(self._camera(camera_id), told, self._specs, self._inputs)

    def forget(self, camera_id: str) -> None:
        """Drop a camera that another worker has now."""
        self._cameras.pop(camera_id, None)

    def _on_result(self, result: FrameResult) -> Iterable[Record]:
        camera = self._camera(result.camera_id)
        if self._start and not camera.has_started:
            yield from self._begin(camera, result)
        if result.purpose in NOT_FULL:
            yield from self._maybe_relabel(camera, result)
            return
        learnt = self._read(result)
        if result.purpose == "relabel":
            if result.frame_index not in camera.pending:
                return  # the request was forgotten, or another's: nothing complete to learn from
            learnt = camera.pending.pop(result.frame_index).joined(learnt)
        if len(learnt.values) < 2:
            return  # nothing that could be linked
        if result.purpose != "relabel":
            yield from self._test(camera, result, learnt)
        camera.last.update(result.captured_at, learnt.values)
        camera.history.append(learnt)
        camera.fresh += 1
        yield from self._maybe_train(camera, result)

    def _camera(self, camera_id: str) -> CameraLearning:
        if camera_id not in self._cameras:
            history: deque[Learnt] = deque(maxlen=self._rules.history_frames)
            self._cameras[camera_id] = CameraLearning(self._relabel(), history, {m: TargetLinks() for m in self._specs})
        return self._cameras[camera_id]

    def _begin(self, camera: CameraLearning, result: FrameResult) -> Iterable[Record]:
        """Put in force what was learnt elsewhere, where nothing is in force yet."""
        camera.has_started = True
        for name, ensemble in self._start.items():
            target = camera.targets[name]
            if target.current is None:
                target.last_number = max(target.last_number, 1)
                detail = "learnt elsewhere: links.start"
                yield from self._promote(result, name, target, Version(target.last_number, ensemble), detail, {})

    def _read(self, result: FrameResult) -> Learnt:
        """Return what the models that executed said, and what links read of it."""
        read = self._inputs.of_outputs(result.outputs, result.captured_at, result.stats)
        return Learnt(result.captured_at, result.executed(), read)

    def _maybe_relabel(self, camera: CameraLearning, result: FrameResult) -> Iterable[Record]:
        executed, tried = result.executed(), {o.model for o in result.outputs if o.how in EXECUTIONS}
        missing = tuple(m for m in self._specs if m not in tried)  # one that failed would fail again
        for output in result.outputs:
            if output.how == "linked":
                camera.targets[output.model].sources = output.sources
        if not missing or not executed:
            return
        reason = camera.relabel.wants(result)
        if reason is None:
            return
        camera.pending[result.frame_index] = self._read(result)
        if len(camera.pending) > PENDING_RELABELS:
            camera.pending.pop(next(iter(camera.pending)))
        yield RelabelRequest(result.camera_id, result.frame_index, result.captured_at, missing, reason)

    def _test(self, camera: CameraLearning, result: FrameResult, learnt: Learnt) -> Iterable[Record]:
        """Score versions on a frame that none of them has learnt from, and settle the duels that are complete."""
        for name, target in camera.targets.items():
            if name not in learnt.values:
                continue
            others = {m: read for m, read in learnt.read.items() if m != name}
            served = {m: others[m] for m in target.sources or others if m in others}
            # Within a run of profile frames the last value is one frame old, which serving never enjoys.
            recall = camera.last.of(name, result.captured_at) if result.purpose == "audit" else None
            for duel in (target.trial, target.watch):
                # Links learnt elsewhere, or while a model failed, may know none of the sources that are served now.
                known = [] if duel is None else [v for v in (served, others) if duel.can_read(v)]
                if duel is not None and known:
                    duel.score(known[0], recall, learnt.values[name])
            if target.trial is not None and target.trial.is_settled(self._rules.shadow_frames):
                yield from self._settle_trial(result, name, target, target.trial)
            elif target.watch is not None and target.watch.is_settled(self._rules.shadow_frames):
                yield from self._settle_watch(result, name, target, target.watch)

    def _settle_trial(self, result: FrameResult, name: str, target: TargetLinks, trial: Duel) -> Iterable[Record]:
        target.trial = None
        better, error = trial.margin()
        frames = len(trial.new_scores)
        if better > error:
            target.watch = Duel(old=trial.old, new=trial.new)
            detail = f"better than version {trial.old.number} by {better:.1%} on {frames} later frames"
            yield from self._promote(result, name, target, trial.new, detail, trial.means())
        else:
            detail = f"not clearly better than version {trial.old.number} on {frames} later frames"
            yield self._event(result, "rejected", name, trial.new.number, detail, trial.means())

    def _settle_watch(self, result: FrameResult, name: str, target: TargetLinks, watch: Duel) -> Iterable[Record]:
        target.watch = None
        better, error = watch.margin()
        if better < -error:
            target.trial = None  # its rival is no longer in force
            target.current = watch.old
            detail = f"worse than version {watch.old.number} by {-better:.1%} since its promotion"
            yield LinkPromotion(
                result.camera_id, name, watch.old.number, result.captured_at, self._payloads.of(watch.old.ensemble)
            )
            yield self._event(result, "rolled_back", name, watch.new.number, detail, watch.means())

    def _maybe_train(self, camera: CameraLearning, result: FrameResult) -> Iterable[Record]:
        rules = self._rules
        first = all(t.current is None for t in camera.targets.values())
        enough = (
            len(camera.history) >= rules.first_train_frames
            if first
            else camera.fresh >= max(rules.retrain_after_frames, GROWTH * len(camera.history))
        )
        if not enough:
            return
        specs = {m: self._specs[m] for m in camera.working()}
        complete = [frame for frame in camera.history if frame.values.keys() >= specs.keys()]
        if len(specs) < 2 or len(complete) < min(len(camera.history), rules.first_train_frames):
            return
        if any(camera.targets[m].trial is not None for m in specs):
            return
        camera.fresh = 0
        history = sorted(complete, key=lambda frame: frame.captured_at)  # relabelled frames come late
        samples: dict[str, Array] = {m: np.stack([frame.values[m] for frame in history]) for m in specs}
        read = self._inputs.stacked([frame.read for frame in history], list(specs))
        times_s = np.array([frame.captured_at.timestamp() for frame in history])
        number = 1 + max(t.last_number for t in camera.targets.values())
        try:
            ensembles = train_ensembles(
                specs, samples, seed=rules.seed + number, times_s=times_s, kind=rules.kind, read=read
            )
        except LinkError as error:
            logger.warning('camera "%s": links not trained: %s', result.camera_id, error)
            return
        absent = ", ".join(m for m in self._specs if m not in specs)
        without = f", without {absent}, for want of any answer of late" if absent else ""
        for name, ensemble in ensembles.items():
            target = camera.targets[name]
            version = Version(number, ensemble)
            target.last_number = number
            scores = {"held_out": ensemble.held_out_agreement}
            yield self._event(result, "trained", name, number, f"on {len(history)} frames{without}", scores)
            if target.current is None:
                yield from self._promote(result, name, target, version, "the first version", {})
            else:
                target.trial = Duel(old=target.current, new=version)

    def _promote(
        self,
        result: FrameResult,
        name: str,
        target: TargetLinks,
        version: Version,
        detail: str,
        scores: Mapping[str, float],
    ) -> Iterable[Record]:
        target.current = version
        payload = self._payloads.of(version.ensemble)
        yield LinkPromotion(result.camera_id, name, version.number, result.captured_at, payload)
        yield self._event(result, "promoted", name, version.number, detail, scores)

    @staticmethod
    def _event(
        result: FrameResult, kind: object, target: str, version: int, detail: str, scores: Mapping[str, float]
    ) -> AdaptationEvent:
        logger.info('camera "%s": links to %s v%d %s: %s', result.camera_id, target, version, kind, detail)
        return AdaptationEvent(result.camera_id, result.captured_at, kind, target, version, detail, scores)  # type: ignore[arg-type]
