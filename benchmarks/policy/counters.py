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
from camlink.models.trace_arrays import CameraTrace, TraceArrays, open_arrays
from camlink.models.trace_files import RecordedEntry
from camlink.models.trace_writing import write_arrays

SURE = 0.25  # score from which a box of `action` counts


def counters(camera: CameraTrace, other: CameraTrace) -> CameraTrace:
    """Return ``camera`` with the three counters in place of its models, persons as in ``other``.

    Raises `SystemExit` for a trace without boxes.
    """
    drawn = {"objects": camera.detections, "persons": other.detections, "action": camera.detections}
    if lacking := [m for m, found in drawn.items() if m not in found]:
        raise SystemExit(f'camera "{camera.camera_id}": no boxes of {", ".join(lacking)}; record it anew')
    found = {m: of[m] for m, of in drawn.items()}
    found["objects"] = found["objects"].where(found["objects"].boxes[:, 5] == 0.0)
    fallen = replace(found["action"], boxes=np.where(np.arange(6) == 5, 0.0, found["action"].boxes).astype(np.float32))
    found["action"] = fallen
    sure = fallen.where(fallen.boxes[:, 4] >= SURE)
    counts = np.diff(sure.starts).astype(np.float32)[:, None]
    values = {"objects": camera.values["objects"][:, :1], "persons": other.values["persons"], "action": counts}
    return replace(camera, specs={m: _spec(m) for m in values}, values=values, detections=found)


def _spec(model: str) -> OutputSpec:
    return OutputSpec(model, "vector", 1, "count", ("person",))


def _opened(folder: Path) -> TraceArrays:
    return open_arrays(folder, detections=True)


def main() -> None:
    """Write the trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--persons", type=Path, help="a trace of the same frames to take `persons` from")
    parser.add_argument("--time-ms", type=float, nargs=3, help="costs in place of the recorded ones")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    trace = _opened(arguments.trace)
    other = _opened(arguments.persons) if arguments.persons else trace
    cameras = [counters(camera, alike) for camera, alike in zip(trace.cameras, other.cameras, strict=True)]
    entries = {m: (other if m == "persons" else trace).models[m] for m in ("objects", "persons", "action")}
    times_ms = arguments.time_ms or [e.time_ms for e in entries.values()]
    models = {m: RecordedEntry(_spec(m), t, e.memory_gb) for (m, e), t in zip(entries.items(), times_ms, strict=True)}
    write_arrays(arguments.out, models, cameras, note=f"Three counters of persons, made from {trace.name}.")
    print(f"{arguments.out}: {sum(len(c) for c in cameras)} frames")


if __name__ == "__main__":
    main()
