"""From decoded pictures to numbered frames: which are sampled, how they are cut, and which index each gets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import numpy as np

from camlink.pipeline.ingest.base import Crop, Reading
from camlink.pipeline.ingest.framestats import FrameStatsMeter
from camlink.pipeline.records import CameraEvent, Frame, FrameDropped, FrameStats, Pixels


class SampleGrid:
    """Chooses the first frame at or after each sampling instant, so variable frame rates keep their true times.

    >>> grid = SampleGrid(fps=2.0)
    >>> [grid.is_due(t / 10) for t in range(0, 11, 2)]
    [True, False, False, True, False, True]
    """

    def __init__(self, fps: float | None, slack_s: float = 0.0) -> None:
        self._fps = fps
        self._slack_s = slack_s  # lets a frame that container rounding put just before its instant count as at it
        self._last_slot = -1

    def is_due(self, seconds: float) -> bool:
        """Say whether the frame at ``seconds`` since the grid's origin is to be sampled, and take it if so."""
        if self._fps is None:
            return True
        slot = math.floor((seconds + self._slack_s) * self._fps + 1e-6)
        if slot == self._last_slot:
            return False
        if slot < self._last_slot - 1:  # the clock was set back: start over rather than wait for it to catch up
            self._last_slot = slot
            return True
        is_later = slot > self._last_slot
        self._last_slot = max(slot, self._last_slot)
        return is_later


def seal(pixels: Pixels, crop: Crop | None = None) -> Pixels:
    """Return ``pixels`` cut to ``crop``, contiguous and read-only: frames are shared between operators."""
    if crop is not None:
        height, width = pixels.shape[:2]
        x, y = min(round(crop[0] * width), width - 1), min(round(crop[1] * height), height - 1)
        right, bottom = max(round((crop[0] + crop[2]) * width), x + 1), max(round((crop[1] + crop[3]) * height), y + 1)
        pixels = pixels[y:bottom, x:right].copy()  # a view would keep the whole picture in memory
    pixels = np.ascontiguousarray(pixels)
    pixels.setflags(write=False)
    return pixels


class Stopwatch:
    """Adds up the time that is spent within it.

    >>> watch = Stopwatch(iter([10.0, 10.25, 20.0, 20.5]).__next__)
    >>> with watch:
    ...     pass
    >>> with watch:
    ...     pass
    >>> watch.taken_s(), watch.taken_s()
    (0.75, 0.0)
    """

    def __init__(self, seconds: Callable[[], float] = time.perf_counter) -> None:
        self._seconds = seconds
        self._since_s = self._sum_s = 0.0

    def __enter__(self) -> None:
        self._since_s = self._seconds()

    def __exit__(self, *error: object) -> None:
        self._sum_s += self._seconds() - self._since_s

    def taken_s(self) -> float:
        """Return the sum, and begin anew."""
        taken, self._sum_s = self._sum_s, 0.0
        return taken


class FrameCounter:
    """Numbers one camera's sampled frames, delivered or dropped, and notices when the resolution changes."""

    def __init__(self, camera_id: str, crop: Crop | None, with_stats: bool, first_index: int = 0) -> None:
        self.camera_id = camera_id
        self.captured = first_index
        self._crop = crop
        self._meter = FrameStatsMeter() if with_stats else None
        self._resolution: tuple[int, int] | None = None

    def frame(self, pixels: Pixels, at: datetime, decode_s: float | None = None) -> Iterator[Reading]:
        """Yield the frame, preceded by an event when its resolution is a new one. ``pixels`` is sealed in place."""
        event = self.resolution_event(pixels, at)
        if event is not None:
            yield event
        pixels = seal(pixels, self._crop)
        stats = self.measure(pixels)
        index, self.captured = self.captured, self.captured + 1
        yield Frame(self.camera_id, index, at, pixels, stats, decode_s)

    def dropped(self, count: int, at: datetime, reason: str) -> FrameDropped:
        """Return the record of ``count`` frames lost from ``at`` on."""
        first, self.captured = self.captured, self.captured + count
        return FrameDropped(self.camera_id, first, count, at, reason)

    def measure(self, pixels: Pixels) -> FrameStats | None:
        """Return the statistics of a cut frame, or None when they are not wanted."""
        return None if self._meter is None else self._meter.measure(pixels)

    def resolution_event(self, pixels: Pixels, at: datetime) -> CameraEvent | None:
        """Return an event if the uncut picture's size differs from the last one's."""
        was, now = self._resolution, (int(pixels.shape[1]), int(pixels.shape[0]))
        self._resolution = now
        if was is None or was == now:
            return None
        return CameraEvent(self.camera_id, at, "resolution", f"from {was[0]}x{was[1]} to {now[0]}x{now[1]}")
