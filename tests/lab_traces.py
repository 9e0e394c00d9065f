"""Traces made by hand or by chance, and a spy that writes down what a policy did."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from camlink.models.base import OutputSpec
from camlink.models.detection_arrays import DetectionArrays, detection_arrays
from camlink.models.trace_arrays import Array, CameraTrace, TraceArrays
from camlink.models.trace_files import RecordedEntry
from camlink.operators.policy import Answer, FrameFacts, FramePolicy, PolicySetup
from camlink.operators.selection import Budget, Costs
from camlink.pipeline.records import STATISTICS, Value


def trace_of(
    values: Mapping[str, object],
    time_ms: Mapping[str, float],
    *,
    memory_gb: Mapping[str, float] | None = None,
    specs: Mapping[str, OutputSpec] | None = None,
    stats: Mapping[str, object] | None = None,
    step_s: float = 1.0,
) -> TraceArrays:
    """One camera; models are counters unless ``specs`` says otherwise."""
    arrays = {m: np.asarray(v, np.float32).reshape(len(v), -1) for m, v in values.items()}  # type: ignore[arg-type]
    known = specs or {m: OutputSpec(m, "vector", v.shape[1], "count") for m, v in arrays.items()}
    gb = memory_gb or dict.fromkeys(arrays, 1.0)
    entries = {m: RecordedEntry(known[m], time_ms[m], gb[m]) for m in arrays}
    frames = len(next(iter(arrays.values())))
    columns = {s: np.asarray(v, np.float32) for s, v in (stats or {}).items()}
    times = 1e9 + np.arange(frames) * step_s
    return TraceArrays("hand", entries, (CameraTrace("cam", known, np.arange(frames), times, columns, arrays),))


def setup_of(trace: TraceArrays, budget: Budget, seed: int = 0) -> PolicySetup:
    """What a policy of the trace's only camera is made from."""
    models = trace.models
    costs = Costs({m: e.time_ms for m, e in models.items()}, {m: e.memory_gb for m, e in models.items()})
    return PolicySetup("cam", trace.cameras[0].specs, costs, budget, seed)


def random_trace(
    seed: int, frames: int, models: int, *, task: str = "count", with_stats: bool = True, with_detections: bool = False
) -> TraceArrays:
    """A busy scene that all models see something of, at irregular times; boxes of counts at any score from 0.25 on."""
    rng = np.random.default_rng(seed)
    scene = np.clip(np.cumsum(rng.normal(0.0, 0.5, frames)), 0.0, 6.0)
    sizes = {f"m{i}": int(rng.integers(1, 4)) + (task == "single_label") for i in range(models)}
    values: dict[str, Array] = {}
    for m, size in sizes.items():
        seen = scene[:, None] * rng.random(size) + rng.normal(0.0, 0.3, (frames, size))
        values[m] = (np.round(np.maximum(seen, 0.0)) if task == "count" else np.abs(seen) % 1.0).astype(np.float32)
    specs = {m: OutputSpec(m, "vector", size, task) for m, size in sizes.items()}  # type: ignore[arg-type]
    entries = {m: RecordedEntry(specs[m], float(rng.uniform(1, 50)), float(rng.uniform(0.1, 3))) for m in sizes}
    stats = {s: rng.random(frames).astype(np.float32) for s in STATISTICS} if with_stats else {}
    times = 1e9 + np.cumsum(rng.exponential(1.0, frames))
    drawn = {m: _drawn(v, rng) for m, v in values.items()} if with_detections and task == "count" else {}
    return TraceArrays("chance", entries, (CameraTrace("cam", specs, np.arange(frames), times, stats, values, drawn),))


def _drawn(counts: Array, rng: np.random.Generator) -> DetectionArrays:
    """As many boxes as are counted, and one more that was not sure enough."""
    return detection_arrays(
        [
            [[0.1, 0.1, 0.2, 0.2, rng.uniform(0.25, 1.0), i] for i, n in enumerate(row) for _ in range(int(n))]
            + [[0.0, 0.0, 0.1, 0.1, rng.uniform(0.1, 0.25), 0]]
            for row in counts
        ]
    )


class Spy:
    """Passes everything on, and keeps what was executed and answered on each frame that counts."""

    def __init__(self, policy: FramePolicy) -> None:
        self.policy = policy
        self.seen: list[tuple[dict[str, list[float]], dict[str, tuple[list[float], str]]]] = []

    def begin(self, frame: FrameFacts) -> None:
        self.policy.begin(frame)

    def choose(self, executed: Mapping[str, Value]) -> str | None:
        return self.policy.choose(executed)

    def answer(self, executed: Mapping[str, Value]) -> Mapping[str, Answer]:
        answers = self.policy.answer(executed)
        ran = {m: v.tolist() for m, v in executed.items()}
        self.seen.append((ran, {m: (a.value.tolist(), a.how) for m, a in answers.items()}))
        return answers

    def learn(self, executed: Mapping[str, Value], *, chosen: bool) -> None:
        self.policy.learn(executed, chosen=chosen)
