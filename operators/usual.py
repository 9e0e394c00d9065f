"""What a model usually says: how often it was at each level, recently and in the long run, and where it moves to.

Of counts, a learnt share of what is not the last level goes to levels close by, as often as moves by that much were.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camlink.operators.compiled import compiled
from camlink.operators.policy_state import State, array

HALF_LIFE = 60.0  # executions
_FADE = 0.5 ** (1.0 / HALF_LIFE)
RECENT = 0.7  # share of the recent frequencies
PSEUDO = 1.0  # executions that say nothing, spread over all levels
MOVES = 6  # of counts, either way, that are taken to be close by
MOVE_PRIOR = 2.0  # moves by one in either direction, to begin with; half as many by two, and so on
MOVE_FADE = 0.99  # per move
NEAR_STEP = 0.03  # of the share of moves that go close by
NEAR_BOUNDS = (0.05, 0.95)
_NEVER_SEEN = 1e-3
_TINY = 1e-300
Array = NDArray[np.float64]
Levels = NDArray[np.intp]  # (entries,)


class Usual:
    """How often one model's outputs were at each level, ``seen`` (2, entries, levels): recently, and in all executions.

    ``ordered``: levels are numbers, so that some changes go close by, and higher ones than were seen may come.
    """

    def __init__(self, entries: int, levels: int, *, ordered: bool) -> None:
        self.seen = np.zeros((2, entries, levels))
        self._totals = 0.0, 0.0  # recent and all executions
        self._ordered = ordered
        self._moves = moves_to_begin_with()
        self._near = 0.5  # share of moves that go close by rather than to a usual level

    @property
    def levels(self) -> int:
        """Number of levels that are told apart by now."""
        return int(self.seen.shape[2])

    def take(self, before: Levels, now: Levels) -> tuple[Array, float, float]:
        """Take in an executed output (E,), and the one before it; return what is `beside` it."""
        learns = self._ordered and self._totals[1] > 0.0
        if (more := highest(now) + 1 - self.levels) > 0:
            if learns:
                self._near, learns = learn_moves(self.seen, *self._totals, self._moves, self._near, before, now), False
            self.seen = np.pad(self.seen, ((0, 0), (0, 0), (0, more + self._ordered)))
        self._near, found = _take(self.seen, *self._totals, self._moves, self._near, self._ordered, learns, before, now)
        self._totals = self._totals[0] * _FADE + 1.0, self._totals[1] + 1.0
        return found

    def beside(self, last: Levels) -> tuple[Array, float, float]:
        """Return `usually` for a model that last said this."""
        return usually(self.seen, *self._totals, self._moves, self._near if self._ordered else 0.0, last)

    def state(self) -> State:
        """Return what was seen, for a snapshot."""
        return {"seen": self.seen, "totals": self._totals, "moves": self._moves, "near": self._near}

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        self.seen = array(state["seen"], self.seen, free=(2,))
        self._totals = float(state["totals"][0]), float(state["totals"][1])
        self._moves, self._near = array(state["moves"], self._moves), float(state["near"])


@compiled
def highest(levels: Levels) -> int:
    """Return the highest of the levels (E,)."""
    top: int = levels[0]
    for level in levels:
        top = max(top, level)
    return top


@compiled
def _take(
    seen: Array,
    lately: float,
    always: float,
    moves: Array,
    near: float,
    ordered: bool,
    learns: bool,
    before: Levels,
    now: Levels,
) -> tuple[float, tuple[Array, float, float]]:
    """Take in an output, there being room for it: return the share of moves that go close by, and `usually`."""
    if learns:
        near = learn_moves(seen, lately, always, moves, near, before, now)
    _see(seen, now)
    return near, usually(seen, lately * _FADE + 1.0, always + 1.0, moves, near if ordered else 0.0, now)


@compiled
def _see(seen: Array, last: Levels) -> None:
    for e in range(len(last)):
        for level in range(seen.shape[2]):
            seen[0, e, level] *= _FADE
        seen[0, e, last[e]] += 1.0
        seen[1, e, last[e]] += 1.0


def moves_to_begin_with() -> Array:
    """Return how often moves by -`MOVES` to `MOVES` were (2 * MOVES + 1,), before any was seen."""
    away = np.abs(np.arange(-MOVES, MOVES + 1))
    return np.where(away == 0, 0.0, MOVE_PRIOR * 0.5**away)


@compiled
def _usual_at(seen: Array, lately: float, always: float, entry: int, level: int) -> float:
    """Return how usual a level is, after ``lately`` recent executions and ``always`` in all."""
    recent, long_run = RECENT / (lately + PSEUDO), (1.0 - RECENT) / (always + PSEUDO)
    pseudo = PSEUDO / seen.shape[2]
    usual: float = recent * (seen[0, entry, level] + pseudo) + long_run * (seen[1, entry, level] + pseudo)
    return usual


@compiled
def _close_by(moves: Array, last: int, levels: int) -> Array:
    """Return P(level) (levels,) of what moves to a level close to the last one."""
    close = np.zeros(levels)
    total = 0.0
    for level in range(max(0, last - MOVES), min(levels, last + MOVES + 1)):
        close[level] = moves[level - last + MOVES]
        total += close[level]
    for level in range(levels):
        close[level] /= max(total, _TINY)
    return close


@compiled
def usually(
    seen: Array, lately: float, always: float, moves: Array, near: float, last: Levels
) -> tuple[Array, float, float]:
    """Return the usual levels, P (E, levels), a share ``near`` of what is not the last one drawn close to it.

    And the expected disagreement of the last levels with them, and of any two drawn from them.
    """
    entries, levels = seen.shape[1], seen.shape[2]
    usual = np.empty((entries, levels))
    same = alike = 0.0
    for e in range(entries):
        for level in range(levels):
            usual[e, level] = _usual_at(seen, lately, always, e, level)
        at_last = usual[e, last[e]]
        if near > 0.0:
            close = _close_by(moves, last[e], levels)
            for level in range(levels):
                usual[e, level] = near * (1.0 - at_last) * close[level] + (1.0 - near) * usual[e, level]
            usual[e, last[e]] = at_last
        same += at_last
        for level in range(levels):
            alike += usual[e, level] * usual[e, level]
    return usual, 1.0 - same / entries, 1.0 - alike / entries


@compiled
def learn_moves(
    seen: Array, lately: float, always: float, moves: Array, near: float, before: Levels, now: Levels
) -> float:
    """Learn from entries that moved how far, and return the share of moves that go close by.

    Before ``now`` is taken in.
    """
    levels = seen.shape[2]
    for e in range(len(now)):
        if now[e] == before[e]:
            continue
        place, close, usual = now[e] - before[e] + MOVES, 0.0, _NEVER_SEEN
        if now[e] < levels:
            leaves = 1.0 - _usual_at(seen, lately, always, e, before[e])
            close = leaves * _close_by(moves, before[e], levels)[now[e]]
            usual = _usual_at(seen, lately, always, e, now[e])
        elif place <= 2 * MOVES:
            close = _close_by(moves, MOVES, len(moves))[place]
        close *= near
        near += NEAR_STEP * (close / (close + (1.0 - near) * usual) - near)
        if 0 <= place <= 2 * MOVES:
            for move in range(len(moves)):
                moves[move] *= MOVE_FADE
            moves[place] += 1.0
        near = min(max(near, NEAR_BOUNDS[0]), NEAR_BOUNDS[1])
    return near
