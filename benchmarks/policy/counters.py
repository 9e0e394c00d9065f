"""`python -m benchmarks.policy.counters TRACE --out FOLDER`: three counters of the same persons, from a recorded trace.

TRACE is one that `camlink record` made with the models `objects`, `persons` and `action`, with boxes. The counters are
the persons of `objects`, those of `persons` (or of the trace given as ``--persons``, of the same frames), and the boxes
of `action`, whatever it says of them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from camlink.models.base import OutputSpec
from camlink.models.recorded import open_trace
from camlink.models.trace_arrays import Array, CameraTrace, open_arrays
from camlink.models.trace_files import RecordedEntry
from camlink.models.trace_writing import write_arrays

SURE = 0.25  # score from which a box of `action` counts


def boxes(folder: Path) -> dict[tuple[str, int], int]:
    """Return how many boxes `action` drew on each frame. Raises `SystemExit` for a trace without boxes."""
    trace = open_trace(folder)
    found = trace.model("action").run(trace.frames)
    counts = {}
    for frame, inference in zip(trace.frames, found, strict=True):
        if inference.detections is None:
            raise SystemExit(f"{folder}: no boxes of `action`; record it anew with `camlink record`")
        counts[frame.camera_id, frame.index] = int((inference.detections.scores >= SURE).sum())
    return counts


def counters(camera: CameraTrace, persons: Array, drawn: dict[tuple[str, int], int]) -> CameraTrace:
    """Return ``camera`` with the three counters in place of its models."""
    fallen = np.array([[drawn[camera.camera_id, int(i)]] for i in camera.index], np.float32)
    values = {"objects": camera.values["objects"][:, :1], "persons": persons, "action": fallen}
    return replace(camera, specs={m: _spec(m) for m in values}, values=values)


def _spec(model: str) -> OutputSpec:
    return OutputSpec(model, "vector", 1, "count", ("person",))


def main() -> None:
    """Write the trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--persons", type=Path, help="a trace of the same frames to take `persons` from")
    parser.add_argument("--time-ms", type=float, nargs=3, help="costs in place of the recorded ones")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    trace, drawn = open_arrays(arguments.trace), boxes(arguments.trace)
    other = open_arrays(arguments.persons) if arguments.persons else trace
    cameras = [
        counters(camera, alike.values["persons"], drawn)
        for camera, alike in zip(trace.cameras, other.cameras, strict=True)
    ]
    entries = {m: (other if m == "persons" else trace).models[m] for m in ("objects", "persons", "action")}
    times_ms = arguments.time_ms or [e.time_ms for e in entries.values()]
    models = {m: RecordedEntry(_spec(m), t, e.memory_gb) for (m, e), t in zip(entries.items(), times_ms, strict=True)}
    write_arrays(arguments.out, models, cameras, note=f"Three counters of persons, made from {trace.name}.")
    print(f"{arguments.out}: {sum(len(c) for c in cameras)} frames")


if __name__ == "__main__":
    main()
