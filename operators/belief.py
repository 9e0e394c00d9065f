"""What a model would say now, given what it said last, how fresh that is, and what it usually says.

Outputs are read as levels per entry: whole counts, the top label, each label's side of one half (the same reading that
`camlink.models.scores` judges agreement by). Per entry,

    P(level) = fresh * [level executed last] + (1 - fresh) * usual(level)

where ``usual`` are frequencies, recent and long-run; of counts, a learnt share of what is not the last level goes to
levels close by. The most probable level is served. So an output that has gone stale gives way to the usual one, and a
rare value goes stale sooner than a common one. Tasks without levels (numbers, boxes, tokens) repeat the last output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.operators.policy_state import State, array
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Value

Frequencies = NDArray[np.float64]  # (entries, levels), rows sum to 1
Levels = NDArray[np.intp]  # (entries,)
Reading = Any  # Levels, or a Value where the task has none
MOST_LEVELS = 256  # counts above are read as this many
RECENT = 0.7  # share of the recent frequencies
HALF_LIFE = 60.0  # executions
PSEUDO = 1.0  # executions that say nothing, spread over all levels
MOVES = 6  # of counts, either way, that are taken to be close by
MOVE_PRIOR = 2.0  # moves by one in either direction, to begin with; half as many by two, and so on
MOVE_FADE = 0.99  # per move
NEAR_STEP = 0.03  # of the share of moves that go close by
NEAR_BOUNDS = (0.05, 0.95)
_NEVER_SEEN = 1e-3
_FADE = 0.5 ** (1.0 / HALF_LIFE)


@dataclass(frozen=True, slots=True, eq=False)
class Guess:
    """An answer without executing: ``wrong``, its expected disagreement; ``stays``: it is what was executed last."""

    value: Value
    wrong: float
    stays: bool


class Belief(Protocol):
    """One model on one camera."""

    stale: float  # expected disagreement of the last output once it has nothing but the usual on its side
    renewed: float  # the same for an output that would be executed when all is gone

    def take(self, value: Value) -> None:
        """Take in an executed output."""
        ...

    def guess(self, fresh: float) -> Guess:
        """Answer with the most probable value."""
        ...

    def read(self, value: Value) -> Reading:
        """Return what `disagreement` compares: the level of each entry, or the value itself."""
        ...

    def disagreement(self, old: Reading, new: Reading) -> float:
        """Return how far two outputs of the model disagree, 0..1."""
        ...

    def state(self) -> State:
        """Return what was learnt, for a snapshot."""
        ...

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        ...


def belief_of(spec: OutputSpec) -> Belief:
    """Return the belief that fits the task of ``spec``."""
    return Leveled(spec) if spec.task in ("count", "single_label", "multi_label") else Plain(spec)


class Leveled:
    """For counts and labels."""

    def __init__(self, spec: OutputSpec) -> None:
        self._task = spec.task
        self._ordered = spec.task == "count"
        self._entries = 1 if spec.task == "single_label" else spec.size
        self._rows = np.arange(self._entries)
        levels = {"count": 4, "single_label": spec.size, "multi_label": 2}[spec.task]
        self._seen = np.zeros((2, self._entries, levels))  # recent and all executions
        self._totals = 0.0, 0.0  # recent and all executions
        self._typical: dict[tuple[int, int], Value | float] = {}  # (entry, level) -> what was last executed there
        self._value: Value = np.zeros(spec.size, np.float32)
        self.last: Levels = np.zeros(self._entries, np.intp)
        away = np.abs(np.arange(-MOVES, MOVES + 1))
        self._by_distance = np.zeros(2 * MOST_LEVELS + 1)  # weight of each move from MOST_LEVELS down to as many up
        self._moves = self._by_distance[MOST_LEVELS - MOVES : MOST_LEVELS + MOVES + 1]
        self._moves[:] = np.where(away == 0, 0.0, MOVE_PRIOR * 0.5**away)
        self._lately: tuple[Value | None, Levels] = None, self.last  # read last, and its levels
        self._near = 0.5  # share of moves that go close by rather than to a usual level
        self._learn_usual()

    @property
    def levels(self) -> int:
        """Number of levels that are told apart by now."""
        return int(self._seen.shape[2])

    def read(self, value: Value) -> Levels:
        """Return the level of each entry of ``value`` (size,)."""
        if value is not self._lately[0]:
            self._lately = value, self._levels_of(value)
        return self._lately[1]

    def _levels_of(self, value: Value) -> Levels:
        if self._task == "single_label":
            return np.array([value.argmax()])
        if self._task == "multi_label":
            return np.asarray(value >= 0.5, dtype=np.intp)
        return np.asarray(np.minimum(np.maximum(value + 0.5, 0.0), MOST_LEVELS - 1), dtype=np.intp)

    def take(self, value: Value) -> None:
        """Take in an executed output."""
        before, self._value, self.last = self.last, value, self.read(value)
        if self._ordered and self._totals[1]:
            self._learn_moves(before)
        top = int(self.last.max())
        if top >= self.levels:
            self._seen = np.pad(self._seen, ((0, 0), (0, 0), (0, top + 2 - self.levels)))
        self._seen[0] *= _FADE
        self._seen[:, self._rows, self.last] += 1.0
        self._totals = self._totals[0] * _FADE + 1.0, self._totals[1] + 1.0
        if self._task == "single_label":
            self._typical[0, int(self.last[0])] = value
        else:
            self._typical.update(zip(enumerate(self.last.tolist()), value.tolist(), strict=True))
        self._learn_usual()

    def _learn_usual(self) -> None:
        recent, always = RECENT / (self._totals[0] + PSEUDO), (1.0 - RECENT) / (self._totals[1] + PSEUDO)
        general = recent * self._seen[0] + always * self._seen[1]
        general += (recent + always) * PSEUDO / self.levels
        self._general = self.usual = general
        if self._ordered:
            self.usual = self._drawn_near()
        self._settled = bool((self.usual.argmax(axis=1) == self.last).all())
        self.stale = 1.0 - float(np.add.reduce(self.usual[self._rows, self.last])) / self._entries
        self.renewed = 1.0 - float(np.vdot(self.usual, self.usual)) / self._entries

    def _learn_moves(self, before: Levels) -> None:
        """Learn from entries that are not ``before`` how far they moved, and whether that was to a level close by."""
        for entry in np.flatnonzero(self.last != before).tolist():
            level, place = int(self.last[entry]), int(self.last[entry] - before[entry]) + MOVES
            close = 0.0
            if 0 <= place <= 2 * MOVES:
                close = self._near * float(self._moves[place] / self._moves.sum())
                self._moves *= MOVE_FADE
                self._moves[place] += 1.0
            usual = float(self._general[entry, level]) if level < self._general.shape[1] else _NEVER_SEEN
            self._near += NEAR_STEP * (close / (close + (1.0 - self._near) * usual) - self._near)
            self._near = min(max(self._near, NEAR_BOUNDS[0]), NEAR_BOUNDS[1])

    def _drawn_near(self) -> Frequencies:
        """Return the frequencies with a share of what is not the last level moved close to it."""
        near: Frequencies = self._by_distance[np.arange(MOST_LEVELS, MOST_LEVELS + self.levels) - self.last[:, None]]
        at_last = self._general[self._rows, self.last]
        near *= (self._near * (1.0 - at_last) / np.add.reduce(near, axis=1))[:, None]
        near += (1.0 - self._near) * self._general
        near[self._rows, self.last] = at_last
        return near

    def guess(self, fresh: float) -> Guess:
        """Answer with the most probable level of each entry."""
        if self._settled:
            return Guess(self._value, (1.0 - fresh) * self.stale, True)
        return self.settle(self.chances(fresh))

    def chances(self, fresh: float, last: Levels | None = None) -> Frequencies:
        """Return P(level) of each entry (entries, levels); ``last``: another executed output in place of the last."""
        chances = (1.0 - fresh) * self.usual
        chances[self._rows, self.last if last is None else last] += fresh
        return np.asarray(chances)

    def settle(self, chances: Frequencies) -> Guess:
        """Answer with the most probable level of each entry by ``chances`` (entries, levels); if in doubt, the last."""
        mode = chances.argmax(axis=1)
        if mode.tobytes() == self.last.tobytes():
            return Guess(self._value, 1.0 - float(np.add.reduce(chances[self._rows, mode])) / self._entries, True)
        leaves = chances[self._rows, mode] > chances[self._rows, self.last]
        mode = np.where(leaves, mode, self.last)
        wrong = 1.0 - float(np.add.reduce(chances[self._rows, mode])) / self._entries
        if not leaves.any():
            return Guess(self._value, wrong, True)
        return Guess(self._write(leaves, mode), wrong, False)

    def _write(self, leaves: NDArray[np.bool_], mode: Levels) -> Value:
        """Write the levels in ``mode`` where the entry ``leaves``, the last value elsewhere."""
        if self._task == "single_label":
            known = self._typical.get((0, int(mode[0])))
            return np.asarray(np.eye(len(self._value))[mode[0]] if known is None else known, dtype=np.float32)
        value = self._value.copy()
        for entry in np.flatnonzero(leaves).tolist():
            level = int(mode[entry])
            value[entry] = self._typical.get((entry, level), float(level))
        return value

    def disagreement(self, old: Levels, new: Levels) -> float:
        """Return the share of entries whose levels differ."""
        return float(np.count_nonzero(old != new)) / self._entries

    def state(self) -> State:
        """Return what was learnt, for a snapshot."""
        return {
            "seen": self._seen,
            "totals": self._totals,
            "typical_at": [list(place) for place in self._typical],
            "typical": list(self._typical.values()),
            "value": self._value,
            "last": self.last,
            "moves": self._moves,
            "near": self._near,
        }

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        self._seen = array(state["seen"], self._seen, free=(2,))
        self._totals = float(state["totals"][0]), float(state["totals"][1])
        places = [(int(entry), int(level)) for entry, level in state["typical_at"]]
        self._typical = dict(zip(places, state["typical"], strict=True))
        self._value = array(state["value"], self._value)
        self.last = array(state["last"], self.last)
        if int(self.last.max()) >= self.levels or int(self.last.min()) < 0:
            raise StateError(f"not a snapshot: level {int(self.last.max())} of {self.levels}")
        self._moves[:] = array(state["moves"], self._moves)
        self._near = float(state["near"])
        self._learn_usual()


class Plain:
    """For tasks without levels: repeats the last output, and learns how far outputs far apart disagree."""

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._value: Value = np.zeros(spec.size, np.float32)
        self._far: Value | None = None  # an output from long ago
        self._taken = 0
        self.stale = self.renewed = 1.0

    def take(self, value: Value) -> None:
        """Take in an executed output."""
        if self._far is not None:
            apart = self.disagreement(self._far, value)
            self.stale += (apart - self.stale) / min(self._taken, HALF_LIFE)
            self.renewed = self.stale
        if self._taken % 16 == 0:
            self._far = self._value if self._taken else value
        self._taken += 1
        self._value = value

    def guess(self, fresh: float) -> Guess:
        """Answer with the last output."""
        return Guess(self._value, (1.0 - fresh) * self.stale, True)

    def read(self, value: Value) -> Value:
        """Return the value: it has no levels."""
        return value

    def disagreement(self, old: Value, new: Value) -> float:
        """Return one minus the agreement of the task."""
        return 1.0 - float(agreement(self._spec, old[None], new[None])[0])

    def state(self) -> State:
        """Return what was learnt, for a snapshot."""
        return {"value": self._value, "far": self._far, "taken": self._taken, "wrong": [self.stale, self.renewed]}

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        self._value = array(state["value"], self._value)
        self._far = None if state["far"] is None else array(state["far"], self._value)
        self._taken = int(state["taken"])
        self.stale, self.renewed = map(float, state["wrong"])
