"""Reads key frames only, with PyAV: where frames are looked at less often than key frames come, decoding the others is
work for nothing. Optional: ``pip install 'camlink[keyframes]'``.

    capture = open_key_frames("rtsp://...", 10.0, 5.0)      # used like cv2.VideoCapture

The pictures are those that OpenCV gives for the same frames, to within a level or two of its colour conversion.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from camlink.pipeline.errors import SourceError
from camlink.pipeline.ingest.masking import mask_url
from camlink.pipeline.records import Pixels

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeyFrames:
    """The key frames of a clip: how many, and the longest time between two of them or to the end, in seconds."""

    count: int
    interval_s: float
    span_s: float

    def suffice(self, fps: float | None) -> bool:
        """Say whether there is a key frame for each sampling instant."""
        return fps is not None and self.count > 0 and self.interval_s <= 1 / fps * 1.001


def is_installed() -> bool:
    """Say whether PyAV is there."""
    return find_spec("av") is not None


def key_frames_of(path: Path) -> KeyFrames:
    """Return what key frames a clip has, from its packets, none of which is decoded. Raises `SourceError`."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            packets = [
                (float(p.pts * p.time_base), p.is_keyframe) for p in container.demux(stream) if p.pts is not None
            ]
    except (av.FFmpegError, IndexError) as cause:
        raise SourceError(f"{path} cannot be read as video: {mask_url(cause)}") from cause
    keys = sorted(second for second, is_key in packets if is_key)
    if not keys:
        return KeyFrames(0, 0.0, 0.0)
    end = max(second for second, _ in packets)
    return KeyFrames(len(keys), max(later - earlier for earlier, later in pairwise([*keys, end])), end - keys[0])


def open_key_frames(
    source: str,
    open_timeout_s: float | None = None,
    read_timeout_s: float | None = None,
    heard: Callable[[], object] = lambda: None,
) -> KeyCapture:
    """Open a URL or file; the result says by ``isOpened()`` whether it could be.

    ``heard`` is called at every packet, for `KeyCapture.grab` takes as long as key frames are apart.
    """
    import av

    av.logging.set_level(None)
    options = {"rtsp_flags": "prefer_tcp"} if source.lower().startswith("rtsp") else {}
    timeout = None if open_timeout_s is None else (open_timeout_s, read_timeout_s)
    try:
        container: Any = av.open(source, options=options, timeout=timeout)
    except (av.FFmpegError, OSError) as cause:
        return KeyCapture(None, why=str(cause))
    return KeyCapture(container, heard, most_silence_s=inf if read_timeout_s is None else 0.95 * read_timeout_s)


class KeyCapture:
    """A `Capture` of a video's key frames. Each is decoded by itself, so that none waits for the next."""

    def __init__(
        self,
        container: Any,
        heard: Callable[[], object] = lambda: None,
        why: str = "",
        most_silence_s: float = inf,
    ) -> None:
        """``why``: what kept it from being opened, in FFmpeg's words, which may hold the address; later, from going on.

        ``most_silence_s``: between packets. When its time is up FFmpeg first gives the packets over UDP that it held
        back, as if they had just come.
        """
        self.why = why
        self._most_silence_s = most_silence_s
        self.gap_s = 0.0  # between the last two key frames
        self._heard = heard
        self._container = container
        self._stream = next(iter(container.streams.video), None) if container is not None else None
        self._packets: Iterator[Any] = iter(()) if self._stream is None else container.demux(self._stream)
        self._second = 0.0
        self._grabbed: Any = None
        if self._stream is not None:
            self._stream.codec_context.thread_count = 1

    def isOpened(self) -> bool:
        return self._stream is not None

    def grab(self) -> bool:
        """Go to the next key frame that can be decoded."""
        import av

        self._grabbed = None
        while self._stream is not None:
            try:
                packet = next(self._keys(), None)
                if packet is None:
                    return False
                frames = self._decoded(packet)
            except av.FFmpegError as cause:
                if not isinstance(cause, av.InvalidDataError):  # the connection, not the picture
                    logger.info("PyAV cannot read on: %s", mask_url(cause))
                    return False
                continue
            if frames:
                self._grabbed = frames[0]
                second = float(packet.pts * packet.time_base) if packet.pts is not None else self._second
                self.gap_s, self._second = second - self._second, second
                return True
        return False

    def retrieve(self) -> tuple[bool, Pixels | None]:
        if self._grabbed is None:
            return False, None
        pixels = self._grabbed.to_ndarray(format="bgr24")
        turns = round(getattr(self._grabbed, "rotation", 0) / 90) % 4  # as OpenCV turns what a telephone recorded
        return True, np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels

    def get(self, prop: int, /) -> float:
        if prop == cv2.CAP_PROP_POS_MSEC:
            return self._second * 1000
        if prop == cv2.CAP_PROP_FOURCC and self._stream is not None:
            name = self._stream.codec_context.name.encode()[:4].ljust(4)
            return float(int.from_bytes(name, "little"))
        return 0.0

    def release(self) -> None:
        if self._container is not None:
            self._container.close()
        self._container = self._stream = None

    def _keys(self) -> Iterator[Any]:
        began = time.monotonic()
        for packet in self._packets:
            silent_s = time.monotonic() - began
            if silent_s >= self._most_silence_s:
                self.why = f"no frame for {silent_s:.1f} s"
                return
            self._heard()
            if packet.is_keyframe and packet.size:
                yield packet
            began = time.monotonic()

    def _decoded(self, packet: Any) -> list[Any]:
        """Decode one packet by itself: what the decoder holds back is asked for at once."""
        context: Any = self._stream.codec_context if self._stream is not None else None
        frames = [*context.decode(packet), *context.decode(None)]
        context.flush_buffers()
        return frames
