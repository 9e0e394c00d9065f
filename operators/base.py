"""What an operator is, and what it is handed: records in, records out, a state store, and no I/O of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

from camlink.pipeline.records import ModelOutput, Record

Outputs = tuple[ModelOutput, ...]


class Operator(Protocol):
    """One step of the graph. Operators are deterministic: the same records in the same order give the same records.

    An operator that waits for nothing, and holds nothing back, derives from this and leaves the last three as they are.
    """

    def on_records(self, records: Sequence[Record]) -> Iterable[Record]:
        """Take a batch (records of one camera in order) and return what follows from it."""
        ...

    def on_time(self, now: datetime) -> Iterable[Record]:
        """Act on the passing of event time; called once ``next_time()`` has come."""
        return ()

    def next_time(self) -> datetime | None:
        """Return the next moment at which `on_time` wants to be called, or None."""
        return None

    def on_end(self) -> Iterable[Record]:
        """The stream ended: give what is still held back."""
        return ()


class StateStore(Protocol):
    """Executed outputs of frames, by key. A cache: losing it costs time or accuracy, never a durable result.

    What is put can be read by others after `flush`, in one round trip for all of it. Blobs (snapshots of operators) are
    another space of keys.
    """

    def put(self, key: str, value: Outputs, ttl_s: float) -> None:
        """Keep ``value`` for at least ``ttl_s`` seconds."""
        ...

    def put_blob(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep bytes for at least ``ttl_s`` seconds."""
        ...

    def get_blobs(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return bytes or None for each key. Raises `StateError`."""
        ...

    def flush(self) -> None:
        """Make what was put readable. Raises `StateError`; what was put is then given up, and the outputs `untaken`."""
        ...

    def untaken(self) -> dict[str, Outputs]:
        """Return the outputs, by key, that the last `flush` gave up."""
        ...

    def close(self) -> None:
        """Give back connections."""
        ...

    def get_many(self, keys: Sequence[str]) -> list[Outputs | None]:
        """Return a value or None for each key. Raises `StateError`."""
        ...
