"""What cannot be read is put aside, however large it is: else every worker that meets it ends, again and again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from camlink.pipeline.bus.kafka import KafkaBus
from camlink.pipeline.bus.kafka_client import MOST_REQUEST, Headers, Message, Place
from camlink.pipeline.bus.kafka_topics import KafkaAddress
from camlink.pipeline.bus.partitions import Positions
from camlink.pipeline.codec import MOST_BYTES
from camlink.pipeline.errors import BusError


@pytest.mark.parametrize("size", [10, MOST_BYTES, 1_048_500, 5_000_000])
def test_a_foreign_record_as_large_as_a_broker_takes_is_put_aside(size: int) -> None:
    aside: list[tuple[bytes, dict[str, bytes]]] = []

    def send(place: Place, key: bytes | None, value: bytes, headers: Headers = ()) -> None:
        if len(value) + sum(len(name) + len(text) for name, text in headers) + 100 > MOST_REQUEST:
            raise BusError("MessageSizeTooLargeError")
        aside.append((value, dict(headers)))

    bus = object.__new__(KafkaBus)
    bus.address = KafkaAddress.parse("kafka://127.0.0.1:1/site")
    bus._producer = SimpleNamespace(send=send)  # type: ignore[assignment]
    data = b"x" * size
    assert bus.decoded(Message(Place("site.frames", 0), 7, data)) is None
    ((value, headers),) = aside
    assert data.startswith(value) and len(value) == min(size, MOST_BYTES)
    assert headers["topic"] == b"frames" and f"{size} bytes".encode() in headers["reason"]


@pytest.mark.parametrize("client", ["kafka_python", "kafka_confluent"])
def test_a_message_without_a_value_is_passed_over(client: str) -> None:
    """A tombstone, by which people delete a key of a compacted topic."""
    module = pytest.importorskip(f"camlink.pipeline.bus.{client}")
    if client == "kafka_python":
        reader = object.__new__(module.PythonReader)
        reader._address = KafkaAddress.parse("kafka://127.0.0.1:1/site")
        polled = {("site.links", 3): [SimpleNamespace(offset=9, value=None)]}
        reader._consumer = SimpleNamespace(poll=lambda **_: polled)
        (message,) = reader.poll(0.0, 10)
    else:
        told = {"topic": "site.links", "partition": 3, "offset": 9, "value": None}
        message = module._message(SimpleNamespace(**{name: lambda it=it: it for name, it in told.items()}))
    positions = Positions()
    positions.share({Place("site.links", 3): 0})
    assert positions.take(message) and message.offset == 9
    bus = object.__new__(KafkaBus)
    assert bus.decoded(message) is None
