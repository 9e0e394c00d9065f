"""How many files days of a live run leave, and how long reading them takes, with merging and without.

    python -m benchmarks.parts [--cameras 20] [--days 2] [--flush-s 10]

A site's results log is flushed every ten seconds of its time, as fast as that goes, with one frame of each camera and
three models in each flush. Merging is done as the log does it, every 60 flushes, but in the same thread, so that its
time is known.
"""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from camlink.pipeline.records import FrameResult, ModelOutput
from camlink.pipeline.results import ResultsLog, RunInfo, RunResults
from camlink.pipeline.results.merge import EVERY, Merger

MODELS = ("objects", "persons", "action")
START = datetime(2026, 3, 2, tzinfo=UTC)


class Unmerged(ResultsLog):
    """A log whose merging is left to somebody else."""

    def flush(self) -> None:
        self._write_pending(2_000)


def frame(camera: str, index: int, at: datetime) -> FrameResult:
    value = np.array([index % 7], np.float32)
    outputs = tuple(ModelOutput(camera, index, at, model, value, "serve", "executed") for model in MODELS)
    return FrameResult(camera, index, at, "serve", outputs)


def write(folder: Path, cameras: int, flushes: int, flush_s: float, *, merges: bool) -> tuple[float, float]:
    """Write a run; return the seconds that flushing and merging took."""
    names = [f"cam-{number:03d}" for number in range(cameras)]
    folder.mkdir()
    told = {model: {"task": "count", "size": 1} for model in MODELS}
    RunInfo(folder.name, "0", 0, "mlink", told, {name: {} for name in names}, START).save(folder)
    log, merger, flushing_s, merging_s = Unmerged(folder), Merger(folder), 0.0, 0.0
    for number in range(flushes):
        at = START + timedelta(seconds=flush_s * number)
        log.write([frame(name, number, at) for name in names])
        begun = time.perf_counter()
        log.flush()
        flushed = time.perf_counter()
        flushing_s += flushed - begun
        if merges and number % EVERY == EVERY - 1:
            merger.merge()
            merging_s += time.perf_counter() - flushed
    return flushing_s, merging_s


def reading_s(folder: Path, camera: str | None) -> float:
    begun = time.perf_counter()
    assert RunResults(folder).outputs(camera).num_rows
    return time.perf_counter() - begun


def main(
    cameras: Annotated[int, typer.Option(help="Cameras of the site.")] = 20,
    days: Annotated[float, typer.Option(help="Length of the run, in event time.")] = 2.0,
    flush_s: Annotated[float, typer.Option(help="Between two flushes, in event time.")] = 10.0,
) -> None:
    flushes = round(days * 86_400 / flush_s)
    table = Table("", "files", "flushing, s", "merging, s", "reading one camera, s", "reading all, s")
    with tempfile.TemporaryDirectory() as place:
        for name, merges in (("merged", True), ("not merged", False)):
            folder = Path(place) / name
            flushing, merging = write(folder, cameras, flushes, flush_s, merges=merges)
            files = sum(1 for _ in folder.rglob("part-*.parquet"))
            times = (flushing, merging, reading_s(folder, "cam-000"), reading_s(folder, None))
            table.add_row(name, f"{files:,}", *(f"{seconds:.2f}" for seconds in times))
    Console().print(f"{cameras} cameras, {days:g} days, {flushes:,} flushes, {flushes * cameras * len(MODELS):,} rows")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
