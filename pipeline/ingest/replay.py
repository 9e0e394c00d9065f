"""Replay at the speed of life: recorded readings held back until their time has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from camlink.pipeline.clock import Clock
from camlink.pipeline.ingest.base import Reading
from camlink.pipeline.records import CameraEvent

MAX_PAUSE_S = 60.0
SLICE_S = 0.2  # of a rest: how soon one that is cut short ends


def time_of(reading: Reading) -> datetime:
    """Return the event time of any reading."""
    return reading.at if isinstance(reading, CameraEvent) else reading.captured_at


def paced(
    readings: Iterable[Reading],
    clock: Clock,
    wait: Callable[[float], object] = time.sleep,
    max_pause_s: float = MAX_PAUSE_S,
) -> Iterator[Reading]:
    """Yield ``readings`` no sooner than as far apart as they were recorded; a slow reader is not made to hurry.

    A recorded pause longer than ``max_pause_s`` (two clips on different days, stills) is cut to it. Pace the merged
    stream of several cameras rather than each camera, so that they keep their distances.
    """
    offset: timedelta | None = None  # wall time minus event time
    for reading in readings:
        at, now = time_of(reading), clock.now()
        if offset is None:
            offset = now - at
        ahead_s = (at + offset - now).total_seconds()
        if ahead_s > max_pause_s:
            offset -= timedelta(seconds=ahead_s - max_pause_s)
            ahead_s = max_pause_s
        if ahead_s > 0:
            wait(ahead_s)
        yield reading


class Rest:
    """Waits, but no longer than until it is cut short, as a signal's handler may do while it waits."""

    def __init__(
        self, sleep: Callable[[float], object] = time.sleep, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._sleep, self._seconds = sleep, seconds
        self._is_cut = False

    def __call__(self, seconds: float) -> None:
        end = self._seconds() + seconds
        while not self._is_cut and (left := end - self._seconds()) > 0:
            self._sleep(min(left, SLICE_S))

    def cut(self) -> None:
        """Wait no more, now and ever."""
        self._is_cut = True
