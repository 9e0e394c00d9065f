"""The bus between processes: Kafka topics, one partition number per camera, consumer groups.

    kafka://HOST:PORT[,HOST:PORT...]/SITE?partitions=12&replication=1&client=confluent

Topics are called ``SITE.frames`` and so on. Every topic has the same number of partitions and a camera has the same
number in all of them, so whoever reads a camera's frames can read its decisions beside. The client is kafka-python
unless the URL asks for confluent-kafka. Credentials come from the environment: see `camlink.pipeline.bus.kafka_topics`.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import time
from collections.abc import Collection, Iterable, Sequence

from camlink.pipeline.bus.base import DEAD_LETTER
from camlink.pipeline.bus.kafka_client import BEGINNING, DELIVERY_S, Client, Message, Place, Reader
from camlink.pipeline.bus.kafka_python import PythonClient, TopicLook, make_topics, partition_of
from camlink.pipeline.bus.kafka_topics import KafkaAddress, TopicWatch
from camlink.pipeline.bus.pace import Pace
from camlink.pipeline.bus.partitions import Positions
from camlink.pipeline.codec import MOST_BYTES, decode, encode, sender_of
from camlink.pipeline.errors import BusError, CodecError
from camlink.pipeline.graph import STATE_TOPICS, camera_of, key_of
from camlink.pipeline.records import Record

logger = logging.getLogger(__name__)

BATCH = 200  # records given out at once
RESTORE_S = 60.0  # how long reading the present state may take
TURN_S = 0.1  # how often the group is looked after


class KafkaBus:
    """Publishes idempotently and waits for all replicas; see the module for the URL. Raises `BusError`."""

    def __init__(self, url: str) -> None:
        self.address = KafkaAddress.parse(url)
        self.sender = f"{socket.gethostname()}:{os.getpid()}"
        self.client = _client(self.address)
        self._subscriptions: list[KafkaSubscription] = []
        self.generation = make_topics(self.address)
        self._producer = self.client.producer(self.check)
        self._look = TopicLook(self.address)
        self._watch = TopicWatch(self._look, self.generation, self.address)

    def check(self, *, look: bool = False) -> None:
        deadline = time.monotonic() + DELIVERY_S
        while look and not self._watch.once():
            if time.monotonic() > deadline:
                raise BusError(f"{self.address}: does not say whether it still has what was published")
            time.sleep(1.0)
        if self._watch.lost is not None:
            raise BusError(self._watch.lost)

    def publish(self, topic: str, record: Record) -> None:
        self.check()
        place = _place_of(self.address, topic, camera_of(record))
        try:
            self._producer.send(place, key_of(record).encode(), encode(record, self.sender))
        except BusError:
            self._look_why()
            raise

    def flush(self) -> None:
        try:
            self._producer.flush()
        except BusError:
            self._look_why()
            raise

    def refuse(self, topic: str, record: Record, reason: str) -> None:
        self.refuse_bytes(topic, encode(record, self.sender), reason)

    def refuse_bytes(self, topic: str, data: bytes, reason: str) -> None:
        """Put raw bytes aside, with where they came from; of more than fit, with these headers, the beginning."""
        logger.error("%s: refused: %s", topic, reason)
        headers = [("topic", topic.encode()), ("reason", reason.encode()[:2000]), ("sender", sender_of(data).encode())]
        self._producer.send(Place(self.address.topic(DEAD_LETTER), 0), None, data[:MOST_BYTES], headers)

    def subscribe(
        self, topics: Sequence[str], group: str, follow: Sequence[str] = (), restore: Sequence[str] = ()
    ) -> KafkaSubscription:
        subscription = KafkaSubscription(self, topics, group, follow, restore)
        self._subscriptions.append(subscription)
        return subscription

    def read_all(self, topic: str) -> Sequence[Record]:
        reader = self.client.reader()
        try:
            places = [Place(self.address.topic(topic), number) for number in range(self.address.partitions)]
            reader.assign(dict.fromkeys(places, BEGINNING))
            return latest(self.decoded(m) for m in read_to_end(reader, places))
        finally:
            reader.close()

    def decoded(self, message: Message) -> Record | None:
        """Return the record in a message; None if it is none, which is then put aside, or a tombstone."""
        if not message.value:
            return None
        try:
            return decode(message.value)
        except CodecError as error:
            self.refuse_bytes(self.address.bare(message.place.topic), message.value, str(error))
            return None

    def _look_why(self) -> None:
        """Raise `BusError` if the topics are lost: of that, clients tell odd consequences only."""
        self._watch.once()
        self.check()

    def close(self) -> None:
        self._watch.close()
        self._look.close()
        for subscription in self._subscriptions:
            subscription.close()
        self._producer.close()


class KafkaSubscription:
    """A member of a group, and a reader of its share and of the topics beside, on the same partition numbers."""

    def __init__(
        self, bus: KafkaBus, topics: Sequence[str], group: str, follow: Sequence[str], restore: Sequence[str] = ()
    ) -> None:
        self._bus = bus
        address = bus.address
        self._follow = tuple(address.topic(topic) for topic in follow)
        self._restore = tuple(address.topic(topic) for topic in restore)
        self._pace = Pace()
        self._reader = bus.client.reader()
        self._member = bus.client.member(f"{address.site}.{group}", [address.topic(topic) for topic in topics])
        self._at = Positions()
        self._gone: set[str] = set()
        self._held_back: frozenset[str] = frozenset()
        self._turn_due = 0.0
        self._closed = False

    def poll(self, timeout_s: float = 0.0) -> Sequence[Record]:
        self._bus.check()
        end = time.monotonic() + timeout_s
        time.sleep(min(self._pace.left_s(time.monotonic()), timeout_s))
        while True:
            records = self._poll_once(max(0.0, min(end - time.monotonic(), TURN_S)))
            if records or time.monotonic() >= end:
                self._pace.came(len(records), time.monotonic())
                return records

    def commit(self, held: Collection[Record] = ()) -> None:
        problem = self._member.commit(self._at.committable(held))
        if problem is not None:  # a rebalance, or a broker that is away: the next commit covers this one
            logger.info("%s: not committed: %s", self._bus.address, problem)
            self._turn_due = 0.0

    def hold_back(self, cameras: Collection[str]) -> None:
        self._held_back = frozenset(cameras)

    def gone(self) -> Collection[str]:
        gone, self._gone = self._gone, set()
        return gone

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._member.close()
        self._reader.close()

    def _poll_once(self, timeout_s: float) -> list[Record]:
        records = self._attend(timeout_s)
        if not self._at.is_member:
            return records
        if self._at.turn_tide():
            self._reader.assign(self._at.to_read())
        ready = bool(records) or self._at.has_ready(self._held_back)
        records += self._received(self._reader.poll(0.0 if ready else timeout_s, BATCH))
        for place, message in self._at.given_out(self._held_back, BATCH - len(records)):
            record = self._bus.decoded(message)
            if record is not None:
                self._at.note(record, camera_of(record), place, message.offset)
                records.append(record)
        return records

    def _received(self, messages: Iterable[Message]) -> list[Record]:
        """Put what is shared into the backlog, and return what came beside."""
        beside = [message for message in messages if not self._at.take(message)]
        return [record for record in map(self._bus.decoded, beside) if record is not None]

    def _attend(self, timeout_s: float) -> list[Record]:
        """Take part in the group; where it gave new partitions, return the present state of the topics beside."""
        if self._at.is_member and time.monotonic() < self._turn_due:
            return []
        assigned, revoked = self._member.turn(0.0 if self._at.is_member else timeout_s)
        self._turn_due = time.monotonic() + TURN_S
        for place in revoked:
            self._gone |= self._at.drop(place, self._follow)
        if not assigned:
            if revoked:
                self._reader.assign(self._at.to_read())
            return []
        logger.info("joined: %s", ", ".join(f"{topic}[{number}]" for topic, number in sorted(assigned)))
        return self._take_up(assigned)

    def _take_up(self, assigned: Collection[Place]) -> list[Record]:
        """Read the state beside new partitions to its end, and only then their own records."""
        known = self._at.numbers()
        numbers = sorted({place.partition for place in assigned} - known)
        fresh = [Place(topic, n) for topic in (*self._follow, *self._restore) for n in numbers]
        restored: list[Record] = []
        if fresh:
            self._at.follow(fresh)
            self._reader.assign(self._at.to_read())
            restored = self._restored(read_to_end(self._reader, fresh), frozenset(fresh))
            self._at.leave(place for place in fresh if place.topic in self._restore)
        self._at.share(self._member.committed(assigned))
        self._reader.assign(self._at.to_read())
        return restored

    def _restored(self, messages: Sequence[Message], fresh: Collection[Place]) -> list[Record]:
        """Return the present state in ``fresh``, and after it what came elsewhere meanwhile."""
        state = {self._bus.address.topic(topic) for topic in STATE_TOPICS}
        stated = [message for message in messages if message.place in fresh and message.place.topic in state]
        for message in messages:
            if message.place in fresh:
                self._at.take(message)
        return latest(map(self._bus.decoded, stated)) + self._received(m for m in messages if m.place not in fresh)


@functools.lru_cache(maxsize=100_000)  # there are few cameras and topics
def _place_of(address: KafkaAddress, topic: str, camera: str) -> Place:
    return Place(address.topic(topic), partition_of(camera, address.partitions))


def read_to_end(reader: Reader, places: Sequence[Place]) -> list[Message]:
    """Read until ``places``, which are read from their beginning, come to where they ended when this began.

    Others go on as they stand. A broker may state an end that is too early (the test bed's does), so one poll beyond it
    must bring nothing more. Raises `BusError` if that takes longer than `RESTORE_S`.
    """
    ends, wanted = reader.ends(places), frozenset(places)
    deadline = time.monotonic() + RESTORE_S
    messages: list[Message] = []
    while True:
        came = reader.poll(0.1, 10 * BATCH)
        messages.extend(came)
        for message in came:
            if message.offset + 1 >= ends.get(message.place, 0):
                ends.pop(message.place, None)
        if not ends and not any(message.place in wanted for message in came):
            return messages
        if time.monotonic() > deadline:
            raise BusError(f"the state in {places[0].topic} could not be read within {RESTORE_S:.0f} s")


def latest(records: Iterable[Record | None]) -> list[Record]:
    """Return the last record of each key and kind, in the order in which those came."""
    found: dict[tuple[type, str], Record] = {}
    for record in records:
        if record is not None:
            key = (type(record), key_of(record))
            found.pop(key, None)
            found[key] = record
    return list(found.values())


def _client(address: KafkaAddress) -> Client:
    if address.client == "kafka-python":
        return PythonClient(address)
    try:
        from camlink.pipeline.bus.kafka_confluent import ConfluentClient
    except ImportError as error:
        raise BusError(
            f"{address}: client=confluent needs confluent-kafka: pip install confluent-kafka, or leave it out"
        ) from error
    return ConfluentClient(address)
