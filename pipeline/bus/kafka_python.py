"""kafka-python as the client, the one camlink always has; administration and partitioning are its as well."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.partitioner.default import murmur2
from kafka.structs import OffsetAndMetadata

from camlink.pipeline.bus.kafka_client import (
    BEGINNING,
    DELIVERY_S,
    HEARTBEAT_MS,
    LINGER_MS,
    LOOK_S,
    MOST_REQUEST,
    MOST_UNDELIVERED,
    POLLED_MS,
    SESSION_MS,
    Headers,
    Message,
    Place,
    Shares,
)
from camlink.pipeline.bus.kafka_topics import LOOK, KafkaAddress, create_topics, generation
from camlink.pipeline.errors import BusError

logging.getLogger("kafka").setLevel(logging.CRITICAL)  # of a broker that is away the bus tells, once

SETTLE_S = 5.0  # how long leaving may wait for a join under way
LEAVE_S = 5.0  # and then for the broker to hear of it


@functools.lru_cache(maxsize=100_000)  # the client's hash is in Python, and there are few cameras
def partition_of(key: str, partitions: int) -> int:
    """Return the partition that any Kafka client with Java's partitioner chooses for a key."""
    hashed: int = murmur2(key.encode()) & 0x7FFFFFFF
    return hashed % partitions


def make_topics(address: KafkaAddress) -> str:
    """Create the site's topics that are missing; return their `generation`. Raises `BusError`."""
    with _translated(address, "is the broker running?"):
        admin = KafkaAdminClient(**_connection(address))
        try:
            create_topics(admin, address)
            return generation(admin, address) or ""
        finally:
            admin.close()


class TopicLook:
    """Asks for the present `generation` of the topics over one standing connection, made anew after a failure."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._looking = threading.Lock()
        self._admin: Any = None

    def __call__(self) -> str | None:
        with self._looking:
            admin = self._admin or KafkaAdminClient(**_connection(self._address), **LOOK)
            self._admin = None
            try:
                found = generation(admin, self._address)
            except KafkaError:
                admin.close()
                raise
            self._admin = admin
            return found

    def close(self) -> None:
        """Give the connection back."""
        with self._looking:
            if self._admin is not None:
                self._admin.close()


class PythonClient:
    """Makes producers, readers and members of kafka-python."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address

    def producer(self, check: Callable[[], None]) -> PythonProducer:
        return PythonProducer(self._address, check)

    def reader(self) -> PythonReader:
        return PythonReader(self._address)

    def member(self, group: str, topics: Sequence[str]) -> PythonMember:
        return PythonMember(self._address, group, topics)


class PythonProducer:
    def __init__(self, address: KafkaAddress, check: Callable[[], None]) -> None:
        self._address = address
        self._check = check
        self._undelivered: deque[tuple[Any, int]] = deque()
        self._undelivered_bytes = 0
        with _translated(address, "is the broker running?"):
            self._producer = KafkaProducer(
                **_connection(address),
                acks="all",
                enable_idempotence=True,
                linger_ms=LINGER_MS,
                batch_size=262_144,
                max_request_size=MOST_REQUEST,
                delivery_timeout_ms=int(DELIVERY_S * 1000),
                allow_auto_create_topics=False,
            )

    def send(self, place: Place, key: bytes | None, value: bytes, headers: Headers = ()) -> None:
        with _translated(self._address, place.topic):
            future = self._producer.send(place.topic, value, key=key, partition=place.partition, headers=list(headers))
        self._undelivered.append((future, len(value)))
        self._undelivered_bytes += len(value)
        while self._undelivered and (self._undelivered[0][0].is_done or self._undelivered_bytes > MOST_UNDELIVERED):
            self._settle_oldest()

    def flush(self) -> None:
        with _translated(self._address, "what was published could not be delivered"):
            self._patiently(self._producer.flush)
        while self._undelivered:
            self._settle_oldest()

    def close(self) -> None:
        with contextlib.suppress(KafkaTimeoutError):  # whoever flushed has heard of it
            self._producer.close(timeout=5)

    def _settle_oldest(self) -> None:
        future, size = self._undelivered.popleft()
        self._undelivered_bytes -= size
        with _translated(self._address, "a record could not be delivered"):
            self._patiently(future.get)

    def _patiently(self, wait_for: Callable[..., object]) -> None:
        """Wait for the broker in short turns, and look between them. Raises `KafkaError` when it takes too long."""
        deadline = time.monotonic() + DELIVERY_S
        while True:
            try:
                wait_for(timeout=LOOK_S)
                return
            except KafkaTimeoutError:
                self._check()
                if time.monotonic() > deadline:
                    raise


class PythonReader:
    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._consumer = KafkaConsumer(
            **_connection(address), **_READING, group_id=None, fetch_max_wait_ms=address.wait_ms
        )

    def assign(self, places: Mapping[Place, int]) -> None:
        with _translated(self._address, "assigning partitions"):
            self._consumer.assign([TopicPartition(*place) for place in places])
            for place, offset in places.items():
                if offset == BEGINNING:
                    self._consumer.seek_to_beginning(TopicPartition(*place))
                else:
                    self._consumer.seek(TopicPartition(*place), offset)

    def poll(self, timeout_s: float, most: int) -> Sequence[Message]:
        with _translated(self._address, "reading"):
            batches = self._consumer.poll(timeout_ms=round(timeout_s * 1000), max_records=most)
        return [
            Message(place, message.offset, message.value or b"")
            for (topic, partition), messages in batches.items()
            for place in [Place(topic, partition)]
            for message in messages
        ]

    def ends(self, places: Collection[Place]) -> dict[Place, int]:
        partitions = [TopicPartition(*place) for place in places]
        with _translated(self._address, "asking where topics end"):
            begins, ends = self._consumer.beginning_offsets(partitions), self._consumer.end_offsets(partitions)
        return {Place(p.topic, p.partition): end for p, end in ends.items() if end > begins[p]}

    def close(self) -> None:
        self._consumer.close()


class PythonMember(ConsumerRebalanceListener):  # type: ignore[misc]
    """Joins on a thread of its own, for as long as that takes.

    kafka-python (3.0) throws away a join that ends while nobody polls, and begins another: members that are polled
    seldom or briefly join for ever, and each of their joins makes the whole group share its partitions out anew.
    """

    def __init__(self, address: KafkaAddress, group: str, topics: Sequence[str]) -> None:
        self._address = address
        self._group = group
        self._lock = threading.Lock()
        self._assigned: set[Place] = set()
        self._revoked: set[Place] = set()
        self._joining: Future[None] | None = None
        with _translated(address, f"group {group}"):
            self._consumer = KafkaConsumer(
                **_connection(address),
                **_READING,
                group_id=group,
                session_timeout_ms=SESSION_MS,
                heartbeat_interval_ms=HEARTBEAT_MS,
                max_poll_interval_ms=POLLED_MS,
                partition_assignment_strategy=[CooperativeStickyAssignor],
            )
            self._consumer.subscribe(list(topics), listener=self)

    def turn(self, timeout_s: float) -> Shares:
        with _translated(self._address, "taking part in the group"):
            if not self._is_joining():
                self._consumer.poll(timeout_ms=round(timeout_s * 1000))
                timeout_s = 0.0
            if self._is_joining():
                self._join(timeout_s)
        with self._lock:
            told = Shares(frozenset(self._assigned), frozenset(self._revoked))
            self._assigned.clear()
            self._revoked.clear()
        return told

    def committed(self, places: Collection[Place]) -> dict[Place, int]:
        with _translated(self._address, "asking what was committed"):
            found = {place: self._consumer.committed(TopicPartition(*place)) for place in places}
        return {place: BEGINNING if offset is None else offset for place, offset in found.items()}

    def commit(self, offsets: Mapping[Place, int]) -> str | None:
        told = {TopicPartition(*place): OffsetAndMetadata(offset, "", -1) for place, offset in offsets.items()}
        try:
            self._consumer.commit(told)
        except KafkaError as error:
            return _said(error)
        return None

    def close(self) -> None:
        """Leave, after a join under way: of a member that leaves in its middle a broker may keep a ghost.

        The test bed's does, for good, and as the leader for whom all others wait.
        """
        if self._joining is not None:
            with contextlib.suppress(KafkaError):  # a broker that is away keeps nobody from leaving
                self._join(SETTLE_S)
        self._consumer.close(autocommit=False, timeout_ms=round(LEAVE_S * 1000))

    def _is_joining(self) -> bool:
        """Say whether a join is under way or due; of the client, its coordinator alone tells."""
        return self._joining is not None or bool(self._consumer._coordinator.need_rejoin())

    def _join(self, patience_s: float) -> None:
        """Begin to join, or wait so long for the join under way. Raises `KafkaError` when it has failed."""
        if self._joining is None:
            self._joining = Future()
            told = (self._consumer._coordinator.ensure_active_group, self._joining)
            threading.Thread(target=_hand_on, args=told, name=f"joining {self._group}", daemon=True).start()
        if wait([self._joining], patience_s).done:
            joining, self._joining = self._joining, None
            joining.result()

    # Called by the client on its own loop: they take notes and do no I/O.
    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        partitions = list(assigned)
        self._consumer.pause(*partitions)  # the reader reads them
        places = {Place(p.topic, p.partition) for p in partitions}
        with self._lock:
            self._assigned |= places
            self._revoked -= places

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        places = {Place(p.topic, p.partition) for p in revoked}
        with self._lock:
            self._assigned -= places
            self._revoked |= places

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self.on_partitions_revoked(lost)


def _hand_on(call: Callable[[], object], outcome: Future[None]) -> None:
    """Tell another thread how a call ends; one that waits ends with an error when its client is closed."""
    try:
        call()
    except Exception as error:
        outcome.set_exception(error)
    else:
        outcome.set_result(None)


_READING: dict[str, Any] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "allow_auto_create_topics": False,
}


def _connection(address: KafkaAddress) -> dict[str, Any]:
    """Addresses, credentials, and reconnects that do not fall asleep."""
    return {"bootstrap_servers": list(address.servers), "reconnect_backoff_max_ms": 2000, **address.credentials()}


@contextlib.contextmanager
def _translated(address: KafkaAddress, doing: str) -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise BusError(f"{address}: {_said(error)}; {doing}") from error


def _said(error: KafkaError) -> str:
    return str(error) or type(error).__name__  # its text begins with that name
