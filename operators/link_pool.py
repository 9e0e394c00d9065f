"""How far links are believed: the weights of one set of sources towards one target, learnt online."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camlink.operators.belief import Frequencies, Levels
from camlink.operators.compiled import compiled
from camlink.operators.policy_state import State, array

FORGET = 0.98  # of what weights were learnt from, per step: what goes with what changes with the hour
OWN = 2  # features of a model's own evidence (`camlink.operators.own_evidence`)
FIRST_OWN = 0.2  # weight of each of these to begin with
FIRST = (0.15, 0.15, 0.4)  # and of the tables: they have to earn more
CERTAIN = (20.0, 10.0)  # how firmly that is held, for P0 and for all others
PULL = 0.02  # towards the first weights, per step
LONGEST_STEP = 0.2
HEAVIEST = 2.5
LEAST = 1e-4  # P(level), in logs
MOST_SOURCES = 5  # of one pool: the largest log of a level's odds is then 5 * 2.5 * 55, which a float's exponent holds
Array = NDArray[np.float64]


class Known(NamedTuple):
    """What is known of a model on a frame without links."""

    features: Array  # logs of P(level), and of what its own evidence tells besides (1 + OWN, E * levels)
    usual: Frequencies  # P(level) in general (E, levels)
    last: Levels  # executed last (E,)
    tells: bool  # whether its own evidence tells anything

    @classmethod
    def of(cls, chances: Frequencies, usual: Frequencies, last: Levels) -> Known:
        """Return that P(level) is ``chances`` (E, levels), and nothing besides."""
        features = np.zeros((1 + OWN, chances.size))
        features[0] = np.log(chances.reshape(-1) + LEAST)
        return cls(features, usual, last, False)


class Pool:
    """The weights of one set of sources towards one target. F features: P0's, its own `OWN`, and three per source."""

    def __init__(self, sources: int) -> None:
        if sources > MOST_SOURCES:
            raise ValueError(f"a pool of {sources} sources; at most {MOST_SOURCES}")
        self._first = np.array([1.0] + [FIRST_OWN] * OWN + [first / sources**0.7 for first in FIRST * sources])
        self._firm = np.array([CERTAIN[0]] + [CERTAIN[1]] * (OWN + 3 * sources))
        self.weights = self._first.copy()
        self.curvature = np.zeros((len(self.weights), len(self.weights)))

    def mix(self, features: Array, entries: int) -> Frequencies:
        """Return P(level) (E, levels) from ``features`` (F, E * levels)."""
        return _mix(self.weights, features, entries)

    def learn(self, features: Array, said: Levels, weight: float, frames: int = 1) -> None:
        """Take a Newton step on the surprise at what was said (E,), on a frame that stands for so many."""
        self.weights = _newton(self.weights, self.curvature, self._first, self._firm, features, said, weight, frames)

    def start_from(self, first: Array, alike: float) -> None:
        """Put what was learnt on another beginning: on ``first`` (F,), as far as that is ``alike``, 0..1."""
        beginning = self._first + alike * (first - self._first)
        moved = np.linalg.solve(self.curvature + np.diag(self._firm), self._firm * (beginning - self._first))
        self._first, self.weights = beginning, np.minimum(np.maximum(self.weights + moved, 0.0), HEAVIEST)

    def state(self) -> State:
        """Return the weights, where they began and what they were learnt from, for a snapshot."""
        return {"weights": self.weights, "curvature": self.curvature, "first": self._first}

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        self.weights, self.curvature = array(state["weights"], self.weights), array(state["curvature"], self.curvature)
        self._first = array(state["first"], self._first)


@compiled
def _mix(weights: Array, features: Array, entries: int) -> Frequencies:
    levels = features.shape[1] // entries
    chances = np.zeros((entries, levels))
    for e in range(entries):
        total = 0.0
        for level in range(levels):
            logs = 0.0
            for f in range(len(weights)):
                logs += weights[f] * features[f, e * levels + level]
            chances[e, level] = np.exp(logs)
            total += chances[e, level]
        for level in range(levels):
            chances[e, level] /= total
    return chances


@compiled
def _solve(lower: Array, right: Array) -> Array:
    """Solve a positive definite system (n, n), of which the lower triangle is used up, by Cholesky's method.

    What numba has for this asks for SciPy and takes seconds to compile.
    """
    size = len(right)
    solved = right.copy()
    for i in range(size):
        for j in range(i + 1):
            left = lower[i, j]
            for k in range(j):
                left -= lower[i, k] * lower[j, k]
            lower[i, j] = np.sqrt(left) if i == j else left / lower[j, j]
        for k in range(i):
            solved[i] -= lower[i, k] * solved[k]
        solved[i] /= lower[i, i]
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            solved[i] -= lower[k, i] * solved[k]
        solved[i] /= lower[i, i]
    return solved


@compiled
def _newton(
    weights: Array,
    curvature: Array,
    first: Array,
    firm: Array,
    features: Array,
    said: Levels,
    weight: float,
    frames: int,
) -> Array:
    """Return the weights after a step, and leave in ``curvature`` what was learnt from by now."""
    size = len(weights)
    fade = FORGET**frames
    for f in range(size):
        for g in range(size):
            curvature[f, g] *= fade
    chances = _mix(weights, features, len(said))
    slope = _surprise(features, chances, said, frames * weight / len(said), curvature)
    held, pull, moved = curvature.copy(), np.empty(size), np.empty(size)
    for f in range(size):
        held[f, f] += firm[f]
        pull[f] = frames * (weight * slope[f] + PULL * firm[f] * (first[f] - weights[f]))
    step = _solve(held, pull)
    for f in range(size):
        moved[f] = weights[f] + min(max(step[f], -LONGEST_STEP), LONGEST_STEP)
        moved[f] = min(max(moved[f], 0.0), HEAVIEST)
    return moved


@compiled
def _surprise(features: Array, chances: Frequencies, said: Levels, share: float, curvature: Array) -> Array:
    """Return the slope (F,) of the log likelihood of what was said, and add its curvature, by ``share``."""
    size, (entries, levels) = len(features), chances.shape
    slope, mean = np.zeros(size), np.zeros(size)
    for e in range(entries):
        for f in range(size):
            mean[f] = 0.0
        for level in range(levels):
            at = e * levels + level
            for f in range(size):
                expected = chances[e, level] * features[f, at]
                mean[f] += expected
                for g in range(size):
                    curvature[f, g] += share * expected * features[g, at]
        for f in range(size):
            slope[f] += (features[f, e * levels + said[e]] - mean[f]) / entries
            for g in range(size):
                curvature[f, g] -= share * mean[f] * mean[g]
    return slope
