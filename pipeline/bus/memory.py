"""The bus of the embedded pipeline: queues in one process, in the order of publishing."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from camlink.pipeline.bus.base import DEAD_LETTER
from camlink.pipeline.errors import BusError
from camlink.pipeline.graph import STATE_TOPICS, key_of
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

    def commit(self, held: Collection[Record] = ()) -> None:
        if not held:
            self._uncommitted.clear()
            return
        kept = {id(record) for record in held}
        first = next((i for i, record in enumerate(self._uncommitted) if id(record) in kept), len(self._uncommitted))
        del self._uncommitted[:first]

    def rewind(self) -> None:
        """Deliver everything again that was polled since the last commit."""
        self.waiting.extendleft(reversed(self._uncommitted))
        self._uncommitted.clear()

    def hold_back(self, cameras: Collection[str]) -> None:
        """Nothing to gain: what is not delivered would lie in the same memory."""

    def gone(self) -> Collection[str]:
        return ()

    def close(self) -> None:
        self.waiting.clear()


class MemoryBus:
    """Topics as queues, one per group. ``refused`` is its dead-letter topic."""

    def __init__(self, url: str = "memory://") -> None:
        self.generation = ""  # its life ends with this object
        self._groups: dict[str, MemorySubscription] = {}
        self._topics: dict[str, list[MemorySubscription]] = {}
        self._latest: dict[str, dict[str, Record]] = {topic: {} for topic in STATE_TOPICS}
        self.refused: list[tuple[str, Record, str]] = []

    def publish(self, topic: str, record: Record) -> None:
        if topic in STATE_TOPICS:
            self._latest[topic][key_of(record)] = record
        for subscription in self._topics.get(topic, ()):
            subscription.waiting.append(record)

    def flush(self) -> None:
        """Everything is where it can be at once."""

    def check(self, *, look: bool = False) -> None:
        """It cannot lose what it holds without being lost itself."""

    def refuse(self, topic: str, record: Record, reason: str) -> None:
        self.refused.append((topic, record, reason))
        self.publish(DEAD_LETTER, record)

    def subscribe(
        self, topics: Sequence[str], group: str, follow: Sequence[str] = (), restore: Sequence[str] = ()
    ) -> MemorySubscription:
        if group in self._groups:
            raise BusError(f'group "{group}" is subscribed already; one process has one member per group')
        subscription = self._groups[group] = MemorySubscription()
        for topic in (*follow, *restore):
            subscription.waiting.extend(self.read_all(topic))
        for topic in (*topics, *follow):
            self._topics.setdefault(topic, []).append(subscription)
        return subscription

    def read_all(self, topic: str) -> Sequence[Record]:
        return list(self._latest.get(topic, {}).values())

    def close(self) -> None:
        self._groups.clear()
        self._topics.clear()
