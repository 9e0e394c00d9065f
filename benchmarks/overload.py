"""Live cameras that ask for more than the machine can do, in virtual time: how far what is known agrees.

    python -m benchmarks.overload TRACE... --demand 2 3 6

A trace's frames come at their times, of all its cameras together; executing every model on every frame would take
``--demand`` seconds of each second. Frames wait for models as in `camlink run`. On each frame of the later part, what
each model would have said is held against what was answered last, by then: a dropped frame leaves the answer before it.

``newest``: frames that the next one has overtaken are dropped, as policies without answers of their own have it.
``overtaken``: these are answered without a model. ``throttled``: besides, no more is chosen than there is time for,
which is found on the way (`camlink.operators.throttle`). ``given``: that share is known beforehand.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from camlink.models.base import Inference
from camlink.models.pool import ModelPool
from camlink.models.recorded import RecordedModel, Trace, open_trace
from camlink.models.scores import agreement
from camlink.operators.paced_inference import LIVE_QUEUE
from camlink.operators.throttle import BUSY
from camlink.pipeline.assembly import CameraFacts, build_embedded, throttle_of
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.footage import rate_of
from camlink.pipeline.records import Frame, FrameDropped, FrameResult, Record, Value

WAYS = ("newest", "overtaken", "throttled", "given")
LATER = 0.3  # of each camera's frames from which on answers count
AUDITED = 0.02


class Slow:
    """A model of a trace that takes its time, by a clock of its own."""

    def __init__(self, model: RecordedModel, machine: Machine) -> None:
        self._model, self._machine = model, machine
        self.spec, self.time_ms, self.memory_gb = model.spec, model.time_ms, model.memory_gb
        self.load, self.unload = model.load, model.unload

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        """Return what the model gave on these frames, one after the other."""
        self._machine.now_s += self._machine.s_per_ms * self.time_ms * len(frames)
        return self._model.run(frames)


@dataclass
class Machine:
    """A clock, and how long a millisecond of a model's cost takes by it, in seconds."""

    s_per_ms: float
    now_s: float = 0.0


class Cameras:
    """Frames of live cameras: they come at their times, and at most ``waiting`` of each wait."""

    def __init__(self, frames: Mapping[str, Sequence[Frame]], machine: Machine, waiting: int) -> None:
        self._machine, self._waiting = machine, waiting
        self._start = min(each[0].captured_at for each in frames.values())
        self._coming = {camera: deque(each) for camera, each in frames.items()}
        self._queues: dict[str, deque[Frame]] = {camera: deque() for camera in frames}

    def __iter__(self) -> Iterator[Frame | FrameDropped | None]:
        """Yield, round by round, what was overtaken, then the newest frames of all cameras together."""
        while any(self._coming.values()):
            newest: list[Frame] = []
            for camera, queue in self._queues.items():
                self._take(self._coming[camera], queue)
                while len(queue) > self._waiting:
                    frame = queue.popleft()
                    yield FrameDropped(camera, frame.index, 1, frame.captured_at, "overload")
                while len(queue) > 1:
                    yield replace(queue.popleft(), overtaken=True)
                newest += queue
                queue.clear()
            yield None
            yield from newest
            yield None
            if not newest:
                first = min(coming[0].captured_at for coming in self._coming.values() if coming)
                self._machine.now_s = max(self._machine.now_s, (first - self._start).total_seconds())

    def _take(self, coming: deque[Frame], queue: deque[Frame]) -> None:
        now: datetime = self._start + timedelta(seconds=self._machine.now_s)
        while coming and coming[0].captured_at <= now:
            queue.append(coming.popleft())


def played(trace: Trace, demand: float, way: str) -> list[Record]:
    """Return all that reaches the results log of a trace that asks for ``demand`` seconds of models a second."""
    by_camera: dict[str, list[Frame]] = {}
    for frame in trace.frames:
        by_camera.setdefault(frame.camera_id, []).append(frame)
    rates = {camera: rate or 1.0 for camera, rate in rate_of(trace.frames).items()}
    asked_ms = sum(rates.values()) * sum(model.time_ms for model in trace.models)
    machine = Machine(demand / asked_ms)
    first = max(20, min(100, min(map(len, by_camera.values())) // 10))
    settings: dict[str, Any] = {
        "budgets": {"time_share": min(1.0, BUSY / demand) if way == "given" else 1.0},
        "links": {"bootstrap_frames": first},
        "profile": {"fraction": 0.0},
        "audit": {"fraction": AUDITED},
    }
    config = SiteConfig(models="building", policy="camlink", **settings)
    pool = ModelPool([Slow(model, machine) for model in trace.models], clock=lambda: machine.now_s)
    records: list[Record] = []
    pipeline = build_embedded(
        *(config, pool, {camera: CameraFacts(rate) for camera, rate in rates.items()}, records.extend),
        tick=16,
        throttle=throttle_of(config, pool, lambda: machine.now_s) if way == "throttled" else None,
    )
    pipeline.run(Cameras(by_camera, machine, 1 if way == "newest" else LIVE_QUEUE))
    return records


def known(trace: Trace, records: Sequence[Record]) -> float:
    """Return how far what was answered last agrees with the models, over the later frames, in per cent."""
    served: dict[tuple[str, int, str], Value | None] = {
        (o.camera_id, o.frame_index, o.model): o.value
        for record in records
        if isinstance(record, FrameResult)
        for o in record.outputs
        if o.served
    }
    frames = Counter(frame.camera_id for frame in trace.frames)
    seen, last, found = Counter[str](), dict[tuple[str, str], Value](), []
    for frame in trace.frames:
        camera = frame.camera_id
        seen[camera] += 1
        for model in trace.models:
            name = model.spec.model
            answered = served.get((camera, frame.index, name))
            if answered is not None:
                last[camera, name] = answered
            if seen[camera] > LATER * frames[camera] and model.knows(camera, frame.index):
                truth = model.answer(camera, frame.index).value
                before = last.get((camera, name))
                found.append(0.0 if before is None else float(agreement(model.spec, before[None], truth[None])[0]))
    return 100.0 * float(np.mean(found))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--demand", nargs="+", type=float, default=[2.0, 3.0, 6.0])
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    print("| trace | demand | " + " | ".join(WAYS) + " | of 100 frames dropped; overtaken; throttled |")
    print("|---" * (len(WAYS) + 3) + "|")
    for path in asked.traces:
        trace = open_trace(path)
        for demand in asked.demand:
            runs = {way: played(trace, demand, way) for way in WAYS}
            came = {
                way: Counter(r.purpose for r in records if isinstance(r, FrameResult)) for way, records in runs.items()
            }
            shares = [
                100.0 * (1.0 - came["newest"].total() / len(trace.frames)),
                *(100.0 * came[way]["overtaken"] / len(trace.frames) for way in ("overtaken", "throttled")),
            ]
            cells = [path.name, f"{demand:g}", *(f"{known(trace, runs[way]):.1f}" for way in WAYS)]
            print(f"| {' | '.join(cells)} | {'; '.join(f'{share:.0f}' for share in shares)} |", flush=True)


if __name__ == "__main__":
    main()
