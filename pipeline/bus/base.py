"""The contract of every bus: keyed, ordered per camera, at least once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from camlink.pipeline.errors import BusError
from camlink.pipeline.records import Record
from camlink.pipeline.urls import open_backend

BACKENDS = {"memory": "camlink.pipeline.bus.memory:MemoryBus", "kafka": "camlink.pipeline.bus.kafka:KafkaBus"}
DEAD_LETTER = "dead-letter"


class Subscription(Protocol):
    """One member of a group, and its view of some topics."""

    def poll(self, timeout_s: float = 0.0) -> Sequence[Record]:
        """Return the records that have come, in order per camera and topic; empty after ``timeout_s`` without any.

        Raises `BusError` when the bus has been out of reach for longer than its own retries last.
        """
        ...

    def commit(self, held: Collection[Record] = ()) -> None:
        """Say that all records polled so far, but those ``held``, are dealt with.

        After a crash they are not delivered to the group again, save those that came after one of ``held``.
        """
        ...

    def hold_back(self, cameras: Collection[str]) -> None:
        """Deliver no more of these cameras' shared topics for now, where the bus can keep them; of all others, do."""
        ...

    def gone(self) -> Collection[str]:
        """Return the cameras that went to another member since the last call: what is known of them is out of date."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


class Bus(Protocol):
    """Topics that records are published to and subscribed from.

    ``generation`` names the present life of what the bus holds: another one means that it has lost all of it.
    """

    generation: str

    def publish(self, topic: str, record: Record) -> None:
        """Append a record; it is durable after `flush`. Blocks while too much is on its way. Raises `BusError`."""
        ...

    def flush(self) -> None:
        """Return once all that was published is durable. Raises `BusError` if something could not be delivered."""
        ...

    def check(self, *, look: bool = False) -> None:
        """Raise `BusError` if the bus is known to have lost what was published; ``look``: find out now."""
        ...

    def refuse(self, topic: str, record: Record, reason: str) -> None:
        """Put a record that cannot be dealt with aside, on the topic "dead-letter", with the reason."""
        ...

    def subscribe(
        self, topics: Sequence[str], group: str, follow: Sequence[str] = (), restore: Sequence[str] = ()
    ) -> Subscription:
        """Join ``group``: its members share the cameras of ``topics``, and each record goes to one of them.

        A durable bus also gives what was published before the group first came. ``follow`` names topics that the member
        reads beside, for its cameras, outside the group: of state topics (`graph.STATE_TOPICS`) first the latest
        record per key, before any record of ``topics``; of others what comes from now on. ``restore``: state topics of
        which it is given that first part alone.
        """
        ...

    def read_all(self, topic: str) -> Sequence[Record]:
        """Return the latest record per key of a state topic, for all cameras."""
        ...

    def close(self) -> None:
        """Free what the bus holds."""
        ...


def open_bus(url: str) -> Bus:
    """Open a bus by URL: ``memory://`` or ``kafka://HOST:PORT/SITE``. Raises `BusError` for other schemes.

    >>> bus = open_bus("memory://")
    >>> open_bus("memry://")
    Traceback (most recent call last):
    camlink.pipeline.errors.BusError: no bus for scheme "memry://"; did you mean "memory://"?
    """
    bus: Bus = open_backend(url, BACKENDS, BusError, "bus")
    return bus
