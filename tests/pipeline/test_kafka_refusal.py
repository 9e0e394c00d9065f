"""What cannot be read is put aside, however large it is: else every worker that meets it ends, again and again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from camlink.pipeline.bus.kafka import KafkaBus
from camlink.pipeline.bus.kafka_client import MOST_REQUEST, Headers, Message, Place
from camlink.pipeline.bus.kafka_topics import KafkaAddress
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
