"""The contract of every bus: keyed, ordered per camera, at least once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from camlink.pipeline.errors import BusError
from camlink.pipeline.records import Record
from camlink.pipeline.urls import open_backend

BACKENDS = {"memory": "camlink.pipeline.bus.memory:MemoryBus"}


class Subscription(Protocol):
    """One group's view of some topics."""

    def poll(self, timeout_s: float = 0.0) -> Sequence[Record]:
        """Return the records that have come, in order per camera; empty after ``timeout_s`` without any."""
        ...

    def commit(self) -> None:
        """Say that all records polled so far are dealt with; they are not delivered to the group again."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


class Bus(Protocol):
    """Topics that records are published to and subscribed from."""

    def publish(self, topic: str, record: Record) -> None:
        """Append a record. Raises `BusError`."""
        ...

    def subscribe(self, topics: Sequence[str], group: str) -> Subscription:
        """Receive what is published from now on; each group receives every record once."""
        ...

    def close(self) -> None:
        """Free what the bus holds."""
        ...


def open_bus(url: str) -> Bus:
    """Open a bus by URL: ``memory://``. Raises `BusError` for other schemes.

    >>> bus = open_bus("memory://")
    >>> open_bus("memry://")
    Traceback (most recent call last):
    camlink.pipeline.errors.BusError: no bus for scheme "memry://"; did you mean "memory://"?
    """
    bus: Bus = open_backend(url, BACKENDS, BusError, "bus")
    return bus
