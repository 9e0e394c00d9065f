"""Which models execute: activation probability, greedy and exact selection under the budgets.

Source: MLink (AAAI'22) Eq. 1, Eq. 7 and Algorithm 1. Pure functions over link scores and costs; the loaded set is
shared by the cameras of one worker (GPU memory), the time budget holds per camera (design ruling 1).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

PairScores = Mapping[str, Mapping[str, float]]  # source -> target -> agreement in [0, 1]
SubsetScore = Callable[[tuple[str, ...], str], float]  # executed sources, target -> agreement in [0, 1]
EXACT_UP_TO = 12  # models; enumeration of 4,096 subsets. Beyond, exact selection falls back to greedy
_ROUNDING = 1e-9
URGENCY = 1e6  # above any sum of agreements or activation probabilities
IN_VAIN = "for want of any answer of late"  # stands in the reason of a decision that does without failing models
NO_MODELS: Mapping[str, Collection[str]] = MappingProxyType({})


@dataclass(frozen=True)
class Costs:
    """What the models cost: ``time_ms`` per frame, ``memory_gb`` while loaded."""

    time_ms: Mapping[str, float]
    memory_gb: Mapping[str, float]

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(self.time_ms)

    def time(self, models: Sequence[str]) -> float:
        """Return the time per frame of executing ``models``, in ms."""
        return sum(self.time_ms[m] for m in models)

    def memory(self, models: Sequence[str]) -> float:
        """Return the memory that ``models`` take together, in GB."""
        return sum(self.memory_gb[m] for m in models)


@dataclass(frozen=True)
class Budget:
    """Upper limits; None means unlimited.

    ``time_share`` is a share of the time of executing everything, in the long run; ``latency_ms`` is what the models
    may take on any one frame.
    """

    memory_gb: float | None = None
    time_share: float | None = None
    latency_ms: float | None = None

    def time_ms(self, costs: Costs) -> float:
        """Return what models that execute on every frame may take together, in ms: both limits hold for them."""
        return min(self.long_run_ms(costs), self.latency_limit())

    def long_run_ms(self, costs: Costs) -> float:
        """Return the time allowed per frame on average, in ms: frames on which less is spent pay for others."""
        return float("inf") if self.time_share is None else self.time_share * costs.time(costs.models)

    def latency_limit(self) -> float:
        """Return the time allowed on any one frame, in ms."""
        return float("inf") if self.latency_ms is None else self.latency_ms

    def in_time(self, costs: Costs) -> tuple[str, ...]:
        """Return the models that can execute at all: those that alone do not take longer than a frame may wait."""
        return tuple(m for m in costs.models if costs.time_ms[m] <= self.latency_limit() + _ROUNDING)

    def memory_limit(self) -> float:
        """Return the memory allowed, in GB."""
        return float("inf") if self.memory_gb is None else self.memory_gb


@dataclass(frozen=True)
class CameraScores:
    """What one camera's profiling says: pairwise link scores and the score of any subset of sources."""

    pairs: PairScores
    subset: SubsetScore


@dataclass(frozen=True)
class Selection:
    """The loaded set of a worker and, per camera, what executes and what that should give (Eq. 1)."""

    loaded: tuple[str, ...]
    execute: Mapping[str, tuple[str, ...]]  # camera -> models
    activation: Mapping[str, Mapping[str, float]]  # camera -> model -> Eq. 7
    expected: Mapping[str, float]  # camera -> average output agreement, Eq. 1


def activation_probability(pairs: PairScores, cost: Mapping[str, float]) -> dict[str, float]:
    """Rank models by Eq. 7: P_i = (1 + P1_i - P2_i) / (w c_i), with w = 2 / min c, so that 1 is the best there can be.

    P1_i is the mean score of the links from i, P2_i that of the links to i; a missing link scores 0.

    >>> activation_probability({"a": {"b": 1.0}, "b": {"a": 0.0}}, {"a": 1.0, "b": 2.0})
    {'a': 1.0, 'b': 0.0}
    """
    models = list(cost)
    others = max(len(models) - 1, 1)
    weight = 2.0 / min(cost.values())
    result = {}
    for i in models:
        outgoing = sum(pairs.get(i, {}).get(j, 0.0) for j in models if j != i) / others
        incoming = sum(pairs.get(j, {}).get(i, 0.0) for j in models if j != i) / others
        result[i] = (1.0 + outgoing - incoming) / (weight * cost[i])
    return result


def budget_costs(costs: Costs, budget: Budget) -> dict[str, float]:
    """Return c(f) of Eq. 7 under two budgets: each model's share of the tighter one, never zero.

    Time is what a set that executes on every frame may take.
    """
    total_memory, total_time = costs.memory(costs.models), costs.time(costs.models)
    memory_limit = min(budget.memory_limit(), total_memory) or 1.0
    time_limit = min(budget.time_ms(costs), total_time) or 1.0
    use_memory = budget.memory_gb is not None
    use_time = not use_memory or isfinite(budget.time_ms(costs))
    return {
        m: max(
            costs.memory_gb[m] / memory_limit if use_memory else 0.0,
            costs.time_ms[m] / time_limit if use_time else 0.0,
            _ROUNDING,
        )
        for m in costs.models
    }


def greedy(ranking: Mapping[str, float], cost: Mapping[str, float], limit: float) -> tuple[str, ...]:
    """Take models by falling rank while their summed cost stays within ``limit`` (Algorithm 1, line 5)."""
    chosen: list[str] = []
    spent = 0.0
    for model in sorted(ranking, key=lambda m: (-ranking[m], m)):
        if spent + cost[model] <= limit + _ROUNDING:
            chosen.append(model)
            spent += cost[model]
    return tuple(m for m in cost if m in chosen)


def expected_agreement(execute: Sequence[str], models: Sequence[str], subset: SubsetScore) -> float:
    """Return the average output agreement of Eq. 1: executed models count 1, the others what their links reach."""
    executed = tuple(execute)
    predicted = sum(subset(executed, j) for j in models if j not in executed) if executed else 0.0
    return (len(executed) + predicted) / len(models)


def select(
    policy: str,
    cameras: Mapping[str, CameraScores],
    costs: Costs,
    budget: Budget,
    urgent: Mapping[str, Collection[str]] = NO_MODELS,
    failing: Mapping[str, Collection[str]] = NO_MODELS,
) -> Selection:
    """Choose the loaded set and each camera's models under both budgets. Raises `ValueError` for unknown policies.

    ``mlink`` is greedy by activation probability, as in the paper; ``mlink-exact`` enumerates Eq. 1 for up to
    12 models; ``standalone`` takes the cheapest models that fit; ``all`` executes everything, whatever the budget.
    ``urgent`` models of a camera come before all others there, as many as the budgets allow; ``failing`` ones never
    execute there, but for ``all``.
    """
    cost = budget_costs(costs, budget)
    activation = {camera: activation_probability(s.pairs, cost) for camera, s in cameras.items()}
    if policy == "mlink-exact" and len(costs.models) <= EXACT_UP_TO:
        loaded, execute = _exact(cameras, costs, budget, urgent, failing)
    elif policy in ("mlink", "mlink-exact"):
        ranking = {c: {m: p + URGENCY * (m in urgent.get(c, ())) for m, p in r.items()} for c, r in activation.items()}
        loaded, execute = _greedy(ranking, costs, budget, failing)
    elif policy == "standalone":
        cheapest = {camera: {m: -costs.time_ms[m] for m in costs.models} for camera in cameras}
        loaded, execute = _greedy(cheapest, costs, budget, failing)
    elif policy == "all":
        loaded, execute = costs.models, dict.fromkeys(cameras, costs.models)
    else:
        raise ValueError(f'unknown policy "{policy}"; choose mlink, mlink-exact, standalone or all')
    expected = {
        c: expected_agreement(execute[c], costs.models, _no_links if policy == "standalone" else s.subset)
        for c, s in cameras.items()
    }
    return Selection(loaded, execute, activation, expected)


def _no_links(sources: tuple[str, ...], target: str) -> float:
    return 0.0


def _greedy(
    ranking: Mapping[str, Mapping[str, float]],
    costs: Costs,
    budget: Budget,
    failing: Mapping[str, Collection[str]],
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Fill the memory by the mean rank on cameras where models answer, then each camera's time by its own."""
    mean = {}
    for m in costs.models:
        ranks = [r[m] for camera, r in ranking.items() if m not in failing.get(camera, ())]
        mean[m] = float(np.mean(ranks)) if ranks else -np.inf
    loaded = greedy(mean, costs.memory_gb, budget.memory_limit())
    execute = {}
    for camera, r in ranking.items():
        able = {m: r[m] for m in loaded if m not in failing.get(camera, ())}
        execute[camera] = greedy(able, costs.time_ms, budget.time_ms(costs))
    return loaded, {camera: tuple(m for m in loaded if m in chosen) for camera, chosen in execute.items()}


def _exact(
    cameras: Mapping[str, CameraScores],
    costs: Costs,
    budget: Budget,
    urgent: Mapping[str, Collection[str]],
    failing: Mapping[str, Collection[str]],
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """Enumerate subsets as bit masks: the best loaded set is the one whose cameras do best within it."""
    models = costs.models
    subsets = [tuple(m for bit, m in enumerate(models) if mask >> bit & 1) for mask in range(1 << len(models))]
    in_time = np.array([costs.time(s) <= budget.time_ms(costs) + _ROUNDING for s in subsets])
    in_memory = np.array([costs.memory(s) <= budget.memory_limit() + _ROUNDING for s in subsets])
    # a tie goes to the cheaper subset: the difference is far below what scores can resolve
    thrift = np.array([1e-6 * costs.time(s) / max(costs.time(models), _ROUNDING) for s in subsets])
    best = {}
    for camera, scores in cameras.items():
        value = np.array([expected_agreement(s, models, scores.subset) for s in subsets]) - thrift
        value += URGENCY * np.array([len(set(s).intersection(urgent.get(camera, ()))) for s in subsets])
        able = np.array([not set(s).intersection(failing.get(camera, ())) for s in subsets])
        best[camera] = _best_within(np.where(in_time & able, value, -np.inf), len(models))
    total = np.sum([value for value, _ in best.values()], axis=0)
    everything = len(subsets) - 1  # where all fit, all stay: profile and audit frames want them
    loaded = everything if in_memory[everything] else int(np.argmax(np.where(in_memory, total - thrift, -np.inf)))
    return subsets[loaded], {camera: subsets[int(choice[loaded])] for camera, (_, choice) in best.items()}


def _best_within(value: NDArray[np.float64], models: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For every mask, the best value among its sub-masks and where it stands (sum-over-subsets, O(n 2^n))."""
    best, choice = value.copy(), np.arange(len(value))
    for bit in range(models):
        with_bit = np.flatnonzero(np.arange(len(value)) >> bit & 1)
        without = with_bit ^ (1 << bit)
        better = best[without] > best[with_bit]
        choice[with_bit] = np.where(better, choice[without], choice[with_bit])
        best[with_bit] = np.maximum(best[with_bit], best[without])
    return best, choice
