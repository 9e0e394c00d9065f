"""What executing a model is worth now and for the frames after, and the price per millisecond that a budget sets.

An execution serves its own frame, and then those that reuse it until it has gone stale. Each model is a restless
bandit arm whose state is how stale its last output is; Whittle's index of a state is the price at which executing and
waiting are equally good, and executing whatever has the highest index per cost is close to the best there is (Whittle
1988; for age of information: Kadota et al., "Scheduling policies for minimizing age of information", 2018). With an
error that grows with staleness the index is the area between the error now and the error that fresh outputs would have
had, over the time it takes to become this stale.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, inf, log

import numpy as np

AGES = tuple(float(a) for a in np.unique(np.geomspace(1, 4096, 40).round()))  # steps
_AGES = np.array(AGES)
HIGHEST, LOWEST = 10.0, 1e-9  # prices looked at, in expected agreement per ms
_BISECTIONS = 24


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of one model besides the present frame.

    ``stale`` and ``renewed``: expected disagreement of the last and of a new output, once gone; ``steady``: freshness
    at once; ``hazard``: chance of change per step; ``time_ms``: what it costs.
    """

    stale: float
    renewed: float
    steady: float
    hazard: float
    time_ms: float

    def worth(self, wrong: float, gone: float) -> float:
        """Return the agreement gained by executing, where not to would be ``wrong`` and the last output is ``gone``.

        Summed over this frame and those after, 0 or more.
        """
        hazard = self.hazard
        frames = -log(max(1.0 - gone, 1e-6)) / hazard - 1.0  # steps it takes to become this stale, less this one
        stays = self.steady * (1.0 - gone)
        stays += (1.0 - stays) * (1.0 - self.stale)
        after = stays * self.stale + (1.0 - stays) * max(self.renewed, self.stale)  # disagreement, once gone again
        if frames <= 0.0 or after < 1e-9:
            return wrong
        left = (1.0 - wrong / after) / self.steady  # of the freshness, when a new output is as wrong as the old is now
        if left >= 1.0:
            return wrong
        if left > 0.0:
            frames = min(frames, -log(left) / hazard)
        decay = exp(-hazard)
        area = frames * (wrong - after) + after * self.steady * decay * (1.0 - exp(-hazard * frames)) / (1.0 - decay)
        return wrong + max(area, 0.0)

    def wrong_at(self, age: float) -> float:
        """Return the expected disagreement ``age`` steps after an execution."""
        return (1.0 - self.steady * exp(-self.hazard * age)) * self.stale

    def worths(self) -> list[float]:
        """Return what executing is worth at each of `AGES`; it never falls with age. It is `worth`, of all at once."""
        hazard, steady, stale = self.hazard, self.steady, self.stale
        aged = np.minimum(hazard * _AGES, 13.0)
        wrong = (1.0 - steady * np.exp(-hazard * _AGES)) * stale
        stays = steady * np.exp(-aged)
        stays += (1.0 - stays) * (1.0 - stale)
        after = stays * stale + (1.0 - stays) * max(self.renewed, stale)
        left = (1.0 - wrong / np.maximum(after, 1e-9)) / steady
        frames = np.minimum(aged - hazard, -np.log(np.maximum(left, 1e-12))) / hazard
        decay = exp(-hazard)
        area = frames * (wrong - after) + after * (1.0 - np.exp(-hazard * frames)) * (steady * decay / (1.0 - decay))
        area *= (aged > hazard) & (after >= 1e-9) & (left < 1.0)
        worths: list[float] = np.maximum.accumulate(wrong + np.maximum(area, 0.0)).tolist()
        return worths

    def mean_wrong(self, interval: float) -> float:
        """Return the mean expected disagreement when executing every ``interval`` steps."""
        if interval == inf:
            return self.stale
        decay, others = exp(-self.hazard), max(interval - 1.0, 0.0)
        fresh = self.steady * decay * (1.0 - exp(-self.hazard * others)) / (1.0 - decay)
        return (others - fresh) * self.stale / max(interval, 1.0)

    def answer_wrong(self, interval: float) -> float:
        """Return the mean expected disagreement of the answers in between; 0 where there are none."""
        if interval <= 1.0:
            return 0.0
        return self.stale if interval == inf else self.mean_wrong(interval) * interval / (interval - 1.0)


class Prices:
    """Which price makes models execute how often, for the `Outlook`s given."""

    def __init__(self, outlooks: Sequence[Outlook]) -> None:
        self._outlooks = outlooks
        self._curves = [(o.worths(), o.time_ms) for o in outlooks]

    def intervals(self, price: float) -> list[float]:
        """Return the steps between executions of each model at ``price`` per ms; inf for never."""
        return [_interval(curve, price * ms) for curve, ms in self._curves]

    def for_time(self, ms_per_step: float) -> float:
        """Return the lowest price at which executing costs no more than ``ms_per_step``."""

        def affordable(price: float) -> bool:
            intervals = self.intervals(price)
            return sum(ms / i for (_, ms), i in zip(self._curves, intervals, strict=True)) <= ms_per_step

        return _boundary(affordable)

    def for_agreement(self, target: float) -> float:
        """Return the highest price at which the expected agreement, averaged over models, is ``target`` or more."""
        allowed = (1.0 - target) * len(self._outlooks)

        def too_dear(price: float) -> bool:
            intervals = self.intervals(price)
            return sum(o.mean_wrong(i) for o, i in zip(self._outlooks, intervals, strict=True)) > allowed

        return _boundary(too_dear)

    def for_answers(self, target: float) -> float:
        """Return the highest price at which the expected agreement of answers, between executions, is ``target``.

        That of one model, or the mean over models. Where not even the first answer after an execution agrees as often,
        the lowest price there is, at which everything executes.
        """
        allowed = (1.0 - target) * len(self._outlooks)

        def too_dear(price: float) -> bool:
            intervals = self.intervals(price)
            return sum(o.answer_wrong(i) for o, i in zip(self._outlooks, intervals, strict=True)) > allowed

        return _boundary(too_dear)


def _interval(curve: Sequence[float], worth: float) -> float:
    """Return the age at which ``curve``, by `AGES`, reaches ``worth``: between two of them, in proportion."""
    if worth > curve[-1]:
        return inf
    if worth <= curve[0]:
        return 1.0
    after = bisect_right(curve, worth)
    if after == len(curve):
        return AGES[-1]
    low, high = curve[after - 1], curve[after]
    return AGES[after - 1] + (AGES[after] - AGES[after - 1]) / (high - low) * (worth - low)


def _boundary(holds_above: Callable[[float], bool]) -> float:
    """Return the price from which on ``holds_above`` is true, to a thousandth."""
    low, high = log(LOWEST), log(HIGHEST)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if holds_above(exp(middle)):
            high = middle
        else:
            low = middle
    return exp(0.5 * (low + high))
