"""Online training of a link at a fixed label budget, segment by segment (MLink extended, Fig. 6).

    python -m benchmarks.lab.adaptation TRACE SOURCE TARGET [--camera ID] [--segments 48] [--plot]

Prints the mean agreement of every strategy (`camlink.pipeline.lab.online`) on the same frames, ± between cameras and
seeds, and how often a segment falls under half. ``--plot PAGE.html`` draws agreement by segment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from camlink.models.trace_arrays import CameraTrace, open_arrays
from camlink.pipeline.lab.online import STRATEGIES, Adapted, adapt


def plot(results: dict[str, list[Adapted]], page: Path, title: str) -> None:
    import plotly.graph_objects as go

    figure = go.Figure()
    for strategy, runs in results.items():
        mean = np.mean([run.agreement for run in runs], axis=0)
        figure.add_scatter(x=np.arange(1, len(mean) + 1), y=100 * mean, name=strategy, mode="lines")
        for segment in runs[0].drifts:
            figure.add_vline(x=segment + 1, line={"dash": "dot", "width": 1})
    figure.update_layout(title=title, xaxis_title="segment", yaxis_title="agreement, %")
    figure.write_html(page)


def table_of(results: dict[str, list[Adapted]], title: str) -> Table:
    table = Table(
        "strategy", "agreement", "worst segment", "segments under half", "labels", "drifts found", title=title
    )
    for strategy, runs in results.items():
        means = [run.mean for run in runs]
        segments = np.mean([run.agreement for run in runs], axis=0)
        table.add_row(
            strategy,
            f"{100 * np.mean(means):.1f} ± {100 * np.std(means):.1f}",
            f"{100 * segments.min():.1f}",
            str(int((segments < 0.5).sum())),
            f"{np.mean([run.labels for run in runs]):.0f}",
            f"{np.mean([len(run.drifts) for run in runs]):.0f}",
        )
    return table


def main(
    trace: Path,
    source: str,
    target: str,
    camera: Annotated[list[str] | None, typer.Option(help="Cameras; all when not given.")] = None,
    share: Annotated[float, typer.Option(help="Share of frames that may be labelled.")] = 0.01,
    segments: int = 48,
    seed: Annotated[list[int] | None, typer.Option()] = None,
    plot_to: Annotated[Path | None, typer.Option("--plot", help="Write agreement by segment as a page.")] = None,
) -> None:
    chosen: list[CameraTrace] = [c for c in open_arrays(trace).cameras if not camera or c.camera_id in camera]
    pairs = [(c, s) for c in chosen for s in seed or [0]]
    results = {
        strategy: [adapt(c, source, target, strategy, share=share, segments=segments, seed=s) for c, s in pairs]
        for strategy in STRATEGIES
    }
    title = f"{trace.name}: {source} -> {target}, {len(chosen)} cameras, {share:.0%} of frames labelled"
    Console(width=120).print(table_of({str(k): v for k, v in results.items()}, title))
    if plot_to is not None:
        plot({str(k): v for k, v in results.items()}, plot_to, title)


if __name__ == "__main__":
    typer.run(main)
