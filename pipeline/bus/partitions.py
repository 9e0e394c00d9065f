"""Where a subscription stands in each partition: fetched, given out, dealt with. Pure bookkeeping, no I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from camlink.pipeline.bus.kafka_client import BEGINNING, Message, Place
from camlink.pipeline.records import Record

MOST_BACKLOG = 128_000_000  # bytes fetched and not given out, because their cameras are held back
TIDE = 0.5  # at this share of it, shared topics are read again


class Positions:
    """The partitions shared with a group, their backlog, and those that are read beside them.

    The client's own pausing of partitions is not used while the backlog is full: kafka-python did not give again what
    it had fetched already. They are left out of what is read, and read again from where the backlog ends.
    """

    def __init__(self, most_backlog: int = MOST_BACKLOG) -> None:
        self.is_member = False  # the group has given partitions at least once
        self._most_backlog = most_backlog
        self._shared: dict[Place, int] = {}  # next offset to fetch
        self._beside: dict[Place, int] = {}
        self._backlog: dict[Place, deque[Message]] = {}
        self._backlog_bytes = 0
        self._full = False
        self._next: dict[Place, int] = {}  # next offset to commit, if nothing is held
        self._cameras: dict[Place, set[str]] = {}
        self._polled: dict[int, tuple[Record, Place, int]] = {}  # by id: given out and not yet committed

    def share(self, committed: Mapping[Place, int]) -> None:
        """Take up partitions that the group gave, from these offsets."""
        self.is_member = True
        self._shared.update(committed)

    def follow(self, places: Sequence[Place]) -> None:
        """Read these beside, from their beginning."""
        self._beside.update(dict.fromkeys(places, BEGINNING))

    def leave(self, places: Iterable[Place]) -> None:
        """Read these beside no longer."""
        for place in places:
            self._beside.pop(place, None)

    def drop(self, place: Place, follow: Collection[str]) -> set[str]:
        """Forget a partition that the group took, and what lies beside it; return the cameras it held."""
        self._shared.pop(place, None)
        self._next.pop(place, None)
        self._backlog_bytes -= sum(len(message.value) for message in self._backlog.pop(place, ()))
        self._polled = {key: entry for key, entry in self._polled.items() if entry[1] != place}
        if place.partition not in self.numbers():
            for topic in follow:
                self._beside.pop(Place(topic, place.partition), None)
        return self._cameras.pop(place, set())

    def numbers(self) -> set[int]:
        """Return the partition numbers that the group gave."""
        return {place.partition for place in self._shared}

    def to_read(self) -> dict[Place, int]:
        """Return what is to be read, and from which offset."""
        return self._beside | ({} if self._full else self._shared)

    def take(self, message: Message) -> bool:
        """Note a message as fetched; say whether it is a shared one, which then waits in the backlog."""
        if message.place in self._beside:
            self._beside[message.place] = message.offset + 1
            return False
        if message.place in self._shared and message.offset >= self._shared[message.place]:
            self._shared[message.place] = message.offset + 1
            self._backlog.setdefault(message.place, deque()).append(message)
            self._backlog_bytes += len(message.value)
        return True

    def turn_tide(self) -> bool:
        """Say whether shared topics are from now on to be read, or no longer: what is to be read has changed."""
        full = self._backlog_bytes > self._most_backlog * (TIDE if self._full else 1.0)
        changed, self._full = full != self._full, full
        return changed

    def has_ready(self, held_back: Collection[str]) -> bool:
        """Say whether something in the backlog may be given out."""
        return any(waiting and self._may_go(place, held_back) for place, waiting in self._backlog.items())

    def given_out(self, held_back: Collection[str], most: int) -> Iterator[tuple[Place, Message]]:
        """Yield what may be given out, in order per partition."""
        for place, waiting in self._backlog.items():
            while waiting and most > 0 and self._may_go(place, held_back):
                message = waiting.popleft()
                self._backlog_bytes -= len(message.value)
                self._next[place] = message.offset + 1
                most -= 1
                yield place, message

    def note(self, record: Record, camera: str, place: Place, offset: int) -> None:
        """Remember where a record that was given out came from, until it is committed."""
        self._cameras.setdefault(place, set()).add(camera)
        self._polled[id(record)] = (record, place, offset)

    def committable(self, held: Collection[Record]) -> dict[Place, int]:
        """Return the offsets to commit when all but ``held`` is dealt with, and forget what was."""
        kept = {id(record) for record in held}
        self._polled = {key: entry for key, entry in self._polled.items() if key in kept}
        offsets = dict(self._next)
        for _, place, offset in self._polled.values():
            offsets[place] = min(offsets[place], offset)
        return offsets

    def _may_go(self, place: Place, held_back: Collection[str]) -> bool:
        return self._cameras.get(place, set()).isdisjoint(held_back)
