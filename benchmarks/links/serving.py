"""What a prediction costs: one frame and one target, and a batch across cameras. Confidence included.

python -m benchmarks.links.serving [--seed 0]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from camlink.links.inputs import LinkInputs
from camlink.links.memory import Recall
from camlink.links.train import LinkKind, train_ensembles
from camlink.models.base import OutputSpec
from camlink.pipeline.records import Detections

SPECS = {
    "objects": OutputSpec("objects", "vector", 9, "count"),
    "persons": OutputSpec("persons", "vector", 1, "count"),
    "action": OutputSpec("action", "vector", 2, "multi_label"),
}
PAIRS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("persons", ("objects",)),
    ("objects", ("persons",)),
    ("persons", ("objects", "action")),
)
BATCH = 1000
KINDS: tuple[LinkKind, ...] = ("vec_to_vec", "count_distribution")


def microseconds(work: Callable[[], object], calls: int) -> float:
    """Return the median time of one call, in microseconds."""
    times = []
    for _ in range(calls):
        start = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - start)
    return float(np.median(times)) / 1e3


def main(seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    objects = rng.poisson(1.5, (BATCH, 9)).astype(np.float32)
    action = np.stack([objects[:, 0] > 0, objects[:, 0] > 3], axis=1).astype(np.float32)
    values = {"objects": objects, "persons": objects[:, :1].copy(), "action": action}
    columns = ("links", "target", "sources", "one frame, us", "with memory, us", f"per frame of {BATCH}, us")
    table = Table(*columns, title="Serving: median time of Ensemble.predict")
    learnt = {m: v[:300] for m, v in values.items()}
    for kind in KINDS:
        trained = train_ensembles(SPECS, learnt, seed=seed, times_s=np.arange(300.0), kind=kind)
        for target, sources in PAIRS:
            ensemble, recall = trained[target], Recall(values[target][0], 3.0)
            batch = {s: values[s] for s in sources}
            one = {s: values[s][1] for s in sources}
            cells = (
                microseconds(partial(ensemble.predict, one), 3000),
                microseconds(partial(ensemble.predict, one, recall), 3000) if ensemble.trust else None,
                microseconds(partial(ensemble.predict, batch), 30) / BATCH,
            )
            shown = ("-" if cell is None else f"{cell:.2f}" for cell in cells)
            table.add_row(kind, target, " + ".join(sources), *shown)
    Console(width=110).print(table)
    Console(width=110).print(sets_table(seed))


def sets_table(seed: int) -> Table:
    """Links from up to 12 boxes a frame: what fitting them costs beside links from counts, and what serving does."""
    rng = np.random.default_rng(seed)
    specs = {m: SPECS[m] for m in ("objects", "persons")}
    objects = rng.poisson(1.5, (BATCH, 9)).astype(np.float32)
    values = {"objects": objects, "persons": objects[:, :1].copy()}
    boxes = [_boxes(rng, int(count)) for count in np.minimum(objects.sum(axis=1), 12)]
    table = Table("links", "both fitted on 300 frames, s", "one frame, us", f"per frame of {BATCH}, us", title="Sets")
    kinds: tuple[LinkKind, ...] = ("count_distribution", "set")
    for kind, reads in zip(kinds, (False, True), strict=True):
        inputs = LinkInputs(specs, boxes=reads)
        now = datetime(2026, 1, 1, tzinfo=UTC)
        frames = [
            inputs.read({m: v[i] for m, v in values.items()}, {"objects": boxes[i]}, now, None) for i in range(BATCH)
        ]
        start = time.perf_counter()
        learnt = {m: v[:300] for m, v in values.items()}
        trained = train_ensembles(specs, learnt, seed=seed, kind=kind, read=inputs.stacked(frames[:300]))["persons"]
        took_s = time.perf_counter() - start
        batch = {"objects": inputs.stacked(frames).samples["objects"]}
        one = {"objects": frames[1]["objects"]}
        single = microseconds(partial(trained.predict, one), 1000)
        many = microseconds(partial(trained.predict, batch), 10) / BATCH
        table.add_row(kind, f"{took_s:.2f}", f"{single:.1f}", f"{many:.2f}")
    return table


def _boxes(rng: np.random.Generator, count: int) -> Detections:
    corners = np.sort(rng.random((count, 2, 2)), axis=1).reshape(count, 4).astype(np.float32)
    return Detections(corners, rng.random(count).astype(np.float32), np.zeros(count, np.int32))


if __name__ == "__main__":
    typer.run(main)
