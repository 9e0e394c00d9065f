"""What executing a model is worth now and for the frames after, and the price per millisecond that a budget sets.

An execution serves its own frame, and then those that reuse it until it has gone stale. Each model is a restless
bandit arm whose state is how stale its last output is; Whittle's index of a state is the price at which executing and
waiting are equally good, and executing whatever has the highest index per cost is close to the best there is (Whittle
1988; for age of information: Kadota et al., "Scheduling policies for minimizing age of information", 2018). With an
error that grows with staleness the index is the area between the error now and the error that fresh outputs would have
had, over the time it takes to become this stale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, inf, log

import numpy as np
from numpy.typing import NDArray

from camlink.operators.compiled import compiled

AGES = tuple(float(a) for a in np.unique(np.geomspace(1, 4096, 40).round()))  # steps
_AGES = np.array(AGES)
HIGHEST, LOWEST = 10.0, 1e-9  # prices looked at, in expected agreement per ms
_BISECTIONS = 24
_FAR = 13.0  # hazard that has added up, beyond which all is gone
Array = NDArray[np.float64]


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
        return _worth(wrong, gone, self.stale, self.renewed, self.steady, self.hazard)

    def worths(self) -> Array:
        """Return what executing is worth at each of `AGES`; it never falls with age."""
        return _worths(self.stale, self.renewed, self.steady, self.hazard)

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
        self._curves = np.array([o.worths() for o in outlooks]).reshape(-1, len(AGES))
        self._times_ms = np.array([o.time_ms for o in outlooks], np.float64)

    def intervals(self, price: float) -> list[float]:
        """Return the steps between executions of each model at ``price`` per ms; inf for never."""
        pairs = zip(self._curves, self._times_ms.tolist(), strict=True)
        return [_interval(curve, price * time_ms) for curve, time_ms in pairs]

    def for_time(self, ms_per_step: float) -> float:
        """Return the lowest price at which executing costs no more than ``ms_per_step``."""

        return _boundary(lambda price: _cost(self._curves, self._times_ms, price) <= ms_per_step)

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


@compiled
def _worth(wrong: float, gone: float, stale: float, renewed: float, steady: float, hazard: float) -> float:
    frames = -log(max(1.0 - gone, 1e-6)) / hazard - 1.0  # steps it takes to become this stale, less this one
    stays = steady * (1.0 - gone)
    stays += (1.0 - stays) * (1.0 - stale)
    after = stays * stale + (1.0 - stays) * max(renewed, stale)  # disagreement, once gone again
    if frames <= 0.0 or after < 1e-9:
        return wrong
    left = (1.0 - wrong / after) / steady  # of the freshness, when a new output is as wrong as the old is now
    if left >= 1.0:
        return wrong
    if left > 0.0:
        frames = min(frames, -log(left) / hazard)
    decay = exp(-hazard)
    area = frames * (wrong - after) + after * steady * decay * (1.0 - exp(-hazard * frames)) / (1.0 - decay)
    return wrong + max(area, 0.0)


@compiled
def _worths(stale: float, renewed: float, steady: float, hazard: float) -> Array:
    worths = np.empty(len(_AGES))
    for i in range(len(_AGES)):
        aged = min(hazard * _AGES[i], _FAR)
        wrong = (1.0 - steady * exp(-hazard * _AGES[i])) * stale
        worths[i] = _worth(wrong, 1.0 - exp(-aged), stale, renewed, steady, hazard)
        if i:
            worths[i] = max(worths[i], worths[i - 1])
    return worths


@compiled
def _interval(curve: Array, worth: float) -> float:
    """Return the age at which ``curve``, by `AGES`, reaches ``worth``: between two of them, in proportion."""
    if worth > curve[-1]:
        return inf
    if worth <= curve[0]:
        return 1.0
    after = 1
    while curve[after] <= worth:
        after += 1
        if after == len(curve):
            return float(_AGES[-1])
    low, high = curve[after - 1], curve[after]
    return float(_AGES[after - 1] + (_AGES[after] - _AGES[after - 1]) / (high - low) * (worth - low))


@compiled
def _cost(curves: Array, times_ms: Array, price: float) -> float:
    """Return what executing costs at a price, in ms per step."""
    cost = 0.0
    for model in range(len(times_ms)):
        cost += times_ms[model] / _interval(curves[model], price * times_ms[model])
    return cost
