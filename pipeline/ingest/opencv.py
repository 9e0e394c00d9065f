"""The thin layer over OpenCV's video and image reading: its constants and its quirks stay in this file."""

from __future__ import annotations

import logging
import math
import os
import sys
from functools import cache
from pathlib import Path
from typing import Protocol, cast

import cv2
import numpy as np

from camlink.pipeline.ingest.masking import mask_url
from camlink.pipeline.records import Pixels

logger = logging.getLogger(__name__)

LOG_LEVEL, QUIET, ERRORS_ONLY = "OPENCV_FFMPEG_LOGLEVEL", "-8", "16"  # AV_LOG_QUIET, AV_LOG_ERROR


class Capture(Protocol):
    """The part of ``cv2.VideoCapture`` that is used; tests hand in fakes. Property numbers are OpenCV's."""

    def isOpened(self) -> bool: ...
    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, Pixels | None]: ...
    def get(self, prop: int, /) -> float: ...
    def release(self) -> None: ...


def open_file(path: Path) -> Capture:
    """Open a clip; the result says by ``isOpened()`` whether it could be."""
    _quieten()
    return cast(Capture, cv2.VideoCapture(str(path), _file_backend()))


def open_live(source: str | int, open_timeout_s: float, read_timeout_s: float) -> Capture:
    """Open a URL or device, giving up after the time limits (which only FFmpeg heeds: hence the limits in reader.py).

    URLs go to FFmpeg alone: on failure other backends would print the address, with its password.
    """
    _quieten()
    if isinstance(source, int):
        return cast(Capture, cv2.VideoCapture(source, cv2.CAP_ANY))
    if source.startswith("/dev/"):
        backend = cv2.CAP_V4L2 if sys.platform.startswith("linux") else cv2.CAP_ANY
        return cast(Capture, cv2.VideoCapture(source, backend))
    limits = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(open_timeout_s * 1000)),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(read_timeout_s * 1000)),
        *(cv2.CAP_PROP_N_THREADS, 1),  # more would hold frames back, and cameras are many already
    ]
    return cast(Capture, cv2.VideoCapture(source, cv2.CAP_FFMPEG, limits))


def grab(capture: Capture) -> bool:
    """Step to the next frame without converting it (about a third of the work of reading it)."""
    try:
        return capture.grab()
    except cv2.error as cause:
        logger.warning("OpenCV failed to read on: %s", mask_url(cause))
        return False


def retrieve(capture: Capture) -> Pixels | None:
    """Return the grabbed frame (H, W, 3) BGR, or None if it cannot be decoded."""
    try:
        ok, pixels = capture.retrieve()
    except cv2.error as cause:
        logger.warning("OpenCV failed to convert a frame: %s", mask_url(cause))
        return None
    if not ok or pixels is None or pixels.size == 0:
        return None
    return as_bgr(pixels)


def as_bgr(pixels: Pixels) -> Pixels:
    """Return ``pixels`` as (H, W, 3): grey cameras give (H, W) or (H, W, 1)."""
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return cast(Pixels, cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR))
    return pixels


def read_image(path: Path) -> Pixels | None:
    """Return an image file as (H, W, 3) BGR, or None if it cannot be read or decoded."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as cause:
        logger.warning("%s cannot be read: %s", path, cause)
        return None
    try:
        return cast("Pixels | None", cv2.imdecode(data, cv2.IMREAD_COLOR)) if data.size else None
    except cv2.error as cause:  # more pixels than OpenCV takes, by a header that may be damaged
        logger.warning("%s cannot be decoded: %s", path, cause.err)
        return None


def position_s(capture: Capture) -> float:
    """Return the presentation time of the grabbed frame as the container tells it; some give 0 where they know none."""
    return capture.get(cv2.CAP_PROP_POS_MSEC) / 1000


def frame_rate(capture: Capture) -> float | None:
    """Return frames per second, or None where the container tells none that can be believed."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else None


def frame_count(capture: Capture) -> int | None:
    """Return how many frames the container says it holds, or None where it does not say."""
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if math.isfinite(count) and 0 < count < 1e9 else None


def first_number(path: Path) -> int:
    """Return the number of a clip's first frame by its time stamp: above 0 where it was cut out of a longer one."""
    pts = getattr(cv2, "CAP_PROP_PTS", None)  # since OpenCV 4.11
    capture = open_file(path)
    try:
        return max(0, round(capture.get(pts))) if pts is not None and grab(capture) else 0
    finally:
        capture.release()


def codec(capture: Capture) -> str:
    """Return the four-letter codec name, such as ``h264``, or "unknown"."""
    number = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    name = number.to_bytes(4, "little").decode("ascii", errors="replace")
    return name if name.isprintable() and name.strip() else "unknown"


@cache
def _quieten() -> None:
    """Keep OpenCV and FFmpeg from writing to standard error, addresses included: what fails is logged by camlink.

    ``OPENCV_LOG_LEVEL`` and ``OPENCV_FFMPEG_LOGLEVEL`` still bring it back, to look into a camera that will not open.
    """
    os.environ.setdefault(LOG_LEVEL, QUIET)  # read when the first video is opened
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _file_backend() -> int:
    # FFmpeg alone is quieter and repeats exactly; builds without it (Jetson) read files by GStreamer.
    has_ffmpeg = cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG)
    return cv2.CAP_FFMPEG if has_ffmpeg else cv2.CAP_ANY
