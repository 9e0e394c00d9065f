"""How sure detectors were: the scores and classes of the boxes behind counts, of many frames in one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Whole = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BoxScores:
    """A model's boxes on n frames: those of frame i stand from ``starts[i]`` to ``starts[i + 1]`` (n + 1,)."""

    starts: Whole
    scores: Array
    classes: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def at(self, row: int) -> tuple[Array, NDArray[np.int16]]:
        """Return the scores and classes of one frame's boxes."""
        mine = slice(int(self.starts[row]), int(self.starts[row + 1]))
        return self.scores[mine], self.classes[mine]

    def take(self, rows: Whole) -> BoxScores:
        """Return the boxes of some frames."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        starts = _starts(lengths)
        at = np.repeat(self.starts[rows] - starts[:-1], lengths) + np.arange(starts[-1])
        return BoxScores(starts, self.scores[at], self.classes[at])


def box_scores(lists: Sequence[Sequence[Sequence[float]]]) -> BoxScores:
    """Return the scores and classes of each frame's boxes [x1, y1, x2, y2, score, class]. Raises `ValueError`."""
    try:
        flat = np.array([(box[4], box[5]) for boxes in lists for box in boxes], np.float32).reshape(-1, 2)
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError("detections are no lists of boxes") from error
    if not ((flat >= 0.0) & (flat < 1 << 15)).all():
        raise ValueError("a box has no score, or no class")
    return BoxScores(_starts(np.array([len(boxes) for boxes in lists], np.int64)), flat[:, 0], flat[:, 1].astype(np.int16))


def joined(parts: Sequence[BoxScores]) -> BoxScores:
    """Return the boxes of all frames of one part or more, one after the other."""
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    scores, classes = (np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "classes"))
    return BoxScores(_starts(lengths), scores, classes)


def _starts(lengths: Whole) -> Whole:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
