"""Links learnt once on a camera's warm-up, and what held-out parts of it say of them: where MLink baselines start.

Scores must come from frames the links have not seen (design ruling 3), and a warm-up is too short to set much aside:
so links are fitted once per fold without it, those judge the fold, and the links that serve are fitted on all.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from camlink.links.ensemble import Ensemble
from camlink.links.train import MIN_FRAMES, LinkKind, train_ensembles
from camlink.models.base import OutputSpec
from camlink.operators.profiling import LinkScorer

Array = NDArray[np.float32]
Times = NDArray[np.float64]
FOLDS, STRETCHES = 4, 20
LEARN_FROM = 2000  # frames of a long warm-up that links learn from, spread evenly over it
SCORE_ON = 400  # of those, frames that links are scored on
WINDOW = 500  # scored frames that are kept, so that later profile frames replace those of the warm-up
ALL_PAIRS_UP_TO = 8  # models; beyond, all are linked from a few models that correlate best with the rest
SOURCES = 6
ROUNDING = 1e-4  # of what should be a chance
LARGEST = 1e15  # of what links read: squares must stay within float32
WIDEST_TARGET = 256  # entries; links to longer outputs have millions of weights, and a warm-up teaches them nothing


@dataclass(frozen=True, eq=False)
class WarmLinks:
    """``ensembles``: target -> ensemble, none for what cannot be linked; ``held_out``: per frame that was held out."""

    ensembles: Mapping[str, Ensemble]
    held_out: Sequence[tuple[datetime, Mapping[str, Array], Mapping[str, Ensemble]]]

    def scorer(self, specs: Mapping[str, OutputSpec]) -> LinkScorer:
        """Return a scorer that has seen the held-out frames."""
        scorer = LinkScorer(specs, WINDOW)
        for moment, values, ensembles in self.held_out:
            scorer.observe(moment, values, ensembles)
        return scorer


@dataclass
class LinkTrainer:
    """Trains warm-up links, and remembers the last few results by content: budgets and policies share them."""

    keep: int = 256  # a camera takes a few hundred kilobytes
    _known: OrderedDict[str, WarmLinks] = field(default_factory=OrderedDict)

    def train(
        self,
        specs: Mapping[str, OutputSpec],
        samples: Mapping[str, Array],
        times_s: Times,
        *,
        seed: int,
        kind: LinkKind = "count_distribution",
    ) -> WarmLinks:
        """Return links between the models that can be linked: ``samples`` model -> (n, size), ``times_s`` (n,)."""
        digest = hashlib.blake2b(f"{seed} {kind} {sorted(specs.items())}".encode())
        for values in (times_s, *samples.values()):
            digest.update(np.ascontiguousarray(values).tobytes())
        key = digest.hexdigest()
        if key not in self._known:
            self._known[key] = train_warm_links(specs, samples, times_s, seed=seed, kind=kind)
            while len(self._known) > self.keep:
                self._known.popitem(last=False)
        return self._known[key]


def train_warm_links(
    specs: Mapping[str, OutputSpec],
    samples: Mapping[str, Array],
    times_s: Times,
    *,
    seed: int,
    kind: LinkKind = "count_distribution",
) -> WarmLinks:
    """Fit links on the warm-up, and once per fold without it.

    Sequences, boxes, and too few frames give no links at all; outputs of more than 256 entries are sources only.
    """
    linkable = {
        m: spec
        for m, spec in specs.items()
        if spec.kind == "vector" and spec.task != "tokens" and (np.abs(samples[m]) < LARGEST).all()
    }
    if len(linkable) < 2 or len(times_s) < MIN_FRAMES:
        return WarmLinks({}, [])
    rows = np.unique(np.linspace(0, len(times_s) - 1, min(LEARN_FROM, len(times_s))).astype(int))
    taught, times = {m: samples[m][rows] for m in linkable}, times_s[rows]
    ensembles = _fit(linkable, taught, times, seed, kind)
    return WarmLinks(ensembles, _judge(linkable, taught, times, seed, kind))


def are_chances(spec: OutputSpec, values: Array) -> bool:
    """Say whether labels come as chances from 0 to 1, which is what links predict; true for all that is no label."""
    return spec.task not in ("single_label", "multi_label") or bool((np.abs(values - 0.5) < 0.5 + ROUNDING).all())


def correlations(samples: Mapping[str, Array]) -> NDArray[np.float64]:
    """Return how well each model's outputs go with each other's, without training: (source, target), 0..1.

    It is the mean, over the target's entries, of the best absolute correlation with any entry of the source.
    """
    sizes = [v.shape[1] for v in samples.values()]
    starts = np.cumsum([0, *sizes[:-1]])
    entries = np.concatenate([_standardised(v) for v in samples.values()], axis=1)
    each = np.maximum.reduceat(np.abs(entries.T @ entries) / len(entries), starts, axis=0)
    return np.asarray(np.add.reduceat(each, starts, axis=1) / np.array(sizes))


def hub_sources(samples: Mapping[str, Array], count: int) -> tuple[str, ...]:
    """Return ``count`` models from which all others are linked: together they correlate best with every target.

    Picked one by one by what each adds to the targets' best correlation, which is submodular, so that greedy choice is
    within 1 - 1/e of the best (Nemhauser, Wolsey and Fisher, 1978).
    """
    merit, names = correlations(samples), list(samples)
    reached, chosen = np.zeros(len(names)), list[int]()
    for _ in range(min(count, len(names))):
        gain = np.maximum(merit, reached).sum(axis=1)
        gain[chosen] = -np.inf
        best = int(gain.argmax())
        chosen.append(best)
        reached = np.maximum(reached, merit[best])
    return tuple(names[i] for i in chosen)


def _standardised(values: Array) -> NDArray[np.float64]:
    centred = values.astype(np.float64) - values.mean(axis=0)
    return np.asarray(centred / np.maximum(values.std(axis=0), 1e-9))


def _fit(
    specs: Mapping[str, OutputSpec], samples: Mapping[str, Array], times_s: Times, seed: int, kind: LinkKind
) -> dict[str, Ensemble]:
    targets = [m for m, spec in specs.items() if spec.size <= WIDEST_TARGET and are_chances(spec, samples[m])]
    if len(specs) <= ALL_PAIRS_UP_TO:
        return (
            train_ensembles(specs, samples, seed=seed, targets=targets, times_s=times_s, kind=kind) if targets else {}
        )
    ensembles: dict[str, Ensemble] = {}
    hubs = hub_sources(samples, SOURCES)
    for target in targets:
        group = {*hubs, target}
        some = {m: spec for m, spec in specs.items() if m in group}
        mine = {m: samples[m] for m in some}
        ensembles |= train_ensembles(some, mine, seed=seed, targets=[target], times_s=times_s, kind=kind)
    return ensembles


def _judge(
    specs: Mapping[str, OutputSpec], samples: Mapping[str, Array], times_s: Times, seed: int, kind: LinkKind
) -> list[tuple[datetime, Mapping[str, Array], Mapping[str, Ensemble]]]:
    frames = len(times_s)
    folds = (np.arange(frames) * min(STRETCHES, max(frames // 2, 1)) // frames) % FOLDS
    fitted: dict[int, dict[str, Ensemble]] = {}
    one_is_enough = len(specs) > ALL_PAIRS_UP_TO or frames >= FOLDS * SCORE_ON
    for fold in range(1 if one_is_enough else FOLDS):
        rows = folds != fold
        if rows.sum() >= MIN_FRAMES and not rows.all():
            fitted[fold] = _fit(specs, {m: v[rows] for m, v in samples.items()}, times_s[rows], seed, kind)
    asked = [i for i in range(frames) if int(folds[i]) in fitted]
    spread = [asked[i] for i in np.unique(np.linspace(0, len(asked) - 1, min(SCORE_ON, len(asked))).astype(int))]
    return [
        (datetime.fromtimestamp(times_s[i], UTC), {m: v[i] for m, v in samples.items()}, fitted[int(folds[i])])
        for i in spread
    ]
