"""A camera's own clock and unrest: time in steps between its frames, movement in multiples of its mean."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from camlink.operators.freshness import Passed
from camlink.operators.policy import FrameFacts
from camlink.operators.policy_state import State

MEMORY = 500.0  # frames over which means are kept
LONGEST_STEP = 4.0  # a longer pause counts in full, but does not say how far frames lie apart
MOST = 3.0  # standard deviations
_LEAST = 1e-4


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


class _Running:
    """A mean and a standard deviation that forget slowly."""

    def __init__(self, scale: float) -> None:
        self.count, self.mean, self.square, self._scale = 0.0, 0.0, 0.0, scale

    def add(self, x: float) -> None:
        self.count = min(self.count + 1.0, MEMORY)
        off = x - self.mean
        self.mean += off / self.count
        self.square += (off * (x - self.mean) - self.square) / self.count

    def state(self) -> list[float]:
        return [self.count, self.mean, self.square]

    def resume(self, state: list[float]) -> None:
        self.count, self.mean, self.square = map(float, state)

    @property
    def deviation(self) -> float:
        return max(sqrt(self.square), self._scale)


class Scene:
    """Takes a camera's frames in order. One without statistics is like the one before, and its activity is time."""

    def __init__(self) -> None:
        self.now = Moment(0.0, 0.0, 0.0, 0.0)
        self.recent = 1.0  # activity per step of late
        self._time_s: float | None = None
        self._spacing = _Running(0.0)
        self._change, self._edge, self._luma = _Running(_LEAST), _Running(1e-3), _Running(0.5)

    def add(self, frame: FrameFacts) -> Moment:
        """Take in the next frame and return it on the camera's scales."""
        steps = self._steps(frame.time_s)
        stats = frame.stats
        if stats is None:
            self.now = self.now._replace(steps=self.now.steps + steps, activity=self.now.activity + steps)
            return self.now
        if self._edge.count:  # the first frame of a camera has nothing to differ from
            self._change.add(stats.pixel_change)
        self._edge.add(stats.edge_density)
        self._luma.add(stats.mean_luma)
        moved = stats.pixel_change / max(self._change.mean, _LEAST)
        self.recent += 0.02 * (moved - self.recent)
        self.now = Moment(
            self.now.steps + steps,
            self.now.activity + moved,
            stats.edge_density,
            stats.mean_luma,
            self._edge.deviation,
            self._luma.deviation,
        )
        return self.now

    def state(self) -> State:
        """Return where the camera's clock and scales stand, for a snapshot."""
        scales = [s.state() for s in self._scales()]
        return {"now": list(self.now), "recent": self.recent, "time_s": self._time_s, "scales": scales}

    def resume(self, state: State) -> None:
        """Take up what `state` told."""
        self.now, self.recent, self._time_s = Moment(*state["now"]), float(state["recent"]), state["time_s"]
        for scale, told in zip(self._scales(), state["scales"], strict=True):
            scale.resume(told)

    def _scales(self) -> tuple[_Running, ...]:
        return self._spacing, self._change, self._edge, self._luma

    def _steps(self, time_s: float) -> float:
        before, self._time_s = self._time_s, time_s
        if before is None:
            return 1.0
        passed = max(time_s - before, 0.0)
        usual = self._spacing.mean
        self._spacing.add(min(passed, LONGEST_STEP * usual) if usual > 0.0 else passed)
        return passed / usual if usual > 0.0 else 1.0
