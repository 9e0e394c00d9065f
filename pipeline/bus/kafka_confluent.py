"""confluent-kafka as the client: librdkafka's threads do what kafka-python does in Python (`?client=confluent`)."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Producer as RdProducer

from camlink.pipeline.bus.kafka_client import (
    BEGINNING,
    DELIVERY_S,
    HEARTBEAT_MS,
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
from camlink.pipeline.bus.kafka_topics import KafkaAddress
from camlink.pipeline.errors import BusError

ASK_S = 10.0  # for an answer about offsets
LINGER_MS = 0.3  # what is published within so long travels in one request; a request costs little here
_NAMES = {  # kafka-python's names of what the environment told, and librdkafka's
    "security_protocol": "security.protocol",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "ssl_cafile": "ssl.ca.location",
}


class ConfluentClient:
    """Makes producers, readers and members of confluent-kafka."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address

    def producer(self, check: Callable[[], None]) -> ConfluentProducer:
        return ConfluentProducer(self._address, check)

    def reader(self) -> ConfluentReader:
        return ConfluentReader(self._address)

    def member(self, group: str, topics: Sequence[str]) -> ConfluentMember:
        return ConfluentMember(self._address, group, topics)


class ConfluentProducer:
    def __init__(self, address: KafkaAddress, check: Callable[[], None]) -> None:
        self._address = address
        self._look = check
        self._failure: str | None = None
        self._producer = RdProducer(
            _connection(address)
            | {
                "acks": "all",
                "enable.idempotence": True,
                "partitioner": "murmur2_random",  # Java's and kafka-python's, should a key ever choose
                "linger.ms": LINGER_MS,
                "message.max.bytes": MOST_REQUEST,
                "queue.buffering.max.kbytes": MOST_UNDELIVERED // 1024,
                "delivery.timeout.ms": int(DELIVERY_S * 1000),
                "delivery.report.only.error": True,
                "on_delivery": self._delivered,
            }
        )

    def send(self, place: Place, key: bytes | None, value: bytes, headers: Headers = ()) -> None:
        deadline = time.monotonic() + DELIVERY_S
        while True:
            try:
                if headers:
                    self._producer.produce(place.topic, value, key, place.partition, headers=list(headers))
                else:
                    self._producer.produce(place.topic, value, key, place.partition)
                break
            except KafkaException as error:
                raise BusError(f"{self._address}: {_said(error)}; {place.topic}") from error
            except BufferError as error:  # as much is on its way as may be
                if time.monotonic() > deadline:
                    raise BusError(f"{self._address}: nothing could be delivered for {DELIVERY_S:.0f} s") from error
                self._served(self._producer.poll, LOOK_S)
                self._look()
        self._served(self._producer.poll, 0)
        self._check()

    def flush(self) -> None:
        deadline = time.monotonic() + DELIVERY_S
        while left := self._served(self._producer.flush, LOOK_S):
            self._look()
            if time.monotonic() > deadline:
                raise BusError(f"{self._address}: {left} records could not be delivered within {DELIVERY_S:.0f} s")
        self._check()

    def close(self) -> None:
        with contextlib.suppress(BusError):  # whoever flushed has heard of it
            self._served(self._producer.flush, 5)

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._failure = f"{message.topic()}: {error.str()}"

    def _served(self, serve: Callable[[float], int], timeout_s: float) -> int:
        """Call ``serve``, in which the client calls `_delivered`. Raises `BusError` for what no retry mends.

        The client raises such an error itself, and where it calls `_delivered` all the same, a bare `SystemError`.
        """
        try:
            return serve(timeout_s)
        except (KafkaException, SystemError) as error:
            told = error.__cause__ if isinstance(error, SystemError) else error
            if not isinstance(told, KafkaException):
                raise
            raise BusError(f"{self._address}: a record could not be delivered: {_said(told)}") from error

    def _check(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise BusError(f"{self._address}: a record could not be delivered: {failure}")


class ConfluentReader:
    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        told = _connection(address) | _READING | {"group.id": f"{address.site}.nobody"}  # asked for, and never joined
        self._consumer = Consumer(told | {"fetch.wait.max.ms": address.wait_ms})

    def assign(self, places: Mapping[Place, int]) -> None:
        wanted = [
            TopicPartition(*place, OFFSET_BEGINNING if offset == BEGINNING else offset)
            for place, offset in places.items()
        ]
        with _translated(self._address, "assigning partitions"):
            self._consumer.assign(wanted)

    def poll(self, timeout_s: float, most: int) -> Sequence[Message]:
        """Return what is there; wait for the first only, where `consume` would wait until ``most`` have come."""
        with _translated(self._address, "reading"):
            first = self._consumer.poll(timeout_s)
            if first is None:
                return []
            messages = [first, *self._consumer.consume(most - 1, 0.0)]
        return [_message(message) for message in messages if _is_whole(self._address, message)]

    def ends(self, places: Collection[Place]) -> dict[Place, int]:
        found = {}
        with _translated(self._address, "asking where topics end"):
            for place in places:
                begin, end = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=ASK_S)
                if end > begin:
                    found[place] = end
        return found

    def close(self) -> None:
        self._consumer.close()


class ConfluentMember:
    def __init__(self, address: KafkaAddress, group: str, topics: Sequence[str]) -> None:
        self._address = address
        self._assigned: set[Place] = set()
        self._revoked: set[Place] = set()
        self._consumer = Consumer(
            _connection(address)
            | _READING
            | {
                "group.id": group,
                "session.timeout.ms": SESSION_MS,
                "heartbeat.interval.ms": HEARTBEAT_MS,
                "max.poll.interval.ms": POLLED_MS,
                "partition.assignment.strategy": "cooperative-sticky",
            }
        )
        with _translated(address, f"group {group}"):
            self._consumer.subscribe(
                list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )

    def turn(self, timeout_s: float) -> Shares:
        with _translated(self._address, "taking part in the group"):
            message = self._consumer.poll(timeout_s)
        if message is not None:
            _is_whole(self._address, message)
        told = Shares(frozenset(self._assigned), frozenset(self._revoked))
        self._assigned.clear()
        self._revoked.clear()
        return told

    def committed(self, places: Collection[Place]) -> dict[Place, int]:
        with _translated(self._address, "asking what was committed"):
            found = self._consumer.committed([TopicPartition(*place) for place in places], timeout=ASK_S)
        return {Place(p.topic, p.partition): p.offset if p.offset >= 0 else BEGINNING for p in found}

    def commit(self, offsets: Mapping[Place, int]) -> str | None:
        if not offsets:
            return None
        try:
            told = [TopicPartition(*place, offset) for place, offset in offsets.items()]
            done = self._consumer.commit(offsets=told, asynchronous=False)
        except KafkaException as error:
            return _said(error)
        return next((p.error.str() for p in done or () if p.error is not None), None)

    def close(self) -> None:
        self._consumer.close()

    # Called by the client within `poll`.
    def _on_assign(self, consumer: Any, assigned: Sequence[TopicPartition]) -> None:
        consumer.incremental_assign(assigned)
        consumer.pause(assigned)  # the reader reads them
        places = {Place(p.topic, p.partition) for p in assigned}
        self._assigned |= places
        self._revoked -= places

    def _on_revoke(self, consumer: Any, revoked: Sequence[TopicPartition]) -> None:
        places = {Place(p.topic, p.partition) for p in revoked}
        self._assigned -= places
        self._revoked |= places


_READING = {"enable.auto.commit": False, "auto.offset.reset": "earliest", "allow.auto.create.topics": False}


def _connection(address: KafkaAddress) -> dict[str, Any]:
    told = {_NAMES[name]: value for name, value in address.credentials().items()}
    # A broker that is away is hundreds of errors a second to the library, and two lines of ours (`TopicWatch`).
    silent = logging.getLogger("confluent_kafka")
    silent.setLevel(logging.CRITICAL)
    return {"bootstrap.servers": ",".join(address.servers), "reconnect.backoff.max.ms": 2000, "logger": silent, **told}


def _is_whole(address: KafkaAddress, message: Any) -> bool:
    """Tell a message from an error in its place. Raises `BusError` for errors that do not pass by themselves."""
    error = message.error()
    if error is None:
        return True
    if error.fatal() or error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
        raise BusError(f"{address}: {error.str()}")
    return False


def _message(message: Any) -> Message:
    return Message(Place(message.topic(), message.partition()), message.offset(), message.value() or b"")


@contextlib.contextmanager
def _translated(address: KafkaAddress, doing: str) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise BusError(f"{address}: {_said(error)}; {doing}") from error


def _said(error: KafkaException) -> str:
    told = error.args[0] if error.args else error
    return str(told.str()) if isinstance(told, KafkaError) else str(told)
