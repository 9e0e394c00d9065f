"""The multi-source ensemble h_{A,j} of MLink (Sec. 3.5): a weighted sum over whichever sources ran, then activation.

The learned weights are positive and are renormalised over the sources that ran, so that one set of weights serves
every subset, and a single source stands as it is ("the ensemble simply fits as an identity layer", Sec. 3.6).

Beyond the paper, where the target is labels or counts as distributions: the sum is drawn towards the constant
prediction as far as held-out frames advise (`Trust`), and what the target said last is taken into account
(`camlink.links.memory`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from math import erf, sqrt

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array
from camlink.links.counts import CountCode
from camlink.links.memory import Memory, Recall
from camlink.links.one_frame import FramePredictor, compiled
from camlink.links.scaling import FittedLink
from camlink.links.vec_to_vec import VecToVec
from camlink.models.base import OutputSpec
from camlink.models.scores import TaskRules, rules
from camlink.pipeline.errors import LinkError

SQRT_2 = sqrt(2.0)
_ONE = np.ones(1, np.float32)


@dataclass(frozen=True)
class Belief:
    """``share`` (0..1) of the links' evidence that is believed; ``honesty`` scales the confidence that results.

    Both are found on held-out frames: a share of 0 serves the constant (or the memory) alone; honesty is how often
    predictions agreed there, per stated confidence, and never above 1.
    """

    share: float = 1.0
    honesty: float = 1.0


@dataclass(frozen=True, eq=False)
class Trust:
    """What makes confidence calibrated. ``constant`` (width,): the pre-activation of the best constant."""

    constant: Array
    alone: Belief
    with_memory: Belief
    memory: Memory | None = None
    memory_alone: Belief = Belief(0.0)


@dataclass(frozen=True, eq=False)
class Ensemble:
    """All links towards one target, ready to predict from any subset of the sources.

    ``spread`` (target.size,) is the root mean square error per entry of linear outputs on frames held out from
    training; ``held_out_agreement`` the mean agreement there. With ``code``, links predict thresholds of counts.
    """

    target: OutputSpec
    links: Mapping[str, FittedLink]
    weights: Mapping[str, float]
    spread: Array
    held_out_agreement: float
    code: CountCode | None = None
    trust: Trust | None = None

    def mix(self, pre_activations: Mapping[str, Array]) -> Array:
        """Weigh: source -> (..., width), at least one -> (..., width)."""
        if len(pre_activations) == 1:
            (mixed,) = pre_activations.values()
            return mixed
        total = sum(self.weights[s] for s in pre_activations)
        shares = (z * np.float32(self.weights[s] / total) for s, z in pre_activations.items())
        return reduce(np.add, shares)

    def combine(self, pre_activations: Mapping[str, Array], recall: Recall | None = None) -> Array:
        """Weigh, calibrate and activate: source -> (..., width) -> (..., width).

        At least one source, or none with a ``recall`` that the ensemble `remembers` by. Without a code the result is
        a value in the target's own space; with one, P(count > k) for `finish` to read.
        """
        mixed = self.mix(pre_activations) if pre_activations else None
        if self.trust is not None:
            mixed = self._calibrate(mixed, self.trust, recall)
        assert mixed is not None, "neither sources nor memory to combine"
        return self._rules.activate(mixed)

    def finish(self, activated: Array) -> Array:
        """Bring an activated value into the form that is served: counts are whole and not negative."""
        if self.code is not None:
            return self.code.most_probable(activated)[0]
        return self._rules.finish(activated)

    def predict(self, values: Mapping[str, Array], recall: Recall | None = None) -> tuple[Array, NDArray[np.float64]]:
        """Predict the target from executed values: source -> (..., size), and from what it said last, if known.

        Returns the served value (..., target.size) and its confidence (...,): the estimated agreement, 0..1.
        Sources without a link are ignored. Without any values, `remembers` says whether ``recall`` alone can answer.
        Raises `LinkError` if there is nothing to predict from, or if values do not fit.
        """
        if self.code is not None and self.trust is not None and values:
            served = self._one_frame(self.code, self.trust, values, recall)
            if served is not None:
                return served
        links = self.links
        pre = {s: links[s].predict(v) for s, v in values.items() if s in links}
        if not pre and (values or recall is None or not self.remembers):
            raise LinkError(self._nothing_to_go_by(values, recall))
        activated = self.combine(pre, recall)
        honesty = 1.0 if self.trust is None else self._belief(self.trust, bool(pre), recall).honesty
        if self.code is not None:
            value, chance = self.code.most_probable(activated)
            return value, np.asarray(chance.sum(axis=-1) * (honesty / self.target.size))
        return self._rules.finish(activated), self.confidence(activated) * honesty

    def _one_frame(
        self, code: CountCode, trust: Trust, values: Mapping[str, Array], recall: Recall | None
    ) -> tuple[Array, NDArray[np.float64]] | None:
        """Predict the counts of a single frame the fast way, or return None where the general way is needed."""
        if recall is not None and (recall.value.shape != (self.target.size,) or isinstance(recall.age_s, np.ndarray)):
            return None
        memory = trust.memory if recall is not None else None
        key = (tuple(values), memory is not None)
        if key not in self._compiled:
            self._compiled[key] = self._compile(code, trust, key[0], memory)
        predictor = self._compiled[key]
        return None if predictor is None else predictor(values, recall)

    def _compile(
        self, code: CountCode, trust: Trust, sources: tuple[str, ...], memory: Memory | None
    ) -> FramePredictor | None:
        known = {s: self.links[s] for s in sources if s in self.links}
        links = {s: link for s, link in known.items() if isinstance(link, VecToVec)}
        if not known or len(links) < len(known):
            return None
        total = sum(self.weights[s] for s in links)
        weights = [self.weights[s] / total for s in links]
        belief = trust.alone if memory is None else trust.with_memory
        return compiled(links, weights, code, trust.constant, (belief.share, belief.honesty), memory)

    @cached_property
    def _compiled(self) -> dict[tuple[tuple[str, ...], bool], FramePredictor | None]:
        return {}

    def confidence(self, activated: Array) -> NDArray[np.float64]:
        """Estimate the agreement of an activated value (..., width) -> (...,), from its own shape and `spread`.

        `predict` scales it by what held-out frames said of such estimates.
        """
        if self.code is not None:
            return np.asarray(self.code.most_probable(activated)[1].mean(axis=-1))
        task = self.target.task
        if task == "single_label":
            return np.asarray(activated.max(axis=-1), dtype=np.float64)
        if task == "multi_label":
            return np.asarray(np.maximum(activated, 1.0 - activated).mean(axis=-1), dtype=np.float64)
        if task == "count":  # chance that the count, normal around the prediction, rounds to what is served
            offset = activated - self.finish(activated)
            return _chance_to_round_right(offset, self.spread)
        closeness = max(0.0, 1.0 - float(self.spread.mean()) / self.target.scale)
        return np.full(activated.shape[:-1], closeness)

    def to_bytes(self) -> bytes:
        """Serialise without pickle. `from_bytes` reads it."""
        from camlink.links import ensemble_bytes

        return ensemble_bytes.to_bytes(self)

    @staticmethod
    def from_bytes(payload: bytes) -> Ensemble:
        """Read what `to_bytes` wrote. Raises `LinkError` for anything else."""
        from camlink.links import ensemble_bytes

        return ensemble_bytes.from_bytes(payload)

    @property
    def remembers(self) -> bool:
        """Whether a `Recall` changes what is predicted, and can answer without any source: counts and labels only."""
        return self.trust is not None and self.trust.memory is not None

    def strangers(self, read: Mapping[str, OutputSpec], deployed: Mapping[str, OutputSpec]) -> list[str]:
        """Return the models that are others now than these links were learnt for, under the same names.

        ``read``: the spaces of what links read of the sources; ``deployed``: those of the models' outputs.
        """
        found = [s for s, link in self.links.items() if read.get(s, link.source) != link.source]
        target = self.target.model
        return found + [target] * (deployed.get(target, self.target) != self.target)

    @property
    def output(self) -> OutputSpec:
        """The space that the links predict: the target's own, or its thresholds."""
        return self._output

    @cached_property
    def _output(self) -> OutputSpec:
        return self.target if self.code is None else self.code.spec(self.target)

    @cached_property
    def _rules(self) -> TaskRules:
        return rules(self._output)

    def _calibrate(self, mixed: Array | None, trust: Trust, recall: Recall | None) -> Array | None:
        if recall is None or trust.memory is None:
            if mixed is None or trust.alone.share == 1.0:
                return mixed
            return trust.constant + np.float32(trust.alone.share) * (mixed - trust.constant)
        last = recall.value if self.code is None else self.code.encode(recall.value)
        ground = log_odds(trust.memory.chances(last, recall.age_s), self._output)
        if mixed is None:
            return ground
        return ground + np.float32(trust.with_memory.share) * (mixed - trust.constant)

    @staticmethod
    def _belief(trust: Trust, has_sources: bool, recall: Recall | None) -> Belief:
        if recall is None or trust.memory is None:
            return trust.alone
        return trust.with_memory if has_sources else trust.memory_alone

    def _nothing_to_go_by(self, values: Mapping[str, Array], recall: Recall | None) -> str:
        known, target = ", ".join(self.links) or "nothing", self.target.model
        if values or recall is None:
            return f"no link to {target} from {', '.join(values) or 'nothing'}; links exist from {known}"
        return f"nothing was executed, and the links to {target} remember nothing; they exist from {known}"


def log_odds(chances: Array, spec: OutputSpec) -> Array:
    """Return the pre-activations (..., width) whose activation is ``chances`` (up to scale, for a softmax)."""
    if spec.task == "single_label":
        return np.asarray(np.log(chances))
    return np.asarray(np.log(chances / (_ONE - chances)))


def _chance_to_round_right(offset: Array, spread: Array) -> NDArray[np.float64]:
    """Mean over entries of the chance that normal noise keeps offset (..., size) within half a count: -> (...,)."""
    if offset.ndim == 1:  # one frame: a handful of scalars cost less than the calls of an array library
        pairs = zip(offset.tolist(), spread.tolist(), strict=True)
        chances = [erf((0.5 - o) / (s * SQRT_2)) + erf((0.5 + o) / (s * SQRT_2)) for o, s in pairs]
        return np.asarray(0.5 * sum(chances) / len(chances))
    high, low = (normal_share((half - offset) / spread) for half in (0.5, -0.5))
    return np.asarray((high - low).mean(axis=-1), dtype=np.float64)


def normal_share(deviations: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the share of a normal distribution below ``deviations``, to 1e-7 (Abramowitz and Stegun, 7.1.26).

    >>> normal_share(np.array([-1.959964, 0.0, 1.0])).round(4).tolist()
    [0.025, 0.5, 0.8413]
    """
    x = np.abs(deviations) / np.sqrt(2.0)
    t = 1.0 / (1.0 + 0.3275911 * x)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * series * np.exp(-x * x)
    return np.asarray(np.where(deviations > 0, 1.0 - tail, tail), dtype=np.float64)
