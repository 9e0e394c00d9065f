"""`python -m benchmarks.policy.served TRACE... --target 0.9 0.95`: what a site serves, held against the truth.

The whole pipeline over recorded outputs, as `camlink replay TRACE` plays them, with bootstrap, profile and audit
frames; then every answer that was given without executing, on frames that nobody audited, is held against what the
trace says the model would have said. A report knows audits only: here it shows whether what it states is so.

Per camera and model: how many answers, how far they agree, what confidence they stated, what audits say of them, and on
which share of the served frames the model executed. Targets are those of a site: per model, over its answers.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from camlink.models.base import Inference, OutputSpec
from camlink.models.scores import agreement
from camlink.models.trace_arrays import CameraTrace, TraceArrays, open_arrays
from camlink.pipeline.lab.compare import usable_cameras
from camlink.pipeline.records import FIRST_STATISTICS, Frame, FrameResult, FrameStats, ModelOutput, Value
from camlink.pipeline.testing import NO_PIXELS, START, run_frames

FEWEST = 30  # answers that are judged against a target


@dataclass
class Recorded:
    """A model that says on a camera's n-th frame what it has said there."""

    spec: OutputSpec
    time_ms: float
    memory_gb: float
    camera: CameraTrace
    loaded: bool = field(default=False, init=False)

    def load(self) -> None:
        self.loaded = True

    def unload(self) -> None:
        self.loaded = False

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        return [self._said(frame.index) for frame in frames]

    def _said(self, row: int) -> Inference:
        drawn = self.camera.detections.get(self.spec.model)
        return Inference(self.camera.values[self.spec.model][row], None if drawn is None else drawn.at(row))


@dataclass(frozen=True)
class Served:
    """One model on one camera; shares are 0..1, None where there was no answer, or no audit of one."""

    trace: str
    camera: str
    model: str
    target: float | None
    answers: int
    agreed: float | None
    stated: float | None
    audited: float | None
    executed: float
    right: float  # of all outputs on frames that nobody audited: executed ones are, those that abstained are not


def served(trace: TraceArrays, camera: CameraTrace, **settings: Any) -> Iterator[Served]:
    """Play one camera under the settings of a site."""
    entries = trace.models
    models = [
        Recorded(entries[m].spec, entries[m].time_ms or 0.0, entries[m].memory_gb or 0.0, camera) for m in camera.specs
    ]
    seconds = camera.time_s - camera.time_s[0]
    frames = [
        Frame(camera.camera_id, row, START + timedelta(seconds=float(at)), NO_PIXELS, stats=stats_of(camera, row))
        for row, at in enumerate(seconds)
    ]
    records = run_frames(frames, models, fps=1.0 / float(np.median(np.diff(seconds))), **settings)
    rows = [
        (r, o) for r in records if isinstance(r, FrameResult) and r.purpose in ("serve", "audit") for o in r.outputs
    ]
    for name in camera.specs:
        mine = [o for _, o in rows if o.model == name]
        on_serve = [o for o in mine if o.purpose == "serve"]
        given = [o for o in on_serve if o.how in ("linked", "reused")]
        shadows = [o for o in mine if not o.served]
        yield Served(
            trace.name,
            camera.camera_id,
            name,
            settings.get("target_agreement"),
            len(given),
            agreed(camera, given),
            float(np.mean([o.confidence for o in given])) if given else None,
            agreed(camera, shadows),
            sum(o.how == "executed" for o in on_serve) / max(len(on_serve), 1),
            agreed(camera, on_serve) or 0.0,
        )


def stats_of(camera: CameraTrace, row: int) -> FrameStats | None:
    """Return a frame's statistics, where they were recorded."""
    if not all(name in camera.stats for name in FIRST_STATISTICS):
        return None
    return FrameStats(**{name: float(column[row]) for name, column in camera.stats.items()})


def agreed(camera: CameraTrace, outputs: Sequence[ModelOutput]) -> float | None:
    """Return how far outputs agree with what the trace says; those without a value do not."""
    if not outputs:
        return None
    spec, said = camera.specs[outputs[0].model], camera.values[outputs[0].model]
    return float(np.mean([0.0 if o.value is None else one(spec, o.value, said[o.frame_index]) for o in outputs]))


def one(spec: OutputSpec, value: Value, truth: Value) -> float:
    """Return the agreement of one output."""
    return float(agreement(spec, value[None], np.asarray(truth, np.float32)[None])[0])


def summary(rows: Sequence[Served]) -> str:
    """Say how far targets were met, and stated confidence true, by models with enough answers."""
    judged = [r for r in rows if r.answers >= FEWEST and r.agreed is not None and r.stated is not None]
    if not judged:
        return f"no model with {FEWEST} answers that state a confidence"
    off = np.array([(r.stated or 0.0) - (r.agreed or 0.0) for r in judged])
    said = f"stated less true {100 * off.mean():+.1f}, {100 * np.abs(off).mean():.1f} either way"
    over = np.array([(r.agreed or 0.0) - r.target for r in judged if r.target is not None])
    if over.size:
        missed = -over[over < 0.0]
        said = (
            f"{100 * over.mean():+.1f} above the target on average, missed by {len(missed)} of {len(over)}"
            + (f", by {100 * missed.mean():.1f} on average and {100 * missed.max():.1f} at most" if missed.size else "")
            + f"; {said}"
        )
    executed, right = (100 * sum(each) / len(rows) for each in zip(*((r.executed, r.right) for r in rows), strict=True))
    return f"{said}; executed {executed:.0f} % of outputs, {right:.1f} % of all agree"


def main() -> None:
    """Print a line per camera and model, and a summary per setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--target", nargs="*", type=float, default=[])
    parser.add_argument("--budget-time", nargs="*", type=float, default=[])
    parser.add_argument("--memory-gb", type=float)
    parser.add_argument("--policy", default="camlink")
    parser.add_argument("--audit", type=float, default=0.02)
    parser.add_argument("--bootstrap", type=int, default=100)
    parser.add_argument("--profile", type=int, default=10)
    parser.add_argument("--period", default="1h")
    parser.add_argument("--seed", nargs="*", type=int, default=[0])
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    asked = [{"target_agreement": t} for t in arguments.target]
    asked += [{"budgets": {"time_share": share, "memory_gb": arguments.memory_gb}} for share in arguments.budget_time]
    for settings in asked:
        print(", ".join(f"{key} {value}" for key, value in settings.items()))
        print(f"  {'%':48s} answers  agreed  stated audited executed")
        found = []
        for path in arguments.traces:
            trace = open_arrays(path, detections=True)
            for camera in usable_cameras(trace, print):
                rules = settings | {
                    "policy": arguments.policy,
                    "period": arguments.period,
                    "audit": {"fraction": arguments.audit},
                    "profile": {"fraction": 0.0, "min_frames": arguments.profile},
                    "links": {"bootstrap_frames": min(arguments.bootstrap, len(camera) // 5)},
                }
                for seed in arguments.seed:
                    found += list(served(trace, camera, seed=seed, **rules))
        for row in found:
            cells = "".join(
                "       –" if x is None else f"{100 * x:8.1f}" for x in (row.agreed, row.stated, row.audited)
            )
            name = ", ".join(dict.fromkeys((row.trace, row.camera, row.model)))
            print(f"  {name[:48]:48s}{row.answers:8d}{cells}{100 * row.executed:9.1f}")
        print(f"  {summary(found)}")


if __name__ == "__main__":
    main()
