"""A live camera on the bench: its feed is a script, its thread is stepped by hand, its clock is set by hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import numpy as np

from camlink.pipeline.clock import ManualClock
from camlink.pipeline.ingest import Reading, SourceSpec
from camlink.pipeline.ingest.feed import Beat, Ended, Failed, Item, Lost, Opened, Sampled
from camlink.pipeline.ingest.framing import SampleGrid
from camlink.pipeline.ingest.live import LiveSource
from camlink.pipeline.ingest.order import Order
from camlink.pipeline.ingest.reader import LiveLimits, Reader
from camlink.pipeline.records import CameraEvent, Frame, FrameDropped, Pixels

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


URL = "rtsp://admin:hunter2@10.0.0.7/s1"


LIMITS = LiveLimits(silent_after_s=18, frozen_after_s=10, stale_after_s=5, stable_after_s=10, undecodable_most=3)


def picture(shade: int, size: tuple[int, int] = (8, 6)) -> Pixels:
    return np.full((size[1], size[0], 3), shade, dtype=np.uint8)


class FakeFeed:
    """Plays a script of pictures (or True for one that cannot be decoded); then the connection is lost.

    Samples as a decoding process does; ``None`` in the script is a while in which nothing comes.
    """

    def __init__(self, script: Iterable[Pixels | bool | None], codec: str = "h264", opens: bool = True) -> None:
        self._script: Iterator[Pixels | bool | None] = iter(script)
        self._opens, self._codec = opens, codec
        self._is_open = False
        self.order: Order | None = None
        self.clock = ManualClock(START)
        self.is_released = False

    def connect(self, order: Order, clock: ManualClock) -> FakeFeed:
        self.order, self.clock, self._grid = order, clock, SampleGrid(order.fps)
        return self

    def next(self, timeout_s: float) -> Item | None:
        if not self._opens:
            return Failed("no connection")
        if not self._is_open:
            self._is_open = True
            return Opened(self._codec)
        picture = next(self._script, False)
        if picture is None:
            return None
        if picture is False:
            assert self.order is not None
            return Ended() if self.order.is_file else Failed("the stream ended")
        now = self.clock.now()
        if not self._grid.is_due(now.timestamp()):
            return Beat()
        return Lost(1, now, "corrupt") if isinstance(picture, bool) else Sampled(picture, now)

    def close(self) -> None:
        self.is_released = True


class HandRunner:
    """Runs a reader only when told to."""

    def __init__(self, reader: Reader, delay_s: float) -> None:
        self.reader, self.delay_s = reader, delay_s
        self.is_stopped = False
        self.lives = True

    def is_alive(self) -> bool:
        return self.lives

    def stop(self) -> None:
        self.is_stopped = True

    def join(self, timeout_s: float) -> None:
        self.joined_after_s = timeout_s


class Bench:
    """A live source whose connections are scripted: one capture (or error) for each time it is opened."""

    def __init__(self, *captures: FakeFeed | Exception, fps: float | None = None, limits: LiveLimits = LIMITS) -> None:
        self.clock = ManualClock(START)
        self.captures = list(captures)
        self.opened: list[str | int] = []
        self.runners: list[HandRunner] = []
        spec = SourceSpec("hall-03", (URL,), fps=fps)
        self.source = LiveSource(
            spec,
            URL,
            clock=self.clock,
            limits=limits,
            open_feed=self.connect,
            seconds=lambda: self.clock.now().timestamp(),
            run=self.run,
            wait=self.clock.advance,
        )

    def connect(self, order: Order) -> FakeFeed:
        self.opened.append(order.address)
        feed = self.captures.pop(0) if self.captures else FakeFeed([], opens=False)
        if isinstance(feed, Exception):
            raise feed
        return feed.connect(order, self.clock)

    def run(self, reader: Reader, delay_s: float) -> HandRunner:
        self.runners.append(HandRunner(reader, delay_s))
        return self.runners[-1]

    def step(self, times: int = 1, every_s: float = 1.0) -> list[float | None]:
        rests = []
        for _ in range(times):
            self.clock.advance(every_s)
            connections = len(self.opened)
            rest = self.runners[-1].reader.step()
            if len(self.opened) > connections and rest == 0.0:  # what a connection says at first comes with it
                rest = self.runners[-1].reader.step()
            rests.append(rest)
        return rests

    def drain(self) -> list[Reading]:
        return list(iter(self.source.poll, None))

    def play(self, times: int, every_s: float = 1.0) -> list[Reading]:
        readings: list[Reading] = []
        for _ in range(times):
            self.step(every_s=every_s)
            readings += self.drain()
        return readings


def kinds(readings: Iterable[Reading]) -> list[str]:
    return [reading.kind for reading in readings if isinstance(reading, CameraEvent)]


def frames_of(readings: Iterable[Reading]) -> list[Frame]:
    return [reading for reading in readings if isinstance(reading, Frame)]


def drops_of(readings: Iterable[Reading]) -> list[tuple[int, int, str]]:
    return [(r.first_index, r.count, r.reason) for r in readings if isinstance(r, FrameDropped)]
