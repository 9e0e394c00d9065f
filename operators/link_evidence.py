"""What the others' outputs on this very frame tell of a model, learnt online from frames on which both executed.

For each pair of models three small tables of how often what went with what (links, in the MLink papers' sense, that
start from a handful of frames): the target's level given the source's, the difference of the two, and by how much the
target moved since it last executed given how far the source did (a delta link). Each says of every level how much
likelier it has become: log P(level | source) - log P(level). With the chances without links, P0, they are pooled:

    log P(level) = w0 * log P0(level) + sum over sources and tables of w * (how much likelier) + const

One set of weights for each set of sources, learnt by online Newton steps on the surprise at what the target then said,
before the tables have seen it. So a table that has learnt little, or repeats what another one says, gets little weight,
and what is served stays calibrated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.operators.belief import Frequencies, Levels
from camlink.operators.policy_state import State, array

FADE = 0.998  # of tables, per frame learnt from
FORGET = 0.995  # of what weights were learnt from, per step
TRUST = 4.0  # frames on which a source said the same, before they count for half
SPREAD = 2.0  # frames that say nothing of the difference
REACH = 12  # differences told apart, either way
MOVES = 4  # of a target
SOURCE_MOVES = 3
FIRST = (0.15, 0.15, 0.4)  # weights of the tables to begin with: they have to earn more
CERTAIN = (20.0, 10.0)  # how firmly that is held, for P0 and for tables
PULL = 0.005  # towards the first weights, per step
LONGEST_STEP = 0.2
HEAVIEST = 2.5
_LEAST = 1e-4
_ALIKE = 0.1  # frames, for moves never seen
MOST_KEPT = 64  # readings of a source
Array = NDArray[np.float64]
Tables = Mapping[tuple[str, str], tuple[Array, Array, Array]]  # source, target -> level, apart, moved (`Pair`)
Beginnings = Mapping[tuple[str, ...], tuple[Array, float]]  # target, *sources -> weights (`Pool`), how far alike


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is known of a target without links. ``chances`` and ``usual``: P(level) now and in general, (E, levels)."""

    chances: Frequencies
    usual: Frequencies
    last: Levels  # (E,)


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What a source says on this frame, and what it had said last when the target last executed."""

    now: Levels
    then: Levels


class Pair:
    """One source's tables towards one target with E entries."""

    def __init__(self, source: OutputSpec, target: OutputSpec) -> None:
        entries = 1 if target.task == "single_label" else target.size
        self._rows = np.arange(entries)
        self._column = self._rows[:, None]
        self._counts = source.task == "count" and target.task == "count"
        self._ordered, self._source_ordered = target.task != "single_label", source.task != "single_label"
        channel = channels(source, target, entries)
        self._channel, self._sums = np.maximum(channel, 0), channel < 0
        self._all_sums, self._any_sums = bool(self._sums.all()), bool(self._sums.any())
        self.level = np.zeros((entries, 4, 4))  # source's level, target's level
        self.apart = np.zeros((entries, 2 * REACH + 1))
        self.moved = np.zeros((entries, 2 * SOURCE_MOVES + 1, 2 * MOVES + 1))
        self._given: tuple[object, object, object] = (None, None, None)  # what goes for all that is kept
        self._kept: dict[bytes, Array] = {}  # by what the source says

    def likelier(self, source: Source, known: Known) -> Array:
        """Return by how much each level has become likelier, in logs, by each of the three tables.

        (3, E, levels). Kept until either model executes: between, sources mostly say what they said before.
        """
        given = known.usual, known.last, source.then
        if not all(a is b for a, b in zip(given, self._given, strict=True)) or len(self._kept) == MOST_KEPT:
            self._given, self._kept = given, {}
        key = source.now.tobytes()
        if key not in self._kept:
            self._kept[key] = self._find(source, known)
        return self._kept[key]

    def _find(self, source: Source, known: Known) -> Array:
        now, then = self._read(source.now), self._read(source.then)
        usual, rows = known.usual, self._rows
        entries, levels = usual.shape
        self._make_room(int(np.maximum.reduce(now)), levels)
        every = np.arange(levels)
        ratios = np.empty((3, entries, levels))
        seen = self.level[rows, now, :levels]
        ratios[0] = (seen / usual + TRUST) / (_sums(seen) + TRUST)
        if self._counts:
            said = self.apart[self._column, _within(every - now[:, None], REACH)]
            ratios[1] = (said / usual + SPREAD) / (_sums(said) + SPREAD)
        else:
            ratios[1] = 1.0
        always = np.add.reduce(self.moved, axis=1) + _ALIKE
        moves = self.moved[rows, self._source_move(now, then)]
        by_move = (moves * (_sums(always) / always) + TRUST) / (_sums(moves) + TRUST)
        ratios[2] = by_move[self._column, self._target_move(every, known.last[:, None])]
        return np.asarray(np.log(ratios, out=ratios))

    def learn(self, source: Source, known: Known, said: Levels, weight: float, *, only_moves: bool) -> None:
        """Take in what the target said (E,)."""
        now, then, rows = self._read(source.now), self._read(source.then), self._rows
        self._make_room(int(np.maximum.reduce(now)), int(np.maximum.reduce(said)) + 1)
        self._kept = {}
        if not only_moves:
            self.level *= FADE
            self.apart *= FADE
            self.level[rows, now, said] += 1.0
            self.apart[rows, _within(said - now, REACH)] += 1.0
        self.moved *= FADE**weight
        self.moved[rows, self._source_move(now, then), self._target_move(said, known.last)] += weight

    def start_from(self, level: Array, apart: Array, moved: Array) -> None:
        """Add tables like these here, of any number of levels: they count as frames learnt from."""
        self._make_room(level.shape[1] - 1, level.shape[2])
        self.level[:, : level.shape[1], : level.shape[2]] += level
        self.apart += apart
        self.moved += moved
        self._kept = {}

    def state(self) -> State:
        """Return the tables, for a snapshot."""
        return {"level": self.level, "apart": self.apart, "moved": self.moved}

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        self.level = array(state["level"], self.level, free=(1, 2))
        self.apart, self.moved = array(state["apart"], self.apart), array(state["moved"], self.moved)
        self._kept = {}

    def _read(self, levels: Levels) -> Levels:
        """Return what of the source's levels goes with each entry of the target (E,)."""
        if not self._any_sums:
            return levels[self._channel]
        total = np.add.reduce(levels)
        if self._all_sums:
            return np.full(len(self._channel), total)
        return np.where(self._sums, total, levels[self._channel])

    def _source_move(self, now: Levels, then: Levels) -> Levels:
        if self._source_ordered:
            return _within(now - then, SOURCE_MOVES)
        return np.asarray(SOURCE_MOVES + (now != then), np.intp)

    def _target_move(self, level: Levels, last: Levels) -> Levels:
        return _within(level - last, MOVES) if self._ordered else np.asarray(MOVES + (level != last), np.intp)

    def _make_room(self, source_level: int, levels: int) -> None:
        have = self.level.shape
        if source_level >= have[1] or levels > have[2]:
            more = max(0, source_level + 1 - have[1]), max(0, levels - have[2])
            self.level = np.pad(self.level, ((0, 0), (0, more[0]), (0, more[1])))


def _sums(table: Array) -> Array:
    """Return the sums over the last axis, which is kept."""
    return np.asarray(np.add.reduce(table, axis=-1, keepdims=True))


def _within(moves: Levels, reach: int) -> Levels:
    """Return ``moves`` as places in a table that tells apart up to ``reach`` either way."""
    return np.minimum(np.maximum(moves, -reach), reach) + reach


def channels(source: OutputSpec, target: OutputSpec, entries: int) -> Levels:
    """Return the source's entry of each of the target's labels; else its only one, or -1: their sum."""
    if source.task == "single_label":
        return np.zeros(entries, np.intp)
    other = -1 if source.task == "count" and source.size > 1 else 0
    places = {label: i for i, label in enumerate(source.labels)}
    labels = target.labels if len(target.labels) == entries else ("",) * entries
    return np.array([places.get(label, other) for label in labels], np.intp)


class Pool:
    """The weights of one set of sources towards one target. F features: P0's, and three per source."""

    def __init__(self, sources: int) -> None:
        self._first = np.array([1.0, *(first / sources**0.7 for first in FIRST * sources)])
        self._firm = np.array([CERTAIN[0]] + [CERTAIN[1]] * (3 * sources))
        self._firmly, self._pull = np.diag(self._firm), PULL * self._firm
        self.weights = self._first.copy()
        self.curvature = np.zeros((len(self.weights), len(self.weights)))

    def mix(self, features: Array) -> Frequencies:
        """Return P(level) (E, levels) from ``features`` (F, E, levels)."""
        logs = (self.weights @ features.reshape(len(features), -1)).reshape(features.shape[1:])
        logs -= np.maximum.reduce(logs, axis=1, keepdims=True)
        chances = np.exp(logs, out=logs)
        chances /= _sums(chances)
        return chances

    def learn(self, features: Array, said: Levels, weight: float) -> None:
        """Take a Newton step on the surprise at what was said (E,)."""
        chances, entries = self.mix(features), len(said)
        off = features - _sums(features * chances)
        slope = np.add.reduce(off[:, np.arange(entries), said], axis=1) / entries
        flat = off.reshape(len(off), -1)
        self.curvature *= FORGET
        self.curvature += (weight / entries) * ((flat * chances.reshape(-1)) @ flat.T)
        pull = weight * slope + self._pull * (self._first - self.weights)
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


class LinkEvidence:
    """Links between all models of one camera whose outputs have levels."""

    def __init__(self, specs: Mapping[str, OutputSpec]) -> None:
        self._specs = specs
        self.pairs: dict[tuple[str, str], Pair] = {}  # source, target
        self.pools: dict[tuple[str, ...], Pool] = {}  # target, *sources

    def chances(self, target: str, known: Known, sources: Mapping[str, Source]) -> Frequencies:
        """Return P(level) of ``target`` (E, levels), given at least one source."""
        said = {name: self._pair(name, target).likelier(source, known) for name, source in sources.items()}
        return self._pool(target, said).mix(_features(known, said.values()))

    def learn(
        self,
        target: str,
        known: Known,
        sources: Mapping[str, Source],
        said: Levels,
        *,
        weight: float = 1.0,
        only_moves: bool = False,
    ) -> None:
        """Take in what ``target`` said: first the weights, of each source alone and of all, then the tables.

        ``only_moves``: this frame has been learnt from already, with another frame for ``then``.
        """
        if int(said.max()) < known.usual.shape[1]:
            told = {name: self._pair(name, target).likelier(source, known) for name, source in sources.items()}
            for part in [{name: told[name]} for name in told] + ([told] if len(told) > 1 else []):
                self._pool(target, part).learn(_features(known, part.values()), said, weight)
        for name, source in sources.items():
            self._pair(name, target).learn(source, known, said, weight, only_moves=only_moves)

    def levels(self, source: str, target: str) -> Array:
        """Return how often ``target`` has said which level beside each of ``source`` (entries, source's, target's)."""
        return self._pair(source, target).level

    def start_from(self, pairs: Tables, pools: Beginnings) -> None:
        """Begin with what other cameras have learnt, beside what was learnt here so far."""
        for (source, target), tables in pairs.items():
            self._pair(source, target).start_from(*tables)
        for (target, *sources), (first, alike) in pools.items():
            self._pool(target, sources).start_from(first, alike)

    def state(self) -> State:
        """Return all tables and weights, for a snapshot."""
        return {
            "pairs": [[*names, pair.state()] for names, pair in self.pairs.items()],
            "pools": [[*names, pool.state()] for names, pool in self.pools.items()],
        }

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`, and `KeyError` for models that are not there."""
        for source, target, told in state["pairs"]:
            self._pair(source, target).resume(told)
        for *names, told in state["pools"]:
            self._pool(names[0], names[1:]).resume(told)

    def _pair(self, source: str, target: str) -> Pair:
        if (source, target) not in self.pairs:
            self.pairs[source, target] = Pair(self._specs[source], self._specs[target])
        return self.pairs[source, target]

    def _pool(self, target: str, sources: Iterable[str]) -> Pool:
        key = (target, *sources)
        if key not in self.pools:
            self.pools[key] = Pool(len(key) - 1)
        return self.pools[key]


def _features(known: Known, said: Iterable[Array]) -> Array:
    """Return the logs of P0 and of the tables of each source (F, E, levels)."""
    return np.concatenate([np.log(known.chances + _LEAST)[None], *said])
