"""One live camera's connections, one after the other: what comes of each, and when to give it up and try again.

A reader keeps no thread of its own: whoever runs it calls `step` and rests as long as that says. Tests call it by
hand with a fake feed and a manual clock.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from camlink.pipeline.clock import Clock
from camlink.pipeline.ingest.base import SourceSpec
from camlink.pipeline.ingest.channel import Channel
from camlink.pipeline.ingest.feed import Ended, Failed, Feed, FeedFactory, Item, Lost, Opened, Sampled
from camlink.pipeline.ingest.masking import mask_url
from camlink.pipeline.ingest.order import Order
from camlink.pipeline.ingest.vigilance import SlowRule
from camlink.pipeline.records import CameraEvent

logger = logging.getLogger(__name__)

WAIT_S = 0.25  # longest time a step takes: how soon a camera that is given up is noticed
OPENING_SPARE_S = 2.0  # FFmpeg's own limit to opening comes first


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """How patient to be with a camera, in seconds.

    A camera that is dead or frozen is reported within 2 x its frame interval + 5 s; the limits below leave the last
    second of that to noticing and passing on.
    """

    open_timeout_s: float = 15.0
    silent_after_s: float = 4.0  # and two frame intervals
    silent_most_s: float = 60.0  # however seldom frames are to be looked at
    frozen_after_s: float = 4.0
    stale_after_s: float = 5.0
    backoff_first_s: float = 1.0
    backoff_most_s: float = 30.0
    stable_after_s: float = 30.0  # only a connection that lasted this long starts the back-off anew
    undecodable_most: int = 25  # pictures in a row that may fail before reconnecting

    def silence_s(self, fps: float | None) -> float:
        """Return for how long nothing may come from a camera that is looked at ``fps`` times a second."""
        return min(self.silent_after_s + 2 / (fps or 1.0), self.silent_most_s)


class Outage:
    """What outlives a connection: since when a camera is down, how often it was tried, and when to try again."""

    def __init__(self, spec: SourceSpec, address: str | int, limits: LiveLimits, seed: int) -> None:
        self.camera_id = spec.camera_id
        self.shown = spec.shown or mask_url(address)
        self.reconnects = 0  # attempts to open anew, ever
        self.hangs = 0  # connections that had to be killed, ever
        self.codec: str | None = None
        self._limits = limits
        self._attempts = 0
        self._down_since: datetime | None = None
        self._up_since: datetime | None = None
        self._jitter = random.Random(f"{seed}:{spec.camera_id}")

    def failed(self, why: str, now: datetime, cause: str = "") -> tuple[float, CameraEvent | None]:
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
            'camera "%s": %s; reconnecting in %.1f s (attempt %d)',
            *(self.camera_id, self._described(why, cause), delay, self._attempts),
        )
        return delay, self.overdue(why, now, cause)

    def overdue(self, why: str, now: datetime, cause: str = "") -> CameraEvent | None:
        """Return the event that the camera is down, unless that has been told."""
        if self._down_since is not None:
            return None
        self._down_since = now
        return CameraEvent(self.camera_id, now, "down", f"{self._described(why, cause)}; reconnecting")

    def _described(self, why: str, cause: str) -> str:
        return f"{why} from {self.shown}" + (f": {cause}" if cause else "")

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
    """Reads one camera until it is shut out of its channel. A step takes at most `WAIT_S`."""

    def __init__(
        self,
        spec: SourceSpec,
        order: Order,
        channel: Channel,
        token: int,
        *,
        outage: Outage,
        clock: Clock,
        open_feed: FeedFactory,
        limits: LiveLimits,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` stamps events; ``seconds`` measures silence, which a clock that is set must not disturb."""
        self._spec, self._order = spec, order
        self._channel, self._token, self._outage = channel, token, outage
        self._clock, self._seconds, self._open_feed, self._limits = clock, seconds, open_feed, limits
        self._feed: Feed | None = None
        self._codec: str | None = None  # None: not open yet
        self._sign_s = 0.0  # when the camera last gave a sign of life
        self._undecodable = 0
        self._slow = SlowRule(spec.fps)
        self.is_finished = False  # a file that stands in for a camera has been played

    def step(self) -> float | None:
        """Connect, or take what has come. Return seconds to rest before the next step; None: stop for good."""
        if self.is_finished or not self._channel.accepts(self._token):
            self._release()
            return None
        if self._feed is None:
            return self._connect()
        item = self._feed.next(WAIT_S)
        if item is None:
            return self._nothing_came()
        self._sign_s = self._seconds()
        return self._take(item)

    def _connect(self) -> float:
        self._sign_s = self._seconds()
        self._codec, self._undecodable, self._slow = None, 0, SlowRule(self._spec.fps)
        try:
            self._feed = self._open_feed(self._order)
        except OSError as cause:
            return self._failed(f"no process to decode it could be started ({mask_url(cause)})")
        return 0.0

    def _take(self, item: Item) -> float | None:
        if isinstance(item, Sampled):
            self._undecodable = 0
            self._report_success(item.at)
            self._channel.frame(self._token, item.pixels, item.at, item.decode_s)
            self._watch_rate(1)
        elif isinstance(item, Lost):
            return self._lost(item)
        elif isinstance(item, Opened):
            self._codec = item.codec
        elif isinstance(item, Failed):
            return self._failed(item.why, item.cause)
        elif isinstance(item, Ended):
            self._end()
            return None
        else:
            self._watch_rate(0)
        return 0.0

    def _lost(self, item: Lost) -> float:
        self._channel.lost(self._token, item.at, item.reason, item.count)
        self._watch_rate(item.count)
        if item.reason == "corrupt":
            self._undecodable += item.count
            if self._undecodable > self._limits.undecodable_most:
                return self._failed(f"{self._undecodable} pictures in a row cannot be decoded")
        return 0.0

    def _nothing_came(self) -> float:
        silent_s, silence_s = self._seconds() - self._sign_s, self._limits.silence_s(self._spec.fps)
        is_opening = self._codec is None
        if silent_s > (self._order.open_timeout_s + OPENING_SPARE_S if is_opening else silence_s):
            self._outage.hangs += 1
            return self._failed(f"{'no answer' if is_opening else 'no frame'} for {silent_s:.1f} s")
        if is_opening and silent_s > silence_s:  # some cameras take their time: told, but not yet given up
            self._say(self._outage.overdue(f"no answer for {silent_s:.1f} s", self._clock.now()))
        return 0.0

    def _watch_rate(self, frames: int) -> None:
        was_slow = self._slow.is_slow
        if self._slow.update(self._seconds(), frames) == was_slow:
            return
        detail = f"{self._slow.rate:.2g} frames/s come, {self._spec.fps:g} are to be looked at"
        kind: Literal["slow", "steady"] = "steady" if was_slow else "slow"
        self._say(CameraEvent(self._spec.camera_id, self._clock.now(), kind, detail))

    def _report_success(self, now: datetime) -> None:
        with self._channel.exclusively():
            if self._channel.accepts(self._token):  # else it was given up meanwhile: its successor speaks now
                self._say(self._outage.succeeded(self._codec or "unknown", now))

    def _failed(self, why: str, cause: str = "") -> float:
        self._release()
        with self._channel.exclusively():
            if not self._channel.accepts(self._token):
                return 0.0
            delay_s, event = self._outage.failed(why, self._clock.now(), cause)
            self._say(event)
            return delay_s

    def _end(self) -> None:
        self._release()
        self._say(CameraEvent(self._spec.camera_id, self._clock.now(), "ended", "the file was played"))
        self.is_finished = True

    def _say(self, event: CameraEvent | None) -> None:
        self._channel.event(self._token, event)

    def _release(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None
