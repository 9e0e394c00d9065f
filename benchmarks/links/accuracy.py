"""Do links predict real models better than doing nothing clever? Test-then-train on recorded traces.

    python -m benchmarks.links.accuracy TRACE... [--labelled 0.02] [--seed 0] [--plot reliability.html]

All models run on a trace's first frames (a twentieth, at least 40) and later on a random share of the frames
(``--labelled``, like audit frames). The trace is walked in ten parts: links learn from the labelled frames before a
part and are scored on its other frames. Beside them stand the constant (most frequent value so far, per entry) and
persistence (the value of the last labelled frame). A pair is called linkable where a link that sees the source alone
beats the constant by more than two standard errors of the difference between parts.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.links.samples import Array, CameraSamples, cameras_of
from camlink.links.conformal import ConformalSets
from camlink.links.inputs import LinkInputs, SourceSamples
from camlink.links.memory import Recall
from camlink.links.train import MIN_FRAMES, LinkKind, train_ensembles
from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.pipeline.errors import LinkError

PARTS = 10
SHARES = (0.01, 0.05, 0.10, 0.20, 0.48)  # of training data, as in the paper's Fig. 5
KINDS: tuple[LinkKind, ...] = ("vec_to_vec", "count_distribution")
PLAIN = ("paper's link", "distribution", "set", "+ frame", "+ time", "auto")
COLUMNS = ("constant", "persistence", *PLAIN, "distribution, memory", "set, memory", "auto, memory")


@dataclass
class Scores:
    """Agreement and exact matches per frame, by (target, source, way of predicting) and part."""

    agreement: dict[tuple[str, str, str], list[Array]] = field(default_factory=lambda: defaultdict(list))
    exact: dict[tuple[str, str, str], list[NDArray[np.bool_]]] = field(default_factory=lambda: defaultdict(list))
    stated: list[tuple[NDArray[np.float64], Array]] = field(default_factory=list)  # confidence, agreement

    def add(self, key: tuple[str, str, str], spec: OutputSpec, predicted: Array, executed: Array) -> Array:
        scored = agreement(spec, predicted, executed)
        self.agreement[key].append(scored)
        self.exact[key].append(scored >= 1.0)
        return scored


def constant_of(spec: OutputSpec, y: Array) -> Array:
    """Return the most frequent value per entry, or the mean for outputs that are not counts."""
    if spec.task != "count":
        mean: Array = y.mean(axis=0)
        return mean
    return np.array([np.bincount(column.astype(int)).argmax() for column in y.T], np.float32)


def walk(camera: CameraSamples, labelled_share: float, seed: int) -> Scores:
    frames = len(camera.times_s)
    labelled = np.random.default_rng(seed).random(frames) < labelled_share
    labelled[: max(40, frames // 20)] = True
    edges = np.linspace(max(40, frames // 10), frames, PARTS + 1).astype(int)
    scores = Scores()
    ways = _ways(camera)
    for start, end in pairwise(edges):
        known, asked = np.flatnonzero(labelled[:start]), np.flatnonzero(~labelled[start:end]) + start
        if len(asked):
            _score_part(camera, ways, labelled, known, asked, scores, seed)
    return scores


def _ways(camera: CameraSamples) -> dict[str, tuple[LinkKind, SourceSamples]]:
    """Return, by column, the kind of link, and what it reads of the camera's frames."""
    specs = camera.specs
    plain, boxes = camera.read_by(LinkInputs(specs)), camera.read_by(LinkInputs(specs, boxes=True))
    frame = camera.read_by(LinkInputs(specs, context=["frame_statistics"]))
    time = camera.read_by(LinkInputs(specs, context=["time_of_day"]))
    kinds: list[LinkKind] = [
        "vec_to_vec",
        "count_distribution",
        "set",
        "count_distribution",
        "count_distribution",
        "auto",
    ]
    return dict(zip(PLAIN, zip(kinds, (plain, plain, boxes, frame, time, plain), strict=True), strict=True))


def _score_part(
    camera: CameraSamples,
    ways: dict[str, tuple[LinkKind, SourceSamples]],
    labelled: NDArray[np.bool_],
    known: NDArray[np.intp],
    asked: NDArray[np.intp],
    scores: Scores,
    seed: int,
) -> None:
    values = camera.values
    previous = np.maximum.accumulate(np.where(labelled, np.arange(len(labelled)), -1))[asked]
    samples = {m: v[known] for m, v in values.items()}
    trained = {
        way: train_ensembles(
            camera.specs, samples, seed=seed, times_s=camera.times_s[known], kind=kind, read=_rows(read, known)
        )
        for way, (kind, read) in ways.items()
    }
    for target, spec in camera.specs.items():
        executed = values[target][asked]
        baselines = np.tile(constant_of(spec, values[target][known]), (len(asked), 1)), values[target][previous]
        recall = Recall(values[target][previous], camera.times_s[asked] - camera.times_s[previous])
        others = tuple(m for m in camera.specs if m != target)
        sets = {s: (s,) for s in others} | ({"all": others} if len(others) > 1 else {})
        for name, sources in sets.items():
            for column, predicted in zip(COLUMNS, baselines, strict=False):
                scores.add((target, name, column), spec, predicted, executed)
            for way, (_, read) in ways.items():
                given = {s: read.samples[s][asked] for s in sources}
                for column, last in ((way, None), (f"{way}, memory", recall)):
                    if column in COLUMNS:
                        predicted, confidence = trained[way][target].predict(given, last)
                        agreed = scores.add((target, name, column), spec, predicted, executed)
                        if "distribution" in column:
                            scores.stated.append((confidence, agreed))


def _rows(read: SourceSamples, rows: NDArray[np.intp]) -> SourceSamples:
    return SourceSamples(read.specs, {m: v[rows] for m, v in read.samples.items()})


def linkable(scores: Scores, target: str, source: str) -> bool:
    parts = zip(scores.agreement[target, source, COLUMNS[0]], _best(scores, target, source), strict=True)
    gain = np.array([link.mean() - constant.mean() for constant, link in parts])
    return bool(gain.mean() > 2.0 * gain.std() / np.sqrt(len(gain)) and gain.mean() > 0.005)


def _best(scores: Scores, target: str, source: str) -> list[Array]:
    ways = [scores.agreement[target, source, column] for column in PLAIN]
    return max(ways, key=lambda parts: float(np.concatenate(parts).mean()))


def table_of(title: str, scores: Scores) -> Table:
    table = Table("target", "from", *COLUMNS, "exact: paper's", "exact: memory", "linkable", title=title)
    for target, source in dict.fromkeys((t, s) for t, s, _ in scores.agreement):
        means = [float(np.concatenate(scores.agreement[target, source, c]).mean()) for c in COLUMNS]
        exact = [
            float(np.concatenate(scores.exact[target, source, c]).mean()) for c in (COLUMNS[2], "distribution, memory")
        ]
        best = max(means)
        cells = [f"[bold]{m:.3f}[/bold]" if m >= best - 5e-4 else f"{m:.3f}" for m in means]
        verdict = "yes" if linkable(scores, target, source) else "no better than constant"
        table.add_row(target, source, *cells, *(f"{e:.3f}" for e in exact), verdict)
    return table


def verdict_of(title: str, scores: Scores) -> Table:
    """Say for each linkable pair whether the best of camlink's links reaches the paper's, and name the other pairs."""
    table = Table("target", "from", "paper's link", "default", "best", "which", "at least the paper's", title=title)
    unlinkable = []
    for target, source in dict.fromkeys((t, s) for t, s, _ in scores.agreement):
        if not linkable(scores, target, source):
            unlinkable.append(f"{source} to {target}")
            continue
        mean = {c: float(np.concatenate(scores.agreement[target, source, c]).mean()) for c in COLUMNS[2:]}
        paper, default = mean.pop(PLAIN[0]), mean["distribution, memory"]
        best = max(mean, key=lambda c: mean[c])
        reached = "yes" if mean[best] >= paper else f"no, by {paper - mean[best]:.3f}"
        table.add_row(target, source, f"{paper:.3f}", f"{default:.3f}", f"{mean[best]:.3f}", best, reached)
    table.caption = f"not linkable, no link better than the constant: {', '.join(unlinkable) or 'none'}"
    return table


def ensembles_of(title: str, scores: Scores, column: str = "distribution") -> Table:
    """Say of each target whether one source dominates the ensemble of all, or whether sources help each other.

    The two typical cases of Sec. 3.6 and Tab. III: the ensemble is about as good as its best source, or better than
    every one; ``about`` is two standard errors of the difference between parts. It may also be worse.
    """
    table = Table("target", "best source", "alone", "all sources", "case", title=title)
    for target in dict.fromkeys(t for t, _, _ in scores.agreement):
        parts = {s: scores.agreement[target, s, column] for t, s, c in scores.agreement if (t, c) == (target, column)}
        together = parts.pop("all", None)
        if together is None:
            continue  # one source is no ensemble
        best = max(parts, key=lambda s: float(np.concatenate(parts[s]).mean()))
        gain = np.array([a.mean() - b.mean() for a, b in zip(together, parts[best], strict=True)])
        error = 2.0 * float(gain.std()) / np.sqrt(len(gain))
        case = (
            "dominance" if abs(gain.mean()) <= error else "mutual assistance" if gain.mean() > 0 else "worse together"
        )
        shown = (f"{np.concatenate(p).mean():.3f}" for p in (parts[best], together))
        table.add_row(target, best, *shown, case)
    return table


def sensitivity_of(camera: CameraSamples, seed: int) -> Table:
    """Agreement on the last 52 % of the frames, by the share of all frames that taught, spread over the first 48 %."""
    table = Table(
        "target", "links", *(f"{share:.0%}" for share in SHARES), title=f"{camera.name}: share of training data"
    )
    frames = len(camera.times_s)
    first = int(SHARES[-1] * frames)
    for target, spec in camera.specs.items():
        executed = camera.values[target][first:]
        given = {m: v[first:] for m, v in camera.values.items() if m != target}
        rows: dict[str, list[str]] = {way: [] for way in ("constant", *KINDS)}
        for share in SHARES:
            known = np.unique(np.linspace(0, first - 1, int(share * frames)).astype(int))
            enough = len(known) >= MIN_FRAMES
            samples = {m: v[known] for m, v in camera.values.items()}
            constant = np.tile(constant_of(spec, samples[target]), (len(executed), 1))
            rows["constant"].append(f"{agreement(spec, constant, executed).mean():.3f}")
            for kind in KINDS:
                if not enough:
                    rows[kind].append("too few")
                    continue
                trained = train_ensembles(camera.specs, samples, seed=seed, targets=[target], kind=kind)
                scored = agreement(spec, trained[target].predict(given)[0], executed)
                rows[kind].append(f"{scored.mean():.3f}")
        for way, cells in rows.items():
            table.add_row(target, way, *cells)
    return table


def coverage_of(camera: CameraSamples, seed: int) -> Table:
    """Learn from the first 40 % of the frames, find the threshold on the next 20 %, judge on the rest."""
    table = Table("target", "asked", "entries covered", "answers in a set", title=f"{camera.name}: conformal sets")
    frames = len(camera.times_s)
    edges = [int(share * frames) for share in (0.4, 0.6)]
    parts = {m: np.split(v, edges) for m, v in camera.values.items()}
    learnt, tuned, judged = ({m: part[i] for m, part in parts.items()} for i in range(3))
    for target, ensemble in train_ensembles(camera.specs, learnt, seed=seed).items():
        for asked in (0.8, 0.9):
            try:
                sets = ConformalSets.fit(ensemble, _but(tuned, target), tuned[target], asked)
            except LinkError:  # a regression has no sets
                continue
            given = _but(judged, target)
            covered = sets.covered(given, judged[target]).mean()
            size = np.mean([kept.sum(axis=1).mean() for kept in sets.sets(given)])
            table.add_row(target, f"{asked:.0%}", f"{covered:.3f}", f"{size:.2f}")
    return table


def _but(values: dict[str, Array], target: str) -> dict[str, Array]:
    return {m: v for m, v in values.items() if m != target}


def reliability(stated: list[tuple[NDArray[np.float64], Array]]) -> list[tuple[float, float, int]]:
    """Return, per tenth of confidence that occurs, its mean, the mean agreement, and the number of predictions."""
    confidence, agreed = (np.concatenate(side) for side in zip(*stated, strict=True))
    tenth = np.minimum((confidence * 10).astype(int), 9)
    bins = [(confidence[tenth == i], agreed[tenth == i]) for i in range(10)]
    return [(float(c.mean()), float(a.mean()), len(c)) for c, a in bins if len(c)]


def plot(bins: list[tuple[float, float, int]], path: Path) -> None:
    import plotly.graph_objects as go

    stated, observed, counts = zip(*bins, strict=True)
    figure = go.Figure()
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="honest", line={"dash": "dot", "color": "grey"})
    figure.add_scatter(x=stated, y=observed, mode="lines+markers", name="observed", text=[f"{n}" for n in counts])
    figure.update_layout(xaxis_title="stated confidence", yaxis_title="observed agreement", title="Reliability")
    figure.write_html(path)


def main(
    traces: list[Path],
    labelled: Annotated[float, typer.Option(help="Share of later frames on which all models ran.")] = 0.02,
    seed: int = 0,
    plot_to: Annotated[Path | None, typer.Option("--plot", help="Reliability plot as HTML.")] = None,
) -> None:
    console, stated = Console(width=190), []
    for path in traces:
        for camera in cameras_of(path):
            scores = walk(camera, labelled, seed)
            stated += scores.stated
            console.print(sensitivity_of(camera, seed))
            console.print(table_of(f"{camera.name}: agreement, {labelled:.0%} of frames labelled", scores))
            console.print(ensembles_of(f"{camera.name}: distribution links together (Tab. III)", scores))
            console.print(coverage_of(camera, seed))
            console.print(verdict_of(f"{camera.name}: the best link against the paper's", scores))
    bins = reliability(stated)
    table = Table("stated confidence", "observed agreement", "predictions", title="Reliability of distribution links")
    for mean, observed, count in bins:
        table.add_row(f"{mean:.3f}", f"{observed:.3f}", str(count))
    console.print(table)
    total = sum(count for _, _, count in bins)
    error = sum(abs(mean - observed) * count for mean, observed, count in bins) / total
    console.print(f"expected calibration error: {error:.3f}")
    if plot_to is not None:
        plot(bins, plot_to)


if __name__ == "__main__":
    typer.run(main)
