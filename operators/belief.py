"""What a model would say now, given what it said last, how fresh that is, and what it usually says.

Outputs are read as levels per entry: whole counts, the top label, each label's side of one half (the same reading that
`camlink.models.scores` judges agreement by). Per entry,

    P(level) = fresh * [level executed last] + (1 - fresh) * usual(level)

where ``usual`` are frequencies, recent and long-run; of counts, a learnt share of what is not the last level goes to
levels close by. The most probable level is served. So an output that has gone stale gives way to the usual one, and a
rare value goes stale sooner than a common one. Tasks without levels (numbers, boxes, tokens) repeat the last output.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.operators.compiled import compiled
from camlink.operators.policy_state import State, array
from camlink.operators.usual import learn_moves, moves_to_begin_with, usually
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Value

Frequencies = NDArray[np.float64]  # (entries, levels), rows sum to 1
Levels = NDArray[np.intp]  # (entries,)
Reading = Any  # Levels, or a Value where the task has none
MOST_LEVELS = 256  # counts above are read as this many
HALF_LIFE = 60.0  # executions
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
        levels = {"count": 4, "single_label": spec.size, "multi_label": 2}[spec.task]
        self._seen = np.zeros((2, self._entries, levels))  # how often each level was, recently and in all executions
        self._totals = 0.0, 0.0  # recent and all executions
        self._whole: dict[int, Value] = {}  # of single labels: what was last executed with each on top
        self._typical = _names_of_levels(self._entries, 0, 0 if spec.task == "single_label" else levels)
        self._value: Value = np.zeros(spec.size, np.float32)
        self.last: Levels = np.zeros(self._entries, np.intp)
        self._moves = moves_to_begin_with()
        self._lately: tuple[Value | None, Levels] = None, self.last  # read last, and its levels
        self._near = 0.5  # share of moves that go close by rather than to a usual level
        self._learn_usual()

    @property
    def levels(self) -> int:
        """Number of levels that are told apart by now."""
        return int(self._seen.shape[2])

    def read(self, value: Value) -> Levels:
        """Return the level of each entry of ``value`` (size,). Raises `ValueError` for one of another size."""
        if value is not self._lately[0]:
            if value.shape != self._value.shape:  # compiled loops do not look where they read
                raise ValueError(f"an output of shape {value.shape}, expected {self._value.shape}")
            self._lately = value, self._levels_of(value)
        return self._lately[1]

    def _levels_of(self, value: Value) -> Levels:
        if self._task == "single_label":
            return np.array([value.argmax()])
        if self._task == "multi_label":
            return np.asarray(value >= 0.5, dtype=np.intp)
        return _count_levels(np.array(value, np.float32))

    def take(self, value: Value) -> None:
        """Take in an executed output."""
        before, self.last = self.last, self.read(value)
        if self._ordered and self._totals[1]:
            self._near = learn_moves(self._seen, *self._totals, self._moves, self._near, before, self.last)
        if (more := highest(self.last) + 1 - self.levels) > 0:
            self._seen = np.pad(self._seen, ((0, 0), (0, 0), (0, more + 1)))
            added = _names_of_levels(self._entries, self._typical.shape[1], self.levels)
            self._typical = np.concatenate((self._typical, added), axis=1)
        self._value = np.array(value, np.float32)  # values from other processes are read-only: another type to compile
        if self._task == "single_label":
            self._whole[int(self.last[0])] = self._value
        else:
            _note(self._typical, self.last, self._value)
        _see(self._seen, self.last)
        self._totals = self._totals[0] * _FADE + 1.0, self._totals[1] + 1.0
        self._learn_usual()

    def _learn_usual(self) -> None:
        near = self._near if self._ordered else 0.0
        self.usual, self.stale, self.renewed = usually(self._seen, *self._totals, self._moves, near, self.last)

    def guess(self, fresh: float) -> Guess:
        """Answer with the most probable level of each entry."""
        return self.settle(self.chances(fresh))

    def chances(self, fresh: float, last: Levels | None = None) -> Frequencies:
        """Return P(level) of each entry (entries, levels); ``last``: another executed output in place of the last."""
        return _chances(self.usual, self.last if last is None else last, fresh)

    def settle(self, chances: Frequencies) -> Guess:
        """Answer with the most probable level of each entry by ``chances`` (entries, levels); if in doubt, the last."""
        mode, wrong, stays = _most_probable(chances, self.last)
        if stays:
            return Guess(self._value, wrong, True, self.last)
        if self._task != "single_label":
            return Guess(_write(self._value, self._typical, self.last, mode), wrong, False, mode)
        known = self._whole.get(int(mode[0]))
        value = np.eye(len(self._value), dtype=np.float32)[mode[0]] if known is None else known
        return Guess(value, wrong, False, mode)

    def disagreement(self, old: Levels, new: Levels) -> float:
        """Return the share of entries whose levels differ."""
        return _share_that_differs(old, new)

    def state(self) -> State:
        """Return what was learnt, for a snapshot."""
        return {
            "seen": self._seen,
            "totals": self._totals,
            "typical": self._typical,
            "whole_of": list(self._whole),
            "whole": list(self._whole.values()),
            "value": self._value,
            "last": self.last,
            "moves": self._moves,
            "near": self._near,
        }

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        self._seen = array(state["seen"], self._seen, free=(2,))
        self._totals = float(state["totals"][0]), float(state["totals"][1])
        typical = self._typical if self._task == "single_label" else self._seen[0].astype(np.float32)
        self._typical = array(state["typical"], typical)
        whole = [array(value, self._value) for value in state["whole"]]
        self._whole = dict(zip(map(int, state["whole_of"]), whole, strict=True))
        self._value = array(state["value"], self._value)
        self.last = array(state["last"], self.last)
        if int(self.last.max()) >= self.levels or int(self.last.min()) < 0:
            raise StateError(f"not a snapshot: level {int(self.last.max())} of {self.levels}")
        self._moves = array(state["moves"], self._moves)
        self._near = float(state["near"])
        self._lately = None, self.last
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


def _names_of_levels(entries: int, first: int, last: int) -> NDArray[np.float32]:
    """Return what stands for levels until they have been executed: their numbers (entries, last - first)."""
    return np.tile(np.arange(first, last, dtype=np.float32), (entries, 1))


@compiled
def _count_levels(value: Value) -> Levels:
    levels = np.zeros(len(value), np.intp)
    for e in range(len(value)):
        count = value[e] + np.float32(0.5)
        if count >= MOST_LEVELS:
            levels[e] = MOST_LEVELS - 1
        elif count >= 1.0:
            levels[e] = int(count)
    return levels


@compiled
def highest(levels: Levels) -> int:
    """Return the highest of the levels (E,)."""
    top: int = levels[0]
    for level in levels:
        top = max(top, level)
    return top


@compiled
def _share_that_differs(old: Levels, new: Levels) -> float:
    differ = 0
    for e in range(len(old)):
        differ += old[e] != new[e]
    return differ / len(old)


@compiled
def _note(typical: NDArray[np.float32], last: Levels, value: Value) -> None:
    for e in range(len(last)):
        typical[e, last[e]] = value[e]


@compiled
def _write(value: Value, typical: NDArray[np.float32], last: Levels, mode: Levels) -> Value:
    """Return ``value`` with the levels in ``mode`` where they are not the last ones."""
    written = value.copy()
    for e in range(len(mode)):
        if mode[e] != last[e]:
            written[e] = typical[e, mode[e]]
    return written


@compiled
def _see(seen: Frequencies, last: Levels) -> None:
    for e in range(len(last)):
        for level in range(seen.shape[2]):
            seen[0, e, level] *= _FADE
        seen[0, e, last[e]] += 1.0
        seen[1, e, last[e]] += 1.0


@compiled
def _chances(usual: Frequencies, last: Levels, fresh: float) -> Frequencies:
    chances = np.empty(usual.shape)
    for e in range(len(last)):
        for level in range(usual.shape[1]):
            chances[e, level] = (1.0 - fresh) * usual[e, level]
        if last[e] < usual.shape[1]:
            chances[e, last[e]] += fresh
    return chances


@compiled
def _most_probable(chances: Frequencies, last: Levels) -> tuple[Levels, float, bool]:
    """Return the most probable levels, if in doubt the last, how wrong they may be, and whether all are the last."""
    mode, right, stays = last.copy(), 0.0, True
    for e in range(len(last)):
        most = chances[e, last[e]]
        for level in range(chances.shape[1]):
            if chances[e, level] > most:
                most, mode[e], stays = chances[e, level], level, False
        right += most
    return mode, 1.0 - right / len(last), stays
