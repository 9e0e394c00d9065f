"""`python -m benchmarks.policy.numbers TRACE --say cover place nearest --out FOLDER`: models that say numbers.

TRACE is one that `camlink record` made with boxes. Of its detectors, in order, each says one thing about the boxes
that it found: how many there are (`count`), which share of the picture they cover (`cover`), where they are on average
(`place`), or where the largest one is (`nearest`). Outputs are real, and so is what they tell of each other.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.detection_arrays import DetectionArrays
from camlink.models.trace_arrays import open_arrays
from camlink.models.trace_files import RecordedEntry
from camlink.models.trace_writing import write_arrays

SURE = 0.25  # score from which a box counts
GRID = (36, 64)  # cells of a picture that boxes cover
SPECS = {
    "count": OutputSpec("count", "vector", 1, "count", ("thing",)),
    "cover": OutputSpec("cover", "vector", 1, "regression", scale=0.1),
    "place": OutputSpec("place", "vector", 2, "regression", scale=0.25),
    "nearest": OutputSpec("nearest", "vector", 4, "box"),
}
Boxes = NDArray[np.float32]  # (n, 4), x1, y1, x2, y2 in 0..1


def cover(boxes: Boxes) -> list[float]:
    """Return the share of the picture that boxes cover."""
    covered = np.zeros(GRID, bool)
    for x1, y1, x2, y2 in boxes:
        covered[int(y1 * GRID[0]) : int(np.ceil(y2 * GRID[0])), int(x1 * GRID[1]) : int(np.ceil(x2 * GRID[1]))] = True
    return [float(covered.mean())]


def place(boxes: Boxes) -> list[float]:
    """Return the mean centre of boxes, x and y; the middle of the picture where there are none."""
    if not len(boxes):
        return [0.5, 0.5]
    return [float(x) for x in ((boxes[:, :2] + boxes[:, 2:]) / 2.0).mean(axis=0)]


def nearest(boxes: Boxes) -> list[float]:
    """Return the largest box; nothing where there is none."""
    if not len(boxes):
        return [0.0] * 4
    return [float(x) for x in boxes[((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).argmax()]]


SAY: dict[str, Callable[[Boxes], list[float]]] = {
    "count": lambda boxes: [float(len(boxes))],
    "cover": cover,
    "place": place,
    "nearest": nearest,
}


def said(thing: str, found: DetectionArrays) -> NDArray[np.float32]:
    """Return what is said of the boxes of each frame (frames, size)."""
    frames = (found.at(row) for row in range(len(found)))
    return np.array([SAY[thing](boxes.xyxy[boxes.scores >= SURE]) for boxes in frames], np.float32)


def main() -> None:
    """Write the trace."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--say", nargs="+", choices=SAY, required=True, help="what each detector says, in their order")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    trace = open_arrays(arguments.trace, detections=True)
    detectors = [m for m in trace.models if all(m in camera.detections for camera in trace.cameras)]
    if len(detectors) < len(arguments.say):
        raise SystemExit(f"{arguments.trace}: boxes of {len(detectors)} models, {len(arguments.say)} were asked for")
    by = dict(zip(arguments.say, detectors, strict=False))
    cameras = [
        replace(
            camera,
            specs={thing: SPECS[thing] for thing in by},
            values={thing: said(thing, camera.detections[model]) for thing, model in by.items()},
            detections={},
        )
        for camera in trace.cameras
    ]
    of = {thing: trace.models[model] for thing, model in by.items()}
    models = {thing: RecordedEntry(SPECS[thing], entry.time_ms, entry.memory_gb) for thing, entry in of.items()}
    write_arrays(arguments.out, models, cameras, note=f"Models that say {', '.join(by)}, made from {trace.name}.")
    print(f"{arguments.out}: {sum(len(c) for c in cameras)} frames")


if __name__ == "__main__":
    main()
