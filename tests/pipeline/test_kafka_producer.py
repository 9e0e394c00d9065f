"""What the broker never got is told to who published it."""

from __future__ import annotations

import pytest

pytest.importorskip("confluent_kafka")

from camlink.pipeline.bus import kafka_confluent
from camlink.pipeline.bus.kafka_client import Place
from camlink.pipeline.bus.kafka_topics import KafkaAddress
from camlink.pipeline.errors import BusError


@pytest.mark.parametrize("headers", [(), (("reason", b"why"),)])
def test_a_record_that_is_not_delivered_in_time_is_an_error_of_the_next_flush(
    monkeypatch: pytest.MonkeyPatch, headers: tuple[tuple[str, bytes], ...]
) -> None:
    monkeypatch.setattr(kafka_confluent, "DELIVERY_S", 0.2)
    producer = kafka_confluent.ConfluentProducer(KafkaAddress.parse("kafka://127.0.0.1:1/nowhere"), lambda: None)
    producer.send(Place("nowhere.frames", 0), b"hall", b"value", headers)
    with pytest.raises(BusError, match="could not be delivered"):
        producer.flush()
