"""What the dashboard costs and how fast it answers, beside a pipeline that runs at the same time.

    python -m benchmarks.dashboard [--cameras 200] [--seconds 40] [--viewers 5]

One process, as `camlink run`: cameras at 1 frame/s, three models whose outputs are recorded (so that the pipeline is at
its cheapest), links in use, results on disk every 10 s. Three stretches of the same run are compared by the processor
time of the process: without the dashboard, with it and its viewers, and without it again. The viewers are another
process; each asks for a full page every second, for the fleet every other time. `/healthz`, which does nothing, is
asked for as well: its time is what the machine and the interpreter lock add to every answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from camlink.models.base import Inference, OutputSpec, Task
from camlink.models.pool import ModelPool
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.dashboard.server import Dashboard
from camlink.pipeline.records import Frame
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.telemetry import Telemetry
from camlink.pipeline.testing import NO_PIXELS, TinyModel

WARM_UP = 60  # frames per camera, as fast as they go: bootstrap, training, first decision
SETTLE_S = 6.0  # after the dashboard starts, while it reads what is there
VALUES = 997  # recorded values per model, over and over

VIEWER = """
import http.client, json, random, sys, threading, time
port, viewers, seconds, cameras = map(int, sys.argv[1:5])
took = {"fleet": [], "camera": [], "models": [], "healthz": []}
def view(seed):
    choose, end = random.Random(seed), time.monotonic() + seconds
    time.sleep(choose.random())
    while time.monotonic() < end:
        kind = choose.choices(["fleet", "camera", "models", "healthz"], (5, 3, 1, 1))[0]
        paths = {"fleet": "/", "camera": f"/camera?id=cam-{choose.randrange(cameras):03d}"}
        path = paths.get(kind, f"/{kind}")
        start = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        took[kind].append(time.perf_counter() - start)
        assert answer.status == 200, answer.status
        connection.close()
        time.sleep(1.0)
threads = [threading.Thread(target=view, args=(i,)) for i in range(viewers)]
[t.start() for t in threads]; [t.join() for t in threads]
print(json.dumps(took))
"""


class Recorded(TinyModel):
    """Values made beforehand, so that the benchmark measures camlink and not itself."""

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        return [self.function(frame) for frame in frames]


def models(seed: int) -> list[Recorded]:
    rng = np.random.default_rng(seed)
    people = np.clip(np.round(3 + 2 * np.sin(np.arange(VALUES) / 40) + rng.normal(0, 0.6, VALUES)), 0, None)
    values = {
        "objects": np.stack([people, rng.poisson(0.2, VALUES)], axis=1),
        "persons": np.clip(people - (rng.random(VALUES) < 0.2), 0, None)[:, None],
        "action": np.stack([1 - np.exp(-people), np.full(VALUES, 0.1)], axis=1),
    }
    tasks: dict[str, Task] = {"objects": "count", "persons": "count", "action": "multi_label"}
    made = []
    for name, task in tasks.items():
        known = [Inference(value) for value in values[name].astype(np.float32)]
        spec = OutputSpec(name, "vector", values[name].shape[1], task)
        made.append(Recorded(spec, recalling(known), time_ms=87 if name == "action" else 33))
    return made


def recalling(known: Sequence[Inference]) -> Callable[[Frame], Inference]:
    return lambda frame: known[frame.index % VALUES]


@dataclass
class Stretches:
    """Feeds the pipeline, turns the dashboard on and off on the way, and reads the clocks at the turns."""

    folder: Path
    cameras: int
    seconds: int
    viewers: int
    telemetry: Telemetry
    fed: int = 0
    busy: dict[str, float] = field(default_factory=dict)  # stretch -> processor seconds per second
    took: dict[str, list[float]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Frame]:
        start = datetime.now(UTC).timestamp() - WARM_UP
        for index in range(WARM_UP):
            yield from self._frames(index, start)
        for name in ("before", "with", "after"):
            dashboard = None
            if name == "with":
                dashboard = Dashboard([self.folder], port=0, metrics=self.telemetry.render)
                dashboard.start()
                for _ in range(int(SETTLE_S)):
                    yield from self._second(start)
                viewing = self._view(dashboard.port)
            begun, busy = time.monotonic(), time.process_time()
            for _ in range(self.seconds):
                yield from self._second(start)
            self.busy[name] = (time.process_time() - busy) / (time.monotonic() - begun)
            if dashboard is not None:
                told, _ = viewing.communicate(timeout=120)
                self.took = json.loads(told)
                dashboard.close()

    def _view(self, port: int) -> subprocess.Popen[str]:
        asked = [str(number) for number in (port, self.viewers, self.seconds, self.cameras)]
        return subprocess.Popen([sys.executable, "-c", VIEWER, *asked], stdout=subprocess.PIPE, text=True)

    def _second(self, start: float) -> Iterator[Frame]:
        """Feed one second's frames, then wait for the next second."""
        due = time.monotonic() + 1.0
        yield from self._frames(self.fed, start)
        time.sleep(max(0.0, due - time.monotonic()))

    def _frames(self, index: int, start: float) -> Iterator[Frame]:
        at = datetime.fromtimestamp(start + index, UTC)
        self.fed = index + 1
        for camera in range(self.cameras):
            yield Frame(f"cam-{camera:03d}", index, at, NO_PIXELS)


def run(cameras: int, seconds: int, viewers: int, seed: int, folder: Path) -> Stretches:
    """Carry all stretches through a session; return what was measured."""
    site = SiteConfig.model_validate(
        {
            "models": "building",
            "policy": "mlink-exact",
            "seed": seed,
            "budgets": {"time_share": 0.4},
            "links": {"kind": "vec_to_vec", "bootstrap_frames": 40, "min_train_frames": 40},
            "adaptation": {"policy": "off", "retrain_after_frames": 1_000_000},
        }
    )
    pool = ModelPool(models(seed))
    telemetry = Telemetry(pool.specs, now_s=time.time)
    names = {f"cam-{camera:03d}": Camera("bench", "recorded", 1.0) for camera in range(cameras)}
    session = Session(site, pool, names, folder, tick=16, live=True, listeners=[telemetry.observe])
    stretches = Stretches(folder, cameras, seconds, viewers, telemetry)
    session.run(iter(stretches), lambda: dict.fromkeys(names, stretches.fed))
    return stretches


def print_results(found: Stretches, console: Console) -> None:
    """Print the costs and the times to answer."""
    bare = (found.busy["before"] + found.busy["after"]) / 2
    cost = found.busy["with"] - bare
    console.print(
        f"{found.cameras} cameras x 3 models at 1 frame/s. Processor time: pipeline alone {bare:.1%} of a core "
        f"({found.busy['before']:.1%} before, {found.busy['after']:.1%} after), with the dashboard and {found.viewers} "
        f"viewers {found.busy['with']:.1%}: {cost:+.1%} of a core, {cost / bare:+.0%} of what the pipeline takes "
        "without its models"
    )
    table = Table("page", "requests", "median, ms", "95th percentile, ms", "slowest, ms")
    pages = [second for page, times in found.took.items() if page != "healthz" for second in times]
    rows: dict[str, list[Any]] = {**found.took, "all pages": pages}
    for page, times in rows.items():
        if times:
            median, most = (1000 * float(np.quantile(times, q)) for q in (0.5, 0.95))
            table.add_row(page, str(len(times)), f"{median:.0f}", f"{most:.0f}", f"{1000 * max(times):.0f}")
    console.print(table)


def main(
    cameras: Annotated[int, typer.Option(help="Cameras at 1 frame/s.")] = 200,
    seconds: Annotated[int, typer.Option(help="Length of each of the three stretches.")] = 40,
    viewers: Annotated[int, typer.Option(help="Viewers, each asking for a full page every second.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the recorded values.")] = 0,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        print_results(run(cameras, seconds, viewers, seed, Path(folder) / "run"), Console())


if __name__ == "__main__":
    typer.run(main)
