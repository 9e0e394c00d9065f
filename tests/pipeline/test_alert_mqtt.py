"""An MQTT broker that takes alerts and does not acknowledge them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from camlink.pipeline.alerts import senders
from camlink.pipeline.errors import AlertError

pytest.importorskip("paho.mqtt.client", reason="no paho-mqtt: pip install 'camlink[mqtt]'")

CONNECT, PUBLISH = 1, 3  # packet types, in the upper half of a packet's first byte


class Broker:
    """Speaks as much MQTT 3.1.1 as an alert needs; packets are shorter than 128 bytes."""

    def __init__(self, server: socket.socket) -> None:
        self.address = f"mqtt://127.0.0.1:{server.getsockname()[1]}/alerts"
        self.acknowledges = False
        self.bodies: list[bytes] = []
        self._server = server
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        while len(head := stream.read(2)) == 2:
            packet = stream.read(head[1])
            if head[0] >> 4 == CONNECT:
                connection.sendall(b"\x20\x02\x00\x00")
            elif head[0] >> 4 == PUBLISH:
                end = 2 + packet[1]  # of the topic; two bytes of a number follow
                self.bodies.append(packet[end + 2 :])
                if self.acknowledges:
                    connection.sendall(b"\x40\x02" + packet[end : end + 2])
        connection.close()


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    monkeypatch.setattr(senders, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Broker(server)


def test_what_a_broker_does_not_acknowledge_is_sent_once_for_each_try(broker: Broker) -> None:
    """What is not acknowledged waits in a client and would go out again with each new connection."""
    sender = senders.Mqtt(broker.address)
    for _ in range(3):
        with pytest.raises(AlertError, match="has not acknowledged"):
            sender.send("a", b"first")
    assert broker.bodies == [b"first"] * 3
    broker.acknowledges = True
    sender.send("b", b"second")
    sender.close()
    assert broker.bodies == [b"first"] * 3 + [b"second"]
