"""What links say of a model, given the others' outputs on this very frame, and how far that has proved right."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from camlink.links.ensemble import Ensemble
from camlink.operators.belief import Frequencies, Leveled
from camlink.pipeline.records import Value

SHARES = np.array([0.0, 0.25, 0.5, 0.75])  # of the evidence that may be believed
HEAD_START = np.array([0.0, -1.0, -2.0, -3.0])  # log odds: links have to earn their say
FADE = 0.995  # per frame on which that can be judged
_LEAST = 1e-3


class LinkEvidence:
    """Links towards all models of one camera."""

    def __init__(self) -> None:
        self._ensembles: dict[str, Ensemble] = {}
        self._merit: dict[str, NDArray[np.float64]] = {}

    def use(self, ensembles: Mapping[str, Ensemble]) -> None:
        """Put links in force: target -> ensemble."""
        self._ensembles.update(ensembles)

    def share(self, target: str) -> float:
        """Return how much of what links say of ``target`` is believed, 0 until they have earned it."""
        merit = self._merit.get(target)
        return 0.0 if merit is None or target not in self._ensembles else float(SHARES[merit.argmax()])

    def usual(self, target: str, belief: Leveled, executed: Mapping[str, Value]) -> Frequencies | None:
        """Return ``target``'s frequencies on this frame (entries, levels), or None where links add nothing."""
        share = self.share(target)
        said = self._says(target, belief, executed) if share > 0.0 else None
        return None if said is None else share * said + (1.0 - share) * belief.usual

    def learn(self, target: str, belief: Leveled, fresh: float, sources: Mapping[str, Value], value: Value) -> None:
        """Judge every share by what ``target`` then said; ``fresh``: how fresh its last output was."""
        said = self._says(target, belief, sources)
        if said is None:
            return
        rows, level = np.arange(len(said)), np.minimum(belief.read(value), belief.levels - 1)
        by_links, by_itself = said[rows, level], belief.usual[rows, level]
        kept = fresh * (belief.last == level)
        chance = kept + (1.0 - fresh) * (SHARES[:, None] * by_links + (1.0 - SHARES[:, None]) * by_itself)
        merit = self._merit.get(target, HEAD_START)
        gained = np.log(np.maximum(chance, _LEAST)).mean(axis=1)
        self._merit[target] = HEAD_START + FADE * (merit - HEAD_START) + gained - gained[0]

    def _says(self, target: str, belief: Leveled, executed: Mapping[str, Value]) -> Frequencies | None:
        """Return P(level) (entries, levels) from the links alone, without what the target said last."""
        ensemble = self._ensembles.get(target)
        if ensemble is None:
            return None
        pre = {s: link.predict(executed[s]) for s, link in ensemble.links.items() if s in executed}
        if not pre:
            return None
        activated = ensemble.combine(pre)
        levels = belief.levels
        if ensemble.code is not None:
            return _by_level(activated, ensemble.code.levels, levels)
        task = ensemble.target.task
        if task == "single_label":
            return np.asarray(activated[None], np.float64)
        if task == "multi_label":
            return np.column_stack((1.0 - activated, activated)).astype(np.float64)
        return None


def _by_level(more_than: NDArray[np.float32], counts: tuple[int, ...], levels: int) -> Frequencies:
    """Turn P(count > k) (width,) into P(level) (entries, levels); what lies above ``levels`` goes to the highest."""
    chance = np.zeros((len(counts), levels))
    start = 0
    for entry, count in enumerate(counts):
        survival = np.minimum.accumulate(np.r_[1.0, more_than[start : start + count], 0.0])
        each = survival[:-1] - survival[1:]
        chance[entry, : min(levels, count + 1)] = each[:levels]
        chance[entry, -1] += each[levels:].sum()
        start += count
    return chance
