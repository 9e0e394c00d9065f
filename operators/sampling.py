"""Which frames every model runs on: profile frames at the start of a period, audit frames by a keyed hash.

The choice depends only on (seed, camera, frame index) and the event time, so every operator and every replay agrees
on it without a message (docs/design.md, "The way of a frame").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b

from camlink.operators.snapshots import reading
from camlink.operators.spending import Spend
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.records import Purpose


def unit_hash(seed: int, camera_id: str, frame_index: int, salt: str = "audit") -> float:
    """Return a number in [0, 1) that is fixed by its arguments and looks random across frames.

    >>> unit_hash(0, "hall", 7) == unit_hash(0, "hall", 7) != unit_hash(1, "hall", 7)
    True
    """
    digest = blake2b(f"{seed}/{salt}/{camera_id}/{frame_index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


@dataclass(frozen=True)
class SamplingRules:
    """How many frames of a period are profiled and audited. ``period`` is event time."""

    period: timedelta
    profile_fraction: float
    profile_min_frames: int
    audit_fraction: float
    bootstrap_frames: int
    seed: int = 0
    audit_spend: Spend = "fixed"

    def profile_frames(self, fps: float | None) -> int:
        """Return how many frames open each period of a camera sampled at ``fps`` (None: not known)."""
        expected = fps * self.period.total_seconds() if fps else 0.0
        return max(self.profile_min_frames, round(self.profile_fraction * expected))

    def learning_frames(self, fps: float | None) -> int:
        """Return how many of a camera's first frames every model runs on, before there is a decision."""
        return self.bootstrap_frames + self.profile_frames(fps)

    def period_start(self, moment: datetime) -> datetime:
        """Return the start of the period that ``moment`` lies in; periods are counted from 1970 in UTC."""
        return moment - (moment - EPOCH) % self.period


@dataclass(frozen=True, slots=True)
class FramePlan:
    """Why a frame is processed, and whether it is the last profile frame of its period."""

    purpose: Purpose
    audit_probability: float | None = None
    profile_ends: bool = False
    bootstrap: bool = False


class FramePlanner:
    """One camera's plan, frame by frame: bootstrap frames once, then profile frames, then serve and audit frames."""

    def __init__(self, camera_id: str, rules: SamplingRules, fps: float | None, first_period: datetime | None = None):
        self._camera_id = camera_id
        self._rules = rules
        self._per_period = rules.profile_frames(fps)
        self._bootstrap_left = rules.bootstrap_frames
        self._profile_left = 0
        self._period = first_period or EPOCH - rules.period

    def state(self) -> dict[str, int]:
        """Return what `resume` needs to go on from here, as plain numbers."""
        period = (self._period - EPOCH) // timedelta(microseconds=1)
        return {"bootstrap_left": self._bootstrap_left, "profile_left": self._profile_left, "period_us": period}

    def resume(self, state: Mapping[str, int]) -> None:
        """Go on where another planner of this camera stood. Raises `StateError`, and changes nothing, for no state."""
        with reading():
            left = int(state["bootstrap_left"]), int(state["profile_left"])
            period = EPOCH + timedelta(microseconds=state["period_us"])
        (self._bootstrap_left, self._profile_left), self._period = left, period

    def skip_to(self, decided: datetime) -> None:
        """Count as past its bootstrap and the profile of a period for which there is a decision already."""
        self._bootstrap_left = self._profile_left = 0
        self._period = self._rules.period_start(decided)

    def plan(
        self, frame_index: int, captured_at: datetime, audit_share: float | None = None, *, overtaken: bool = False
    ) -> FramePlan:
        """Return the plan for the camera's next frame, audited with chance ``audit_share`` (None: as the rules say).

        One that was ``overtaken`` is none to learn from, but audited with the same chance as any other. Frames must
        come in order.
        """
        start = self._rules.period_start(captured_at)
        if start != self._period:
            self._period, self._profile_left = start, self._per_period
        if self._bootstrap_left and not overtaken:
            self._bootstrap_left -= 1
            return FramePlan("profile", bootstrap=True)
        if self._profile_left and not overtaken:
            self._profile_left -= 1
            return FramePlan("profile", profile_ends=not self._profile_left)
        rate = self._rules.audit_fraction if audit_share is None else audit_share
        if unit_hash(self._rules.seed, self._camera_id, frame_index) < rate:
            return FramePlan("audit", audit_probability=rate)
        return FramePlan("overtaken" if overtaken else "serve", audit_probability=rate)
