"""Live cameras: a thread reads each so that a slow user never lags behind, and a watchdog outlives reads that hang."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from camlink.pipeline.clock import Clock
from camlink.pipeline.ingest.base import Reading, SourceSpec
from camlink.pipeline.ingest.channel import Channel
from camlink.pipeline.ingest.reader import CaptureFactory, LiveLimits, Outage, Reader
from camlink.pipeline.records import Frame, FrameDropped

if TYPE_CHECKING:
    from camlink.pipeline.ingest.opencv import Capture

logger = logging.getLogger(__name__)

_HUNG_MOST = 4  # threads of one camera that may hang in a driver at a time; each holds a socket and memory
_WATCH_EVERY_S = 0.5
_CLOSE_MOST_S = 1.0  # a thread that hangs in a driver is not waited for any longer


class Runner(Protocol):
    """Something that runs a reader's steps."""

    def is_alive(self) -> bool: ...
    def stop(self) -> None: ...
    def join(self, timeout_s: float) -> None: ...


class ThreadRunner:
    """Runs a reader in a daemon thread: one that hangs for ever does not keep the program from ending."""

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

    Iterate it, or call `poll` in turn with other cameras (`gather`). ``hangs`` and ``reconnects`` are counters.
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
        capture_factory: CaptureFactory | None = None,
        run: Callable[[Reader, float], Runner] = ThreadRunner,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self.camera_id = spec.camera_id
        self.captured = 0
        self.hangs = 0
        self._clock = clock
        self._limits = limits or LiveLimits()
        self._channel = Channel(spec, self._limits.frozen_after_s, with_stats)
        self._outage = Outage(spec, address, self._limits, seed)
        self._run = run
        self._wait = wait or self._channel.wait
        self._closed = False
        self._hung: list[Runner] = []
        self._new_reader = partial(
            Reader,
            spec,
            address,
            self._channel,
            outage=self._outage,
            clock=clock,
            capture_factory=capture_factory or _opener(self._limits),
            limits=self._limits,
            is_file=isinstance(address, str) and Path(address).is_file(),
        )
        self._reader: Reader | None = None
        self._retry_s = 0.0
        self._start(delay_s=0.0)

    @property
    def reconnects(self) -> int:
        """Attempts to open the camera anew, ever."""
        return self._outage.reconnects

    @property
    def is_finished(self) -> bool:
        """Whether nothing will come any more: closed, or a file that stood in for a camera has been played."""
        return self._closed or (self._reader is not None and self._reader.is_finished and not self._channel.wait(0))

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
        """Let go of the camera; a reading thread that hangs is left behind."""
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
        if (self._clock.now() - frame.captured_at).total_seconds() <= self._limits.stale_after_s:
            return frame
        return FrameDropped(frame.camera_id, frame.index, 1, frame.captured_at, "stale")

    def _watch(self) -> None:
        if self._reader is None:
            self._start_if_room()
            return
        if self._reader.is_finished:
            return
        since, now = self._reader.blocked_since, self._clock.now()
        blocked_s = 0.0 if since is None else (now - since).total_seconds()
        if blocked_s > self._limits.hung_after_s:
            self.hangs += 1
            self._give_up(f"no frame for {blocked_s:.1f} s (the read hangs)", now)
        elif not self._runner.is_alive() and not self._reader.is_finished:  # it may have ended since it was asked
            logger.error('camera "%s": its reading thread died; starting another', self.camera_id)
            self._give_up("the reading thread died", now)

    def _give_up(self, why: str, now: datetime) -> None:
        with self._channel.exclusively():
            token = self._channel.revoke()
            self._retry_s, event = self._outage.failed(why, now)
            self._channel.event(token, event)
        self._hung.append(self._runner)
        self._reader = None
        self._start_if_room()
        if self._reader is None:
            logger.error(
                'camera "%s": %d reads hang in the driver; waiting for one to return; restart the camera or camlink',
                *(self.camera_id, len(self._hung)),
            )

    def _start_if_room(self) -> None:
        self._hung = [runner for runner in self._hung if runner.is_alive()]
        if len(self._hung) < _HUNG_MOST:
            self._start(self._retry_s)

    def _start(self, delay_s: float) -> None:
        self._reader = self._new_reader(self._channel.revoke())
        self._runner = self._run(self._reader, delay_s)


def close_together(sources: Iterable[LiveSource]) -> None:
    """Close many cameras in the time of one: all threads are told to end before any is waited for."""
    runners = [runner for source in sources if (runner := source.let_go()) is not None]
    deadline = time.monotonic() + _CLOSE_MOST_S
    for runner in runners:
        runner.join(max(0.0, deadline - time.monotonic()))


def _opener(limits: LiveLimits) -> CaptureFactory:
    def open_capture(source: str | int) -> Capture:
        from camlink.pipeline.ingest.opencv import open_live

        return open_live(source, limits.open_timeout_s, limits.read_timeout_s)

    return open_capture
