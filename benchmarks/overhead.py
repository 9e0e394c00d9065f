"""What camlink itself costs: recorded models, no pixels, one core, one process, results log included.

    python benchmarks/overhead.py [--frames 20000] [--seed 0]

Prints frames per second, where the time goes (share of a profiled run, by part of camlink), and resident memory along
the way. The trace is synthetic (three correlated outputs); it stands for the work, not for accuracy.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
from rich.console import Console
from rich.table import Table

from camlink.models.base import Inference, OutputSpec, Task
from camlink.models.pool import ModelPool
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.records import Frame
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.testing import TinyModel, make_frames

PARTS = {
    "links/stack.py": "link training",
    "links/train.py": "link training",
    "links/": "link prediction",
    "operators/": "operators",
    "models/": "models (recorded values)",
    "pipeline/results": "results log",
    "pyarrow": "results log",
    "pipeline/": "bus, session, progress",
}


class Recorded(TinyModel):
    """Values made beforehand, so that the benchmark measures camlink and not the benchmark."""

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        return [self.function(frame) for frame in frames]


def models(frames: int, seed: int) -> list[Recorded]:
    rng = np.random.default_rng(seed)
    people = np.clip(np.round(3 + 2 * np.sin(np.arange(frames) / 200) + rng.normal(0, 0.6, frames)), 0, None)
    values = {
        "objects": np.stack([people, rng.poisson(0.2, frames)], axis=1),
        "persons": np.clip(people - (rng.random(frames) < 0.2), 0, None)[:, None],
        "action": np.stack([1 - np.exp(-people), np.full(frames, 0.1)], axis=1),
    }
    tasks: dict[str, Task] = {"objects": "count", "persons": "count", "action": "multi_label"}
    made = []
    for name, task in tasks.items():
        inferences = [Inference(v) for v in values[name].astype(np.float32)]
        spec = OutputSpec(name, "vector", values[name].shape[1], task)
        made.append(Recorded(spec, recalling(inferences), time_ms=87 if name == "action" else 33))
    return made


def recalling(known: Sequence[Inference]) -> Callable[[Frame], Inference]:
    return lambda frame: known[frame.index]


def run(frames: int, seed: int, out: Path, memory: list[float] | None = None) -> tuple[float, Session]:
    """Carry frames through a whole session; return seconds and the session."""
    config = SiteConfig(models="building", period=timedelta(hours=1), policy="mlink-exact", seed=seed)
    config = config.model_copy(update={"budgets": config.budgets.model_copy(update={"time_share": 0.4})})
    session = Session(config, ModelPool(models(frames, seed)), {"hall": Camera("bench", "synthetic", 1.0)}, out)
    readings = make_frames("hall", frames)
    done = 0

    def counted() -> Iterator[Frame]:
        nonlocal done
        for frame in readings:
            done += 1
            if memory is not None and done % (frames // 10) == 0:
                memory.append(psutil.Process().memory_info().rss / 1e6)
            yield frame

    start = time.perf_counter()
    session.run(counted(), lambda: {"hall": done})
    return time.perf_counter() - start, session


def shares(profile: cProfile.Profile) -> dict[str, float]:
    """Return each part's share of the profiled time, built-ins counted with their callers."""
    spent: dict[str, float] = defaultdict(float)
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for (file, _, _), (_, _, own, _, callers) in stats.items():
        if "camlink" in file or "pyarrow" in file:
            spent[part_of(file)] += own
        else:
            for (caller, _, _), (_, _, caller_own, _) in callers.items():
                spent[part_of(caller)] += caller_own
    total = sum(spent.values())
    return {part: seconds / total for part, seconds in sorted(spent.items(), key=lambda item: -item[1])}


def part_of(file: str) -> str:
    return next((part for path, part in PARTS.items() if path in file), "other")


def main(
    frames: Annotated[int, typer.Option(help="Frames to carry through.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic trace.")] = 0,
) -> None:
    os.sched_setaffinity(0, {0})
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        memory: list[float] = []
        seconds, session = run(frames, seed, Path(folder) / "plain", memory)
        console.print(
            f"{frames:,} frames x 3 models on one core: [bold]{frames / seconds:,.0f} frames/s[/bold] "
            f"({seconds / frames * 1e6:.0f} us a frame), {session.progress.executed_share:.0%} executed"
        )
        console.print("resident memory at each tenth, MB: " + " ".join(f"{m:.0f}" for m in memory))
        profile = cProfile.Profile()
        profile.runcall(run, min(frames, 10_000), seed, Path(folder) / "profiled")
    table = Table("where the time goes", "share of a profiled run")
    for part, share in shares(profile).items():
        table.add_row(part, f"{share:.0%}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
