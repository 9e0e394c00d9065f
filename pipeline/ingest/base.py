"""What every source of frames is, and what a user says about one: the seam between cameras and the graph."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from camlink.pipeline.errors import SourceError
from camlink.pipeline.ingest.order import Decode
from camlink.pipeline.records import CameraEvent, Frame, FrameDropped

Reading = Frame | FrameDropped | CameraEvent
Crop = tuple[float, float, float, float]

CAMERA_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}")  # "." and ".." would name other folders


class Source(Protocol):
    """One camera's readings in the order of event time. One pass: open the source again to read it again.

    Conservation (design ruling 6) holds after every reading: frames yielded + frames in `FrameDropped` = ``captured``.
    """

    @property
    def camera_id(self) -> str: ...

    @property
    def captured(self) -> int:
        """Sampled frames yielded so far, dropped ones included."""
        ...

    def __iter__(self) -> Iterator[Reading]: ...

    def close(self) -> None:
        """Give back the camera or file. Closing twice is harmless; an iteration in progress ends."""
        ...


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """Where one camera's frames come from and how they are sampled. Raises `SourceError` when it makes no sense.

    ``sources``: paths of clips, images or folders of stills (several of one camera in time order), or one URL or
    device number. ``fps``: sampling rate, None for every frame. ``crop``: (x, y, width, height) as fractions of the
    picture. ``start``: event time of the first frame of a clip; ``timezone`` is how naive times are read.
    ``total_frames``: sampled frames to expect, when already known. ``shown``: the source as logs and events may show
    it, for one that holds secrets `mask_url` cannot know, such as a key in the path. ``frozen_after_s``: a live camera
    whose picture has not changed in the least for so long counts as frozen; None for the default. ``decode``: all
    frames, key frames only, or "auto": whichever suffices.
    """

    camera_id: str
    sources: tuple[str | int, ...] = field(repr=False)  # may hold passwords
    fps: float | None = None
    crop: Crop | None = None
    start: datetime | None = None
    timezone: str = "UTC"
    domain: str = "default"
    total_frames: int | None = None
    shown: str = ""
    frozen_after_s: float | None = None
    decode: Decode = "all"

    def __post_init__(self) -> None:
        if not CAMERA_ID.fullmatch(self.camera_id):
            raise SourceError(f'camera "{self.camera_id}": an id has 1 to 64 of the characters A-Z a-z 0-9 _ . -')
        if not self.sources:
            raise SourceError(f'camera "{self.camera_id}": no sources; give a file, a folder, a URL or a device number')
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise SourceError(f'camera "{self.camera_id}": fps must be above 0, got {self.fps}')
        if self.crop is not None and not _is_inside(self.crop):
            raise SourceError(
                f'camera "{self.camera_id}": crop must be (x, y, width, height) as fractions of the picture'
                f" and lie inside it, got {self.crop}"
            )
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError) as cause:
            raise SourceError(
                f'camera "{self.camera_id}": timezone "{self.timezone}" is not known; give one like "Asia/Singapore"'
            ) from cause


def _is_inside(crop: Crop) -> bool:
    x, y, width, height = crop
    rounding = 1e-6  # 0.7 + 0.3 may exceed 1 by a hair
    return x >= 0 and y >= 0 and width > 0 and height > 0 and x + width <= 1 + rounding and y + height <= 1 + rounding
