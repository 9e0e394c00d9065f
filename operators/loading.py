"""What one camera's models are known to tell of each other: what to load is chosen by it where not all models fit.

Seen on frames that all models executed on. Of each model: how often its usual value is right, and how often what
another one says tells it, by a table or by their difference, learnt on one half of the frames and tried on the other.
`camlink.operators.loaded_set` chooses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.operators.baselines.options import Option, within_memory
from camlink.operators.belief import Levels, entries_of
from camlink.operators.link_evidence import channels
from camlink.operators.policy_state import State, array
from camlink.operators.selection import Budget, Costs
from camlink.operators.worth import Outlook
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Prospect

MOST_FRAMES = 512  # kept; then every other one of the older half goes
FEWEST_FRAMES = 8  # that say anything
FEWEST_HALVES = 64  # whose halves say how often what is usual stays so
MOST_GUIDES = 2  # that a model which is not loaded is answered from
_MARGIN = 1e-6  # even a model that never changed is worth its memory
_HALF_A_FRAME = 0.5  # for the usual level, beside each level of a source


@dataclass(frozen=True)
class Telling:
    """How often models are known without executing them, 0..1."""

    usually: Mapping[str, float]
    by: Mapping[tuple[str, str], float]  # source, target
    frames: int = 0  # that this was seen on

    def prospects(self, outlooks: Mapping[str, Outlook], usual: Mapping[str, float]) -> dict[str, Prospect]:
        """Return what is expected of each model with an outlook.

        ``usual``: how often its policy takes the usual value to be right. Enough full frames know better: a policy that
        sees each change soon knows what is usual by then, one that no longer executes a model does not.
        """
        usual = {**usual, **self.usually} if self.frames >= FEWEST_HALVES else usual
        return {
            m: Prospect(o.stale, o.renewed, o.steady, o.hazard, usual[m], self._more(m)) for m, o in outlooks.items()
        }

    def _more(self, target: str) -> dict[str, float]:
        """Return by how much more often than usual each model tells ``target``, those that do."""
        more = {s: right - self.usually[target] for (s, t), right in self.by.items() if t == target}
        return {s: gain for s, gain in more.items() if gain > 0.0}

    def guides(self, target: str, loaded: Collection[str]) -> tuple[str, ...]:
        """Return the loaded models that tell most of ``target``, if they tell more than is usual; the best first."""
        told = {s: self.by.get((s, target), 0.0) for s in loaded}
        best = sorted((s for s in told if told[s] > self.usually.get(target, 0.0)), key=lambda s: -told[s])
        return tuple(best[:MOST_GUIDES])


class FullFrames:
    """What all models said on frames that all executed on, in order."""

    def __init__(self, specs: Mapping[str, OutputSpec]) -> None:
        self._specs = specs
        self._frames: list[Mapping[str, Levels]] = []
        self._telling: Telling | None = None  # of the frames so far, once somebody asked

    def __iter__(self) -> Iterator[Mapping[str, Levels]]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, levels: Mapping[str, Levels]) -> None:
        """Keep a frame; of very many, the fewer the longer ago they are."""
        self._frames.append(levels)
        if len(self._frames) == MOST_FRAMES:
            half = MOST_FRAMES // 2
            self._frames = self._frames[:half:2] + self._frames[half:]
        self._telling = None

    def telling(self) -> Telling:
        """Return what the frames show of each model and each pair; nothing where they are too few."""
        if self._telling is None:
            few = len(self._frames) < FEWEST_FRAMES
            self._telling = Telling({}, {}) if few else self._told_by_all()
        return self._telling

    def _told_by_all(self) -> Telling:
        said = {name: np.stack([f[name] for f in self._frames]) for name in self._specs}
        usually = {name: _right(np.zeros_like(levels), levels) for name, levels in said.items()}
        by = {(s, t): self._told(s, t, said) for s in said for t in said if s != t and usually[t] < 1.0}
        return Telling(usually, by, len(self._frames))

    def _told(self, source: str, target: str, said: Mapping[str, Levels]) -> float:
        levels = said[target]
        channel = channels(self._specs[source], self._specs[target], levels.shape[1])
        sums = said[source].sum(axis=1, keepdims=True)
        now = np.where(channel < 0, sums, said[source][:, np.maximum(channel, 0)])
        right = _right(now, levels)
        if self._specs[source].task == self._specs[target].task == "count":
            apart = levels - now
            right = max(right, _right(np.zeros_like(now), apart - apart.min()))
        return right

    def state(self) -> State:
        """Return the frames, for a snapshot."""
        kept = {n: np.array([f[n] for f in self._frames], np.intp) for n in self._specs}
        levels = {n: kept[n].reshape(len(self._frames), entries_of(s)) for n, s in self._specs.items()}
        return {"levels": levels}

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`, and `KeyError` for models that are not there."""
        kept = state["levels"]
        levels = {n: array(kept[n], np.zeros((0, entries_of(s)), np.intp), free=(0,)) for n, s in self._specs.items()}
        if any(said.min(initial=0) < 0 for said in levels.values()):
            raise StateError("not a snapshot: levels below zero")
        self._frames = [dict(zip(levels, frame, strict=True)) for frame in zip(*levels.values(), strict=True)]
        self._telling = None


def _right(now: Levels, said: Levels) -> float:
    """Return how often the most frequent level beside what a source says is right, half by half (frames, entries)."""
    entries = np.arange(said.shape[1])
    table_of = np.zeros((2, said.shape[1], int(now.max()) + 1, int(said.max()) + 1))
    half = (np.arange(len(said)) >= len(said) // 2).astype(np.intp)
    np.add.at(table_of, (half[:, None], entries[None, :], now, said), 1.0)
    usual = table_of.sum(axis=2).argmax(axis=2)
    for part in (0, 1):
        table_of[part, entries, :, usual[part]] += _HALF_A_FRAME
    guess: NDArray[np.intp] = table_of.argmax(axis=3)[1 - half[:, None], entries[None, :], now]
    return float((guess == said).mean())


def what_fits(stale: Mapping[str, float], costs: Costs, budget: Budget) -> frozenset[str]:
    """Return the models that fit into memory together and are hardest to do without, none that no frame has time for.

    ``stale``: how wrong each is expected to be without.
    """
    options = {m: [Option(0.0, -wrong - _MARGIN, False), Option(0.0, 0.0, True)] for m, wrong in stale.items()}
    return frozenset(m for m, option in within_memory(options, costs, budget).items() if option.how)
