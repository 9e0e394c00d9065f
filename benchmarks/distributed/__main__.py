"""The distributed site against what its client can do bare: frames a second and core, latency, and where time goes.

    python -m benchmarks.distributed [--frames 3000] [--seed 0] [--client confluent] [--only 50k-jpeg] [--wait-ms 5]
    python -m benchmarks.distributed --soak 1800

Starts the test bed's broker and Redis on free ports of loopback, and the real workers (`camlink worker ...`) with a
recorded trace in place of models. For throughput a backlog is worked off, as it is after a stall. CPU time per frame is
what the processes used by the system's account, threads of the client included, so that other load on the machine
matters little; latencies do depend on it, and so does their bare comparison.

A site whose every worker has a core of its own carries as many frames as its busiest worker can: that figure stands
beside the bare loop's, whose two ends have a core each as well. What a worker can is only seen of one that all others
wait for: it takes much at a time. Where six share two cores, each takes little, and pays for each taking. So each is
held to a fifth of the time in turn while a backlog is worked off.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.distributed import bare, soak, stages
from benchmarks.distributed.feed import CAMERA_FPS
from benchmarks.distributed.load import cameras, write_trace
from benchmarks.distributed.site import STEPS, Feed, Site, Watch
from camlink.pipeline import testbed

WARM_FRAMES = 40  # per camera: profile frames, the first decision, first links and their trial lie within
MOST_WARM = 2000  # frames in all: with many cameras only profile frames and the decision (at least LEAST_WARM each)
LEAST_WARM = 25
HELD_TO = 0.2  # share of the time for the worker whose limit is looked for
PAUSE_S = 4.0  # how long workers are stopped for a backlog to grow: less than the session time-out of their groups
BARE_RUNS = 5  # of the bare loop, whose CPU scatters
TIMED_FRAMES = 200  # for latencies
TIMED_RATE = 20.0  # frames a second in all: far from any limit, so that nothing waits in a queue
WORKERS = ("ingest", *STEPS)


@dataclass(frozen=True)
class Scenario:
    """So many cameras with pictures of one size, which the source has as pixels or as JPEG."""

    prefix: str
    cameras: int
    jpeg_bytes: int
    source: str
    frames: int  # in all, for throughput

    @property
    def warm(self) -> int:
        return max(LEAST_WARM, min(WARM_FRAMES, MOST_WARM // self.cameras))

    @property
    def per_camera(self) -> int:
        return max(1, self.frames // self.cameras)

    @property
    def timed_per_camera(self) -> int:
        return max(1, TIMED_FRAMES // self.cameras)

    @property
    def last(self) -> int:
        return self.warm + (1 + len(STEPS)) * self.per_camera + self.timed_per_camera


@dataclass(frozen=True)
class Measured:
    """CPU per frame of each worker in microseconds, frames a second by the clock, and sorted ages in milliseconds.

    ``cpu_us``: all workers at once on the cores there are; ``full_us``: of each when all others wait for it.
    """

    cpu_us: dict[str, float]
    full_us: dict[str, float]
    wall_per_s: float
    latency_ms: list[float]

    @property
    def busiest(self) -> str:
        return max(self.full_us, key=lambda worker: self.full_us[worker])


def measure(site: Site, watch: Watch, scenario: Scenario) -> Measured:
    """Warm a scenario's cameras up, let a backlog be worked off for throughput, then time frames at a steady rate."""

    began = time.time() - scenario.last / CAMERA_FPS  # so that event time ends before the frames that are timed

    def send(first: int, frames: int, rate: float = 0.0) -> tuple[dict[str, float], list[float]]:
        told = (scenario.prefix, scenario.cameras, first, frames, scenario.jpeg_bytes, rate, scenario.source)
        source = Feed(site.bus, *told, began)
        if rate:
            source.begin()
        else:
            with site.paused():
                source.begin()
                source.wait(PAUSE_S)
        ages = watch.wait_for(frames * scenario.cameras)  # before anything else: an age is taken when a result is read
        return source.told(), ages

    send(0, scenario.warm)
    before, start = site.cpu_s(), time.monotonic()
    ingest, _ = send(scenario.warm, scenario.per_camera)
    wall, after = time.monotonic() - start, site.cpu_s()
    spent = {"ingest": ingest["cpu_s"], **{step: after[step] - before[step] for step in STEPS}}
    full, first = {"ingest": ingest["cpu_s"]}, scenario.warm + scenario.per_camera
    for step in STEPS:
        begun = site.cpu_s()[step]
        with site.held_to(step, HELD_TO):
            send(first, scenario.per_camera)
        full[step], first = site.cpu_s()[step] - begun, first + scenario.per_camera
    _, ages = send(first, scenario.timed_per_camera, TIMED_RATE)
    each_us = 1e6 / (scenario.per_camera * scenario.cameras)
    cpu_us, full_us = ({worker: s * each_us for worker, s in found.items()} for found in (spent, full))
    return Measured(cpu_us, full_us, 1e6 / each_us / wall, sorted(ages))


def scenarios(frames: int, growth: list[int]) -> list[Scenario]:
    """Return the two sizes, each from pixels and from JPEG, and 50 KB at growing numbers of cameras."""
    sizes = [
        Scenario(f"{size // 1000}k-{source}", 20, size, source, frames)
        for size in (50_000, 200_000)
        for source in ("pixels", "jpeg")
    ]
    return sizes + [Scenario(f"grow{count}", count, 50_000, "jpeg", max(frames // 2, 4 * count)) for count in growth]


def shown(scenario: Scenario, got: Measured, alone: bare.Bare) -> list[str]:
    """Return one row: the scenario, its figures, and their ratio to the bare loop's."""
    bare_per_s = 1e6 / max(alone.produce_us, alone.consume_us)
    per_s = 1e6 / got.full_us[got.busiest]
    p50, p99 = np.percentile(got.latency_ms, (50, 99))
    bare50, bare99 = np.percentile(alone.latency_ms, (50, 99))
    return [
        f"{scenario.cameras}",
        f"{scenario.jpeg_bytes // 1000} KB {scenario.source}",
        f"{per_s:,.0f} ({got.busiest})",
        f"{bare_per_s:,.0f}",
        f"{per_s / bare_per_s:.0%}",
        f"{1e6 / sum(got.full_us.values()):,.0f} / {1e6 / (alone.produce_us + alone.consume_us):,.0f}",
        f"{p50:.0f} / {p99:.0f}",
        f"{bare50:.0f} / {bare99:.0f}",
    ]


def spelled(got: Measured) -> str:
    """Return the CPU per frame of each worker on one line, for who cannot wait for the table."""
    each = (f"{worker} {got.full_us[worker]:,.0f} ({got.cpu_us[worker]:,.0f})" for worker in WORKERS)
    return " ".join(each) + f" us, {got.wall_per_s:,.0f}/s here"


def bare_loops(servers: str, client: str, frames: int, wait_ms: int) -> dict[int, bare.Bare]:
    """Return the bare loop's figures per size: throughput as the median of `BARE_RUNS` runs, latency from another.

    One run is too few: it takes a second or two, and the same loop took 102 to 185 us a message in turn.
    """
    found = {}
    for size in (50_000, 200_000):
        runs = [bare.run(servers, f"bare{size}-{n}", size, frames, 0.0, client, wait_ms) for n in range(BARE_RUNS)]
        timed = bare.run(servers, f"timed{size}", size, TIMED_FRAMES, TIMED_RATE, client, wait_ms)
        found[size] = bare.Bare(
            produce_us=float(np.median([run.produce_us for run in runs])),
            consume_us=float(np.median([run.consume_us for run in runs])),
            wall_per_s=float(np.median([run.wall_per_s for run in runs])),
            latency_ms=timed.latency_ms,
        )
    return found


def benchmark(
    console: Console, chosen: list[Scenario], frames: int, seed: int, client: str, profile: bool, wait_ms: int
) -> None:
    """Run these scenarios on one site and print the tables."""
    needed = {camera: s.last for s in chosen for camera in cameras(s.prefix, s.cameras)}
    with tempfile.TemporaryDirectory() as name, testbed.broker() as broker, testbed.redis_server() as redis:
        folder, servers = Path(name), f"127.0.0.1:{broker.port}"
        write_trace(folder / "trace", needed, seed)
        alone = bare_loops(servers, client, frames, wait_ms)
        bus = f"kafka://{servers}/bench?partitions={bare.PARTITIONS}&wait_ms={wait_ms}"
        if client != "kafka-python":
            bus += f"&client={client}"
        with Site(folder, folder / "trace", bus, f"redis://127.0.0.1:{redis.port}", profile) as site:
            watch = Watch(site)
            got = []
            for scenario in chosen:
                got.append((scenario, measure(site, watch, scenario)))
                console.print(" | ".join([*shown(*got[-1], alone[scenario.jpeg_bytes]), spelled(got[-1][1])]))
            watch.close()
        tables(console, got, alone, client)
        if profile:
            console.print(stages.table(folder, STEPS))


def tables(console: Console, got: list[tuple[Scenario, Measured]], alone: dict[int, bare.Bare], client: str) -> None:
    """Print throughput and latency beside the bare loop, and each worker's CPU per frame."""
    table = Table(title=f"{client}: a core for each worker, against a core for each end of the bare loop")
    for column in ("cameras", "frames", "frames/s", "bare", "ratio", "per core in all / bare", "ms p50/p99", "bare ms"):
        table.add_column(column, justify="right")
    for scenario, measured in got:
        table.add_row(*shown(scenario, measured, alone[scenario.jpeg_bytes]))
    console.print(table)
    used = Table(title="CPU per frame, microseconds: of a worker that all others wait for (of all at once here)")
    for column in ("cameras", "frames", *WORKERS, "sum", "by the clock here"):
        used.add_column(column, justify="right")
    for scenario, measured in got:
        figures = [f"{measured.full_us[worker]:,.0f} ({measured.cpu_us[worker]:,.0f})" for worker in WORKERS]
        total = f"{sum(measured.full_us.values()):,.0f} ({sum(measured.cpu_us.values()):,.0f})"
        name = f"{scenario.jpeg_bytes // 1000} KB {scenario.source}"
        used.add_row(str(scenario.cameras), name, *figures, total, f"{measured.wall_per_s:,.0f}/s")
    for size, loop in alone.items():
        used.add_row("bare", f"{size // 1000} KB", f"{loop.produce_us:,.0f}", f"{loop.consume_us:,.0f}")
    console.print(used)


def main(
    frames: Annotated[int, typer.Option(help="Frames per scenario.")] = 3000,
    cameras: Annotated[list[int] | None, typer.Option(help="Numbers of cameras to grow through.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Scenarios, such as 50k-jpeg or grow200; else all.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of trace and pictures.")] = 0,
    client: Annotated[str, typer.Option(help="kafka-python or confluent.")] = "kafka-python",
    profile: Annotated[
        bool, typer.Option(help="Also run the workers under cProfile: their figures are then slower.")
    ] = False,
    wait_ms: Annotated[
        int, typer.Option(help="How long the broker keeps requests open: the test bed's looks again only then.")
    ] = 15,
    soak_s: Annotated[float, typer.Option("--soak", help="Instead: a steady load for so many seconds.")] = 0.0,
) -> None:
    console = Console(width=160)
    if soak_s:
        soak.run(console, soak_s, seed, client)
    else:
        there = scenarios(frames, cameras or [1, 10, 50, 200])
        chosen = [scenario for scenario in there if not only or scenario.prefix in only]
        if not chosen:
            raise typer.BadParameter(f"there are {', '.join(s.prefix for s in there)}", param_hint="--only")
        benchmark(console, chosen, frames, seed, client, profile, wait_ms)


if __name__ == "__main__":
    typer.run(main)
