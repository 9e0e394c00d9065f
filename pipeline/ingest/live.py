"""Live cameras: each decoded in a process of its own, which a thread listens to, so that neither a slow user nor a
driver that hangs holds up anything else."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

from camlink.pipeline.clock import Clock
from camlink.pipeline.ingest.base import Reading, SourceSpec
from camlink.pipeline.ingest.channel import Channel
from camlink.pipeline.ingest.feed import ChildFeed, FeedFactory
from camlink.pipeline.ingest.order import Order
from camlink.pipeline.ingest.reader import LiveLimits, Outage, Reader
from camlink.pipeline.records import Frame, FrameDropped

logger = logging.getLogger(__name__)

_WATCH_EVERY_S = 0.5
_CLOSE_MOST_S = 1.0  # a step takes a quarter of that


class Runner(Protocol):
    """Something that runs a reader's steps."""

    def is_alive(self) -> bool: ...
    def stop(self) -> None: ...
    def join(self, timeout_s: float) -> None: ...


class ThreadRunner:
    """Runs a reader in a daemon thread, which does not keep the program from ending."""

    def __init__(self, reader: Reader, delay_s: float) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(reader, delay_s), name="camlink-camera", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Say whether the thread still runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Cut the reader's rest short."""
        self._stopped.set()

    def join(self, timeout_s: float) -> None:
        """Give the reader a moment to release the camera."""
        self._thread.join(timeout_s)

    def _run(self, reader: Reader, delay_s: float) -> None:
        rest_s: float | None = delay_s
        while rest_s is not None:
            if rest_s > 0:
                self._stopped.wait(rest_s)
            rest_s = reader.step()


class LiveSource:
    """A camera that is there now: frames as they come, reconnected for ever. Made by `open_source`.

    Iterate it, or call `poll` in turn with other cameras (`Roster`). ``hangs`` and ``reconnects`` are counters.
    """

    def __init__(
        self,
        spec: SourceSpec,
        address: str | int,
        *,
        clock: Clock,
        with_stats: bool = True,
        limits: LiveLimits | None = None,
        seed: int = 0,
        first_index: int = 0,
        open_feed: FeedFactory = ChildFeed,
        seconds: Callable[[], float] = time.monotonic,
        run: Callable[[Reader, float], Runner] = ThreadRunner,
        wait: Callable[[float], object] | None = None,
        waiting: int = 1,
    ) -> None:
        """``first_index``: of its first frame, for a camera that goes on where another source left off.

        ``waiting``: how many frames may wait to be taken; of more, the oldest are dropped.
        """
        self.camera_id = spec.camera_id
        self.captured = 0
        self._clock = clock
        self._limits = limits or LiveLimits()
        frozen_after_s = spec.frozen_after_s or self._limits.frozen_after_s
        span_s = waiting / spec.fps if waiting > 1 and spec.fps else 0.0  # in which those that may wait have come
        self._stale_after_s = max(self._limits.stale_after_s, span_s)
        self._channel = Channel(spec, frozen_after_s, with_stats, first_index, seconds, waiting)
        self._outage = Outage(spec, address, self._limits, seed)
        self._run = run
        self._wait = wait or self._channel.wait
        self._closed = False
        self._new_reader = partial(
            Reader,
            spec,
            order_for(spec, address, self._limits),
            self._channel,
            outage=self._outage,
            clock=clock,
            open_feed=open_feed,
            limits=self._limits,
            seconds=seconds,
        )
        self._start(delay_s=0.0)

    @property
    def reconnects(self) -> int:
        """Attempts to open the camera anew, ever."""
        return self._outage.reconnects

    @property
    def hangs(self) -> int:
        """Decoding processes that were killed because nothing came from them, ever."""
        return self._outage.hangs

    @property
    def is_finished(self) -> bool:
        """Whether nothing will come any more: closed, or a file that stood in for a camera has been played."""
        return self._closed or (self._reader.is_finished and not self._channel.wait(0))

    def __iter__(self) -> Iterator[Reading]:
        while not self.is_finished:
            reading = self.poll()
            if reading is None:
                self._wait(_WATCH_EVERY_S)
            else:
                yield reading

    def poll(self) -> Reading | None:
        """Return the next reading if there is one; never blocks. Call it often: it is the watchdog too."""
        if self._closed:
            return None
        self._watch()
        reading = self._channel.take()
        if isinstance(reading, Frame):
            self.captured += 1
            return self._unless_stale(reading)
        if isinstance(reading, FrameDropped):
            self.captured += reading.count
        return reading

    def close(self) -> None:
        """Let go of the camera, and kill the process that decodes it."""
        close_together([self])

    def let_go(self) -> Runner | None:
        """Tell the reading thread to end, without waiting for it; return it, or None if that was done before."""
        if self._closed:
            return None
        self._closed = True
        self._channel.revoke()
        self._runner.stop()
        return self._runner

    def _unless_stale(self, frame: Frame) -> Reading:
        if (self._clock.now() - frame.captured_at).total_seconds() <= self._stale_after_s:
            return frame
        return FrameDropped(frame.camera_id, frame.index, 1, frame.captured_at, "stale")

    def _watch(self) -> None:
        """Replace a thread that ended before it was asked to: only a fault in camlink can do that."""
        if self._reader.is_finished or self._runner.is_alive() or self._reader.is_finished:  # it may end while asked
            return
        logger.error('camera "%s": its reading thread died; starting another', self.camera_id)
        with self._channel.exclusively():
            token = self._channel.revoke()
            delay_s, event = self._outage.failed("the reading thread died", self._clock.now())
            self._channel.event(token, event)
        self._start(delay_s)

    def _start(self, delay_s: float) -> None:
        self._reader = self._new_reader(self._channel.revoke())
        self._runner = self._run(self._reader, delay_s)


def close_together(sources: Iterable[LiveSource]) -> None:
    """Close many cameras in the time of one: all threads are told to end before any is waited for."""
    runners = [runner for source in sources if (runner := source.let_go()) is not None]
    deadline = time.monotonic() + _CLOSE_MOST_S
    for runner in runners:
        runner.join(max(0.0, deadline - time.monotonic()))


def order_for(spec: SourceSpec, address: str | int, limits: LiveLimits) -> Order:
    """Return what the process is told that decodes a camera."""
    return Order(
        address=address,
        fps=spec.fps,
        open_timeout_s=limits.open_timeout_s,
        read_timeout_s=limits.silence_s(spec.fps) - 0.5,  # FFmpeg's own limit first: it needs no killing
        is_file=isinstance(address, str) and Path(address).is_file(),
        decode=spec.decode if isinstance(address, str) and "://" in address else "all",
    )
