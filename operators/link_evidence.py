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

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.operators.belief import ONES, Frequencies, Levels
from camlink.operators.link_pool import OWN, Pool
from camlink.operators.policy_state import State, array

FADE = 0.998  # of tables, per frame learnt from
TRUST = 4.0  # frames on which a source said the same, before they count for half
SPREAD = 2.0  # frames that say nothing of the difference
REACH = 12  # differences told apart, either way
MOVES = 4  # of a target
SOURCE_MOVES = 3
_LEAST = 1e-4
_ALIKE = 0.1  # frames, for moves never seen
MOST_KEPT = 64  # readings of a source
Array = NDArray[np.float64]
T = TypeVar("T")
_SOURCE_MOVES, _MOVES = 2 * SOURCE_MOVES + 1, 2 * MOVES + 1
_FIRST_TWO = np.array([[TRUST], [SPREAD]])
Tables = Mapping[tuple[str, str], tuple[Array, Array, Array]]  # source, target -> level, apart, moved (`Pair`)
Beginnings = Mapping[tuple[str, ...], tuple[Array, float]]  # target, *sources -> weights (`Pool`), how far alike


class Known:
    """What is known of a target without links. ``chances`` and ``usual``: P(level) now and in general, (E, levels).

    ``last`` (E,): the levels executed last; ``own``: what its own outputs tell besides
    (`camlink.operators.own_evidence`), (OWN, E * levels), if anything.
    """

    __slots__ = ("_features", "chances", "last", "own", "usual")

    def __init__(self, chances: Frequencies, usual: Frequencies, last: Levels, own: Array | None = None) -> None:
        self.chances, self.usual, self.last, self.own = chances, usual, last, own
        self._features: Array | None = None

    def features(self) -> Array:
        """Return the logs of ``chances`` above those of ``own`` (1 + OWN, E * levels), found once."""
        if self._features is None:
            self._features = np.zeros((1 + OWN, self.chances.size))
            np.log(self.chances.reshape(-1) + _LEAST, out=self._features[0])
            if self.own is not None:
                self._features[1:] = self.own
        return self._features


class Source(NamedTuple):
    """What a source says on this frame, and what it had said last when the target last executed."""

    now: Levels
    then: Levels


class _Heard(NamedTuple):
    """Where in a pair's tables stands what goes with what its source says."""

    read: Levels  # what of it goes with each entry of the target (E,)
    rows: Levels  # its rows in the table of levels (E,)
    places: Levels  # of each level of the target in the first two tables (2, E * levels)


class Pair:
    """One source's tables towards one target with E entries.

    Where things stand in the tables depends on levels alone, and sources mostly say what they said before: places are
    kept by what was said, so that reading a table is one indexing.
    """

    def __init__(self, source: OutputSpec, target: OutputSpec) -> None:
        entries = 1 if target.task == "single_label" else target.size
        self._rows = np.arange(entries)
        self._counts = source.task == "count" and target.task == "count"
        self._ordered, self._source_ordered = target.task != "single_label", source.task != "single_label"
        channel = channels(source, target, entries)
        self._channel, self._sums = np.maximum(channel, 0), channel < 0
        self._all_sums, self._any_sums = bool(self._sums.all()), bool(self._sums.any())
        self._keep_moved(np.zeros((entries, _SOURCE_MOVES, _MOVES)))
        self._lay_out(np.zeros((entries, 4, 4)), np.zeros((entries, 2 * REACH + 1)))

    def _keep_moved(self, moved: Array) -> None:
        """Keep the table of moves (E, source's move, target's move), by the source's move first: sums are over that."""
        self._moved_flat = moved.transpose(1, 0, 2).reshape(-1)
        self.moved: Array = self._moved_flat.reshape(_SOURCE_MOVES, len(moved), _MOVES).transpose(1, 0, 2)

    def _lay_out(self, level: Array, apart: Array) -> None:
        """Keep the tables of levels (E, source's level, target's level) and of differences (E, 2 * REACH + 1) as one.

        Behind them stands a zero, for what is not told apart.
        """
        self._tables = np.concatenate((level.reshape(-1), apart.reshape(-1), [0.0]))
        self.level: Array = self._tables[: level.size].reshape(level.shape)
        self.apart: Array = self._tables[level.size : -1].reshape(apart.shape)
        self._apart_rows = level.size + self._rows * (2 * REACH + 1)
        self._heard: dict[bytes, _Heard] = {}
        self._met: dict[bytes, Levels] = {}
        self._source_moves: dict[bytes, Levels] = {}
        self._target_moves: dict[bytes, Levels] = {}
        self._forget()

    def _forget(self) -> None:
        """The tables have changed: nothing of what was found in them holds."""
        self._given: tuple[object, object, object] = (None, None, None)  # what goes for all that is kept
        self._kept: dict[bytes, Array] = {}  # by what the source says
        self._unlike: Array | None = None

    def likelier(self, source: Source, known: Known) -> Array:
        """Return by how much each level has become likelier, in logs, by each of the three tables.

        (3, E * levels), each up to a constant per entry, which changes no chances. Kept until either model executes:
        between, sources mostly say what they said before.
        """
        usual, last, then = self._given
        if usual is not known.usual or last is not known.last or then is not source.then:
            self._given, self._kept = (known.usual, known.last, source.then), {}
        key = source.now.tobytes()
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) == MOST_KEPT:
                self._kept = {}
            found = self._kept[key] = self._find(source, known)
        return found

    def _find(self, source: Source, known: Known) -> Array:
        shape = known.usual.shape
        heard = self._hear(source.now, shape[1])
        ratios = np.empty((3, shape[0] * shape[1]))
        seen = np.divide(self._tables.take(heard.places), known.usual.reshape(-1), out=ratios[:2])
        seen += _FIRST_TWO
        if self._unlike is None:
            always = ONES[:_SOURCE_MOVES].dot(self._moved_flat.reshape(_SOURCE_MOVES, -1)) + _ALIKE
            by_entry = always.reshape(-1, _MOVES)
            self._unlike = (_sums(by_entry) / by_entry).reshape(-1)
        by_move = self._moved_flat.take(self._source_move(source, heard.read)) * self._unlike
        by_move += TRUST
        by_move.take(self._target_move(known.last, shape[1]), out=ratios[2], mode="clip")
        return np.log(ratios, out=ratios)

    def learn(self, source: Source, known: Known, said: Levels, weight: float, *, only_moves: bool) -> None:
        """Take in what the target said (E,)."""
        self._make_room(0, max(said.tolist()) + 1)
        heard = self._hear(source.now, known.usual.shape[1])
        if not only_moves:
            self._tables *= FADE
            self._tables[self._met_at(source.now, said, heard)] += 1.0
        self._moved_flat *= FADE**weight
        moves = self._source_move(source, heard.read)[::_MOVES] + self._moves(said, known.last)
        self._moved_flat[moves] += weight
        self._forget()

    def start_from(self, level: Array, apart: Array, moved: Array) -> None:
        """Add tables like these here, of any number of levels: they count as frames learnt from."""
        self._make_room(level.shape[1] - 1, level.shape[2])
        self.level[:, : level.shape[1], : level.shape[2]] += level
        self.apart += apart
        self.moved += moved
        self._forget()

    def state(self) -> State:
        """Return the tables, for a snapshot."""
        return {"level": self.level, "apart": self.apart, "moved": self.moved}

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        self._keep_moved(array(state["moved"], self.moved))
        self._lay_out(array(state["level"], self.level, free=(1, 2)), array(state["apart"], self.apart))

    def _read(self, levels: Levels) -> Levels:
        """Return what of the source's levels goes with each entry of the target (E,)."""
        if not self._any_sums:
            return levels[self._channel]
        total = np.add.reduce(levels)
        if self._all_sums:
            return np.full(len(self._channel), total)
        return np.where(self._sums, total, levels[self._channel])

    def _hear(self, now: Levels, levels: int) -> _Heard:
        """Return where it stands what goes with ``now``, for so many levels of the target."""
        key = now.tobytes()
        heard = self._heard.get(key)
        if heard is None or heard.places.shape[1] != levels * len(self._rows):
            read = self._read(now)
            self._make_room(max(read.tolist()), levels)
            stride = self.level.shape[2]
            rows, every = (self._rows * self.level.shape[1] + read) * stride, np.arange(levels)
            places = np.full((2, len(read), levels), len(self._tables) - 1)
            places[0] = rows[:, None] + every
            if self._counts:
                places[1] = self._apart_rows[:, None] + _within(every - read[:, None], REACH)
            heard = _kept(self._heard, key, _Heard(read, rows, places.reshape(2, -1)))
        return heard

    def _met_at(self, now: Levels, said: Levels, heard: _Heard) -> Levels:
        """Return the places (2 * E,) of the target's levels beside the source's, in both tables."""
        key = now.tobytes() + said.tobytes()
        places = self._met.get(key)
        if places is None:
            apart = self._apart_rows + _within(said - heard.read, REACH)
            places = _kept(self._met, key, np.concatenate((heard.rows + said, apart)))
        return places

    def _source_move(self, source: Source, read: Levels) -> Levels:
        """Return the places (E * (2 * MOVES + 1),) of what goes with how far the source moved."""
        key = source.now.tobytes() + source.then.tobytes()
        places = self._source_moves.get(key)
        if places is None:
            then = self._read(source.then)
            move = _within(read - then, SOURCE_MOVES) if self._source_ordered else SOURCE_MOVES + (read != then)
            found = ((move * len(read) + self._rows) * _MOVES)[:, None] + np.arange(_MOVES)
            places = _kept(self._source_moves, key, found.reshape(-1))
        return places

    def _target_move(self, last: Levels, levels: int) -> Levels:
        """Return where, of E rows of 2 * MOVES + 1, each level stands as a move from the last (E * levels,)."""
        key = last.tobytes()
        places = self._target_moves.get(key)
        if places is None or len(places) != levels * len(last):
            found = self._rows[:, None] * _MOVES + self._moves(np.arange(levels), last[:, None])
            places = _kept(self._target_moves, key, found.reshape(-1))
        return places

    def _moves(self, level: Levels, last: Levels) -> Levels:
        return _within(level - last, MOVES) if self._ordered else np.asarray(MOVES + (level != last), np.intp)

    def _make_room(self, source_level: int, levels: int) -> None:
        have = self.level.shape
        if source_level >= have[1] or levels > have[2]:
            more = max(0, source_level + 1 - have[1]), max(0, levels - have[2])
            self._lay_out(np.pad(self.level, ((0, 0), (0, more[0]), (0, more[1]))), self.apart)


def _kept(places: dict[bytes, T], key: bytes, found: T) -> T:
    if len(places) >= MOST_KEPT:
        places.clear()
    places[key] = found
    return found


def _sums(table: Array) -> Array:
    """Return the sums over the last axis, which is kept."""
    return np.asarray(table.dot(ONES[: table.shape[-1]])[..., None])


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


class LinkEvidence:
    """Links between all models of one camera whose outputs have levels."""

    def __init__(self, specs: Mapping[str, OutputSpec]) -> None:
        self._specs = specs
        self.pairs: dict[tuple[str, str], Pair] = {}  # source, target
        self.pools: dict[tuple[str, ...], Pool] = {}  # target, *sources

    def chances(self, target: str, known: Known, sources: Mapping[str, Source]) -> Frequencies:
        """Return P(level) of ``target`` (E, levels), given at least one source."""
        said = {name: self._pair(name, target).likelier(source, known) for name, source in sources.items()}
        return self._pool(target, said).mix(_features(known, said.values()), len(known.last))

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
        if frames and not only_moves and max(said.tolist()) < known.usual.shape[1]:
            told = {name: self._pair(name, target).likelier(source, known) for name, source in sources.items()}
            for part in [{name: told[name]} for name in told] + ([told] if len(told) > 1 else []):
                self._pool(target, part).learn(_features(known, part.values()), said, weight, frames)
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


def _features(known: Known, said: Collection[Array]) -> Array:
    """Return the logs of P0, of the target's own evidence and of the tables of each source (F, E * levels)."""
    return np.concatenate((known.features(), *said))
