"""`periodic`: execute each model every k-th frame and repeat its last value in between.

The intervals are the best there are under the budget, found on the warm-up: what a value is still worth after so many
frames is measured there for each model, and the intervals that give most in total are chosen exactly
(`camlink.operators.baselines.options`). Models take turns: those longest overdue execute first.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.operators.baselines.options import Option, within_memory
from camlink.operators.baselines.repeating import Repeating
from camlink.operators.baselines.warmup import Array
from camlink.operators.policy import FrameFacts, PolicySetup

NEVER = inf
LONGEST = 4096  # frames; beyond, a model may as well not execute


class Periodic(Repeating[float]):
    """One camera's staggered refresh: each model's interval in frames."""

    def begin(self, frame: FrameFacts) -> None:
        """Take in the next frame."""
        self._frame = frame
        for model in self._since:
            self._since[model] += 1

    def _tune(self) -> dict[str, float]:
        self._since = {m: float(place) for place, m in enumerate(self._setup.specs, start=1)}  # staggered
        return tune(self._setup, self._warm_up.samples())

    def _is_ever(self, how: float) -> bool:
        return how < NEVER

    def _due(self) -> dict[str, float]:
        return {m: self._since[m] / k for m, k in self._tuned().items() if self._since[m] >= k}


def tune(setup: PolicySetup, samples: Mapping[str, Array]) -> dict[str, float]:
    """Return each model's interval in frames, `NEVER` for one that need not run. Warm-up: model -> (n, size).

    A model that others have samples beside, and itself has none, failed: it would run in vain.
    """
    options = {
        m: interval_options(spec, samples.get(m, np.zeros((0, spec.size), np.float32)), setup.costs.time_ms[m])
        if m in samples or not samples
        else [Option(0.0, 0.0, NEVER)]
        for m, spec in setup.specs.items()
    }
    return {m: option.how for m, option in within_memory(options, setup.costs, setup.budget).items()}


def interval_options(spec: OutputSpec, values: Array, time_ms: float) -> list[Option[float]]:
    """Return what each interval costs and gives, from a model's values (n, size) on consecutive frames.

    With interval k the answers are 0, 1, ..., k - 1 frames old in equal shares.
    """
    longest = max(1, min(LONGEST, len(values) // 2))
    worth = _worth_by_age(spec, values, longest)
    total = np.cumsum(worth)
    options = [Option(time_ms / k, float(total[k - 1]) / k, float(k)) for k in _grid(longest)]
    return [*options, Option(0.0, float(worth[len(worth) // 2 :].mean()) if len(values) > 1 else 0.0, NEVER)]


def _grid(longest: int) -> list[int]:
    """Every interval up to 16, then ever wider steps of about a tenth."""
    grid = [k for k in range(1, 17) if k <= longest]
    while grid and grid[-1] < longest:
        grid.append(min(longest, max(grid[-1] + 1, round(grid[-1] * 1.1))))
    return grid


def _worth_by_age(spec: OutputSpec, values: Array, ages: int) -> NDArray[np.float64]:
    """Return the mean agreement of a value with that of so many frames later: (ages,); measured on a grid of ages."""
    known = [0, *(age for age in _grid(ages) if age < ages)]
    measured = [1.0, *(float(agreement(spec, values[:-age], values[age:]).mean()) for age in known[1:])]
    return np.interp(np.arange(ages), known, measured)
