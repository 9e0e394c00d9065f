"""Whether a camera is well, from what happened to it and from how long ago its last frame came."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from camlink.pipeline.dashboard.rollups import CameraState
from camlink.pipeline.quantities import learning_words
from camlink.pipeline.run_info import RunInfo

STALE_AFTER_S = 60.0  # or ten frames of a slow camera, whichever is longer
LASTING = ("down", "frozen")  # events that describe a state until another event ends it
PASSING = ("resolution", "corrupt", "slow", "steady")  # events that neither begin nor end such a state
ORDER = ("down", "silent", "frozen", "no frames", "live", "stopped", "ended")  # worst first


@dataclass(frozen=True)
class Health:
    """``state`` is one of `ORDER`; ``tone`` is good, fair, bad or plain, for colours; ``detail`` says why."""

    state: str
    tone: str
    detail: str
    last_us: int | None


def health_of(camera: CameraState, info: RunInfo, now: datetime) -> Health:
    """Judge one camera at ``now``."""
    last = camera.last_us
    event = next((e for e in reversed(camera.events) if e["kind"] not in PASSING), None)
    if event is not None and event["kind"] in LASTING:
        return Health(event["kind"], "bad", str(event["detail"]), last)
    if info.finished_at is not None or (event is not None and event["kind"] == "ended"):
        return Health("ended", "plain", "the run has ended", last)
    if info.stopped_by is not None:
        return Health("stopped", "plain", "results are not written any more: that was stopped", last)
    if last is None:
        return Health("no frames", "fair", "no frame has come yet", None)
    age_s = (now - datetime.fromtimestamp(last / 1e6, UTC)).total_seconds()
    patience_s = max(STALE_AFTER_S, 10.0 / (_fps(camera, info) or 1.0))
    if info.live and age_s > patience_s:
        return Health("silent", "bad", f"no frame for longer than {patience_s:.0f} s, and no reason given", last)
    return Health("live", "good", "frames are coming", last)


def learning_of(camera: CameraState, info: RunInfo) -> str:
    """Say how far a camera is with the frames before its first decision; empty for one that has come past them."""
    if not camera.frames() or camera.decisions or any(model.frames_served for model in camera.models.values()):
        return ""
    return learning_words(camera.frames() - camera.overtaken, info.learning_frames(camera.camera_id))


def _fps(camera: CameraState, info: RunInfo) -> float | None:
    fps: Any = info.cameras.get(camera.camera_id, {}).get("fps")
    return float(fps) if fps else None
