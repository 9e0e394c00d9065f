"""Audit frames on which predictions were wrong: what was predicted, what the model said, and the picture."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from camlink.pipeline.dashboard.rollups import CameraState

SHOWN = 12


def gallery(camera: CameraState, pictures: Container[int]) -> dict[str, Any]:
    """Return how many of the latest audit frames had a wrong prediction, and the worst of them, newest first.

    ``pictures`` holds the indexes of frames whose picture was kept; those come before others.
    """
    wrong: dict[int, list[dict[str, Any]]] = {}
    moments: dict[int, int] = {}
    badness: dict[int, float] = {}
    for name, model in camera.models.items():
        for index, found in model.audit.wrong.items():
            wrong.setdefault(index, []).append(
                {"model": name, "predicted": found.predicted, "executed": found.executed}
            )
            moments[index] = found.at_us
            badness[index] = badness.get(index, 0.0) + found.wrongness
    worst = sorted(wrong, key=lambda index: (index not in pictures, -badness[index], -index))[:SHOWN]
    shown = [
        {"index": index, "at_us": moments[index], "wrong": wrong[index], "picture": index in pictures}
        for index in sorted(worst, reverse=True)
    ]
    return {"frames": len(wrong), "shown": shown}
