"""Counts as distributions: the paper's metric (|error| < 0.5) rewards the most probable count, not the mean.

A count link does not regress the count, it says for each entry and each level k how probable "more than k" is
(ordinal regression by thresholds; Frank and Hall, ECML 2001). Neighbouring counts share what they learn, the most
probable count is served, and its probability is the confidence.

>>> code = CountCode((2, 1))
>>> code.encode(np.array([[2, 0], [1, 1]], np.float32)).tolist()
[[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
>>> value, chance = code.most_probable(np.array([0.9, 0.2, 0.1], np.float32))
>>> value.tolist(), chance.round(2).tolist()
([1.0, 0.0], [0.7, 0.9])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array
from camlink.models.base import OutputSpec

MAX_LEVELS = 64  # beyond this many levels in one entry, thresholds cost more than they tell


@dataclass(frozen=True)
class CountCode:
    """How counts are written as thresholds: entry e has ``levels[e]`` of them, "more than 0", "more than 1", ..."""

    levels: tuple[int, ...]

    @classmethod
    def of(cls, counts: Array) -> Self:
        """Return the code that can say every count seen in ``counts`` (n, size)."""
        return cls(tuple(max(1, int(np.ceil(top))) for top in counts.max(axis=0)))

    @property
    def width(self) -> int:
        """Number of thresholds over all entries."""
        return sum(self.levels)

    def spec(self, target: OutputSpec) -> OutputSpec:
        """Return the output space of a link that predicts the thresholds of ``target``: independent yes-or-no's."""
        return OutputSpec(target.model, "vector", self.width, "multi_label")

    def encode(self, counts: Array) -> Array:
        """Write counts (..., size) as thresholds (..., width), 1 where the count is higher. Too high ones saturate."""
        return (counts.take(self.entry, axis=-1) > self.level).astype(np.float32)

    def most_probable(self, more_than: Array) -> tuple[Array, NDArray[np.float64]]:
        """Turn P(count > k) (..., width) into the most probable counts (..., size) and their probabilities."""
        # Thresholds first, frames last: every step below then runs along memory.
        frames = more_than.reshape(-1, self.width).T
        ends = np.empty((self.width + 2, frames.shape[1]), dtype=np.float32)
        ends[:-2] = frames
        ends[-2] = 1.0
        ends[-1] = 0.0
        survival = ends.take(self.places, axis=0)  # (levels + 2, size, frames): 1, P(> 0), ..., 0
        np.minimum.accumulate(survival, axis=0, out=survival)
        chance = survival[:-1] - survival[1:]
        best = chance.argmax(axis=0)
        surest = np.maximum.reduce(chance)
        shape = (*more_than.shape[:-1], len(self.levels))
        return best.T.astype(np.float32).reshape(shape), surest.T.astype(np.float64).reshape(shape)

    @cached_property
    def entry(self) -> NDArray[np.intp]:
        """The entry that each threshold belongs to: (width,)."""
        return np.repeat(np.arange(len(self.levels)), self.levels)

    @cached_property
    def level(self) -> Array:
        """What a count must exceed for each threshold: (width,)."""
        return np.concatenate([np.arange(n) for n in self.levels]).astype(np.float32) + np.float32(0.5)

    @cached_property
    def places(self) -> NDArray[np.intp]:
        """Rows (levels + 2, size) in which each entry's P(count > -1) = 1, P(count > 0), ..., 0, 0, ... stand."""
        places = np.full((len(self.levels), max(self.levels) + 2), self.width + 1)
        places[:, 0] = self.width
        starts = np.cumsum([0, *self.levels[:-1]])
        for row, start, count in zip(places, starts, self.levels, strict=True):
            row[1 : count + 1] = np.arange(start, start + count)
        return np.ascontiguousarray(places.T)


def code_for(target: OutputSpec, samples: Sequence[Array] | Array) -> CountCode | None:
    """Return the code for a count target, or None where thresholds do not apply: other tasks, or very high counts."""
    if target.task != "count":
        return None
    code = CountCode.of(np.asarray(samples))
    return code if max(code.levels) <= MAX_LEVELS else None
