"""Selection with many models (MLink extended, Fig. 10), and without training all n² links.

    python -m benchmarks.lab.scalability [--repeats 100] [--seed 0]

First the paper's simulation: 10 models, link scores and costs drawn from a normal (mean 0.5, deviation 0.2) or a beta
distribution (0.5, 0.5), each further source adding 0.02; greedy by activation probability, the optimum by enumeration,
and standalone. Then what the paper leaves open: 60 models that each see a linear view of the same scene. Every pair is
linked (least squares, scored on frames it has not seen), and greedy selection over all links is compared with selection
over links from a few sources only, chosen by correlation on 50 frames before any link is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Annotated, Literal

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from camlink.operators.baselines.warm_links import hub_sources
from camlink.operators.selection import Budget, CameraScores, Costs, PairScores, expected_agreement, select

Scores = NDArray[np.float64]
Law = Literal["normal", "beta"]
ENSEMBLE_GAIN = 0.02
BUDGETS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
FACTORS, ENTRIES = 8, 3  # of the scene, of each model's output
POLICIES = ("standalone", "mlink", "mlink-exact")
KEPT = (2, 4, 8, 16, 32)  # sources
LOOK, TRAIN, TEST = 50, 300, 300  # frames


def camera_scores(pairs: Scores, gain: float = 0.0) -> CameraScores:
    """Return scores of any subset: the best link, and ``gain`` for every further one; ``pairs`` (source, target)."""
    names = [f"m{i}" for i in range(len(pairs))]
    by_name: PairScores = {
        s: {t: float(pairs[i, j]) for j, t in enumerate(names) if j != i} for i, s in enumerate(names)
    }

    def subset(sources: tuple[str, ...], target: str) -> float:
        known = [score for s in sources if (score := by_name[s].get(target, 0.0)) > 0.0]
        return min(1.0, max(known) + gain * (len(known) - 1)) if known else 0.0

    return CameraScores(by_name, subset)


def draw(law: Law, shape: tuple[int, ...], rng: np.random.Generator) -> Scores:
    """Return numbers in (0, 1] by the paper's two laws."""
    drawn = rng.normal(0.5, 0.2, shape) if law == "normal" else rng.beta(0.5, 0.5, shape)
    return np.clip(drawn, 0.01, 1.0)


def figure_10(models: int, repeats: int, seed: int) -> dict[tuple[Law, float], dict[str, float]]:
    """Return the mean expected agreement of each policy: (law, budget) -> policy -> 0..1."""
    result = {}
    laws: tuple[Law, ...] = ("normal", "beta")
    for law, share in product(laws, BUDGETS):
        rng = np.random.default_rng(seed)
        sums: dict[str, float] = dict.fromkeys(POLICIES, 0.0)
        for _ in range(repeats):
            scores = camera_scores(draw(law, (models, models), rng), ENSEMBLE_GAIN)
            time_ms = dict(zip(scores.pairs, draw(law, (models,), rng).tolist(), strict=True))
            costs = Costs(time_ms, dict.fromkeys(time_ms, 0.0))
            for policy in sums:
                sums[policy] += select(policy, {"c": scores}, costs, Budget(time_share=share)).expected["c"]
        result[law, share] = {policy: total / repeats for policy, total in sums.items()}
    return result


def views(models: int, seed: int) -> Mapping[str, NDArray[np.float32]]:
    """Return what models say of the same scene: name -> (frames, entries); each sees a few of its factors."""
    rng = np.random.default_rng(seed)
    frames = LOOK + TRAIN + TEST
    scene = rng.normal(0.0, 1.0, (frames, FACTORS))
    outputs = {}
    for i in range(models):
        seen = rng.choice(FACTORS, 2, replace=False)
        view = scene[:, seen] @ rng.normal(0.0, 1.0, (2, ENTRIES)) + rng.normal(0.0, 0.4, (frames, ENTRIES))
        outputs[f"m{i}"] = view.astype(np.float32)
    return outputs


def link_scores(outputs: Mapping[str, NDArray[np.float32]]) -> Scores:
    """Return how much of each target each linear link explains on frames it has not seen: (source, target), 0..1."""
    names = list(outputs)
    learn, judge = slice(LOOK, LOOK + TRAIN), slice(LOOK + TRAIN, None)
    every = np.concatenate([outputs[m] for m in names], axis=1)
    spread = every[judge].var(axis=0)
    scores = np.zeros((len(names), len(names)))
    for i, name in enumerate(names):
        x = np.column_stack([outputs[name], np.ones(len(outputs[name]))])
        weights = np.linalg.lstsq(x[learn], every[learn], rcond=None)[0]
        left = ((every[judge] - x[judge] @ weights) ** 2).mean(axis=0)
        scores[i] = np.clip(1.0 - left / spread, 0.0, 1.0).reshape(-1, ENTRIES).mean(axis=1)
    return scores


def regret(models: int, kept: Sequence[int], share: float, seed: int) -> tuple[float, list[float]]:
    """Return expected agreement over all links, and over links from so many sources, chosen by correlation."""
    outputs = views(models, seed)
    names, full = list(outputs), link_scores(outputs)
    look = {m: v[:LOOK] for m, v in outputs.items()}
    hubs = hub_sources(look, max(kept))  # best first
    cost = np.random.default_rng(seed).uniform(10.0, 60.0, models)
    costs = Costs(dict(zip(names, cost.tolist(), strict=True)), dict.fromkeys(names, 0.0))

    def reached(known: CameraScores) -> float:
        chosen = select("mlink", {"c": known}, costs, Budget(time_share=share)).execute["c"]
        return expected_agreement(chosen, names, known.subset)

    few = []
    for count in kept:
        mask = np.zeros_like(full)
        mask[[names.index(s) for s in hubs[:count]]] = 1.0
        few.append(reached(camera_scores(full * mask)))
    return reached(camera_scores(full)), few


def main(
    repeats: Annotated[int, typer.Option(help="Random cases per law and budget.")] = 20,
    models: Annotated[int, typer.Option(help="Models of the second part.")] = 60,
    seed: int = 0,
) -> None:
    console = Console(width=120)
    table = Table("law", "budget", "standalone", "greedy", "optimal", title="10 models: expected agreement, %")
    for (law, share), mean in figure_10(10, repeats, seed).items():
        table.add_row(law, f"{share:.0%}", *(f"{100 * mean[p]:.1f}" for p in POLICIES))
    console.print(table)
    runs = [regret(models, KEPT, 0.25, seed + i) for i in range(3)]
    full = float(np.mean([run[0] for run in runs]))
    title = f"{models} models, a quarter of the time: links from all reach {100 * full:.1f} %"
    table = Table("sources", "of all pairs", "agreement, %", "regret, points", title=title)
    for place, count in enumerate(KEPT):
        few = float(np.mean([run[1][place] for run in runs]))
        pairs = count / models
        table.add_row(str(count), f"{pairs:.0%}", f"{100 * few:.1f}", f"{100 * (full - few):.1f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
