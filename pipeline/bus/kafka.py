"""The bus between processes: Kafka topics, one partition number per camera, consumer groups.

    kafka://HOST:PORT[,HOST:PORT...]/SITE?partitions=12&replication=1

Topics are called ``SITE.frames`` and so on. Every topic has the same number of partitions and a camera has the same
number in all of them, so whoever reads a camera's frames can read its decisions beside. Credentials come from the
environment: see `camlink.pipeline.bus.kafka_topics`.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError
from kafka.partitioner.default import murmur2
from kafka.structs import OffsetAndMetadata

from camlink.pipeline.bus.base import DEAD_LETTER
from camlink.pipeline.bus.kafka_topics import LOOK, KafkaAddress, TopicWatch, create_topics, generation
from camlink.pipeline.codec import decode, encode, sender_of
from camlink.pipeline.errors import BusError, CodecError
from camlink.pipeline.graph import STATE_TOPICS, camera_of, key_of
from camlink.pipeline.records import Record

logger = logging.getLogger(__name__)

MOST_UNDELIVERED = 32_000_000  # bytes on their way to the broker; beyond, `publish` waits (kafka-python has no limit)
DELIVERY_S = 60.0  # how long a broker may be away before what was published counts as undeliverable
MOST_BACKLOG = 128_000_000  # bytes fetched and not given out, because their cameras are held back
BATCH = 200  # records given out at once
POLLED_S = 45.0  # a member whose loop hangs for so long loses its cameras; a join waits no longer for one that is gone
RESTORE_S = 60.0  # how long reading the present state may take
SLICE_S = 0.005  # the two consumers of a subscription are polled in turn for at most so long


class KafkaBus:
    """Publishes idempotently and waits for all replicas; see the module for the URL. Raises `BusError`."""

    def __init__(self, url: str) -> None:
        self.address = KafkaAddress.parse(url)
        self.sender = f"{socket.gethostname()}:{os.getpid()}"
        self._subscriptions: list[KafkaSubscription] = []
        self._undelivered: deque[tuple[Any, int]] = deque()
        self._undelivered_bytes = 0
        try:
            admin = KafkaAdminClient(**self.address.client())
            try:
                create_topics(admin, self.address)
                self.generation = generation(admin, self.address) or ""
            finally:
                admin.close()
            self._producer = KafkaProducer(
                **self.address.client(),
                acks="all",
                enable_idempotence=True,
                linger_ms=0,
                batch_size=262_144,
                delivery_timeout_ms=int(DELIVERY_S * 1000),
                allow_auto_create_topics=False,
            )
        except KafkaError as error:
            raise BusError(f"{self.address}: {_said(error)}; is the broker running?") from error
        self._looking = threading.Lock()
        self._admin: Any = None  # looks at the topics
        self._watch = TopicWatch(self._present_generation, self.generation, self.address)

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
        data = encode(record, self.sender)
        self._send(topic, self.partition_of(camera_of(record)), key_of(record).encode(), data)

    def partition_of(self, camera_id: str) -> int:
        """Return the partition number that a camera has in every topic: the one any Kafka client would choose."""
        hashed: int = murmur2(camera_id.encode()) & 0x7FFFFFFF
        return hashed % self.address.partitions

    def flush(self) -> None:
        try:
            self._producer.flush(timeout=DELIVERY_S)
        except KafkaError as error:
            raise BusError(f"{self.address}: {_said(error)}") from error
        while self._undelivered:
            self._settle_oldest()

    def refuse(self, topic: str, record: Record, reason: str) -> None:
        self.refuse_bytes(topic, encode(record, self.sender), reason)

    def refuse_bytes(self, topic: str, data: bytes, reason: str) -> None:
        """Put raw bytes aside, with where they came from."""
        logger.error("%s: refused: %s", topic, reason)
        headers = [("topic", topic.encode()), ("reason", reason.encode()[:2000]), ("sender", sender_of(data).encode())]
        self._send(DEAD_LETTER, 0, None, data, headers)

    def subscribe(self, topics: Sequence[str], group: str, follow: Sequence[str] = ()) -> KafkaSubscription:
        try:
            subscription = KafkaSubscription(self, topics, group, follow)
        except KafkaError as error:
            raise BusError(f"{self.address}: group {group}: {_said(error)}") from error
        self._subscriptions.append(subscription)
        return subscription

    def read_all(self, topic: str) -> Sequence[Record]:
        consumer = KafkaConsumer(**self.address.client(), **_READING, fetch_max_wait_ms=self.address.wait_ms)
        try:
            partitions = [TopicPartition(self.address.topic(topic), p) for p in range(self.address.partitions)]
            consumer.assign(partitions)
            return latest(self.decoded(topic, m.value) for m in read_to_end(consumer, partitions))
        except KafkaError as error:
            raise BusError(f"{self.address}: {topic}: {_said(error)}") from error
        finally:
            consumer.close()

    def decoded(self, topic: str, data: bytes) -> Record | None:
        """Return the record in ``data``; None if it is none, which is then put aside."""
        try:
            return decode(data)
        except CodecError as error:
            self.refuse_bytes(topic, data, str(error))
            return None

    def close(self) -> None:
        self._watch.close()
        with self._looking:
            if self._admin is not None:
                self._admin.close()
        for subscription in self._subscriptions:
            subscription.close()
        self._producer.close(timeout=5)

    def _present_generation(self) -> str | None:
        """Ask over one standing connection, which is made anew after a failure."""
        with self._looking:
            admin = self._admin or KafkaAdminClient(**self.address.client(), **LOOK)
            self._admin = None
            try:
                found = generation(admin, self.address)
            except KafkaError:
                admin.close()
                raise
            self._admin = admin
            return found

    def _send(self, topic: str, partition: int, key: bytes | None, data: bytes, headers: Any = None) -> None:
        try:
            future = self._producer.send(
                self.address.topic(topic), data, key=key, partition=partition, headers=headers or []
            )
        except KafkaError as error:
            raise BusError(f"{self.address}: {topic}: {_said(error)}") from error
        self._undelivered.append((future, len(data)))
        self._undelivered_bytes += len(data)
        while self._undelivered and (self._undelivered[0][0].is_done or self._undelivered_bytes > MOST_UNDELIVERED):
            self._settle_oldest()

    def _settle_oldest(self) -> None:
        future, size = self._undelivered.popleft()
        self._undelivered_bytes -= size
        try:
            future.get(timeout=DELIVERY_S)
        except KafkaError as error:
            raise BusError(f"{self.address}: a record could not be delivered: {_said(error)}") from error


_READING: dict[str, Any] = {
    "group_id": None,
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "allow_auto_create_topics": False,
}


class KafkaSubscription(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member of a group, with a second consumer for the topics read beside, on the partitions the group gave it."""

    def __init__(self, bus: KafkaBus, topics: Sequence[str], group: str, follow: Sequence[str]) -> None:
        self._bus = bus
        self._follow = tuple(follow)
        self._cameras: dict[TopicPartition, set[str]] = {}
        self._gone: set[str] = set()
        self._fresh: set[int] = set()  # partition numbers whose state is still to be read
        self._next: dict[TopicPartition, int] = {}
        self._polled: dict[int, tuple[Record, TopicPartition, int]] = {}  # by id: not yet committed
        self._backlog: dict[TopicPartition, deque[Any]] = {}  # messages as they came, not yet given out
        self._backlog_bytes = 0
        self._held_back: frozenset[str] = frozenset()
        self._taken_s = 0.0
        self._closed = False
        address = bus.address
        self._consumer = KafkaConsumer(
            **address.client(),
            **_READING
            | {
                "fetch_max_wait_ms": address.wait_ms,
                "group_id": f"{address.site}.{group}",
                "session_timeout_ms": 6_000,
                "heartbeat_interval_ms": 1_000,
                "max_poll_interval_ms": int(POLLED_S * 1000),
                "partition_assignment_strategy": [CooperativeStickyAssignor],
            },
        )
        beside = {**address.client(), **_READING, "fetch_max_wait_ms": address.wait_ms}
        self._beside = KafkaConsumer(**beside) if follow else None
        self._consumer.subscribe([address.topic(topic) for topic in topics], listener=self)

    def poll(self, timeout_s: float = 0.0) -> Sequence[Record]:
        self._bus.check()
        end = time.monotonic() + timeout_s
        try:
            while True:
                records = self._poll_once(max(0.0, min(end - time.monotonic(), SLICE_S if self._beside else 0.5)))
                if records or time.monotonic() >= end:
                    return records
        except KafkaError as error:
            raise BusError(f"{self._bus.address}: {_said(error)}") from error

    def commit(self, held: Collection[Record] = ()) -> None:
        kept = {id(record) for record in held}
        self._polled = {key: entry for key, entry in self._polled.items() if key in kept}
        offsets = dict(self._next)
        for _, partition, offset in self._polled.values():
            offsets[partition] = min(offsets[partition], offset)
        try:
            self._consumer.commit({p: OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()})
        except KafkaError as error:  # a rebalance, or a broker that is away: the next commit covers this one
            logger.info("%s: not committed: %s", self._bus.address, _said(error))

    def hold_back(self, cameras: Collection[str]) -> None:
        self._held_back = frozenset(cameras)

    def gone(self) -> Collection[str]:
        gone, self._gone = self._gone, set()
        return gone

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._consumer.close(autocommit=False)
        if self._beside is not None:
            self._beside.close()

    # Called by the client within `poll`, on its own loop: they take notes and do no I/O.
    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._fresh |= {partition.partition for partition in assigned}
        logger.info(
            "joined: %s", ", ".join(sorted(f"{p.topic}[{p.partition}]" for p in assigned)) or "no partition yet"
        )

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        revoked = list(revoked)
        logger.info("gave up: %s", ", ".join(sorted(f"{p.topic}[{p.partition}]" for p in revoked)) or "no partition")
        for partition in revoked:
            self._gone |= self._cameras.pop(partition, set())
            self._next.pop(partition, None)
            self._backlog_bytes -= sum(len(message.value) for message in self._backlog.pop(partition, ()))
            self._polled = {key: entry for key, entry in self._polled.items() if entry[1] != partition}

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self.on_partitions_revoked(lost)

    def _poll_once(self, timeout_s: float) -> list[Record]:
        self._take_in(timeout_s)
        records = self._poll_beside()
        for partition, waiting in self._backlog.items():
            while waiting and len(records) < BATCH and self._held_back.isdisjoint(self._cameras.get(partition, ())):
                record = self._give_out(partition, waiting.popleft())
                if record is not None:
                    records.append(record)
        return records

    def _take_in(self, timeout_s: float) -> None:
        """Fetch what has come. While the backlog is full, ask now and then for one, to stay a member of the group.

        The client's own pausing of partitions is not used: records that it had fetched already did not come again.
        """
        now = time.monotonic()
        full = self._backlog_bytes > MOST_BACKLOG
        if full and now - self._taken_s < 1.0:
            time.sleep(timeout_s)
            return
        wait_ms = 0 if any(self._backlog.values()) else round(timeout_s * 1000)
        self._taken_s = now
        for partition, messages in self._consumer.poll(timeout_ms=wait_ms, max_records=1 if full else BATCH).items():
            self._backlog.setdefault(partition, deque()).extend(messages)
            self._backlog_bytes += sum(len(message.value) for message in messages)

    def _give_out(self, partition: TopicPartition, message: Any) -> Record | None:
        self._backlog_bytes -= len(message.value)
        self._next[partition] = message.offset + 1
        record = self._bus.decoded(self._bus.address.bare(partition.topic), message.value)
        if record is not None:
            self._cameras.setdefault(partition, set()).add(camera_of(record))
            self._polled[id(record)] = (record, partition, message.offset)
        return record

    def _poll_beside(self) -> list[Record]:
        """Return what came beside; after new partitions were assigned, their present state first."""
        if self._beside is None:
            return []
        restored = self._restore() if self._fresh else []
        bare = self._bus.address.bare
        batches = self._beside.poll(timeout_ms=0) if self._beside.assignment() else {}
        found = (
            self._bus.decoded(bare(partition.topic), message.value)
            for partition, messages in batches.items()
            for message in messages
        )
        return [*restored, *(record for record in found if record is not None)]

    def _restore(self) -> list[Record]:
        assert self._beside is not None
        address = self._bus.address
        mine = {partition.partition for partition in self._consumer.assignment()}
        fresh = [TopicPartition(address.topic(t), p) for t in self._follow for p in sorted(self._fresh & mine)]
        before = {partition: self._beside.position(partition) for partition in self._beside.assignment()}
        wanted = [TopicPartition(address.topic(t), p) for t in self._follow for p in sorted(mine)]
        self._beside.assign(wanted)
        for partition, offset in before.items():
            if partition in wanted and partition not in fresh:
                self._beside.seek(partition, offset)
        self._fresh.clear()
        if not fresh:
            return []
        messages = read_to_end(self._beside, fresh)
        return latest(
            self._bus.decoded(address.bare(m.topic), m.value)
            for m in messages
            if address.bare(m.topic) in STATE_TOPICS or TopicPartition(m.topic, m.partition) not in fresh
        )


def read_to_end(consumer: KafkaConsumer, partitions: Sequence[TopicPartition]) -> list[Any]:
    """Read ``partitions`` from their beginning to where they ended when this began; others go on as they stand.

    A broker may state an end that is too early (the test bed's does), so one empty poll beyond it is asked for.
    """
    consumer.seek_to_beginning(*partitions)
    ends = consumer.end_offsets(partitions)
    deadline = time.monotonic() + RESTORE_S
    messages: list[Any] = []
    while True:
        batches = consumer.poll(timeout_ms=100)
        messages.extend(message for batch in batches.values() for message in batch)
        if not batches and all(consumer.position(p) >= end for p, end in ends.items()):
            return messages
        if time.monotonic() > deadline:
            raise BusError(f"the state in {partitions[0].topic} could not be read within {RESTORE_S:.0f} s")


def latest(records: Iterable[Record | None]) -> list[Record]:
    """Return the last record of each key and kind, in the order in which those came."""
    found: dict[tuple[type, str], Record] = {}
    for record in records:
        if record is not None:
            key = (type(record), key_of(record))
            found.pop(key, None)
            found[key] = record
    return list(found.values())


def _said(error: KafkaError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
