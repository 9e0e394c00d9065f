"""How fast links are fitted: one link against the usual loops, and whole fleets at once.

    python -m benchmarks.links.training [--largest 10000] [--backend numpy] [--seed 0]

First table: 100 inputs, 100 outputs, 1,000 samples, 100 epochs, batches of 32, the same perceptron and optimiser in
camlink, in a plain torch loop (module, autograd, optimiser, one batch after another) and, where TensorFlow is
installed (it is no dependency of camlink), in Keras. Second table: fleets of links 16 -> 16 on 100 samples each, 100
epochs.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from camlink.links.fit import PAPER, Backend, FitJob, fit_links
from camlink.models.base import OutputSpec

Array = NDArray[np.float32]
EPOCHS, BATCH, RATE = PAPER.epochs, PAPER.batch, PAPER.rate


def jobs(count: int, samples: int, size: int, seed: int) -> list[FitJob]:
    rng = np.random.default_rng(seed)
    source, target = OutputSpec("source", "vector", size, "count"), OutputSpec("target", "vector", size, "count")
    x = rng.poisson(2, (samples, size)).astype(np.float32)
    return [FitJob(source, target, x, np.roll(x, i, axis=1), seed + i) for i in range(count)]


def with_camlink(job: FitJob) -> None:
    fit_links([job], PAPER)


def with_torch(job: FitJob) -> None:
    import torch

    torch.set_num_threads(1)  # more threads only wait for each other at this size
    torch.manual_seed(job.seed)
    x, y = torch.from_numpy(job.x), torch.from_numpy(job.y)
    hidden = PAPER.hidden(job.target)
    layers = (torch.nn.Linear(x.shape[1], hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, y.shape[1]))
    model, loss = torch.nn.Sequential(*layers), torch.nn.MSELoss()
    optimiser = torch.optim.RMSprop(model.parameters(), lr=RATE, alpha=0.9, eps=1e-7)
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            optimiser.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            optimiser.step()


def with_keras(job: FitJob) -> None:
    import keras

    hidden = PAPER.hidden(job.target)
    layers = [keras.layers.Dense(hidden, activation="relu"), keras.layers.Dense(job.target.size)]
    model = keras.Sequential(layers)
    model.compile(optimizer=keras.optimizers.RMSprop(RATE), loss="mse")
    model.fit(job.x, job.y, epochs=EPOCHS, batch_size=BATCH, verbose=0)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(
    largest: Annotated[int, typer.Option(help="Links of the largest fleet.")] = 10_000,
    backend: Annotated[Backend, typer.Option(help="numpy, or torch: on a GPU where there is one.")] = "numpy",
    seed: int = 0,
) -> None:
    console, job = Console(), jobs(1, 1000, 100, seed)[0]
    ways: dict[str, Callable[[FitJob], None]] = {"camlink": with_camlink, "plain torch loop": with_torch}
    if importlib.util.find_spec("tensorflow") and importlib.util.find_spec("keras"):
        ways["Keras, TensorFlow"] = with_keras
    table = Table("fitted with", "seconds", "times camlink's", title="One link 100 -> 100, 1,000 samples, 100 epochs")
    took = {name: min(seconds(partial(way, job)) for _ in range(2)) for name, way in ways.items()}
    for name, time_s in took.items():
        table.add_row(name, f"{time_s:.2f}", f"{time_s / took['camlink']:.1f}")
    console.print(table)
    if "Keras, TensorFlow" not in ways:
        console.print("Keras: not measured, TensorFlow is not installed (pip install tensorflow-cpu)")
    fleet = Table("links", "seconds", "links per second", title=f"Fleets 16 -> 16, {backend}")
    for count in (n for n in (10, 100, 348, 1000, 10_000) if n <= largest):
        batch = jobs(count, 100, 16, seed)
        time_s = seconds(partial(fit_links, batch, PAPER, backend))
        fleet.add_row(f"{count:,}", f"{time_s:.2f}", f"{count / time_s:.0f}")
    console.print(fleet)


if __name__ == "__main__":
    typer.run(main)
