"""Sums over spans of event time that stay small however long a run lasts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

CAPACITY = 360


@dataclass(frozen=True)
class Filled:
    """The buckets that hold something, by time: ``starts_us`` (b,), ``sums`` (b, columns), and the values' range."""

    starts_us: Ints
    sums: Floats
    low: Floats  # NaN where no value came
    high: Floats
    width_us: int


class Buckets:
    """At most ``capacity`` spans of ``width_us``: the newest ones, or, if it ``grows``, all, in ever wider spans.

    >>> buckets = Buckets(columns=1, width_us=10, capacity=2, grows=True)
    >>> buckets.add(np.array([0, 5, 25]), np.ones((3, 1)), np.array([1.0, 3.0, 2.0]))
    >>> filled = buckets.read()
    >>> filled.starts_us.tolist(), filled.sums[:, 0].tolist(), filled.width_us
    ([0, 20], [2.0, 1.0], 20)
    """

    def __init__(self, columns: int, width_us: int, capacity: int = CAPACITY, *, grows: bool = False) -> None:
        self._width_us, self._capacity, self._grows = width_us, capacity, grows
        self._number = np.full(capacity, -1, np.int64)  # of the span that lies in each place; -1: none
        self._sums = np.zeros((capacity, columns))
        self._low, self._high = np.full(capacity, np.nan), np.full(capacity, np.nan)

    def add(self, times_us: Ints, sums: Floats, values: Floats) -> None:
        """Add rows at ``times_us`` (n,): ``sums`` (n, columns) to the sums, ``values`` (n,; NaN: none) to the range."""
        if not len(times_us):
            return
        number = times_us // self._width_us
        while self._grows and self._span_with(number) > self._capacity:
            self._widen()
            number = times_us // self._width_us
        newest = max(int(self._number.max()), int(number.max()))
        recent = number > newest - self._capacity
        self._put(number[recent], sums[recent], values[recent], values[recent])

    def read(self) -> Filled:
        """Return what is there, oldest first."""
        used = np.flatnonzero(self._number >= 0)
        order = used[np.argsort(self._number[used])]
        if len(order):
            order = order[self._number[order] > self._number[order[-1]] - self._capacity]
        starts = self._number[order] * self._width_us
        return Filled(starts, self._sums[order], self._low[order], self._high[order], self._width_us)

    def _span_with(self, number: Ints) -> int:
        used = self._number[self._number >= 0]
        everything = np.concatenate((used, number))
        return int(everything.max() - everything.min()) + 1

    def _widen(self) -> None:
        """Join neighbours two by two."""
        filled = self.read()
        self._width_us *= 2
        self._number[:] = -1
        number = filled.starts_us // self._width_us
        self._put(number, filled.sums, filled.low, filled.high)

    def _put(self, number: Ints, sums: Floats, low: Floats, high: Floats) -> None:
        place = number % self._capacity
        outdated = place[self._number[place] != number]
        self._number[place] = number
        self._sums[outdated] = 0.0
        self._low[outdated] = self._high[outdated] = np.nan
        np.add.at(self._sums, place, sums)
        np.fmin.at(self._low, place, low)
        np.fmax.at(self._high, place, high)
