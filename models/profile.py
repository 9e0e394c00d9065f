"""What models cost, measured on this machine and kept, so that budgets are spent on facts.

A profile is keyed by the weights' SHA-256, device, backend, threads and input size, lies as JSON in the cache folder,
and is measured again once the library that runs the model has changed its version.
"""

from __future__ import annotations

import copy
import gc
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Protocol

import numpy as np

from camlink.models import device as machine
from camlink.models.base import Inference, OutputSpec, check_answers
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.errors import ModelError
from camlink.pipeline.records import Frame

log = logging.getLogger(__name__)

WARM_UP_RUNS = 2
TIMED_RUNS = 7
PICTURE = (720, 1280)  # (height, width) of the stand-in picture: what most cameras send


class Runner(Protocol):
    """A model whose costs are not known yet; every adapter is one. With its costs it becomes a `PricedModel`."""

    @property
    def spec(self) -> OutputSpec: ...
    def load(self) -> None: ...
    def unload(self) -> None: ...
    def run(self, frames: Sequence[Frame]) -> list[Inference]: ...


@dataclass(frozen=True, slots=True)
class ProfileKey:
    """What a measurement holds for."""

    weights_sha256: str
    device: str  # cpu, or cuda and the card's name
    backend: str  # onnxruntime, torch, ai-edge-litert
    threads: int
    image_size: int

    def file_name(self) -> str:
        card = "".join(letter if letter.isalnum() else "-" for letter in self.device)
        return f"{self.weights_sha256[:16]}-{card}-{self.backend}-{self.threads}t-{self.image_size}.json"


@dataclass(frozen=True, slots=True)
class CostProfile:
    """Measured costs of one model on one device. Memory is the growth by one copy (CPU) or torch's peak (CUDA)."""

    model: str
    key: ProfileKey
    ms_by_batch: dict[int, float]  # batch size -> milliseconds per frame
    memory_gb: float
    measured_at: datetime
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def time_ms(self) -> float:
        """Time per frame at the smallest batch measured, one: what a frame costs a camera that comes alone."""
        return self.ms_by_batch[min(self.ms_by_batch)]

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "measured_at": self.measured_at.isoformat()}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> CostProfile:
        """Read back what `to_json` wrote. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
        raw = json.loads(text)
        return cls(
            raw["model"],
            ProfileKey(**raw["key"]),
            {int(size): float(ms) for size, ms in raw["ms_by_batch"].items()},
            float(raw["memory_gb"]),
            datetime.fromisoformat(raw["measured_at"]),
            dict(raw["versions"]),
        )


class PricedModel:
    """A runner with its costs: all that camlink's scheduler knows of a model (see `camlink.models.base.Model`)."""

    def __init__(self, runner: Runner, time_ms: float, memory_gb: float) -> None:
        if not (time_ms > 0 and memory_gb >= 0):
            raise ModelError(f'model "{runner.spec.model}": costs of {time_ms} ms and {memory_gb} GB cannot be')
        self.runner = runner
        self._time_ms, self._memory_gb = time_ms, memory_gb

    @property
    def spec(self) -> OutputSpec:
        return self.runner.spec

    @property
    def time_ms(self) -> float:
        return self._time_ms

    @property
    def memory_gb(self) -> float:
        return self._memory_gb

    def load(self) -> None:
        self.runner.load()

    def unload(self) -> None:
        self.runner.unload()

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        return self.runner.run(frames)


def measure(
    runner: Runner,
    key: ProfileKey,
    frames: Sequence[Frame] = (),
    batch_sizes: Sequence[int] = (1, 4),
    clock: Callable[[], float] = time.perf_counter,
    floor_gb: float = 0.0,
    place: str = "cpu",
) -> CostProfile:
    """Load ``runner``, which runs on ``place``, time it, and unload it again.

    ``floor_gb`` is the least memory that is believed. Each time is the median of `TIMED_RUNS` runs after
    `WARM_UP_RUNS`, so that one hiccup of a shared machine does not become a fact; a batch of one, which prices the
    model, is always among them. Without ``frames``, noise of `PICTURE` size stands in. Raises `ModelError` as the model
    does.
    """
    pictures = list(frames) or [noise_frame()]
    twin = copy.deepcopy(runner)
    with _memory(place) as used:
        runner.load()
        try:
            timed = {size: _ms_per_frame(runner, pictures, size, clock) for size in sorted({1, *batch_sizes})}
            taken_gb = used() if place.startswith("cuda") else _growth_gb(twin, pictures, max(batch_sizes))
        finally:
            runner.unload()
    memory_gb = max(taken_gb, floor_gb)
    versions = {name: _version(name) for name in (key.backend, "numpy")}
    return CostProfile(runner.spec.model, key, timed, memory_gb, datetime.now(UTC), versions)


def try_out(runner: Runner) -> None:
    """Load ``runner``, run it once, and unload it again. Raises `ModelError` where it gives what it is not to give."""
    runner.load()
    try:
        check_answers(runner.spec, [noise_frame()], runner.run([noise_frame()]))
    finally:
        runner.unload()


def noise_frame() -> Frame:
    """Return a frame of fixed noise: the dearest picture to suppress overlaps in, the same on every machine."""
    pixels = np.random.default_rng(0).integers(0, 256, (*PICTURE, 3), np.uint8)
    return Frame("profile", 0, EPOCH, pixels)


def stored(key: ProfileKey, cache: Path) -> CostProfile | None:
    """Return the profile kept for ``key``, or None if there is none or its library has changed since."""
    path = cache / "profiles" / key.file_name()
    try:
        profile = CostProfile.from_json(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("profile %s is unreadable (%s); measuring again", path, error)
        return None
    current = profile.key == key and profile.versions.get(key.backend) == _version(key.backend)
    return profile if current else None


def store(profile: CostProfile, cache: Path) -> Path:
    """Keep ``profile`` for later runs; a reader never sees half of it."""
    path = cache / "profiles" / profile.key.file_name()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as sink:
        sink.write(profile.to_json())
    os.replace(sink.name, path)
    return path


def cheaper(profiles: Sequence[CostProfile]) -> CostProfile:
    """Return the profile with the least time per frame; the first of equals."""
    return min(profiles, key=lambda profile: profile.time_ms)


def _growth_gb(twin: Runner, pictures: Sequence[Frame], size: int) -> float:
    """Return how much this process grows by a second copy of a model that is loaded and has run already.

    The first copy pays for the libraries, which all models share, and takes up what earlier models gave back: its
    growth would depend on the order of measuring.
    """
    with _memory("cpu") as used:
        twin.load()
        try:
            for _ in range(WARM_UP_RUNS):
                twin.run([pictures[i % len(pictures)] for i in range(size)])
            return used()
        finally:
            twin.unload()


def _ms_per_frame(runner: Runner, pictures: Sequence[Frame], size: int, clock: Callable[[], float]) -> float:
    batch = [pictures[i % len(pictures)] for i in range(size)]
    for _ in range(WARM_UP_RUNS):
        check_answers(runner.spec, batch, runner.run(batch))
    times = []
    for _ in range(TIMED_RUNS):
        start = clock()
        runner.run(batch)
        times.append(clock() - start)
    return max(statistics.median(times) * 1000 / size, 1e-6)


@contextmanager
def _memory(place: str) -> Iterator[Callable[[], float]]:
    """Yield a function that says how many GB have been taken since: torch's peak on CUDA, resident growth on CPU."""
    if place.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(place)
        before = torch.cuda.memory_allocated(place)
        yield lambda: max(torch.cuda.max_memory_allocated(place) - before, 0) / 1e9
        return
    gc.collect()
    machine.give_back_freed()
    resident = machine.resident_gb()
    yield lambda: max(machine.resident_gb() - resident, 0.0)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return f"python {sys.version_info.major}.{sys.version_info.minor}"
