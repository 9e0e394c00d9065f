"""The side of a live camera that may block: opens, reads and reopens it, one step at a time.

A reader keeps no thread of its own: whoever runs it calls `step` and rests as long as that says. Tests call it by
hand with a fake capture and a manual clock.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from camlink.pipeline.clock import Clock
from camlink.pipeline.ingest.base import SourceSpec
from camlink.pipeline.ingest.channel import Channel
from camlink.pipeline.ingest.framing import SampleGrid
from camlink.pipeline.ingest.masking import mask_url
from camlink.pipeline.records import CameraEvent

if TYPE_CHECKING:
    from camlink.pipeline.ingest.opencv import Capture

logger = logging.getLogger(__name__)

CaptureFactory = Callable[[str | int], "Capture"]


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """How patient to be with a camera, in seconds."""

    open_timeout_s: float = 10.0
    read_timeout_s: float = 10.0
    hung_after_s: float = 25.0  # a call that blocks longer is given up: above the two limits that FFmpeg heeds
    frozen_after_s: float = 30.0
    stale_after_s: float = 5.0
    backoff_first_s: float = 1.0
    backoff_most_s: float = 30.0
    stable_after_s: float = 30.0  # only a connection that lasted this long starts the back-off anew
    undecodable_most: int = 25  # pictures in a row that may fail before reconnecting


class Outage:
    """What outlives a connection: since when a camera is down, how often it was tried, and when to try again."""

    def __init__(self, spec: SourceSpec, address: str | int, limits: LiveLimits, seed: int) -> None:
        self.camera_id = spec.camera_id
        self.shown = spec.shown or mask_url(address)
        self.reconnects = 0  # attempts to open anew, ever
        self.codec: str | None = None
        self._limits = limits
        self._attempts = 0
        self._down_since: datetime | None = None
        self._up_since: datetime | None = None
        self._jitter = random.Random(f"{seed}:{spec.camera_id}")

    def failed(self, why: str, now: datetime) -> tuple[float, CameraEvent | None]:
        """Return how long to rest before the next attempt, and the event if the camera was up until now."""
        if self._up_since is not None and (now - self._up_since).total_seconds() >= self._limits.stable_after_s:
            self._attempts = 0
        self._up_since = None
        # the exponent is held down so that weeks of attempts do not overflow a float
        delay = min(self._limits.backoff_first_s * 2 ** min(self._attempts, 30), self._limits.backoff_most_s)
        delay *= 0.5 + 0.5 * self._jitter.random()  # so that a hundred cameras do not return at the same instant
        self._attempts += 1
        self.reconnects += 1
        logger.log(
            logging.WARNING if self._down_since is None else logging.INFO,  # once, then only for those who ask
            'camera "%s": %s from %s; reconnecting in %.1f s (attempt %d)',
            *(self.camera_id, why, self.shown, delay, self._attempts),
        )
        if self._down_since is not None:
            return delay, None
        self._down_since = now
        return delay, CameraEvent(self.camera_id, now, "down", f"{why} from {self.shown}; reconnecting")

    def succeeded(self, codec: str, now: datetime) -> CameraEvent | None:
        """Note a first frame; return the event if the camera was down."""
        if self._up_since is not None:
            return None
        self._up_since = now
        was, self.codec = self.codec, codec
        if self._down_since is None:
            return None
        down_s = (now - self._down_since).total_seconds()
        self._down_since = None
        change = f"; codec changed from {was} to {codec}" if was not in (None, codec) else ""
        detail = f"after {down_s:.1f} s and {self._attempts} attempts{change}"
        logger.warning('camera "%s": %s recovered %s', self.camera_id, self.shown, detail)
        return CameraEvent(self.camera_id, now, "recovered", detail)


class Reader:
    """Reads one camera until it is shut out of its channel. Only ``step`` blocks."""

    def __init__(
        self,
        spec: SourceSpec,
        address: str | int,
        channel: Channel,
        token: int,
        *,
        outage: Outage,
        clock: Clock,
        capture_factory: CaptureFactory,
        limits: LiveLimits,
        is_file: bool = False,
    ) -> None:
        self._spec, self._address, self._is_file = spec, address, is_file
        self._channel, self._token, self._outage = channel, token, outage
        self._clock, self._open_capture, self._limits = clock, capture_factory, limits
        self._capture: Capture | None = None
        self._opened_at = clock.now()
        self._undecodable = 0
        self._grid = SampleGrid(spec.fps)
        self.blocked_since: datetime | None = None  # when a call that may hang was begun; None while none is under way
        self.is_finished = False  # a file that stands in for a camera has been played

    def step(self) -> float | None:
        """Open the camera, or read one frame. Return seconds to rest before the next step; None: stop for good."""
        if self.is_finished or not self._channel.accepts(self._token):
            self._release()
            return None
        self.blocked_since = self._clock.now()
        try:
            return self._open() if self._capture is None else self._read(self._capture)
        finally:
            self.blocked_since = None

    def _open(self) -> float:
        try:
            capture = self._open_capture(self._address)
        except Exception as cause:  # drivers raise what they like; any failure to open is retried and reported alike
            return self._failed(f"opening failed ({mask_url(cause)})")
        self._capture = capture
        self._opened_at = self._clock.now()
        self._undecodable = 0
        return 0.0 if capture.isOpened() else self._failed("no connection")

    def _read(self, capture: Capture) -> float | None:
        from camlink.pipeline.ingest.opencv import grab, retrieve

        if not grab(capture):
            if not self._is_file:
                return self._failed("no frame")
            self._end()
            return None
        now = self._clock.now()
        if self._grid.is_due(now.timestamp()):
            pixels = retrieve(capture)
            if pixels is None:
                self._channel.lost(self._token, now, "corrupt")
                self._undecodable += 1
                if self._undecodable > self._limits.undecodable_most:
                    return self._failed(f"{self._undecodable} pictures in a row cannot be decoded")
            else:
                self._undecodable = 0
                self._report_success(capture, now)
                self._channel.frame(self._token, pixels, now)
        return self._rest_s(capture, now) if self._is_file else 0.0

    def _report_success(self, capture: Capture, now: datetime) -> None:
        from camlink.pipeline.ingest.opencv import codec

        name = codec(capture)
        with self._channel.exclusively():
            if self._channel.accepts(self._token):  # else it was given up while it hung: its successor speaks now
                self._channel.event(self._token, self._outage.succeeded(name, now))

    def _failed(self, why: str) -> float:
        self._release()
        with self._channel.exclusively():
            if not self._channel.accepts(self._token):
                return 0.0
            delay_s, event = self._outage.failed(why, self._clock.now())
            self._channel.event(self._token, event)
            return delay_s

    def _end(self) -> None:
        self._release()
        now = self._clock.now()
        self._channel.event(self._token, CameraEvent(self._spec.camera_id, now, "ended", "the file was played"))
        self.is_finished = True

    def _rest_s(self, capture: Capture, now: datetime) -> float:
        from camlink.pipeline.ingest.opencv import position_s

        return max(0.0, position_s(capture) - (now - self._opened_at).total_seconds())

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None
