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

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.scores import agrees_by_degrees
from camlink.operators.belief import Frequencies, Levels, entries_of
from camlink.operators.link_loops import (
    MOVES,
    REACH,
    SOURCE_MOVES,
    Heard,
    PairTables,
    features_of,
    learn_pairs,
    pooled,
    read,
)
from camlink.operators.link_pool import Known, Pool
from camlink.operators.policy_state import State, array
from camlink.operators.usual import highest

Array = NDArray[np.float64]
Sources = tuple[str, ...]
Said = Mapping[str, Levels]  # by model
K = TypeVar("K")
V = TypeVar("V")
Tables = Mapping[tuple[str, str], tuple[Array, Array, Array]]  # source, target -> level, apart, moved (`Pair`)
Beginnings = Mapping[tuple[str, ...], tuple[Array, float]]  # target, *sources -> weights (`Pool`), how far alike


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
        self._bind()

    def _bind(self) -> None:
        kinds = self._counts, self._ordered, self._source_ordered
        self.tables: PairTables = self.level, self.apart, self.moved, self._channels, *kinds  # as the loops read it

    def make_room(self, now: Levels, said: Levels) -> None:
        """Tell apart at least what the source says ``now``, and of the target what it ``said``."""
        self._grow(int(read(now, self._channels).max()), int(said.max()))

    def _grow(self, source_level: int, level: int) -> None:
        more = max(0, source_level + 1 - self.level.shape[1]), max(0, level + 1 - self.level.shape[2])
        if any(more):
            self.level = np.pad(self.level, ((0, 0), (0, more[0]), (0, more[1])))
            self._bind()

    def start_from(self, level: Array, apart: Array, moved: Array) -> None:
        """Add tables like these here, of any number of levels: they count as frames learnt from."""
        self._grow(level.shape[1] - 1, level.shape[2] - 1)
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
        self._bind()


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


class _Made(dict[K, V]):
    """A dictionary that makes what is not there when it is asked for."""

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make

    def __missing__(self, key: K) -> V:
        made = self[key] = self._make(key)
        return made


class LinkEvidence:
    """Links between all models of one camera."""

    def __init__(self, specs: Mapping[str, OutputSpec]) -> None:
        self.pairs = _Made[tuple[str, str], Pair](
            lambda names: Pair(specs[names[0]], specs[names[1]])
        )  # source, target
        self.pools = _Made[tuple[str, ...], Pool](lambda names: self._new_pool(len(names) - 1))  # target, *sources

    def chances(self, target: str, known: Known, sources: Sources, now: Said, then: Said) -> Frequencies:
        """Return P(level) of ``target`` (E, levels), given at least one source.

        ``now``: what these say on this frame; ``then``: what each had said last when the target last executed.
        """
        heard, pool = self._heard(target, sources, now, then), self.pools[target, *sources]
        return pooled(known.features, known.usual, known.last, heard, pool.weights)

    def learn(
        self,
        target: str,
        known: Known,
        sources: Sources,
        now: Said,
        then: Said,
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
        heard, pools = self._heard(target, sources, now, then), self.pools
        if frames and not only_moves and highest(said) < known.usual.shape[1]:
            features = features_of(known.features, known.usual, known.last, heard)
            for i, name in enumerate(sources if len(sources) > 1 else ()):
                pools[target, name].learn(features, said, weight, frames, source=i)
            pools[target, *sources].learn(features, said, weight, frames)
        if not learn_pairs(heard, known.last, said, weight, only_moves):
            for name in sources:
                self.pairs[name, target].make_room(now[name], said)
            learn_pairs(self._heard(target, sources, now, then), known.last, said, weight, only_moves)

    def levels(self, source: str, target: str) -> Array:
        """Return how often ``target`` has said which level beside each of ``source`` (entries, source's, target's)."""
        return self.pairs[source, target].level

    def start_from(self, pairs: Tables, pools: Beginnings) -> None:
        """Begin with what other cameras have learnt, beside what was learnt here so far."""
        for (source, target), tables in pairs.items():
            self.pairs[source, target].start_from(*tables)
        for (target, *sources), (first, alike) in pools.items():
            self.pools[target, *sources].start_from(first, alike)

    def state(self) -> State:
        """Return all tables and weights, for a snapshot."""
        return {
            "pairs": [[*names, pair.state()] for names, pair in self.pairs.items()],
            "pools": [[*names, pool.state()] for names, pool in self.pools.items()],
        }

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`, and `KeyError` for models that are not there."""
        for source, target, told in state["pairs"]:
            self.pairs[source, target].resume(told)
        for *names, told in state["pools"]:
            self.pools[tuple(names)].resume(told)

    def _heard(self, target: str, sources: Sources, now: Said, then: Said) -> tuple[Heard, ...]:
        pairs = self.pairs
        return tuple([(pairs[name, target].tables, now[name], then[name]) for name in sources])

    def _new_pool(self, sources: int) -> Pool:
        return Pool(sources)
