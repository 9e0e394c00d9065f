"""How much of everything a site needs, from its number of cameras: the table of docs/scaling.md, and the arithmetic.

    python -m benchmarks.sizing [--cameras 500] [--fps 5]

What was measured and what is only assumed is told apart by the two classes below; a test recomputes the page's table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

import typer

SIZES = (10, 100, 1_000, 5_000, 20_000)
BUSY = 0.7  # the share of a core, GPU or broker that is planned with


@dataclass(frozen=True)
class Measured:
    """From benchmarks on one machine (docs/scaling.md names the commands): yours differ, so measure them there."""

    jpeg_bytes: int = 111_000  # 768x576, quality 90, a campus
    encode_ms: float = 1.2  # CPU to code such a picture
    decode_ms: float = 2.2  # CPU to decode it, once per frame
    cpu_us: tuple[tuple[str, float], ...] = (  # per frame, apart from coding pictures; 22 November 2026
        ("ingest", 297.0),
        ("inference", 430.0),
        ("linking", 355.0),
        ("adaptation", 175.0),
        ("scheduler", 175.0),
        ("results", 170.0),
    )
    outputs_bytes: int = 400  # one frame's executed outputs of three models as they lie in Redis
    links_per_s: float = 100.0  # links fitted by one core


@dataclass(frozen=True)
class Assumed:
    """Not measured here: what a site decides, and what its machines can do."""

    fps: float = 1.0
    models: int = 3
    gpu_ms: float = 18.0  # of all models together, per frame and GPU
    time_share: float = 0.4  # budgets.time_share
    profile: float = 0.01
    audit: float = 0.02
    relabel: float = 0.083  # adaptation: 50 frames every 10 minutes at 1 frame/s
    retrain_frames: int = 400  # fully executed frames between trainings: a fifth of a full history of 2,000
    replication: int = 3
    broker_bytes_s: float = 100e6  # what one broker takes in, copies included
    redis_key_bytes: int = 150  # Redis' own cost of an entry
    outputs_ttl_s: float = 120.0
    frames_kept_s: float = 600.0  # retention of the topic "frames"


@dataclass(frozen=True)
class Needs:
    """What a site of so many cameras needs."""

    cameras: int
    frames_s: float
    network_mb_s: float  # frames into the brokers, before copies
    brokers: int
    disk_gb: float  # frames kept by all brokers
    partitions: int
    gpus: int
    full_runs: float  # share of frames on which all models run
    executed: float  # share of the time of executing everything
    cores: dict[str, float]  # by worker
    redis_mb: float
    training_cores: float


def needs(cameras: int, measured: Measured, assumed: Assumed) -> Needs:
    """Return what ``cameras`` cameras need; docs/scaling.md spells the same arithmetic out."""
    frames_s = cameras * assumed.fps
    full_runs = assumed.profile + assumed.audit + assumed.relabel
    executed = full_runs + (1 - full_runs) * assumed.time_share
    bytes_s = frames_s * measured.jpeg_bytes
    cores = {worker: frames_s * us / 1e6 / BUSY for worker, us in measured.cpu_us}
    cores["ingest"] += frames_s * measured.encode_ms / 1000 / BUSY
    cores["inference"] += frames_s * measured.decode_ms / 1000 / BUSY
    gpus = math.ceil(frames_s * assumed.gpu_ms * executed / 1000 / BUSY)
    links = assumed.models * (assumed.models - 1)
    trainings_s = frames_s * full_runs / assumed.retrain_frames
    return Needs(
        cameras,
        frames_s,
        bytes_s / 1e6,
        brokers=max(assumed.replication, math.ceil(bytes_s * assumed.replication / assumed.broker_bytes_s / BUSY)),
        disk_gb=bytes_s * assumed.replication * assumed.frames_kept_s / 1e9,
        partitions=max(12, 2 * max(gpus, math.ceil(max(cores.values())))),
        gpus=gpus,
        full_runs=full_runs,
        executed=executed,
        cores=cores,
        redis_mb=frames_s * assumed.outputs_ttl_s * (measured.outputs_bytes + assumed.redis_key_bytes) / 1e6,
        training_cores=trainings_s * links / measured.links_per_s / BUSY,
    )


def table(sizes: tuple[int, ...] = SIZES, measured: Measured | None = None, assumed: Assumed | None = None) -> str:
    """Return the Markdown table of docs/scaling.md."""
    columns = [needs(cameras, measured or Measured(), assumed or Assumed()) for cameras in sizes]
    rows = [
        ("frames/s", [f"{n.frames_s:,.0f}" for n in columns]),
        ("frames into the brokers, MB/s", [f"{n.network_mb_s:,.1f}" for n in columns]),
        ("brokers", [f"{n.brokers:,}" for n in columns]),
        ("disk for 10 minutes of frames, three copies, GB", [f"{n.disk_gb:,.1f}" for n in columns]),
        ("partitions", [f"{n.partitions:,}" for n in columns]),
        ("GPUs", [f"{n.gpus:,}" for n in columns]),
        ("cores: ingest", [f"{n.cores['ingest']:,.1f}" for n in columns]),
        ("cores: inference", [f"{n.cores['inference']:,.1f}" for n in columns]),
        ("cores: linking", [f"{n.cores['linking']:,.1f}" for n in columns]),
        ("cores: adaptation, without training", [f"{n.cores['adaptation']:,.1f}" for n in columns]),
        ("cores: training links", [f"{n.training_cores:,.2f}" for n in columns]),
        ("cores: scheduler", [f"{n.cores['scheduler']:,.1f}" for n in columns]),
        ("cores: results", [f"{n.cores['results']:,.1f}" for n in columns]),
        ("Redis, MB", [f"{n.redis_mb:,.0f}" for n in columns]),
    ]
    head = "| cameras | " + " | ".join(f"{n.cameras:,}" for n in columns) + " |"
    lines = [head, "|---|" + "---:|" * len(columns)]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)])


def main(
    cameras: Annotated[list[int] | None, typer.Option(help="Numbers of cameras.")] = None,
    fps: Annotated[float, typer.Option(help="Sampled frames a second of each.")] = 1.0,
    gpu_ms: Annotated[float, typer.Option(help="All models together, per frame, on your GPU.")] = Assumed.gpu_ms,
) -> None:
    print(table(tuple(cameras or SIZES), assumed=replace(Assumed(), fps=fps, gpu_ms=gpu_ms)))


if __name__ == "__main__":
    typer.run(main)
