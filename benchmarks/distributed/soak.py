"""A steady load for a long time: does any worker grow, and is every frame accounted for at the end?"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.distributed.bare import PARTITIONS
from benchmarks.distributed.load import cameras, write_trace
from benchmarks.distributed.site import STEPS, Feed, Site, Watch
from camlink.pipeline import testbed
from camlink.pipeline.results import RunResults

CAMERAS = 20
RATE = 20.0  # frames a second in all
JPEG_BYTES = 50_000
SAMPLE_S = 10.0
SETTLED = 0.2  # the share of the time after which memory is looked at: histories fill up before


def run(console: Console, seconds: float, seed: int, client: str) -> None:
    """Feed for so many seconds; print the memory slope of each worker, latencies, and the ledger."""
    per_camera = int(seconds * RATE / CAMERAS)
    names = cameras("soak", CAMERAS)
    with tempfile.TemporaryDirectory() as name, testbed.broker() as broker, testbed.redis_server() as redis:
        folder = Path(name)
        write_trace(folder / "trace", dict.fromkeys(names, per_camera), seed)
        bus = f"kafka://127.0.0.1:{broker.port}/soak?partitions={PARTITIONS}&wait_ms=50"
        bus += "" if client == "kafka-python" else f"&client={client}"
        with Site(folder, folder / "trace", bus, f"redis://127.0.0.1:{redis.port}") as site:
            watch = Watch(site)
            source = Feed(bus, "soak", CAMERAS, 0, per_camera, JPEG_BYTES, RATE, "pixels")
            source.begin()
            memory, ages = _watched(site, watch, per_camera * CAMERAS)
            source.wait(60)
            watch.close()
        console.print(_memory_table(memory))
        p50, p99 = np.percentile(ages, (50, 99))
        console.print(f"{len(ages):,} frames in {seconds:,.0f} s, latency p50 {p50:.0f} ms, p99 {p99:.0f} ms")
        console.print(_ledger(folder / "results", names, per_camera))


def _watched(site: Site, watch: Watch, frames: int) -> tuple[list[dict[str, float]], list[float]]:
    memory, ages, due = [], list[float](), time.monotonic()
    quiet_since, known = time.monotonic(), 0
    while len(ages) < frames:
        if time.monotonic() >= due:
            site.check(float("inf"), "")
            memory.append({"at_s": time.monotonic(), **site.resident_mb()})
            due += SAMPLE_S
        watch.poll(ages)
        if len(ages) > known:
            quiet_since, known = time.monotonic(), len(ages)
        elif time.monotonic() - quiet_since > 60:
            break  # the ledger says what is missing
    return memory, ages


def slope_mb_per_hour(at_s: list[float], mb: list[float]) -> float:
    """Return the least-squares slope.

    >>> round(slope_mb_per_hour([0.0, 1800.0, 3600.0], [100.0, 101.0, 102.0]), 6)
    2.0
    """
    return float(np.polyfit(np.array(at_s) / 3600, mb, 1)[0])


def _memory_table(memory: list[dict[str, float]]) -> Table:
    table = Table("worker", "start MB", f"after {SETTLED:.0%} MB", "end MB", "slope since, MB/h")
    settled = memory[int(len(memory) * SETTLED) :]
    for step in STEPS:
        slope = slope_mb_per_hour([m["at_s"] for m in settled], [m[step] for m in settled])
        table.add_row(step, *[f"{m[step]:.0f}" for m in (memory[0], settled[0], memory[-1])], f"{slope:+.1f}")
    return table


def _ledger(results: Path, names: list[str], per_camera: int) -> Table:
    """Per model: captured = executed + linked + reused + abstained + dropped, and nothing served twice."""
    rows = RunResults(results).outputs().to_pylist()
    served = Counter((row["camera_id"], row["frame_index"], row["model"]) for row in rows if row["served"])
    table = Table("model", "captured", "executed", "linked", "reused", "abstained", "missing", "twice")
    for model in sorted({key[2] for key in served}):
        how = Counter(row["how"] for row in rows if row["served"] and row["model"] == model)
        twice = sum(times - 1 for key, times in served.items() if key[2] == model)
        captured = per_camera * len(names)
        missing = captured - (how.total() - twice)
        counts = (captured, how["executed"], how["linked"], how["reused"], how["abstained"], missing, twice)
        table.add_row(model, *[f"{number:,}" for number in counts])
    return table
