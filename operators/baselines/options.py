"""One option per model under one budget: the exact choice behind the tuning of `periodic` and `reducto`.

Each model can be executed more or less often; each way costs time per frame and gives an expected agreement. Which way
for which model is the multiple-choice knapsack problem (Kellerer, Pferschy and Pisinger, Knapsack Problems, ch. 11),
solved by dynamic programming over cost in steps of a thousandth of the budget, rounded up: never over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Generic, TypeVar

import numpy as np

from camlink.operators.selection import EXACT_UP_TO, Budget, Costs

STEPS = 1000
How = TypeVar("How")


@dataclass(frozen=True)
class Option(Generic[How]):
    """One way to run one model: ``cost_ms`` per frame on average, and the agreement that is to be expected."""

    cost_ms: float
    agreement: float
    how: How


def best_options(options: Mapping[str, Sequence[Option[How]]], limit_ms: float) -> dict[str, Option[How]]:
    """Choose one option per model: the highest total agreement whose costs stay within ``limit_ms``.

    Every model must have an option that costs nothing. Of equals the one that executes more often is taken: what is not
    spent is lost, and a warm-up on which nothing happened says little of what is to come.

    >>> never, always = Option(0.0, 0.5, "never"), Option(10.0, 1.0, "always")
    >>> chosen = best_options({"a": [never, always], "b": [Option(0.0, 0.9, "never"), always]}, 10)
    >>> {m: o.how for m, o in chosen.items()}
    {'a': 'always', 'b': 'never'}
    """
    most = sum(max(o.cost_ms for o in choices) for choices in options.values())
    most *= 1.0 + len(options) / STEPS  # room for rounding up, where the budget has it
    step = max(min(limit_ms, most), 1e-12) / STEPS
    best = np.zeros(STEPS + 1)
    taken: list[np.ndarray[tuple[int], np.dtype[np.intp]]] = []
    for choices in options.values():
        ordered = sorted(range(len(choices)), key=lambda i: -choices[i].cost_ms)
        trial = np.full((len(choices), STEPS + 1), -np.inf)
        for i in ordered:
            width = int(np.ceil(choices[i].cost_ms / step - 1e-9))
            if width <= STEPS:
                trial[i, width:] = best[: STEPS + 1 - width] + choices[i].agreement
        rank = np.array(ordered)
        pick = rank[trial[rank].argmax(axis=0)]  # the first, that is the dearest, of equals
        taken.append(pick)
        best = trial[pick, np.arange(STEPS + 1)]
    return _trace_back(options, taken, step)


def _trace_back(
    options: Mapping[str, Sequence[Option[How]]],
    taken: Sequence[np.ndarray[tuple[int], np.dtype[np.intp]]],
    step: float,
) -> dict[str, Option[How]]:
    chosen: dict[str, Option[How]] = {}
    left = STEPS
    for (model, choices), pick in reversed(list(zip(options.items(), taken, strict=True))):
        option = choices[int(pick[left])]
        chosen[model] = option
        left -= int(np.ceil(option.cost_ms / step - 1e-9))
    return {m: chosen[m] for m in options}


def within_memory(options: Mapping[str, Sequence[Option[How]]], costs: Costs, budget: Budget) -> dict[str, Option[How]]:
    """Choose one option per model so that all models that ever execute fit into memory together, and each into a frame.

    Every set of models that fits and cannot be grown is tried, up to 12 models; beyond, one set is grown greedily by
    gain per gigabyte. A model outside the set, or too slow for any frame, takes its cheapest option.
    """
    limit, in_time = budget.time_ms(costs), budget.in_time(costs)  # a mean over frames is within a limit on each
    results = []
    for loaded in _largest_sets(options, costs, budget):
        runs = loaded.intersection(in_time)
        idle = {m: list(o) if m in runs else [min(o, key=lambda x: x.cost_ms)] for m, o in options.items()}
        results.append(best_options(idle, limit))
    return max(results, key=lambda chosen: sum(o.agreement for o in chosen.values()))


def _largest_sets(options: Mapping[str, Sequence[Option[How]]], costs: Costs, budget: Budget) -> list[frozenset[str]]:
    models, room = tuple(options), budget.memory_limit() + 1e-9
    if costs.memory(models) <= room:
        return [frozenset(models)]
    if len(models) > EXACT_UP_TO:
        gain = {m: max(o.agreement for o in c) - min(c, key=lambda x: x.cost_ms).agreement for m, c in options.items()}
        loaded: list[str] = []
        for m in sorted(models, key=lambda m: -gain[m] / max(costs.memory_gb[m], 1e-9)):
            if costs.memory([*loaded, m]) <= room:
                loaded.append(m)
        return [frozenset(loaded)]
    return fitting_sets(models, costs, budget)


def fitting_sets(models: Sequence[str], costs: Costs, budget: Budget) -> list[frozenset[str]]:
    """Return all sets of models that fit into memory and cannot be grown; for up to `EXACT_UP_TO` models."""
    room = budget.memory_limit() + 1e-9
    fitting = [
        frozenset(s)
        for count in range(len(models), -1, -1)
        for s in combinations(models, count)
        if costs.memory(s) <= room
    ]
    largest: list[frozenset[str]] = []
    for s in fitting:
        if not any(s < other for other in largest):
            largest.append(s)
    return largest
