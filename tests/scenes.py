"""Scenes that models of many tests count people in, and rules that suit a few hundred frames of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from camlink.pipeline.records import Frame

USUAL: dict[str, Any] = {
    "period": timedelta(minutes=5),
    "links": {"bootstrap_frames": 40, "min_train_frames": 40},
    "audit": {"fraction": 0.1},
    "adaptation": {"policy": "off"},
    "budgets": {"time_share": 0.4},
}


def crowd(frame: Frame) -> int:
    """Return how many people there are in a crowd that swells and shrinks, in a pattern that no clock gives away."""
    return frame.index * 7 // 20 % 6


def groups(frame: Frame) -> int:
    """Return how many people there are where one more comes every twelve frames, until all go."""
    return frame.index // 12 % 4
