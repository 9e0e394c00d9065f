"""What the target said last time, and how fast that goes stale: context that is free, since it was executed anyway.

The chance of each label, or of each "more than k" of a count, is taken as

    freshness * (what was executed last) + (1 - freshness) * (how often it is so)
    freshness = steady * exp(-age / lifetime)

with two numbers per entry, found on the training frames by likelihood. A link's evidence is then added to this in
log-odds instead of to the constant: P(y | x, last) ~ P(y | last) P(y | x) / P(y), as if x and last were independent
given y. After long silence nothing but the link remains. On footage this is worth more than a better link
(`benchmarks/links/accuracy.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array

STEADY = (0.0, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
LIFETIME_STEPS = 13  # lifetimes tried: the median spacing of the frames, doubled each time
LOOK_BACK = (1, 2, 4, 8)  # pairs of samples so many places apart: serving asks for ages of one or two spacings
SURE = 1e-3  # probabilities are kept this far from 0 and 1
_LEAST, _MOST = np.full(1, SURE, np.float32), np.full(1, 1.0 - SURE, np.float32)
Times = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Recall:
    """The last executed value of a target, as served (size,), and its age in seconds (event time)."""

    value: Array  # (..., size)
    age_s: float | Times


@dataclass(frozen=True, eq=False)
class Memory:
    """``base``: how often each entry is so; all (width,) of the coded target, probabilities in 0..1."""

    base: Array
    steady: Array
    lifetime_s: Array

    def chances(self, last: Array, age_s: float | Times) -> Array:
        """last (..., width) in 0..1, age (...,) in seconds -> probabilities (..., width), never quite 0 or 1."""
        if isinstance(age_s, np.ndarray):
            chances = np.maximum(age_s, 0.0)[..., None] * self._fading
        else:
            chances = np.float32(max(age_s, 0.0)) * self._fading
        # In place from here: on one frame, calls are all that costs.
        chances = np.exp(chances, dtype=np.float32)
        chances *= self.steady
        chances *= last - self.base
        chances += self.base
        np.maximum(chances, _LEAST, out=chances)
        return np.minimum(chances, _MOST, out=chances)

    @cached_property
    def _fading(self) -> Array:
        return np.asarray(-1.0 / self.lifetime_s, dtype=np.float32)


def base_rates(coded: Array) -> Array:
    """Return how often each entry is so, a little off 0 and 1: coded (n, width) in 0..1 -> (width,)."""
    return np.asarray((coded.sum(axis=0) + 0.5) / (len(coded) + 1.0), dtype=np.float32)


def fit_memory(coded: Array, times_s: Times) -> Memory:
    """Find, per entry, the two numbers that make later frames most probable given earlier ones.

    ``coded`` (n, width) in 0..1, ``times_s`` (n,) ascending. With fewer than two frames nothing is remembered.
    """
    base = base_rates(coded)
    width = coded.shape[1]
    steady, lifetime_s = np.zeros(width, np.float32), np.ones(width, np.float32)
    later, earlier = earlier_frames(len(coded))
    if not len(later):
        return Memory(base, steady, lifetime_s)
    age, last, now = times_s[later] - times_s[earlier], coded[earlier], coded[later]
    best = _surprise(Memory(base, steady, lifetime_s).chances(last, age), now)
    for share, lifetime in _candidates(times_s):
        trial = Memory(base, np.full(width, share, np.float32), np.full(width, lifetime, np.float32))
        surprise = _surprise(trial.chances(last, age), now)
        better = surprise < best - 1e-9
        best[better] = surprise[better]
        steady[better], lifetime_s[better] = share, lifetime
    return Memory(base, steady, lifetime_s)


def earlier_frames(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return pairs (later, earlier) of sample numbers, near and far ones alike."""
    pairs = [(np.arange(back, count), np.arange(count - back)) for back in LOOK_BACK if back < count]
    if not pairs:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    later, earlier = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return later, earlier


def _candidates(times_s: Times) -> Iterator[tuple[float, float]]:
    spacing = max(float(np.median(np.diff(times_s))), 1e-3)
    for steady in STEADY[1:]:
        for doubling in range(LIFETIME_STEPS):
            yield steady, spacing * 2.0**doubling


def _surprise(chances: Array, now: Array) -> NDArray[np.float64]:
    """Mean log loss per entry: chances, now (pairs, width) -> (width,)."""
    loss: NDArray[np.float64] = -(now * np.log(chances) + (1.0 - now) * np.log1p(-chances)).astype(np.float64)
    return np.asarray(loss.mean(axis=0))
