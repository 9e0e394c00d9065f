"""Clocks handed to operators, so that a replay at any speed decides exactly as live operation would.

>>> from datetime import datetime, timedelta, timezone
>>> clock = StreamClock()
>>> clock.advance_to(datetime(2026, 1, 1, tzinfo=timezone.utc))
>>> clock.advance_to(datetime(2025, 1, 1, tzinfo=timezone.utc))  # event time never runs backwards
>>> clock.now().year
2026
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """What operators know of time."""

    def now(self) -> datetime:
        """Return the present moment, aware and in UTC."""
        ...


class WallClock:
    """The machine's own time, for live cameras."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class SteadyClock:
    """The machine's time when this was made, plus what has passed since: for limits that no step of the clock moves."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._start, self._began = datetime.now(UTC), seconds()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._seconds() - self._began)


class StreamClock:
    """Event time: the latest ``captured_at`` seen so far, for replays."""

    def __init__(self, start: datetime = EPOCH) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance_to(self, moment: datetime) -> None:
        """Move to ``moment``; an earlier one is ignored."""
        self._now = max(self._now, moment)


class ManualClock:
    """A clock that tests move by hand."""

    def __init__(self, start: datetime = EPOCH) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds``."""
        self._now += timedelta(seconds=seconds)
