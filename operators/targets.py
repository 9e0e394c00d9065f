"""Accuracy targets: which models' predictions are proven good enough, and which must be executed instead.

A target is about the predictions of one camera and model over a day of event time (a longer period is its own day). The
certificate of that day decides: *met* when its lower bound reaches the target, *not met* when its upper bound is below
it, else *not known*. A model whose target is not met is executed from the next decision on, within the budgets. On
audit frames its prediction is still made, on trial and never served, so that links which recover are found out. At a
new day the last "not met" stands until `MIN_AUDITS` audits have been able to say otherwise; after a whole day without
any, on which the model neither was predicted nor could be tried, it is not known any more.

Everything follows from the camera's own results in order, so all ways of running camlink come to the same verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from camlink.models.base import OutputSpec
from camlink.models.scores import RULES, agreement
from camlink.operators.certificates import Judged, RecentFrames, Stream, is_on_trial, judge
from camlink.operators.evidence import Certificate, TargetState, certify
from camlink.operators.selection import CameraScores, Costs
from camlink.operators.snapshots import get_time, put_time, reading
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.records import JUDGED, Decision, FrameResult

DAY = timedelta(days=1)
MIN_AUDITS = 30
TargetOf = Callable[[str, str], float | None]  # camera, model -> target agreement


def no_targets(camera_id: str, model: str) -> None:
    """The rule of a site that sets none."""


@dataclass(frozen=True)
class Standing:
    """Where one model of a camera stands towards its target."""

    target: float
    certificate: Certificate
    state: TargetState

    def figures(self) -> dict[str, float]:
        """Return the numbers, as a decision carries them; what was not measured is left out."""
        known = {name: getattr(self.certificate, name) for name in ("estimate", "low", "high", "audits", "frames")}
        return {"target": self.target} | {name: float(value) for name, value in known.items() if value is not None}


class TargetWatch:
    """One camera's certificates of the day, for the models that could be predicted, on trial or in earnest."""

    def __init__(
        self,
        camera_id: str,
        specs: Mapping[str, OutputSpec],
        target_of: TargetOf,
        period: timedelta,
        *,
        every_model: bool = False,
    ) -> None:
        """``every_model``: also watch those without a target, for whoever asks for `certificates`."""
        scored = {model: spec for model, spec in specs.items() if spec.task in RULES}
        self.targets = {m: t for m in scored if (t := target_of(camera_id, m)) is not None}
        self._specs = {m: spec for m, spec in scored.items() if every_model or m in self.targets}
        self._span = max(DAY, period)
        self._recent = RecentFrames()
        self._start: datetime | None = None
        self._streams: dict[str, Stream] = {}
        self._failed: frozenset[str] = frozenset()  # not met when the last day ended

    def observe(self, result: FrameResult) -> None:
        """Take one frame's outputs."""
        if result.purpose not in JUDGED or not self._recent.is_new(result.frame_index):
            return
        start = result.captured_at - (result.captured_at - EPOCH) % self._span
        if self._start is None:
            self._start = start
        elif start not in (self._start, self._start - self._span):  # a frame of the day before comes late: no new day
            self._failed = frozenset(m for m in self.not_met() if m in self._streams)
            self._start, self._streams = start, {}
        for model, judged in {**judge(result, self._specs), **_tried(result, self._specs)}.items():
            if judged is not None:
                lost = result.purpose == "audit" and judged.sampled and judged.agreement is None
                chance = 0.0 if lost else result.audit_probability or 0.0
                self._streams.setdefault(model, Stream()).add(judged, chance, audited=result.purpose == "audit")

    def put_state(self, parts: dict[str, bytes]) -> dict[str, Any]:
        """Return the day so far as plain values, with the evidence in ``parts``: 2 KB for each model predicted."""
        parts |= {f"certificate/{model}": stream.to_bytes() for model, stream in self._streams.items()}
        return {"start": put_time(self._start), "failed": sorted(self._failed), "models": list(self._streams)}

    def get_state(self, told: Mapping[str, Any], parts: Mapping[str, bytes]) -> None:
        """Go on where `put_state` stopped. Raises `StateError`, and changes nothing, for what is no state."""
        with reading():
            start, failed = get_time(told["start"]), frozenset(map(str, told["failed"]))
            streams = {str(m): Stream.from_bytes(parts[f"certificate/{m}"]) for m in told["models"] if m in self._specs}
        self._start, self._failed, self._streams = start, failed, streams

    def resume(self, decision: Decision) -> None:
        """Take over from another worker what its last decision said was not met, where nothing more is known."""
        if self._start is None:
            self._failed = frozenset(m for m, state in decision.target_states.items() if state == "not met")

    def certificates(self) -> dict[str, Certificate]:
        """Return the day's certificates of the models that were predicted, so far."""
        return {model: certify(stream.evidence) for model, stream in self._streams.items()}

    def standings(self) -> dict[str, Standing]:
        """Return where each model with a target stands."""
        found = self.certificates()
        return {m: self._standing(m, target, found.get(m)) for m, target in self.targets.items()}

    def not_met(self) -> tuple[str, ...]:
        """Return the models that must be executed."""
        return tuple(model for model, standing in self.standings().items() if standing.state == "not met")

    def _standing(self, model: str, target: float, certificate: Certificate | None) -> Standing:
        certificate = certificate or Certificate(None, None, None, 0, 0)
        state = certificate.against(target)
        assert state is not None
        if state == "not known" and model in self._failed and certificate.audits < MIN_AUDITS:
            state = "not met"
        return Standing(target, certificate, state)


def _tried(result: FrameResult, specs: Mapping[str, OutputSpec]) -> dict[str, Judged]:
    """Return what the frame says of models on trial: they execute, and would otherwise have been predicted."""
    served = {o.model: o for o in result.outputs if o.served and o.how == "executed"}
    shadows = {o.model: o for o in result.outputs if is_on_trial(o)}
    found = {}
    for model in result.trial:
        if model not in served or model not in specs:
            continue
        truth, shadow, told = served[model].value, shadows.get(model), None
        if shadow is not None and truth is not None:
            said = shadow.value
            told = 0.0 if said is None else float(agreement(specs[model], said[None, :], truth[None, :])[0])
        found[model] = Judged(told, sampled=True)
    return found


def trials(forced: Sequence[str], execute: Sequence[str], otherwise: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return, per forced model that executes, the sources it would be predicted from if it did not have to.

    ``otherwise``: what would execute without the force. Where nothing else executes, nothing can be tried.
    """
    found = {}
    for model in forced:
        choices = (tuple(s for s in sources if s != model) for sources in (otherwise, execute))
        sources = next((some for some in choices if some), ())
        if model in execute and sources:
            found[model] = sources
    return found


def spared(
    execute: tuple[str, ...], standings: Mapping[str, Standing], scores: CameraScores, costs: Costs
) -> tuple[str, ...]:
    """Return ``execute`` without the models that can be spared, the most expensive first; all of it where none can.

    Only while every prediction is proven to meet its target; then a model may be predicted, too, if on the profile
    frames its own links, and those that would do without it as a source, reach their targets. What its predictions
    then agree to is measured like any other, and takes it back if need be.
    """
    predicted = [m for m in costs.models if m not in execute]
    while len(execute) > 1 and predicted and all(m in standings and standings[m].state == "met" for m in predicted):
        model = _spare_one(execute, predicted, standings, scores, costs)
        if model is None:
            break
        execute, predicted = tuple(m for m in execute if m != model), [*predicted, model]
    return execute


def _spare_one(
    execute: Sequence[str],
    predicted: Sequence[str],
    standings: Mapping[str, Standing],
    scores: CameraScores,
    costs: Costs,
) -> str | None:
    for model in sorted(execute, key=lambda m: -costs.time_ms[m]):
        rest = tuple(m for m in execute if m != model)
        if model not in standings or standings[model].state == "not met":
            continue
        if all(scores.subset(rest, m) >= standings[m].target for m in (model, *predicted)):
            return model
    return None
