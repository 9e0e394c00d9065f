"""Which served frames are worth relabelling, so that the links have something to learn from (MLink ext., Sec. 4.1).

Relabelled frames train links and never count towards accuracy: they are chosen, not random.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

import numpy as np

from camlink.models.base import OutputSpec
from camlink.operators.snapshots import get_time, put_time
from camlink.pipeline.records import FrameResult, ModelOutput

MOST_RELABELLED = 0.1  # share of served frames
MOST_CREDIT = 10.0  # frames: a long quiet time does not earn a burst of executions


class RelabelPolicy(Protocol):
    """One camera's policy."""

    def wants(self, result: FrameResult) -> str | None:
        """Say why this served frame should be relabelled, or None."""
        ...

    def state(self) -> dict[str, float | None]:
        """Return what `resume` needs to go on from here, as plain numbers."""
        ...

    def resume(self, state: Mapping[str, float | None]) -> None:
        """Go on where another policy of this kind stood; another kind's state says nothing."""
        ...

    def quiet_until(self) -> datetime | None:
        """Return the time before which no served frame will be wanted whatever it shows; None if that is not known."""
        ...


class NoRelabelling:
    """Learns from profile and audit frames alone."""

    def wants(self, result: FrameResult) -> str | None:
        return None

    def state(self) -> dict[str, float | None]:
        return {}

    def resume(self, state: Mapping[str, float | None]) -> None:
        """Nothing is ever wanted, wherever one stood."""

    def quiet_until(self) -> datetime | None:
        return datetime.max.replace(tzinfo=UTC)


class PeriodicRelabelling:
    """The paper's periodic update: the first ``frames`` served frames of every ``interval`` of event time.

    Never more than `MOST_RELABELLED` of the served frames: a slow camera has few frames in an interval.
    """

    def __init__(self, interval: timedelta, frames: int) -> None:
        self._interval = interval
        self._frames = frames
        self._due: datetime | None = None
        self._left = 0
        self._credit = 0.0

    def wants(self, result: FrameResult) -> str | None:
        now = result.captured_at
        if self._due is None:
            self._due = now + self._interval
        elif now >= self._due or self._due - now > self._interval:  # the clock was set back
            self._due, self._left = now + self._interval, self._frames
        self._credit = min(self._credit + MOST_RELABELLED, float(self._frames))
        if not self._left or self._credit < 1.0:
            return None
        self._left -= 1
        self._credit -= 1.0
        return "periodic"

    def state(self) -> dict[str, float | None]:
        return {"due_us": put_time(self._due), "left": self._left, "credit": self._credit}

    def resume(self, state: Mapping[str, float | None]) -> None:
        due_us = state.get("due_us")
        self._due = get_time(None if due_us is None else int(due_us))
        self._left, self._credit = int(state.get("left") or 0), float(state.get("credit") or 0.0)

    def quiet_until(self) -> datetime | None:
        return None if self._left else self._due


class UncertaintyRelabelling:
    """Frames on which a link is unsure, within a budget of ``label_fraction`` of the served frames."""

    def __init__(self, specs: Mapping[str, OutputSpec], label_fraction: float, threshold: float) -> None:
        self._specs = specs
        self._fraction = label_fraction
        self._threshold = threshold
        self._credit = 0.0

    def wants(self, result: FrameResult) -> str | None:
        self._credit = min(self._credit + self._fraction, MOST_CREDIT)
        if self._credit < 1.0:
            return None
        made = [o for o in result.outputs if o.how == "linked" or (o.how == "abstained" and o.confidence is not None)]
        unsure = {o.model: uncertainty(self._specs[o.model], o) for o in made}
        if not unsure or max(unsure.values()) <= self._threshold:
            return None
        self._credit -= 1.0
        model = max(unsure, key=lambda m: unsure[m])
        return f"unsure of {model} ({unsure[model]:.2f})"

    def state(self) -> dict[str, float | None]:
        return {"credit": self._credit}

    def resume(self, state: Mapping[str, float | None]) -> None:
        self._credit = float(state.get("credit") or 0.0)

    def quiet_until(self) -> datetime | None:
        return None


def uncertainty(spec: OutputSpec, output: ModelOutput) -> float:
    """Return how unsure a prediction is, 0..1: entropy for labels, spread-based doubt for counts and numbers."""
    if output.confidence is None:
        return 1.0
    if output.value is None:  # it abstained, for want of confidence
        return 1.0 - output.confidence
    p = np.clip(output.value.astype(np.float64), 1e-9, 1.0)
    if spec.task == "single_label" and spec.size > 1:
        return float(-(p * np.log(p)).sum() / np.log(spec.size))
    if spec.task == "multi_label":
        q = np.clip(1.0 - p, 1e-9, 1.0)
        return float(-(p * np.log2(p) + q * np.log2(q)).max())
    return 1.0 - output.confidence
