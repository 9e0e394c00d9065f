"""`python -m benchmarks.policy.thin TRACE CLIP... --fps 2 --out FOLDER`: a trace as a slower camera would have made it.

The models' outputs are those of the trace, which was recorded from the clips at every frame. The frame statistics are
measured anew, since they are differences between the frames that are looked at.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from camlink.models.trace_arrays import CameraTrace, open_arrays
from camlink.models.trace_writing import write_arrays
from camlink.pipeline.commands.replay import find_cameras
from camlink.pipeline.ingest.base import SourceSpec
from camlink.pipeline.ingest.opening import open_source
from camlink.pipeline.records import STATISTICS, Frame

APART_S = 0.002  # a time in the trace and one in the clip that are the same frame


def thin(camera: CameraTrace, spec: SourceSpec) -> CameraTrace:
    """Return the frames of ``camera`` that ``spec`` samples. Raises `SystemExit` if one is not in the trace."""
    rows, found = [], []
    for frame in open_source(spec, live=False):
        if not isinstance(frame, Frame) or frame.stats is None:
            continue
        row = int(np.abs(camera.time_s - frame.captured_at.timestamp()).argmin())
        if abs(camera.time_s[row] - frame.captured_at.timestamp()) > APART_S:
            raise SystemExit(f'camera "{camera.camera_id}": the trace has no frame at {frame.captured_at}')
        rows.append(row)
        found.append([getattr(frame.stats, name) for name in STATISTICS])
    at, columns = np.array(rows, np.intp), np.array(found, np.float32).reshape(-1, len(STATISTICS)).T
    return CameraTrace(
        camera.camera_id,
        camera.specs,
        np.arange(len(at), dtype=np.int64),
        camera.time_s[at],
        dict(zip(STATISTICS, columns, strict=True)),
        {model: values[at] for model, values in camera.values.items()},
        {model: drawn.take(at) for model, drawn in camera.detections.items()},
    )


def main() -> None:
    """Write the thinned trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--fps", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    trace = open_arrays(arguments.trace, detections=True)
    specs = find_cameras(arguments.clips, arguments.fps, "UTC", None)
    cameras = []
    for camera in trace.cameras:
        mine = [s for s in specs if s.camera_id == camera.camera_id]
        if not mine:
            raise SystemExit(f'no clip of camera "{camera.camera_id}" among {", ".join(s.camera_id for s in specs)}')
        cameras.append(thin(camera, mine[0]))
    write_arrays(arguments.out, trace.models, cameras, note=f"{trace.name}, thinned to {arguments.fps:g} fps.")
    print(f"{arguments.out}: {sum(len(c) for c in cameras)} frames")


if __name__ == "__main__":
    main()
