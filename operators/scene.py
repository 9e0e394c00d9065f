"""A camera's own clock and unrest: time in steps between its frames, movement in multiples of its mean."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camlink.operators.compiled import compiled
from camlink.operators.freshness import Passed
from camlink.operators.policy import FrameFacts
from camlink.operators.policy_state import State

MEMORY = 500.0  # frames over which means are kept
LONGEST_STEP = 4.0  # a longer pause counts in full, but does not say how far frames lie apart
MOST = 3.0  # standard deviations
_LEAST, _LEAST_EDGE, _LEAST_LUMA = 1e-4, 1e-3, 0.5
Array = NDArray[np.float64]


class Moment(NamedTuple):
    """One frame on the camera's own scales. ``steps`` and ``activity`` are sums since the first frame."""

    steps: float
    activity: float
    edge: float
    luma: float
    edge_scale: float = 1.0
    luma_scale: float = 1.0

    def since(self, then: Moment) -> Passed:
        """Return what has passed since ``then``."""
        steps, activity, edge, luma, edge_scale, luma_scale = self
        steps_then, activity_then, edge_then, luma_then, _, _ = then
        edge_by, luma_by = abs(edge - edge_then) / edge_scale, abs(luma - luma_then) / luma_scale
        return Passed(
            steps - steps_then,
            activity - activity_then,
            edge_by if edge_by < MOST else MOST,
            luma_by if luma_by < MOST else MOST,
        )


class Scene:
    """Takes a camera's frames in order. One without statistics is like the one before, and its activity is time."""

    def __init__(self) -> None:
        self.now = Moment(0.0, 0.0, 0.0, 0.0)
        self.recent = 1.0  # activity per step of late
        self._time_s: float | None = None
        # Of the spacing of frames, the change of pixels, edges and luma: how many were seen, mean and variance.
        self._scales = np.zeros((4, 3))

    def add(self, frame: FrameFacts) -> Moment:
        """Take in the next frame and return it on the camera's scales."""
        stats, now = frame.stats, self.now
        if stats is None:
            steps = _steps(self._scales[0], self._passed(frame.time_s))
            self.now = now._replace(steps=now.steps + steps, activity=now.activity + steps)
            return self.now
        edge, luma = stats.edge_density, stats.mean_luma
        passed = self._passed(frame.time_s)
        steps, moved, self.recent, edge_scale, luma_scale = _take_in(
            self._scales, passed, stats.pixel_change, edge, luma, self.recent
        )
        self.now = Moment(now.steps + steps, now.activity + moved, edge, luma, edge_scale, luma_scale)
        return self.now

    def _passed(self, time_s: float) -> float:
        """Return the seconds since the last frame, or -1 for a camera's first one."""
        before, self._time_s = self._time_s, time_s
        return -1.0 if before is None else max(time_s - before, 0.0)

    def state(self) -> State:
        """Return where the camera's clock and scales stand, for a snapshot."""
        scales = self._scales.tolist()
        return {"now": list(self.now), "recent": self.recent, "time_s": self._time_s, "scales": scales}

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `ValueError` for scales of another shape."""
        self.now, self.recent, self._time_s = Moment(*state["now"]), float(state["recent"]), state["time_s"]
        self._scales[:] = np.array(state["scales"], np.float64).reshape(4, 3)


@compiled
def _add(seen: Array, x: float) -> None:
    """Take ``x`` into a mean and a variance that forget slowly: (3,) as in `Scene`."""
    seen[0] = min(seen[0] + 1.0, MEMORY)
    off = x - seen[1]
    seen[1] += off / seen[0]
    seen[2] += (off * (x - seen[1]) - seen[2]) / seen[0]


@compiled
def _steps(spacing: Array, passed: float) -> float:
    """Return how many of the usual spaces between frames have passed, and take this one in."""
    if passed < 0.0:
        return 1.0
    usual = spacing[1]
    _add(spacing, min(passed, LONGEST_STEP * usual) if usual > 0.0 else passed)
    return passed / usual if usual > 0.0 else 1.0


@compiled
def _take_in(
    scales: Array, passed: float, change: float, edge: float, luma: float, recent: float
) -> tuple[float, float, float, float, float]:
    """Take a frame into the ``scales`` (4, 3).

    Return the steps since the last one, the movement in multiples of its mean, that of late, and by how much edges and
    luma usually differ.
    """
    steps = _steps(scales[0], passed)
    if scales[2, 0] > 0.0:  # the first frame of a camera has nothing to differ from
        _add(scales[1], change)
    _add(scales[2], edge)
    _add(scales[3], luma)
    moved = change / max(scales[1, 1], _LEAST)
    recent += 0.02 * (moved - recent)
    edge_scale, luma_scale = max(sqrt(scales[2, 2]), _LEAST_EDGE), max(sqrt(scales[3, 2]), _LEAST_LUMA)
    return steps, moved, recent, edge_scale, luma_scale
