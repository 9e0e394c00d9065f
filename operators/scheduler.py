"""The scheduler: at the start of each period, per camera, which models execute and which are predicted.

It judges links from the outputs of profile and audit frames, never from pixels (MLink Algorithm 1, lines 3-5).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from camlink.links.ensemble import Ensemble
from camlink.links.inputs import LinkInputs
from camlink.models.base import OutputSpec
from camlink.operators.profiling import LinkScorer
from camlink.operators.sampling import SamplingRules
from camlink.operators.selection import Budget, CameraScores, Costs, Selection, select
from camlink.pipeline.records import Decision, FrameResult, LinkPromotion, Record

logger = logging.getLogger(__name__)


@dataclass
class _Camera:
    scorer: LinkScorer
    ensembles: dict[str, Ensemble] = field(default_factory=dict)
    scores: CameraScores | None = None
    decided: datetime | None = None  # start of the period that the last decision is for


class SchedulerOperator:
    """Results and link promotions in, decisions out. One instance decides for the cameras of one inference worker."""

    def __init__(
        self,
        specs: Mapping[str, OutputSpec],
        costs: Costs,
        budget: Budget,
        rules: SamplingRules,
        policy: str,
        inputs: LinkInputs | None = None,
    ) -> None:
        """``inputs``: what links read of a frame, where that is more than the executed values."""
        self._specs = specs
        self._inputs = inputs or LinkInputs(specs)
        self._costs = costs
        self._budget = budget
        self._rules = rules
        self._policy = policy if len(specs) > 1 else "all"  # one model cannot be predicted, so it always executes
        self._cameras: dict[str, _Camera] = {}
        self._loaded: tuple[str, ...] | None = None

    def on_records(self, records: Sequence[Record]) -> Iterable[Record]:
        for record in records:
            if isinstance(record, LinkPromotion):
                self._camera(record.camera_id).ensembles[record.target] = Ensemble.from_bytes(record.payload)
            elif isinstance(record, FrameResult):
                yield from self._on_result(record)

    def on_time(self, now: datetime) -> Iterable[Record]:
        return ()

    def next_time(self) -> datetime | None:
        return None

    def on_end(self) -> Iterable[Record]:
        return ()

    def resume(self, decision: Decision) -> None:
        """Know of a decision that another worker made: its period needs no other until it is profiled anew."""
        camera = self._camera(decision.camera_id)
        if camera.decided is None:
            camera.decided = self._rules.period_start(decision.start)

    def forget(self, camera_id: str) -> None:
        """Drop a camera that another worker has now."""
        self._cameras.pop(camera_id, None)

    def _camera(self, camera_id: str) -> _Camera:
        if camera_id not in self._cameras:
            self._cameras[camera_id] = _Camera(LinkScorer(self._specs))
        return self._cameras[camera_id]

    def _on_result(self, result: FrameResult) -> Iterable[Record]:
        camera = self._camera(result.camera_id)
        if result.purpose in ("profile", "audit"):
            values = result.executed()
            if len(values) == len(self._specs):
                read = self._inputs.of_outputs(result.outputs, result.captured_at, result.stats)
                camera.scorer.observe(result.captured_at, values, camera.ensembles, read)
        period = self._rules.period_start(result.captured_at)
        overdue = result.purpose in ("serve", "audit") and (camera.decided is None or camera.decided < period)
        if result.profile_ends or overdue:
            camera.decided = period
            camera.scorer.forget_before(period - self._rules.period)
            camera.scores = camera.scorer.scores()
            yield from self._decide(result.camera_id, result.captured_at)

    def _decide(self, camera_id: str, now: datetime) -> Iterable[Record]:
        """Choose anew for all cameras with scores; tell this one, and the others whose choice has changed."""
        scored = {c: s.scores for c, s in self._cameras.items() if s.scores is not None and self._active(s, now)}
        selection = select(self._policy, scored, self._costs, self._budget)
        changed_set = selection.loaded != self._loaded
        if changed_set:
            logger.info("loaded set: %s", ", ".join(selection.loaded) or "nothing")
        self._loaded = selection.loaded
        for camera in scored:
            if camera == camera_id or changed_set:
                yield self._decision(camera, now, selection)

    def _active(self, camera: _Camera, now: datetime) -> bool:
        """Cameras that were silent for more than two periods have no say in what is loaded."""
        return camera.decided is not None and abs(now - camera.decided) <= 2 * self._rules.period

    def _decision(self, camera_id: str, now: datetime, selection: Selection) -> Decision:
        camera = self._cameras[camera_id]
        assert camera.scores is not None
        assert camera.decided is not None
        execute, predict, reason = self._applied(camera, selection.execute[camera_id], selection.expected[camera_id])
        allowed_ms, total_ms = self._budget.time_ms(self._costs), self._costs.time(self._costs.models)
        budget = {
            "time_share_used": self._costs.time(execute) / total_ms if total_ms else 0.0,
            "memory_gb_used": self._costs.memory(selection.loaded),
        }
        if self._budget.time_share is not None:
            budget["time_share"] = allowed_ms / total_ms if total_ms else self._budget.time_share
        if self._budget.memory_gb is not None:
            budget["memory_gb"] = self._budget.memory_gb
        decision = Decision(
            camera_id=camera_id,
            start=now,
            end=max(camera.decided, self._rules.period_start(now)) + self._rules.period,
            execute=execute,
            predict=predict,
            loaded=selection.loaded,
            activation=selection.activation[camera_id],
            budget=budget,
            link_scores=camera.scores.pairs,
            expected_agreement=selection.expected[camera_id],
            reason=reason,
        )
        logger.info('camera "%s": %s', camera_id, reason)
        return decision

    def _applied(
        self, camera: _Camera, chosen: tuple[str, ...], expected: float
    ) -> tuple[tuple[str, ...], tuple[str, ...], str]:
        """Turn a selection into execute, predict and a sentence that a person can read."""
        models = self._costs.models
        share = self._costs.time(chosen) / (self._costs.time(models) or 1.0)
        cost = f"{share:.0%} of the time of executing everything"
        if self._policy == "standalone":
            return chosen, (), f"standalone: executes {_names(chosen)} ({cost}); nothing is predicted"
        left = tuple(m for m in models if m not in chosen)
        if not left:
            return chosen, (), f"executes all models ({cost})"
        if not chosen:
            return chosen, left, "no model fits the budget: nothing can be executed, so nothing can be predicted"
        frames = camera.scorer.frames()
        guesses = ", ".join(f"{m} {camera.scores.subset(chosen, m):.0%}" for m in left) if camera.scores else ""
        return (
            chosen,
            left,
            f"executes {_names(chosen)} ({cost}) and predicts {guesses}, "
            f"{expected:.0%} over all models, judged on {frames} frames",
        )


def _names(models: Sequence[str]) -> str:
    return ", ".join(models) if models else "nothing"
