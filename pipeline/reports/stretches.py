"""Where a camera has footage and where it has none, so that plots draw nothing across a gap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]

GAP = 20  # times the usual spacing of frames
LEAST_GAP = 1 / 400  # of the whole time: shorter ones would not be seen
LEAST_STRETCH = 1 / 100  # of the whole time: shorter ones are drawn that long, to be seen


@dataclass(frozen=True)
class Stretches:
    """Stretches of footage without a gap: ``starts_ms`` and ``ends_ms`` (k,), rising, apart from each other."""

    starts_ms: Times
    ends_ms: Times

    @property
    def least_ms(self) -> float:
        """Return how long a stretch is drawn at least."""
        return float(self.ends_ms[-1] - self.starts_ms[0]) * LEAST_STRETCH if len(self.starts_ms) else 0.0

    def of(self, times_ms: Times) -> Times:
        """Return which stretch each time (n,) belongs to; times in a gap belong to the stretch before."""
        return np.searchsorted(self.starts_ms, times_ms, side="right")

    def pieces(self, start_ms: int, end_ms: int) -> Iterator[tuple[int, int, int]]:
        """Cut a span at the gaps: yield each piece's own start, then where to draw its start and end.

        A stretch too short to be seen is drawn as long as `least_ms` or the gap allows, its pieces in proportion.
        """
        first = int(np.searchsorted(self.ends_ms, start_ms, side="right"))
        for place in range(first, int(np.searchsorted(self.starts_ms, end_ms, side="left"))):
            begin, end = int(self.starts_ms[place]), int(self.ends_ms[place])
            room = int(self.starts_ms[place + 1]) - begin if place + 1 < len(self.starts_ms) else self.least_ms
            scale = max(1.0, min(self.least_ms, 0.9 * room) / (end - begin))
            left, right = max(start_ms, begin), min(end_ms, end)
            if left < right:
                yield left, round(begin + (left - begin) * scale), round(begin + (right - begin) * scale)


def stretches(times_ms: Times) -> Stretches:
    """Find the stretches of footage in capture times (n,), which need no order. A frame lasts until the next is due.

    >>> found = stretches(np.array([0, 1, 2, 3, 1000, 1001, 1002]))
    >>> found.starts_ms.tolist(), found.ends_ms.tolist()
    ([0, 1000], [4, 1003])
    """
    times = np.unique(times_ms)
    if len(times) < 2:
        return Stretches(times, times + 1)
    spacing = np.diff(times)
    usual = max(1, int(np.median(spacing)))
    gaps = np.flatnonzero((spacing > GAP * usual) & (spacing > (times[-1] - times[0]) * LEAST_GAP))
    return Stretches(np.concatenate((times[:1], times[gaps + 1])), np.concatenate((times[gaps], times[-1:])) + usual)
