"""How far links are believed: the weights of one set of sources towards one target, learnt online."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camlink.operators.belief import Frequencies, Levels
from camlink.operators.link_loops import HEAVIEST, Held, mix, newton
from camlink.operators.policy_state import State, array

OWN = 2  # features of a model's own evidence (`camlink.operators.own_evidence`)
FIRST_OWN = 0.2  # weight of each of these to begin with
FIRST = (0.15, 0.15, 0.4)  # and of the tables: they have to earn more
CERTAIN = (20.0, 10.0)  # how firmly that is held, for P0 and for all others
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
        self._curvature = np.zeros((len(self.weights), len(self.weights)))
        self._bind()

    def _bind(self) -> None:
        self.held: Held = self.weights, self._curvature, self._first, self._firm  # `newton` writes the first two of

    def mix(self, features: Array, entries: int) -> Frequencies:
        """Return P(level) (E, levels) from ``features`` (F, E * levels)."""
        return mix(self.weights, features, entries)

    def learn(self, features: Array, said: Levels, weight: float, frames: int = 1, *, source: int = -1) -> None:
        """Take a Newton step on the surprise at what was said (E,), on a frame that stands for so many.

        ``source``: the number of this pool's only source among those of the ``features``, where they are of several.
        """
        newton(self.held, features, source, said, weight, frames)

    def start_from(self, first: Array, alike: float) -> None:
        """Put what was learnt on another beginning: on ``first`` (F,), as far as that is ``alike``, 0..1."""
        beginning = self._first + alike * (first - self._first)
        # Of the curvature only the lower triangle is kept up.
        curvature = np.tril(self._curvature) + np.tril(self._curvature, -1).T
        moved = np.linalg.solve(curvature + np.diag(self._firm), self._firm * (beginning - self._first))
        self._first, self.weights = beginning, np.minimum(np.maximum(self.weights + moved, 0.0), HEAVIEST)
        self._bind()

    def state(self) -> State:
        """Return the weights, where they began and what they were learnt from, for a snapshot."""
        return {"weights": self.weights, "curvature": self._curvature, "first": self._first}

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        self.weights = array(state["weights"], self.weights)
        self._curvature = array(state["curvature"], self._curvature)
        self._first = array(state["first"], self._first)
        self._bind()
