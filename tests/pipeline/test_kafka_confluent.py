"""What librdkafka does when its broker is away or has forgotten: errors of ours, in time, and a quiet log."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import KafkaError, KafkaException

from camlink.pipeline import testbed
from camlink.pipeline.bus.kafka_client import BEGINNING, Place
from camlink.pipeline.bus.kafka_confluent import ConfluentClient, ConfluentProducer
from camlink.pipeline.bus.kafka_topics import KafkaAddress
from camlink.pipeline.errors import BusError

RESULTS = Place("site.results", 0)
Open = Callable[[KafkaAddress, Callable[[], None]], ConfluentProducer]


@pytest.fixture
def open_producer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens producers, and closes them without waiting for what cannot be delivered."""
    monkeypatch.setattr("camlink.pipeline.bus.kafka_confluent.LOOK_S", 0.2)
    opened: list[ConfluentProducer] = []

    def open_one(address: KafkaAddress, check: Callable[[], None]) -> ConfluentProducer:
        opened.append(ConfluentClient(address).producer(check))
        return opened[-1]

    yield open_one
    for producer in opened:
        producer._producer.purge()
        producer.close()


def nowhere() -> KafkaAddress:
    """Return the address of a broker that is away."""
    return KafkaAddress.parse(f"kafka://127.0.0.1:{testbed.free_port()}/site?client=confluent")


def test_who_waits_for_a_delivery_hears_that_the_topics_are_lost(open_producer: Open) -> None:
    def check() -> None:
        raise BusError("the broker has lost its topics")

    producer = open_producer(nowhere(), check)
    producer.send(RESULTS, b"hall", b"record")
    with pytest.raises(BusError, match="the broker has lost its topics"):
        producer.flush()


def test_what_is_not_delivered_in_time_is_an_error(open_producer: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camlink.pipeline.bus.kafka_confluent.DELIVERY_S", 0.5)
    looks: list[None] = []
    producer = open_producer(nowhere(), lambda: looks.append(None))
    producer.send(RESULTS, b"hall", b"record")
    with pytest.raises(BusError, match="could not be delivered"):
        producer.flush()
    assert looks


def test_a_broker_that_is_away_fills_no_log(open_producer: Open, caplog: pytest.LogCaptureFixture) -> None:
    address = nowhere()
    producer, reader = open_producer(address, lambda: None), ConfluentClient(address).reader()
    reader.assign({RESULTS: BEGINNING})
    for _ in range(5):
        producer.send(RESULTS, b"hall", b"record")
        assert reader.poll(0.1, 10) == []
    reader.close()
    assert not caplog.records


@pytest.mark.parametrize("in_callback", [False, True], ids=["between callbacks", "in a callback"])
def test_an_error_that_no_retry_mends_is_one_of_ours(
    open_producer: Open, monkeypatch: pytest.MonkeyPatch, in_callback: bool
) -> None:
    monkeypatch.setattr("camlink.pipeline.bus.kafka_confluent.RdProducer", Fatal)
    producer = open_producer(nowhere(), lambda: None)
    producer.send(RESULTS, b"hall", b"record")
    producer._producer.in_callback = in_callback
    with pytest.raises(BusError, match="could not be delivered: unable to retry"):
        producer.flush()


class Fatal:
    """Stands in for the client's producer, and fails as that was seen to do when its broker had forgotten it."""

    in_callback = False

    def __init__(self, settings: dict[str, object]) -> None:
        assert settings["enable.idempotence"]

    def produce(self, *_: object, **__: object) -> None: ...

    def purge(self) -> None: ...

    def poll(self, timeout_s: float) -> int:
        return 1

    def flush(self, timeout_s: float) -> int:
        told = KafkaException(KafkaError(KafkaError.UNKNOWN_PRODUCER_ID, "unable to retry", fatal=True))
        if self.in_callback:
            raise SystemError("returned a result with an exception set") from told
        raise told
