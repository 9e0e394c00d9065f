"""What the bus asks of a Kafka client library, so that there can be two of them behind one URL.

A subscription is two consumers: a `Member` of a group, which only learns which partitions are its share and commits
offsets, and a `Reader`, which reads those and the topics beside in one blocking call. A member that also fetched would
have to be polled in turn with the reader, every few milliseconds, which took a quarter of a core while nothing came.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

BEGINNING = -2  # an offset: the oldest record that is still there (as in Kafka's own protocol)
DELIVERY_S = 60.0  # how long a broker may be away before what was published counts as undeliverable
LOOK_S = 1.0  # how often who waits for a delivery looks whether there is still something to wait for
MOST_UNDELIVERED = 32_000_000  # bytes on their way to the broker; beyond, `send` waits
LINGER_MS = 2  # what is published within so long travels in one request: one costs kafka-python what 50 records do
MOST_REQUEST = 1_048_576  # bytes of one message with its headers
SESSION_MS, HEARTBEAT_MS = 6_000, 1_000
POLLED_MS = 45_000  # a member whose loop hangs for so long loses its cameras; a join waits no longer

Headers = Sequence[tuple[str, bytes]]


class Place(NamedTuple):
    """One partition of one topic, by the topic's name on the broker."""

    topic: str
    partition: int


class Message(NamedTuple):
    """What a reader gives. No bytes: a tombstone, by which somebody has deleted a key."""

    place: Place
    offset: int
    value: bytes


class Shares(NamedTuple):
    """What a group has given to a member and taken from it since it was last asked."""

    assigned: frozenset[Place]
    revoked: frozenset[Place]


class Producer(Protocol):
    """Idempotent, all replicas, in order. All methods raise `BusError`."""

    def send(self, place: Place, key: bytes | None, value: bytes, headers: Headers = ()) -> None:
        """Hand on; wait while more than `MOST_UNDELIVERED` bytes are on their way."""
        ...

    def flush(self) -> None:
        """Return once the broker has all."""
        ...

    def close(self) -> None: ...


class Reader(Protocol):
    """Reads what it is told to, outside any group. All methods raise `BusError`."""

    def assign(self, places: Mapping[Place, int]) -> None:
        """Read exactly these from now on, each from its offset or `BEGINNING`; what was fetched before is dropped."""
        ...

    def poll(self, timeout_s: float, most: int) -> Sequence[Message]:
        """Return at most so many messages, as soon as there are any."""
        ...

    def ends(self, places: Collection[Place]) -> dict[Place, int]:
        """Return the offset after the last message of each place that holds any."""
        ...

    def close(self) -> None: ...


class Member(Protocol):
    """A member of a group that fetches nothing. All methods raise `BusError`, except where they say otherwise."""

    def turn(self, timeout_s: float) -> Shares:
        """Take part in the group for at most so long; return what changed."""
        ...

    def committed(self, places: Collection[Place]) -> dict[Place, int]:
        """Return the group's offsets; `BEGINNING` for a place of which nothing was ever committed."""
        ...

    def commit(self, offsets: Mapping[Place, int]) -> str | None:
        """Commit; return why not, if a rebalance or a broker that is away prevents it: a later commit covers this."""
        ...

    def close(self) -> None: ...


class Client(Protocol):
    """Makes the three, each with connections of its own."""

    def producer(self, check: Callable[[], None]) -> Producer:
        """``check`` is called now and then while `Producer` waits for the broker; it may raise `BusError`."""
        ...

    def reader(self) -> Reader: ...

    def member(self, group: str, topics: Sequence[str]) -> Member: ...
