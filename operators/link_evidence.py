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
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.scores import agrees_by_degrees
from camlink.operators.belief import Frequencies, Levels, entries_of
from camlink.operators.compiled import compiled
from camlink.operators.link_pool import OWN, Known, Pool
from camlink.operators.policy_state import State, array
from camlink.operators.usual import highest

FADE = 0.998  # of tables, per frame learnt from
TRUST = 4.0  # frames on which a source said the same, before they count for half
SPREAD = 2.0  # frames that say nothing of the difference
REACH = 12  # differences told apart, either way
MOVES = 4  # of a target
SOURCE_MOVES = 3
_ALIKE = 0.1  # frames, for moves never seen
Array = NDArray[np.float64]
Tables = Mapping[tuple[str, str], tuple[Array, Array, Array]]  # source, target -> level, apart, moved (`Pair`)
Beginnings = Mapping[tuple[str, ...], tuple[Array, float]]  # target, *sources -> weights (`Pool`), how far alike


class Source(NamedTuple):
    """What a source says on this frame, and what it had said last when the target last executed."""

    now: Levels
    then: Levels


class Pair:
    """One source's tables towards one target with E entries.

    ``level`` (E, source's level, target's level), ``apart`` (E, 2 * REACH + 1): the target's level less the source's,
    ``moved`` (E, source's move, target's move): how often each was.
    """

    def __init__(self, source: OutputSpec, target: OutputSpec) -> None:
        entries = entries_of(target)
        self._counts = source.task == "count" and target.task == "count"
        self._ordered, self._source_ordered = _is_ordered(target), _is_ordered(source)
        self._channels = channels(source, target, entries)
        self.level: Array = np.zeros((entries, 4, 4))
        self.apart: Array = np.zeros((entries, 2 * REACH + 1))
        self.moved: Array = np.zeros((entries, 2 * SOURCE_MOVES + 1, 2 * MOVES + 1))

    def likelier(self, source: Source, known: Known, out: Array) -> None:
        """Write by how much each level has become likelier, in logs, by each of the three tables, to ``out``.

        (3, E * levels), each up to a constant per entry, which changes no chances.
        """
        kinds = self._counts, self._ordered, self._source_ordered
        tables = self.level, self.apart, self.moved
        _likelier(*tables, known.usual, known.last, source.now, source.then, self._channels, *kinds, out)

    def learn(self, source: Source, known: Known, said: Levels, weight: float, *, only_moves: bool) -> None:
        """Take in what the target said (E,)."""
        now, moves = _read(source.now, source.then, self._channels, self._source_ordered)
        if not only_moves:
            self._make_room(highest(now), highest(said))
            _learn_levels(self.level, self.apart, now, said)
        _learn_moves(self.moved, known.last, said, moves, self._ordered, FADE**weight, weight)

    def start_from(self, level: Array, apart: Array, moved: Array) -> None:
        """Add tables like these here, of any number of levels: they count as frames learnt from."""
        self._make_room(level.shape[1] - 1, level.shape[2] - 1)
        self.level[:, : level.shape[1], : level.shape[2]] += level
        self.apart += apart
        self.moved += moved

    def state(self) -> State:
        """Return the tables, for a snapshot."""
        return {"level": self.level, "apart": self.apart, "moved": self.moved}

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        self.level = array(state["level"], self.level, free=(1, 2))
        self.apart, self.moved = array(state["apart"], self.apart), array(state["moved"], self.moved)

    def _make_room(self, source_level: int, level: int) -> None:
        more = max(0, source_level + 1 - self.level.shape[1]), max(0, level + 1 - self.level.shape[2])
        if any(more):
            self.level = np.pad(self.level, ((0, 0), (0, more[0]), (0, more[1])))


@compiled
def _within(move: int, reach: int) -> int:
    """Return the place of ``move`` in a table that tells apart up to ``reach`` either way."""
    return min(max(move, -reach), reach) + reach


@compiled
def _move(level: int, last: int, ordered: bool, reach: int) -> int:
    """Return the place of a move in such a table; of labels, that they changed counts as one upwards."""
    move = level - last if ordered else int(level != last)
    return _within(move, reach)


@compiled
def _total(levels: Levels) -> int:
    total = 0
    for level in levels:
        total += level
    return total


@compiled
def _read(now: Levels, then: Levels, channels: Levels, ordered: bool) -> tuple[Levels, Levels]:
    """Return what of the source goes with each entry of the target, and its row in the table of moves (E,)."""
    read, moves = np.empty_like(channels), np.empty_like(channels)
    for e in range(len(channels)):
        channel = channels[e]
        read[e] = _total(now) if channel < 0 else now[channel]
        before = _total(then) if channel < 0 else then[channel]
        moves[e] = _move(read[e], before, ordered, SOURCE_MOVES)
    return read, moves


@compiled
def _likelier(
    level: Array,
    apart: Array,
    moved: Array,
    usual: Array,
    last: Levels,
    now: Levels,
    then: Levels,
    channels: Levels,
    counts: bool,
    ordered: bool,
    source_ordered: bool,
    out: Array,
) -> None:
    heard, moves = _read(now, then, channels, source_ordered)
    entries, levels = usual.shape
    trust, spread = np.log(TRUST), np.log(SPREAD)  # most of what could go together never did
    always, targets = np.empty(moved.shape[2]), moved.shape[2]
    for e in range(entries):
        total = 0.0
        for m in range(targets):
            always[m] = _ALIKE
            for s in range(moved.shape[1]):
                always[m] += moved[e, s, m]
            total += always[m]
        for at in range(levels):
            i = e * levels + at
            out[0, i], out[1, i], out[2, i] = trust, spread, trust
            if heard[e] < level.shape[1] and at < level.shape[2] and level[e, heard[e], at] > 0.0:
                out[0, i] = np.log(TRUST + level[e, heard[e], at] / usual[e, at])
            difference = apart[e, _within(at - heard[e], REACH)]
            if counts and difference > 0.0:
                out[1, i] = np.log(SPREAD + difference / usual[e, at])
            move = _move(at, last[e], ordered, MOVES)
            if moved[e, moves[e], move] > 0.0:
                out[2, i] = np.log(TRUST + moved[e, moves[e], move] * total / always[move])


@compiled
def _learn_levels(level: Array, apart: Array, now: Levels, said: Levels) -> None:
    for e in range(len(said)):
        for i in range(level.shape[1]):
            for j in range(level.shape[2]):
                level[e, i, j] *= FADE
        for i in range(apart.shape[1]):
            apart[e, i] *= FADE
        level[e, now[e], said[e]] += 1.0
        apart[e, _within(said[e] - now[e], REACH)] += 1.0


@compiled
def _learn_moves(
    moved: Array, last: Levels, said: Levels, moves: Levels, ordered: bool, fade: float, weight: float
) -> None:
    for e in range(len(said)):
        for i in range(moved.shape[1]):
            for j in range(moved.shape[2]):
                moved[e, i, j] *= fade
        moved[e, moves[e], _move(said[e], last[e], ordered, MOVES)] += weight


def _is_ordered(spec: OutputSpec) -> bool:
    return spec.task in ("count", "multi_label")


def channels(source: OutputSpec, target: OutputSpec, entries: int) -> Levels:
    """Return the source's entry of each of the target's labels; else its only one, or -1: their sum."""
    if source.task == "single_label" or agrees_by_degrees(source):
        return np.zeros(entries, np.intp)
    other = -1 if source.task == "count" and source.size > 1 else 0
    places = {label: i for i, label in enumerate(source.labels)}
    labels = target.labels if len(target.labels) == entries else ("",) * entries
    return np.array([places.get(label, other) for label in labels], np.intp)


class LinkEvidence:
    """Links between all models of one camera."""

    def __init__(self, specs: Mapping[str, OutputSpec]) -> None:
        self._specs = specs
        self.pairs: dict[tuple[str, str], Pair] = {}  # source, target
        self.pools: dict[tuple[str, ...], Pool] = {}  # target, *sources

    def chances(self, target: str, known: Known, sources: Mapping[str, Source]) -> Frequencies:
        """Return P(level) of ``target`` (E, levels), given at least one source."""
        return self._pool(target, sources).mix(self._features(target, known, sources), len(known.last))

    def learn(
        self,
        target: str,
        known: Known,
        sources: Mapping[str, Source],
        said: Levels,
        *,
        weight: float = 1.0,
        only_moves: bool = False,
        frames: int = 1,
    ) -> None:
        """Take in what ``target`` said: first the weights, of each source alone and of all, then the tables.

        ``only_moves``: this frame has been learnt from already, with another frame for ``then``; all that is new is how
        far the models moved. ``frames``: for how many the weights learn from this one, 0: not; most of the work.
        """
        if frames and not only_moves and highest(said) < known.usual.shape[1]:
            told, own = self._features(target, known, sources), 1 + OWN
            for i, name in enumerate(sources if len(sources) > 1 else ()):
                alone = np.concatenate((told[:own], told[own + 3 * i : own + 3 * i + 3]))
                self._pool(target, (name,)).learn(alone, said, weight, frames)
            self._pool(target, sources).learn(told, said, weight, frames)
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

    def _features(self, target: str, known: Known, sources: Mapping[str, Source]) -> Array:
        """Return the logs of P0, of the target's own evidence and of the tables of each source (F, E * levels)."""
        features, own = np.empty((1 + OWN + 3 * len(sources), known.usual.size)), 1 + OWN
        features[:own] = known.features
        for i, (name, source) in enumerate(sources.items()):
            self._pair(name, target).likelier(source, known, features[own + 3 * i : own + 3 * i + 3])
        return features

    def _pair(self, source: str, target: str) -> Pair:
        if (source, target) not in self.pairs:
            self.pairs[source, target] = Pair(self._specs[source], self._specs[target])
        return self.pairs[source, target]

    def _pool(self, target: str, sources: Iterable[str]) -> Pool:
        key = (target, *sources)
        if key not in self.pools:
            self.pools[key] = Pool(len(key) - 1)
        return self.pools[key]
