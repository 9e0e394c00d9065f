"""What tells a camera that works from one that only seems to: pictures that never change, or come too seldom."""

from __future__ import annotations

import numpy as np

from camlink.pipeline.records import Pixels

SLOW_BELOW, STEADY_FROM = 0.5, 0.75  # shares of the frames that the sampling rate asks for
WINDOW_S, WINDOW_FRAMES = 10.0, 5


class FrozenRule:
    """Tells a camera that sends the very same picture again and again from one that looks at a still scene.

    Sensor noise makes two pictures of a still scene differ; only a frozen encoder repeats every pixel. (A clock burnt
    into the picture hides that: crop it away.)
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._picture: Pixels | None = None
        self._since_s = 0.0

    def update(self, pixels: Pixels, now_s: float) -> bool:
        """Take a picture and return whether the camera counts as frozen now."""
        if self._picture is None or not _equal(self._picture, pixels):
            self._picture, self._since_s = pixels, now_s
        return now_s - self._since_s > self._after_s


class SlowRule:
    """Tells a camera that sends fewer pictures than are to be looked at, over a window of 10 s or 5 frames.

    >>> rule = SlowRule(fps=2.0)
    >>> [rule.update(second, frames=1) for second in range(11)][-1]
    False
    >>> [rule.update(20 + 4 * step, frames=1) for step in range(4)][-1]
    True
    """

    def __init__(self, fps: float | None) -> None:
        self._fps = fps
        self._window_s = max(WINDOW_S, WINDOW_FRAMES / fps) if fps else float("inf")
        self._began_s: float | None = None
        self._frames = 0
        self.rate = fps or 0.0  # frames per second over the last whole window
        self.is_slow = False

    def update(self, now_s: float, frames: int) -> bool:
        """Take how many frames were sampled since the last call; return whether the camera counts as slow now."""
        if self._began_s is None:
            self._began_s = now_s
        self._frames += frames
        elapsed_s = now_s - self._began_s
        if elapsed_s >= self._window_s and self._fps is not None:
            self.rate = self._frames / elapsed_s
            self.is_slow = self.rate < self._fps * (STEADY_FROM if self.is_slow else SLOW_BELOW)
            self._began_s, self._frames = now_s, 0
        return self.is_slow


def _equal(one: Pixels, other: Pixels) -> bool:
    """Compare a sixteenth of the rows first: that tells moving pictures apart at a fraction of the cost."""
    return np.array_equal(one[::16], other[::16]) and np.array_equal(one, other)
