"""One frame, predicted in as few calls as possible: the same numbers as `Ensemble.predict`, in half the time.

On a single frame an array library spends its time on being called, not on numbers. So everything that is known before
the frame comes is worked into the arrays once: a weighted sum of perceptrons is one perceptron with their hidden units
side by side; what is believed of it, the constant it starts from and its sign go into the last layer; and that layer
writes the thresholds of a count at once where reading the most probable count wants them, with a certain "more than
-1" before them and an impossible "more than any" after them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array
from camlink.links.counts import CountCode
from camlink.links.memory import Memory, Recall
from camlink.links.vec_to_vec import VecToVec

SURE = 60.0  # log-odds that are as good as certain, and whose odds are still a float32
_ZERO, _ONE, _SURE = np.zeros(1, np.float32), np.ones(1, np.float32), np.full(1, SURE, np.float32)


@dataclass(frozen=True, eq=False)
class PlacedMemory:
    """A `Memory` with its entries where `CountCode.places` wants them: all (levels + 2) * size numbers."""

    memory: Memory
    entry: NDArray[np.intp]
    level: Array

    def doubt(self, recall: Recall) -> Array:
        """Return the odds against each threshold, given what the target said last."""
        last = (recall.value.take(self.entry) > self.level).astype(np.float32)
        chances = self.memory.chances(last, recall.age_s)
        odds = _ONE - chances
        odds /= chances
        return odds


@dataclass(frozen=True, eq=False)
class FramePredictor:
    """Predicts counts of one frame from these ``sources``: values (size,) -> value (target.size,), confidence."""

    sources: tuple[str, ...]
    shapes: list[tuple[int, ...]]  # of the values of one frame
    w1: Array  # (inputs of all sources, hidden units of all links)
    b1: Array
    w2: Array  # (hidden, (levels + 2) * size), to the log-odds against each threshold
    b2: Array
    size: int
    honesty: float
    memory: PlacedMemory | None

    def __call__(self, values: Mapping[str, Array], recall: Recall | None) -> tuple[Array, NDArray[np.float64]] | None:
        """Return value and confidence, or None where ``values`` are no finite ones of a single frame."""
        given = [values[s] for s in self.sources]
        if [value.shape for value in given] != self.shapes:
            return None
        x = given[0] if len(given) == 1 else np.concatenate(given)
        hidden = x.dot(self.w1)
        hidden += self.b1
        np.maximum(hidden, _ZERO, out=hidden)
        against = hidden.dot(self.w2)
        against += self.b2
        if not isfinite(against.dot(against)):
            return None
        np.minimum(against, _SURE, out=against)
        np.exp(against, out=against)
        if self.memory is not None and recall is not None:
            against *= self.memory.doubt(recall)
        against += _ONE
        np.reciprocal(against, out=against)
        survival = against.reshape(-1, self.size)
        np.minimum.accumulate(survival, axis=0, out=survival)
        chance = survival[:-1] - survival[1:]
        surest = np.maximum.reduce(chance)
        return chance.argmax(0).astype(np.float32), np.asarray(sum(surest.tolist()) * self.honesty / self.size)


def compiled(
    links: Mapping[str, VecToVec],
    weights: Sequence[float],
    code: CountCode,
    constant: Array,
    believed: tuple[float, float],
    memory: Memory | None,
) -> FramePredictor:
    """Work links, their ``weights`` (summing to 1) and what is ``believed`` (share, honesty) into one perceptron.

    ``constant`` (width,) is what the evidence is added to, unless a ``memory`` stands in its place.
    """
    share, honesty = believed
    parts = list(links.values())
    w2 = np.concatenate([link.w2 * np.float32(weight) for link, weight in zip(parts, weights, strict=True)])
    b2 = np.sum([link.b2 * np.float32(weight) for link, weight in zip(parts, weights, strict=True)], axis=0)
    evidence = np.float32(share) * (b2 - constant)
    offset = evidence if memory is not None else constant + evidence
    place = code.places.reshape(-1)
    certain = np.array([SURE, -SURE], np.float32)
    return FramePredictor(
        tuple(links),
        [(link.source.size,) for link in parts],
        _side_by_side([link.w1 for link in parts]),
        np.concatenate([link.b1 for link in parts]),
        np.ascontiguousarray(np.pad(-np.float32(share) * w2, ((0, 0), (0, 2)))[:, place], np.float32),
        np.concatenate([-offset, -certain])[place].astype(np.float32),
        len(code.levels),
        honesty,
        None if memory is None else _placed(memory, code, place),
    )


def _placed(memory: Memory, code: CountCode, place: NDArray[np.intp]) -> PlacedMemory:
    entry = np.concatenate([code.entry, [0, 0]])[place]
    level = np.concatenate([code.level, [-np.inf, np.inf]])[place].astype(np.float32)
    base, steady = (
        np.concatenate([part, ends])[place] for part, ends in ((memory.base, [1, 0]), (memory.steady, [0, 0]))
    )
    lifetime_s = np.concatenate([memory.lifetime_s, [1, 1]])[place]
    return PlacedMemory(Memory(*(part.astype(np.float32) for part in (base, steady, lifetime_s))), entry, level)


def _side_by_side(matrices: Sequence[Array]) -> Array:
    """Return the block-diagonal matrix of these."""
    rows, columns = (sum(m.shape[axis] for m in matrices) for axis in (0, 1))
    out = np.zeros((rows, columns), np.float32)
    row = column = 0
    for matrix in matrices:
        out[row : row + matrix.shape[0], column : column + matrix.shape[1]] = matrix
        row, column = row + matrix.shape[0], column + matrix.shape[1]
    return out
