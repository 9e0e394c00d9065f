"""Which models to hold in memory where not all fit: those that, with what they tell of the others, answer most.

One set serves all cameras of a worker, each with its own time budget, and every camera counts alike. What a camera's
policy expects of its models comes as `Prospect`s. A loaded model is right as often as the time budget lets it be
refreshed; one that is not is answered from its usual value or from the best of those that are (MLink, AAAI'22, Eq. 1,
with the time budget on top). Up to 12 models every set is tried; beyond, one is grown model by model. Of sets that are
expected to do about as well the cheapest is taken: it leaves more time for each of its models.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache

from camlink.operators.baselines.options import fitting_sets
from camlink.operators.selection import EXACT_UP_TO, NO_MODELS, URGENCY, Budget, Costs
from camlink.operators.worth import Outlook, Prices
from camlink.pipeline.records import Prospect

LEAST_GAIN = 0.02  # of all outputs: less is no reason for another set, or for a dearer one
_KEPT_SETS = 4096  # of which a camera remembers what it expects: all there are of 12 models
_ROUNDING = 1e-9
Models = frozenset[str]
Value = Callable[[Models], float]


class CameraProspects:
    """What one camera's policy expects of each model, and so of each set of models that could be loaded."""

    def __init__(self, prospects: Mapping[str, Prospect], costs: Costs, budget: Budget) -> None:
        self._of = prospects
        self._outlooks = {
            m: Outlook(p.stale, p.renewed, p.steady, p.hazard, costs.time_ms[m]) for m, p in prospects.items()
        }
        self._limit_ms = budget.time_ms(costs)
        self.answered = lru_cache(_KEPT_SETS)(self._answered)

    def _answered(self, loaded: Models) -> float:
        """Return how many models' outputs are expected to be right on a frame, where ``loaded`` are in memory."""
        right = self._refreshed({m: o for m, o in self._outlooks.items() if m in loaded})
        return sum(right[m] if m in right else self._without(p, right) for m, p in self._of.items())

    def _refreshed(self, outlooks: Mapping[str, Outlook]) -> dict[str, float]:
        """Return how often each of these models is right, refreshed as often as the time allows."""
        if sum(o.time_ms for o in outlooks.values()) <= self._limit_ms:
            return dict.fromkeys(outlooks, 1.0)
        prices = Prices(list(outlooks.values()))
        intervals = prices.intervals(prices.for_time(self._limit_ms))
        return {m: 1.0 - o.mean_wrong(i) for (m, o), i in zip(outlooks.items(), intervals, strict=True)}

    @staticmethod
    def _without(target: Prospect, right: Mapping[str, float]) -> float:
        """Return how often a model that is not loaded is known by the best of those that are, as far as these are."""
        gain = max((target.told_by.get(s, 0.0) * share for s, share in right.items()), default=0.0)
        return min(target.usual + max(gain, 0.0), 1.0)


def choose_loaded(
    cameras: Mapping[str, CameraProspects],
    costs: Costs,
    budget: Budget,
    urgent: Mapping[str, Collection[str]] = NO_MODELS,
    now: Models | None = None,
) -> Models:
    """Return the models that fit into memory together and answer most on all cameras, of themselves and of the others.

    ``urgent`` models of a camera come before all others, as many as fit. One that no frame has time for is not loaded.
    Sets that are expected to answer within `LEAST_GAIN` of the best count as equal: of these the one that is loaded
    ``now`` stays, or else the cheapest on a frame is taken.
    """
    models = budget.in_time(costs)
    outputs = max(len(cameras) * len(costs.models), 1)
    asked = [m for wanted in urgent.values() for m in wanted]

    def value(loaded: Models) -> float:
        answered = sum(camera.answered(loaded) for camera in cameras.values()) / outputs
        return answered + URGENCY * sum(m in loaded for m in asked)

    if len(models) <= EXACT_UP_TO:
        sets = fitting_sets(models, costs, budget)
    else:
        per_gb = _grown(models, value, costs, budget, lambda m: max(costs.memory_gb[m], 1e-9))
        sets = [per_gb, _grown(models, value, costs, budget, lambda m: 1.0)]
    worth = {s: value(s) for s in sets}
    enough = max(worth.values()) - LEAST_GAIN
    fits = now is not None and now.issubset(models) and costs.memory(sorted(now)) <= budget.memory_limit() + _ROUNDING
    if now is not None and fits and value(now) >= enough:
        return now
    return min((s for s in sets if worth[s] >= enough), key=lambda s: (costs.time(sorted(s)), -worth[s]))


def _grown(models: Sequence[str], value: Value, costs: Costs, budget: Budget, weight: Callable[[str], float]) -> Models:
    """Add the model that brings most for its weight, as long as one fits and takes no time from what brings more."""
    loaded: Models = frozenset()
    while True:
        room = budget.memory_limit() + _ROUNDING - costs.memory(sorted(loaded))
        fit = [m for m in models if m not in loaded and costs.memory_gb[m] <= room]
        if not fit:
            return loaded
        now = value(loaded)
        gain = {m: (value(loaded | {m}) - now) / weight(m) for m in fit}
        best = max(fit, key=lambda m: gain[m])
        if gain[best] < -_ROUNDING:
            return loaded
        loaded |= {best}


class LoadedSet:
    """The set of one worker's models, chosen anew whenever a camera's policy has said what it expects."""

    def __init__(self, costs: Costs, budget: Budget) -> None:
        self._costs, self._budget = costs, budget
        self._known: dict[str, tuple[Mapping[str, Prospect], CameraProspects]] = {}

    def choose(
        self,
        prospects: Mapping[str, Mapping[str, Prospect]],
        urgent: Mapping[str, Collection[str]],
        now: Collection[str] | None,
    ) -> tuple[str, ...]:
        """Return the models to hold from now on, in their order; ``prospects`` by camera and model.

        Cameras of which nothing is known yet have no say. Where none has, what is loaded ``now`` stays.
        """
        said = {c: p for c, p in prospects.items() if p}
        self._known = {c: self._of(c, p) for c, p in said.items()}
        cameras = {c: known for c, (_, known) in self._known.items()}
        before = None if now is None else frozenset(now)
        loaded = choose_loaded(cameras, self._costs, self._budget, urgent, before)
        return tuple(m for m in self._costs.models if m in loaded)

    def _of(self, camera_id: str, prospects: Mapping[str, Prospect]) -> tuple[Mapping[str, Prospect], CameraProspects]:
        """Return what is known of a camera; what it expects of each set is worked out once."""
        known = self._known.get(camera_id)
        if known is not None and known[0] is prospects:
            return known
        return prospects, CameraProspects(prospects, self._costs, self._budget)
