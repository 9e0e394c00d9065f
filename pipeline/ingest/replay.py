"""Replay at the speed of life: recorded readings held back until their time has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from camlink.pipeline.clock import Clock
from camlink.pipeline.ingest.base import Reading, Source
from camlink.pipeline.records import CameraEvent

MAX_PAUSE_S = 60.0


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


class PacedSource:
    """A recorded source at the speed it was recorded."""

    def __init__(self, source: Source, clock: Clock, wait: Callable[[float], object] = time.sleep) -> None:
        self.camera_id = source.camera_id
        self._source = source
        self._clock = clock
        self._wait = wait

    @property
    def captured(self) -> int:
        """Frames yielded so far, dropped ones included."""
        return self._source.captured

    def __iter__(self) -> Iterator[Reading]:
        return paced(self._source, self._clock, self._wait)

    def close(self) -> None:
        self._source.close()
