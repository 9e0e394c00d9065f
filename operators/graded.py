"""Beliefs about outputs that agree by degrees: numbers, boxes, words.

The last output is repeated: of what changes little by little nothing else is as near. How wrong it is once gone follows
from how far it is from outputs of long ago, and how far these are from each other. For links an output is read as of a
*kind*: it is like one seen before (leader clustering; Hartigan, "Clustering Algorithms", 1975), and kinds are its
levels. So others tell whether it is still of its kind, and it tells others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.operators.belief import Frequencies, Guess, Levels, believed
from camlink.operators.policy_state import State, array
from camlink.operators.usual import HALF_LIFE, Usual
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Value

MOST_KINDS = 12  # the last one of all that is of no other
ALIKE = 0.5  # disagreement up to which an output is of a kind
FAR_EVERY, FAR = 8, 16  # executions between outputs that are kept for comparison, and their number
UNKNOWN = 0.5  # disagreement of outputs far apart, to begin with
OWN_SHARE = 0.25  # of how far this very output is from those, beside how far they usually are
_TINY = 1e-9
Array = NDArray[np.float64]


class Kind(NamedTuple):
    """An output as `Graded` reads it: the number of its kind (1,), and itself."""

    levels: Levels
    value: Value


class Graded:
    """For all tasks whose outputs agree by degrees."""

    repeats = True

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._seen = Usual(1, 1, ordered=False)
        self._kinds: list[Value] = []  # the first output of each
        self._far: deque[Value] = deque(maxlen=FAR)
        self._taken = 0
        self._value: Value = np.zeros(spec.size, np.float32)
        self.last: Levels = np.zeros(1, np.intp)
        self._lately = Kind(self.last, self._value)  # read last
        self.usual = self._seen.beside(self.last)[0]
        self.stale = self.renewed = UNKNOWN

    def read(self, value: Value) -> Kind:
        """Return of which kind ``value`` is; the next number for one unlike all others."""
        if value is not self._lately.value:
            self._lately = Kind(np.array([self._kind_of(value)]), value)
        return self._lately

    def levels(self, reading: Kind) -> Levels:
        """Return the number of the kind (1,)."""
        return reading.levels

    def _kind_of(self, value: Value) -> int:
        known = len(self._kinds)
        if not known:
            return 0
        apart = self._from_all(value, self._kinds)
        nearest = int(apart.argmin())
        return nearest if apart[nearest] <= ALIKE else min(known, MOST_KINDS - 1)

    def _from_all(self, value: Value, others: Sequence[Value]) -> Array:
        """Return how far ``value`` disagrees with each of the others (n,)."""
        if self._spec.task in ("regression", "box"):
            whole = np.stack(others)
            return 1.0 - agreement(self._spec, whole, np.broadcast_to(value, whole.shape)).astype(np.float64)
        return np.array([self._between(other, value) for other in others])  # these may differ in length

    def _between(self, old: Value, new: Value) -> float:
        return 1.0 - float(agreement(self._spec, old[None], new[None])[0])

    def take(self, value: Value) -> None:
        """Take in an executed output."""
        before, self.last = self.last, self.read(value).levels
        self._value = value
        if self.last[0] == len(self._kinds):
            self._kinds.append(value)
        self.usual = self._seen.take(before, self.last)[0]
        if self._far:
            own = float(self._from_all(value, self._far).mean())
            self.renewed += (own - self.renewed) / min(self._taken + 1.0, HALF_LIFE)
            known = OWN_SHARE * len(self._far) / FAR
            self.stale = known * own + (1.0 - known) * self.renewed
        if self._taken % FAR_EVERY == 0:
            self._far.append(value)
        self._taken += 1

    def guess(self, fresh: float) -> Guess:
        """Answer with the last output."""
        return self.settle(self.chances(fresh), fresh)

    def chances(self, fresh: float) -> Frequencies:
        """Return P(kind) (1, kinds)."""
        return believed(self.usual, self.last, fresh)

    def settle(self, chances: Frequencies, fresh: float) -> Guess:
        """Answer with the last output; ``chances`` say whether it is still of its kind."""
        last = int(self.last[0])
        same = fresh / max(fresh + (1.0 - fresh) * float(self.usual[0, last]), _TINY)  # of its kind, the very same
        wrong = (1.0 - same * float(chances[0, last])) * self.stale
        return Guess(self._value, wrong, True, Kind(self.last, self._value))

    def disagreement(self, old: Kind, new: Kind) -> float:
        """Return one minus the agreement of the task."""
        return self._between(old.value, new.value)

    def put_readings(self, readings: Sequence[Kind]) -> State:
        """Return kinds and values for a snapshot."""
        return {"kinds": [int(r.levels[0]) for r in readings], "values": [r.value for r in readings]}

    def get_readings(self, state: State) -> list[Kind]:
        """Read what `put_readings` wrote. Raises `StateError`."""
        pairs = zip(state["kinds"], self._values(state["values"]), strict=True)
        return [Kind(self._number(kind), value) for kind, value in pairs]

    def _values(self, found: Sequence[object]) -> list[Value]:
        like, free = self._value, () if self._spec.task in ("regression", "box") else (0,)
        return [array(value, like, free=free) for value in found]

    def _number(self, kind: int) -> Levels:
        if not 0 <= int(kind) < max(len(self._kinds), 1):
            raise StateError(f"not a snapshot: an output of kind {kind}, of {len(self._kinds)}")
        return np.array([int(kind)])

    def state(self) -> State:
        """Return what was learnt, for a snapshot."""
        return {
            "seen": self._seen.state(),
            "kinds": self._kinds,
            "far": list(self._far),
            "taken": self._taken,
            "value": self._value,
            "last": int(self.last[0]),
            "wrong": [self.stale, self.renewed],
        }

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        self._seen.resume(state["seen"])
        self._kinds = self._values(state["kinds"])
        if max(len(self._kinds), 1) != self._seen.levels:
            raise StateError(f"not a snapshot: {len(self._kinds)} kinds in place of {self._seen.levels}")
        self._far = deque(self._values(state["far"]), maxlen=FAR)
        self._taken, self.last = int(state["taken"]), self._number(state["last"])
        (self._value,) = self._values([state["value"]])
        self._lately = Kind(self.last, self._value)
        self.usual = self._seen.beside(self.last)[0]
        self.stale, self.renewed = map(float, state["wrong"])
