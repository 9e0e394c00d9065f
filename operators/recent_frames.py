"""The newest frames of one camera, kept a while for relabel requests, within a bound on memory."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from camlink.pipeline.records import Frame

MOST_FRAMES = 16
MOST_BYTES = 32 << 20  # five raw frames of 1080p; JPEGs of the bus are small enough for all sixteen
FEWEST_FRAMES = 2  # however large they are: in one process a request follows right after its frame


class RecentFrames:
    """Frames by index, the oldest let go first."""

    def __init__(self) -> None:
        self._frames: OrderedDict[int, Frame] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def keep(self, frame: Frame) -> None:
        """Keep ``frame`` (a coded picture without its pixels), and let go of what no longer fits."""
        self.take(frame.index)
        frame = frame.at_rest()
        self._frames[frame.index] = frame
        self._bytes += _size(frame)
        while len(self) > MOST_FRAMES or (self._bytes > MOST_BYTES and len(self) > FEWEST_FRAMES):
            self.take(next(iter(self._frames)))

    def take(self, index: int) -> Frame | None:
        """Return the frame with this index and let go of it; None where it is gone."""
        frame = self._frames.pop(index, None)
        if frame is not None:
            self._bytes -= _size(frame)
        return frame


def _size(frame: Frame) -> int:
    """Bytes that the picture takes at rest."""
    return frame.picture.nbytes if isinstance(frame.picture, np.ndarray) else len(frame.picture.jpeg)
