"""What a model would say now, given what it said last, how fresh that is, and what it usually says.

Outputs are read as levels per entry: whole counts, the top label, each label's side of one half (the same reading that
`camlink.models.scores` judges agreement by). Per entry,

    P(level) = fresh * [level executed last] + (1 - fresh) * usual(level)

where ``usual`` are frequencies, recent and long-run; of counts, a learnt share of what is not the last level goes to
levels close by. The most probable level is served. So an output that has gone stale gives way to the usual one, and a
rare value goes stale sooner than a common one. Tasks without levels (numbers, boxes, tokens) repeat the last output.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

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
ONES = np.ones(2 * MOST_LEVELS)  # a product with them is the quickest sum of a few numbers
_HALF, _NONE, _HIGHEST = (np.array([x], np.float32) for x in (0.5, 0.0, MOST_LEVELS - 1))  # quicker than numbers
_NEVER_SEEN = 1e-3
_FADE = 0.5 ** (1.0 / HALF_LIFE)


class Guess(NamedTuple):
    """An answer without executing: ``wrong``, its expected disagreement; ``stays``: it is what was executed last."""

    value: Value
    wrong: float
    stays: bool
    reading: Reading  # of the value


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
        self._lay_out(np.zeros((2, self._entries, levels)))

    def _lay_out(self, seen: Frequencies) -> None:
        """Begin with how often each level was ``seen`` (2, entries, levels): recently and in all executions."""
        self._seen, self._seen_flat, self._recent = seen, seen.reshape(-1), seen[0]
        self._starts = self._rows * self.levels  # of each entry in a flat table
        self._tables_at = np.array([[0], [seen[0].size]])
        self._no_moves = np.arange(MOST_LEVELS, MOST_LEVELS + self.levels)
        self._moved()
        self._learn_usual()

    def _moved(self) -> None:
        """Note where the last levels stand in the tables."""
        self._last_key = self.last.tobytes()
        self._at = self._starts + self.last
        self._at_both = self._at + self._tables_at
        if self._ordered:
            near: Frequencies = self._by_distance.take(self._no_moves - self.last[:, None])
            self._close_by = near / near.dot(ONES[: self.levels])[:, None]

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
        levels: Levels = np.minimum(np.maximum(value + _HALF, _NONE), _HIGHEST).astype(np.intp)
        return levels

    def take(self, value: Value) -> None:
        """Take in an executed output."""
        before, self.last = self.last, self.read(value)
        if self.last.tobytes() != self._last_key:
            if self._ordered and self._totals[1]:
                self._learn_moves(before)
            top = int(self.last.max())
            if top >= self.levels:
                self._lay_out(np.pad(self._seen, ((0, 0), (0, 0), (0, top + 2 - self.levels))))
            else:
                self._moved()
        if not self._totals[1] or value.tobytes() != self._value.tobytes():
            self._note_typical(value)
        self._value = value
        self._recent *= _FADE
        self._seen_flat[self._at_both] += 1.0
        self._totals = self._totals[0] * _FADE + 1.0, self._totals[1] + 1.0
        self._learn_usual()

    def _note_typical(self, value: Value) -> None:
        if self._task == "single_label":
            self._typical[0, int(self.last[0])] = value
        else:
            self._typical.update(zip(enumerate(self.last.tolist()), value.tolist(), strict=True))

    def _learn_usual(self) -> None:
        recent, always = RECENT / (self._totals[0] + PSEUDO), (1.0 - RECENT) / (self._totals[1] + PSEUDO)
        general = self._recent * recent
        general += self._seen[1] * always
        general += (recent + always) * PSEUDO / self.levels
        at_last = general.take(self._at)
        self._general = self.usual = general
        if self._ordered:  # of what is not the last level, a share is drawn close to it
            self.usual = self._close_by * (self._near - self._near * at_last)[:, None]
            self.usual += (1.0 - self._near) * general
            self.usual.put(self._at, at_last)
        self.stale = 1.0 - float(at_last.dot(ONES[: self._entries])) / self._entries
        self.renewed = 1.0 - float(np.vdot(self.usual, self.usual)) / self._entries
        self._find_gaps(at_last)

    def _find_gaps(self, at_last: NDArray[np.float64]) -> None:
        """Note which entries would be answered by another level than the last one, once that is stale enough."""
        top = self.usual.argmax(axis=1)
        self._gaps: list[tuple[int, int, float]] = []  # entry, its usual level, by how much that is more usual
        self._written: dict[tuple[int, ...], tuple[Value, Levels]] = {}  # by the entries that leave the last level
        if top.tobytes() != self._last_key:
            gaps = (self.usual.take(self._starts + top) - at_last).tolist()
            self._gaps = [(e, level, gap) for e, (level, gap) in enumerate(zip(top.tolist(), gaps, strict=True)) if gap]

    def _learn_moves(self, before: Levels) -> None:
        """Learn from entries that are not ``before`` how far they moved, and whether that was to a level close by."""
        for entry, (level, old) in enumerate(zip(self.last.tolist(), before.tolist(), strict=True)):
            if level == old:
                continue
            place, close, usual = level - old + MOVES, 0.0, _NEVER_SEEN
            if level < self._general.shape[1]:  # as `_learn_usual` left it, before this output is taken in
                close = float(self._close_by[entry, level]) * (1.0 - float(self._general[entry, old]))
                usual = float(self._general[entry, level])
            elif place <= 2 * MOVES:
                close = float(self._moves[place]) / float(self._moves.dot(ONES[: 2 * MOVES + 1]))
            close *= self._near
            self._near += NEAR_STEP * (close / (close + (1.0 - self._near) * usual) - self._near)
            if 0 <= place <= 2 * MOVES:
                self._moves *= MOVE_FADE
                self._moves[place] += 1.0
            self._near = min(max(self._near, NEAR_BOUNDS[0]), NEAR_BOUNDS[1])

    def guess(self, fresh: float) -> Guess:
        """Answer with the most probable level of each entry."""
        gone = 1.0 - fresh
        wrong = gone * self.stale
        leaving = [(e, level, gone * gap - fresh) for e, level, gap in self._gaps if gone * gap > fresh]
        if not leaving:
            return Guess(self._value, wrong, True, self.last)
        entries = tuple([e for e, _, _ in leaving])
        if entries not in self._written:
            mode = self.last.copy()
            mode[list(entries)] = [level for _, level, _ in leaving]
            self._written[entries] = self._write(entries, mode), mode
        value, mode = self._written[entries]
        return Guess(value, wrong - sum([gain for _, _, gain in leaving]) / self._entries, False, mode)

    def chances(self, fresh: float, last: Levels | None = None) -> Frequencies:
        """Return P(level) of each entry (entries, levels); ``last``: another executed output in place of the last."""
        chances: Frequencies = self.usual * (1.0 - fresh)
        at = self._at if last is None or last is self.last else self._starts + last
        chances.put(at, chances.take(at) + fresh)
        return chances

    def settle(self, chances: Frequencies) -> Guess:
        """Answer with the most probable level of each entry by ``chances`` (entries, levels); if in doubt, the last."""
        mode = chances.argmax(axis=1)
        ones = ONES[: self._entries]
        if mode.tobytes() == self._last_key:
            wrong = 1.0 - float(chances.take(self._at).dot(ones)) / self._entries
            return Guess(self._value, wrong, True, self.last)
        most, at_last = chances.take(self._starts + mode), chances.take(self._at)
        wrong = 1.0 - float(most.dot(ones)) / self._entries
        leaves = (most > at_last).nonzero()[0].tolist()
        if not leaves:
            return Guess(self._value, wrong, True, self.last)
        if len(leaves) < self._entries:
            mode = np.where(most > at_last, mode, self.last)
        return Guess(self._write(leaves, mode), wrong, False, mode)

    def _write(self, leaves: Iterable[int], mode: Levels) -> Value:
        """Write the levels in ``mode`` for the entries in ``leaves``, the last value elsewhere."""
        if self._task == "single_label":
            known = self._typical.get((0, int(mode[0])))
            return np.asarray(np.eye(len(self._value))[mode[0]] if known is None else known, dtype=np.float32)
        value = self._value.copy()
        for entry in leaves:
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
        seen = array(state["seen"], self._seen, free=(2,))
        self._totals = float(state["totals"][0]), float(state["totals"][1])
        places = [(int(entry), int(level)) for entry, level in state["typical_at"]]
        self._typical = dict(zip(places, state["typical"], strict=True))
        self._value = array(state["value"], self._value)
        self.last = array(state["last"], self.last)
        if int(self.last.max()) >= seen.shape[2] or int(self.last.min()) < 0:
            raise StateError(f"not a snapshot: level {int(self.last.max())} of {seen.shape[2]}")
        self._moves[:] = array(state["moves"], self._moves)
        self._near = float(state["near"])
        self._lay_out(seen)


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
        return Guess(self._value, (1.0 - fresh) * self.stale, True, self._value)

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
