"""Beliefs about counts and labels. Their levels: whole counts, the top label, each label's side of one half.

The same reading that `camlink.models.scores` judges agreement by. The most probable level of each entry is served. Of
counts, a learnt share of what is not the last level goes to levels close by.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.operators.belief import Frequencies, Guess, Levels, believed, entries_of
from camlink.operators.compiled import compiled
from camlink.operators.policy_state import State, array
from camlink.operators.usual import Usual
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Value

MOST_LEVELS = 256  # counts above are read as this many


class Leveled:
    """For counts and labels."""

    repeats = False

    def __init__(self, spec: OutputSpec) -> None:
        self._task = spec.task
        self._entries = entries_of(spec)
        levels = {"count": 4, "single_label": spec.size, "multi_label": 2}[spec.task]
        self._seen = Usual(self._entries, levels, ordered=spec.task == "count")
        self._whole: dict[int, Value] = {}  # of single labels: what was last executed with each on top
        self._typical = _names_of_levels(self._entries, 0, 0 if spec.task == "single_label" else levels)
        self._value: Value = np.zeros(spec.size, np.float32)
        self.last: Levels = np.zeros(self._entries, np.intp)
        self._lately: tuple[Value | None, Levels] = None, self.last  # read last, and its levels
        self.usual, self.stale, self.renewed = self._seen.beside(self.last)

    def read(self, value: Value) -> Levels:
        """Return the level of each entry of ``value`` (size,). Raises `ValueError` for one of another size."""
        if value is not self._lately[0]:
            if value.shape != self._value.shape:  # compiled loops do not look where they read
                raise ValueError(f"an output of shape {value.shape}, expected {self._value.shape}")
            self._lately = value, self._levels_of(value)
        return self._lately[1]

    def levels(self, reading: Levels) -> Levels:
        """Return the reading: it is the levels."""
        return reading

    def _levels_of(self, value: Value) -> Levels:
        if self._task == "single_label":
            return np.array([value.argmax()])
        if self._task == "multi_label":
            return np.asarray(value >= 0.5, dtype=np.intp)
        return _count_levels(np.array(value, np.float32))

    def take(self, value: Value) -> None:
        """Take in an executed output."""
        before, self.last = self.last, self.read(value)
        self.usual, self.stale, self.renewed = self._seen.take(before, self.last)
        self._value = np.array(value, np.float32)  # values from other processes are read-only: another type to compile
        if self._task == "single_label":
            self._whole[int(self.last[0])] = self._value
        else:
            if self._typical.shape[1] < self._seen.levels:
                added = _names_of_levels(self._entries, self._typical.shape[1], self._seen.levels)
                self._typical = np.concatenate((self._typical, added), axis=1)
            _note(self._typical, self.last, self._value)

    def guess(self, fresh: float) -> Guess:
        """Answer with the most probable level of each entry."""
        return self.settle(self.chances(fresh), fresh)

    def chances(self, fresh: float) -> Frequencies:
        """Return P(level) of each entry (entries, levels)."""
        return believed(self.usual, self.last, fresh)

    def settle(self, chances: Frequencies, fresh: float) -> Guess:
        """Answer with the most probable level of each entry by ``chances`` (entries, levels); if in doubt, the last."""
        wrong, stays = _how_wrong(chances, self.last)
        if stays:
            return Guess(self._value, wrong, True, self.last)
        mode = _most_probable(chances, self.last)
        if self._task != "single_label":
            return Guess(_write(self._value, self._typical, self.last, mode), wrong, False, mode)
        known = self._whole.get(int(mode[0]))
        value = np.eye(len(self._value), dtype=np.float32)[mode[0]] if known is None else known
        return Guess(value, wrong, False, mode)

    def disagreement(self, old: Levels, new: Levels) -> float:
        """Return the share of entries whose levels differ."""
        return _share_that_differs(old, new)

    def put_readings(self, readings: Sequence[Levels]) -> State:
        """Return levels for a snapshot."""
        return {"levels": np.array(readings, np.intp).reshape(len(readings), self._entries)}

    def get_readings(self, state: State) -> list[Levels]:
        """Read what `put_readings` wrote. Raises `StateError`."""
        return list(array(state["levels"], self.last[None], free=(0,)))

    def state(self) -> State:
        """Return what was learnt, for a snapshot."""
        return {
            "seen": self._seen.state(),
            "typical": self._typical,
            "whole_of": list(self._whole),
            "whole": list(self._whole.values()),
            "value": self._value,
            "last": self.last,
        }

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        self._seen.resume(state["seen"])
        typical = self._typical if self._task == "single_label" else self._seen.seen[0].astype(np.float32)
        self._typical = array(state["typical"], typical)
        whole = [array(value, self._value) for value in state["whole"]]
        self._whole = dict(zip(map(int, state["whole_of"]), whole, strict=True))
        self._value = array(state["value"], self._value)
        self.last = array(state["last"], self.last)
        if int(self.last.max()) >= self._seen.levels or int(self.last.min()) < 0:
            raise StateError(f"not a snapshot: level {int(self.last.max())} of {self._seen.levels}")
        self._lately = None, self.last
        self.usual, self.stale, self.renewed = self._seen.beside(self.last)


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
def _how_wrong(chances: Frequencies, last: Levels) -> tuple[float, bool]:
    """Return how wrong the most probable levels may be, and whether all of them are the last ones."""
    right, stays = 0.0, True
    for e in range(len(last)):
        most = chances[e, last[e]]
        for level in range(chances.shape[1]):
            if chances[e, level] > most:
                most, stays = chances[e, level], False
        right += most
    return 1.0 - right / len(last), stays


@compiled
def _most_probable(chances: Frequencies, last: Levels) -> Levels:
    """Return the most probable levels, if in doubt the last."""
    mode = last.copy()
    for e in range(len(last)):
        for level in range(chances.shape[1]):
            if chances[e, level] > chances[e, mode[e]]:
                mode[e] = level
    return mode
