"""A site's real workers as processes, what each of them used, and who watches the results come in."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import yaml

from camlink.pipeline.bus.base import open_bus
from camlink.pipeline.records import FrameResult

STEPS = ("inference", "linking", "adaptation", "scheduler", "results")
PATIENCE_S = 600.0
SLICE_S = 0.05
SETTINGS = {
    "site": "bench",
    "models": "building",
    "period": "24h",  # one period for all of a scenario
    "policy": "mlink-exact",
    "budgets": {"time_share": 0.4},
    "links": {"bootstrap_frames": 20, "min_train_frames": 20},
    "adaptation": {"shadow_frames": 15},
}


class Site:
    """The workers of one site on one trace, from joining their groups to a clean end. A context manager."""

    def __init__(self, folder: Path, trace: Path, bus: str, state: str, profile: bool = False) -> None:
        self.folder, self.bus = folder, bus
        (folder / "site.yaml").write_text(yaml.safe_dump(SETTINGS))
        environment = {
            **os.environ,
            **{"CAMLINK_BUS": bus, "CAMLINK_STATE": state, "CAMLINK_CONFIG": str(folder / "site.yaml")},
            **{"CAMLINK_OUT": str(folder / "results"), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        }
        self.processes: dict[str, psutil.Popen] = {}
        for step in STEPS:
            profiler = ["-m", "cProfile", "-o", str(folder / f"{step}.prof")] if profile else []
            options = ["--trace", str(trace)] if step == "inference" else []
            command = [sys.executable, *profiler, "-m", "camlink.pipeline.cli", "--verbose", "worker", step, *options]
            with (folder / f"{step}.log").open("ab") as log:
                self.processes[step] = psutil.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
                )

    def __enter__(self) -> Site:
        deadline = time.monotonic() + PATIENCE_S
        while not all("joined: " in self.log(step) for step in STEPS):
            self.check(deadline, "the workers to join")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(60)
            except psutil.TimeoutExpired:
                process.kill()

    def log(self, step: str) -> str:
        return (self.folder / f"{step}.log").read_text(errors="replace")

    def check(self, deadline: float, what: str) -> None:
        """Raise `RuntimeError` with a worker's last words when it died or time is up."""
        for step, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{step} ended with {process.poll()}: {self.log(step)[-2000:]}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited too long for {what}")

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stop all workers, for less than their groups' patience, so that they find a backlog when they go on."""
        for process in self.processes.values():
            process.suspend()
        try:
            yield
        finally:
            for process in self.processes.values():
                process.resume()

    @contextlib.contextmanager
    def held_to(self, step: str, share: float) -> Iterator[None]:
        """Let one worker run for ``share`` of the time only, so that it is the one that all others wait for."""
        ended, process = threading.Event(), self.processes[step]

        def hold() -> None:
            while not ended.wait(share * SLICE_S):
                process.suspend()
                ended.wait((1 - share) * SLICE_S)
                process.resume()

        holding = threading.Thread(target=hold, name=f"holding {step}")
        holding.start()
        try:
            yield
        finally:
            ended.set()
            holding.join()

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU time that each worker has used."""
        return {step: sum(process.cpu_times()[:2]) for step, process in self.processes.items()}

    def resident_mb(self) -> dict[str, float]:
        """Return the memory that each worker holds, from /proc."""
        return {step: process.memory_info().rss / 1e6 for step, process in self.processes.items()}


class Watch:
    """Reads the results as a consumer of its own, and notes how old each frame is when its result first comes.

    Results come again where a worker, or this consumer itself, lost its place in a group on a machine too busy for it.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._bus = open_bus(site.bus)
        self._subscription = self._bus.subscribe(["results"], "benchmark")
        self._seen: set[tuple[str, int]] = set()

    def close(self) -> None:
        self._bus.close()

    def poll(self, latency_ms: list[float]) -> None:
        """Take in what has come: served results, each with its frame's age."""
        records = self._subscription.poll(0.1)
        now = time.time()
        for record in records:
            if not isinstance(record, FrameResult) or record.purpose == "relabel":
                continue
            frame = (record.camera_id, record.frame_index)
            if frame not in self._seen:
                self._seen.add(frame)
                latency_ms.append((now - record.captured_at.timestamp()) * 1000)

    def wait_for(self, count: int) -> list[float]:
        """Return the ages in milliseconds of the next ``count`` results."""
        latency_ms: list[float] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(latency_ms) < count:
            self._site.check(deadline, f"{count} results; {len(latency_ms)} came")
            self.poll(latency_ms)
        return latency_ms


class Feed:
    """An ingest worker on made pictures as a process, ready to begin."""

    def __init__(
        self,
        bus: str,
        prefix: str,
        cameras: int,
        first: int,
        frames: int,
        size: int,
        rate: float,
        source: str,
        began: float = 0.0,
    ):
        """``began``: when, in seconds since 1970, frame 0 was taken, for frames that are sent at no ``rate``."""
        told = map(str, (bus, prefix, cameras, first, frames, size, rate, began, source))
        command = [sys.executable, "-m", "benchmarks.distributed.feed", *told]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"feeding ended with {self._process.wait()}")

    def begin(self) -> None:
        """Publish from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def wait(self, seconds: float) -> None:
        """Wait until all is published, or so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def told(self) -> dict[str, float]:
        """Return how many frames were published, and the CPU and wall time of that."""
        out, _ = self._process.communicate(timeout=PATIENCE_S)
        if self._process.returncode:
            raise RuntimeError(f"feeding ended with {self._process.returncode}; its last words are above")
        found: dict[str, float] = json.loads(out)
        return found
