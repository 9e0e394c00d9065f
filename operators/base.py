"""What an operator is: records in, records out, a clock handed in, and no I/O (compare bytewax's stateful logic)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

from camlink.pipeline.records import Record


class Operator(Protocol):
    """One step of the graph. Operators are deterministic: the same records in the same order give the same records."""

    def on_records(self, records: Sequence[Record]) -> Iterable[Record]:
        """Take a batch (records of one camera in order) and return what follows from it."""
        ...

    def on_time(self, now: datetime) -> Iterable[Record]:
        """Act on the passing of event time; called once ``next_time()`` has come."""
        ...

    def next_time(self) -> datetime | None:
        """Return the next moment at which `on_time` wants to be called, or None."""
        ...
