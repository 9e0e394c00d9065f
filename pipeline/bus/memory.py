"""The bus of the embedded pipeline: queues in one process, in the order of publishing."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from camlink.pipeline.errors import BusError
from camlink.pipeline.records import Record


class MemorySubscription:
    """Records polled but not committed come again after `rewind`, as after a crash of a consumer."""

    def __init__(self) -> None:
        self.waiting: deque[Record] = deque()
        self._uncommitted: list[Record] = []

    def poll(self, timeout_s: float = 0.0) -> Sequence[Record]:
        records = list(self.waiting)
        self.waiting.clear()
        self._uncommitted += records
        return records

    def commit(self) -> None:
        self._uncommitted.clear()

    def rewind(self) -> None:
        """Deliver everything again that was polled since the last commit."""
        self.waiting.extendleft(reversed(self._uncommitted))
        self._uncommitted.clear()

    def close(self) -> None:
        self.waiting.clear()


class MemoryBus:
    """Topics as queues, one per group."""

    def __init__(self, url: str = "memory://") -> None:
        self._groups: dict[str, MemorySubscription] = {}
        self._topics: dict[str, list[MemorySubscription]] = {}

    def publish(self, topic: str, record: Record) -> None:
        for subscription in self._topics.get(topic, ()):
            subscription.waiting.append(record)

    def subscribe(self, topics: Sequence[str], group: str) -> MemorySubscription:
        if group in self._groups:
            raise BusError(f'group "{group}" is subscribed already; one process has one member per group')
        subscription = self._groups[group] = MemorySubscription()
        for topic in topics:
            self._topics.setdefault(topic, []).append(subscription)
        return subscription

    def close(self) -> None:
        self._groups.clear()
        self._topics.clear()
