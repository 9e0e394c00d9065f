"""What lies between a camera's reading thread and those who use its frames: the newest frames, never a backlog."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta

from camlink.pipeline.ingest.base import Reading, SourceSpec
from camlink.pipeline.ingest.framing import FrameCounter, seal
from camlink.pipeline.ingest.vigilance import FrozenRule
from camlink.pipeline.quantities import format_duration
from camlink.pipeline.records import CameraEvent, Frame, FrameDropped, Pixels

logger = logging.getLogger(__name__)

FOLLOW_AFTER_S = 60.0  # until then a clock that was set back may catch up with a camera's last frame


class Channel:
    """A thread-safe, ordered hand-over that holds at most ``waiting`` frames: the newest win.

    A frame overwritten before it was taken becomes a `FrameDropped` ("overload"), so indexes stay accounted for. One
    that is taken when the next is there already says so (`Frame.overtaken`).
    Readers write with a token; after `revoke` a reader that hung and comes back to life is no longer heard.
    """

    def __init__(
        self,
        spec: SourceSpec,
        frozen_after_s: float,
        with_stats: bool,
        first_index: int = 0,
        seconds: Callable[[], float] = time.monotonic,
        waiting: int = 1,
    ) -> None:
        """``seconds`` measures how long a picture stands still, and the clock is behind, whatever that is set to."""
        self._spec, self._seconds, self._most_waiting = spec, seconds, waiting
        self._counter = FrameCounter(spec.camera_id, spec.crop, with_stats, first_index)
        self._frozen = FrozenRule(frozen_after_s)
        self._is_told_frozen = False
        self._readings: deque[Reading] = deque()
        self._token = 0
        self._last_at: datetime | None = None
        self._behind_since_s: float | None = None  # the clock has not reached the last frame's time since then
        self._changed = threading.Condition()

    def accepts(self, token: int) -> bool:
        """Say whether ``token`` is still the one that may write."""
        return token == self._token

    def revoke(self) -> int:
        """Shut out the present writer and return the token of the next."""
        with self._changed:
            self._token += 1
            return self._token

    def exclusively(self) -> AbstractContextManager[object]:
        """Hold the channel (re-entrant), so that checking a token and acting on it are one step."""
        return self._changed

    def frame(self, token: int, pixels: Pixels, now: datetime, decode_s: float | None = None) -> None:
        """Take a sampled picture (H, W, 3) BGR, which becomes read-only."""
        with self._changed:
            if not self.accepts(token):
                return
            at = self._advance(now)
            event = self._counter.resolution_event(pixels, at)
            if event is not None:
                self._put(event)
            pixels = seal(pixels, self._spec.crop)
            is_frozen = self._frozen.update(pixels, self._seconds())
            if is_frozen != self._is_told_frozen:
                self._is_told_frozen = is_frozen
                detail = "the picture does not change" if is_frozen else "the picture moves again"
                self._put(CameraEvent(self._spec.camera_id, at, "frozen" if is_frozen else "thawed", detail))
            if is_frozen:
                self._drop(at, "frozen")
            else:
                self._put_frame(pixels, at, decode_s)

    def lost(self, token: int, now: datetime, reason: str, count: int = 1) -> None:
        """Account for sampled pictures that could not be had."""
        with self._changed:
            if self.accepts(token):
                self._drop(self._advance(now), reason, count)

    def event(self, token: int, event: CameraEvent | None) -> None:
        """Pass on a change in the camera's state, if there is one."""
        with self._changed:
            if event is not None and self.accepts(token):
                self._put(event)
                if event.kind == "recovered":  # taken for well now: a picture that still stands is told of again
                    self._is_told_frozen = False

    def take(self) -> Reading | None:
        """Return the oldest reading not yet taken, or None."""
        with self._changed:
            reading = self._readings.popleft() if self._readings else None
            if isinstance(reading, Frame) and any(isinstance(after, Frame) for after in self._readings):
                return replace(reading, overtaken=True)
            return reading

    def wait(self, timeout_s: float) -> bool:
        """Wait until there may be something to take, at most ``timeout_s``; return whether there is."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._readings), timeout_s)

    def _advance(self, now: datetime) -> datetime:
        """Return ``now``, or just after the last frame's time while the machine's clock is behind that.

        A clock that stays behind is followed, for it had been ahead: else no time would pass until it is there again.
        """
        last = self._last_at
        if last is not None and now <= last and not self._is_left_behind(last - now):
            now = last + timedelta(microseconds=1)
        else:
            self._behind_since_s = None
        self._last_at = now
        return now

    def _is_left_behind(self, behind: timedelta) -> bool:
        seconds = self._seconds()
        if self._behind_since_s is None:
            self._behind_since_s = seconds
        since_s = seconds - self._behind_since_s
        if since_s < FOLLOW_AFTER_S:
            return False
        logger.warning(
            'camera "%s": for %.0f s the clock has been behind its last frame, by %s now; following the clock: frames '
            "since it was set back are dated alike, those before may be dated too late",
            *(self._spec.camera_id, since_s, format_duration(behind)),
        )
        return True

    def _put(self, reading: Reading) -> None:
        self._readings.append(reading)
        self._changed.notify_all()

    def _put_frame(self, pixels: Pixels, at: datetime, decode_s: float | None) -> None:
        index, self._counter.captured = self._counter.captured, self._counter.captured + 1
        waiting = [(place, reading) for place, reading in enumerate(self._readings) if isinstance(reading, Frame)]
        if len(waiting) >= self._most_waiting:
            self._overwrite(*waiting[0])
        self._put(Frame(self._spec.camera_id, index, at, pixels, self._counter.measure(pixels), decode_s))

    def _overwrite(self, place: int, frame: Frame) -> None:
        dropped = FrameDropped(frame.camera_id, frame.index, 1, frame.captured_at, "overload")
        joined = _join(self._readings[place - 1], dropped) if place else None
        if joined is None:
            self._readings[place] = dropped
        else:
            self._readings[place - 1] = joined
            del self._readings[place]

    def _drop(self, at: datetime, reason: str, count: int = 1) -> None:
        dropped = self._counter.dropped(count, at, reason)
        joined = _join(self._readings[-1], dropped) if self._readings else None
        if joined is None:
            self._put(dropped)
        else:
            self._readings[-1] = joined


def _join(earlier: Reading, later: FrameDropped) -> FrameDropped | None:
    """Return both as one record if they follow each other: a long stall then takes no memory."""
    if not isinstance(earlier, FrameDropped) or earlier.reason != later.reason:
        return None
    if earlier.first_index + earlier.count != later.first_index:
        return None
    count = earlier.count + later.count
    return FrameDropped(earlier.camera_id, earlier.first_index, count, earlier.captured_at, earlier.reason)
