"""The boxes behind a detector's counts on many frames, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camlink.pipeline.records import Detections

Array = NDArray[np.float32]
Whole = NDArray[np.int64]
COLUMNS = 6  # numbers per box: x1, y1, x2, y2, score, class


@dataclass(frozen=True, eq=False)
class DetectionArrays:
    """``boxes`` (N, 6); those of frame i of n stand from ``starts[i]`` to ``starts[i + 1]``, ``starts`` (n + 1,)."""

    starts: Whole
    boxes: Array

    def __len__(self) -> int:
        return len(self.starts) - 1

    def at(self, row: int) -> Detections:
        """Return the boxes of one frame."""
        boxes = self.boxes[int(self.starts[row]) : int(self.starts[row + 1])]
        return Detections(boxes[:, :4], boxes[:, 4], boxes[:, 5].astype(np.int32))

    def take(self, rows: Whole) -> DetectionArrays:
        """Return the boxes of some frames."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        starts = _starts(lengths)
        return DetectionArrays(
            starts, self.boxes[np.repeat(self.starts[rows] - starts[:-1], lengths) + np.arange(starts[-1])]
        )

    def where(self, wanted: NDArray[np.bool_]) -> DetectionArrays:
        """Return the boxes that are ``wanted`` (N,), on as many frames."""
        return DetectionArrays(np.concatenate(([0], np.cumsum(wanted)))[self.starts], self.boxes[wanted])

    def lists(self) -> list[list[list[float]]]:
        """Return [x1, y1, x2, y2, score, class] of each box, frame by frame, as traces hold them."""
        every = self.boxes.tolist()
        return [every[start:stop] for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True)]


def detection_arrays(lists: Sequence[list[list[float]]]) -> DetectionArrays:
    """Return boxes [x1, y1, x2, y2, score, class], frame by frame. Raises `ValueError` for what are none."""
    if not all(isinstance(frame, list) for frame in lists):
        raise ValueError("detections are no list of boxes")
    try:
        boxes = np.array([box for frame in lists for box in frame], np.float32).reshape(-1, COLUMNS)
    except (TypeError, ValueError) as error:
        raise ValueError("detections are no boxes [x1, y1, x2, y2, score, class]") from error
    if not (np.isfinite(boxes).all() and (boxes[:, 5] >= 0.0).all()):
        raise ValueError("a box has a number that is not finite, or no class")
    return DetectionArrays(_starts(np.array([len(frame) for frame in lists], np.int64)), boxes)


def joined(parts: Sequence[DetectionArrays]) -> DetectionArrays:
    """Return the boxes of all frames of one part or more, one after the other."""
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    return DetectionArrays(_starts(lengths), np.concatenate([part.boxes for part in parts]))


def _starts(lengths: Whole) -> Whole:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
