"""How far links are believed: the weights of one set of sources towards one target, learnt online."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camlink.operators.belief import ONES, Frequencies, Levels
from camlink.operators.policy_state import State, array

FORGET = 0.98  # of what weights were learnt from, per step: what goes with what changes with the hour
OWN = 2  # features of a model's own evidence (`camlink.operators.own_evidence`)
FIRST_OWN = 0.2  # weight of each of these to begin with
FIRST = (0.15, 0.15, 0.4)  # and of the tables: they have to earn more
CERTAIN = (20.0, 10.0)  # how firmly that is held, for P0 and for all others
PULL = 0.02  # towards the first weights, per step
LONGEST_STEP = 0.2
HEAVIEST = 2.5
MOST_SOURCES = 5  # of one pool: the largest log of a level's odds is then 5 * 2.5 * 55, which a float's exponent holds
Array = NDArray[np.float64]


class Pool:
    """The weights of one set of sources towards one target. F features: P0's, its own `OWN`, and three per source."""

    def __init__(self, sources: int) -> None:
        if sources > MOST_SOURCES:
            raise ValueError(f"a pool of {sources} sources; at most {MOST_SOURCES}")
        self._first = np.array([1.0] + [FIRST_OWN] * OWN + [first / sources**0.7 for first in FIRST * sources])
        self._firm = np.array([CERTAIN[0]] + [CERTAIN[1]] * (OWN + 3 * sources))
        self._firmly, self._pull = np.diag(self._firm), PULL * self._firm
        self.weights = self._first.copy()
        self.curvature = np.zeros((len(self.weights), len(self.weights)))

    def mix(self, features: Array, entries: int) -> Frequencies:
        """Return P(level) (E, levels) from ``features`` (F, E * levels)."""
        logs = self.weights.dot(features).reshape(entries, -1)
        chances: Frequencies = np.exp(logs, out=logs)
        chances /= np.add.reduce(chances, axis=1, keepdims=True)
        return chances

    def learn(self, features: Array, said: Levels, weight: float, frames: int = 1) -> None:
        """Take a Newton step on the surprise at what was said (E,), on a frame that stands for so many."""
        chances, entries = self.mix(features, len(said)), len(said)
        expected = features * chances.reshape(-1)
        means = expected.reshape(len(features), entries, -1).dot(ONES[: chances.shape[1]])  # (F, E)
        found = features.take(np.arange(entries) * chances.shape[1] + said, axis=1)
        slope = (found - means).dot(ONES[:entries]) / entries
        self.curvature *= FORGET**frames
        self.curvature += (expected.dot(features.T) - means.dot(means.T)) * (frames * weight / entries)
        pull = frames * (weight * slope + self._pull * (self._first - self.weights))
        step = np.linalg.solve(self.curvature + self._firmly, pull)
        step = np.minimum(np.maximum(step, -LONGEST_STEP), LONGEST_STEP)
        self.weights = np.minimum(np.maximum(self.weights + step, 0.0), HEAVIEST)

    def start_from(self, first: Array, alike: float) -> None:
        """Put what was learnt on another beginning: on ``first`` (F,), as far as that is ``alike``, 0..1."""
        beginning = self._first + alike * (first - self._first)
        moved = np.linalg.solve(self.curvature + self._firmly, self._firm * (beginning - self._first))
        self._first, self.weights = beginning, np.minimum(np.maximum(self.weights + moved, 0.0), HEAVIEST)

    def state(self) -> State:
        """Return the weights, where they began and what they were learnt from, for a snapshot."""
        return {"weights": self.weights, "curvature": self.curvature, "first": self._first}

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        self.weights, self.curvature = array(state["weights"], self.weights), array(state["curvature"], self.curvature)
        self._first = array(state["first"], self._first)
