"""Ways to tell: a webhook, MQTT, a Kafka topic. Each returns once the other side has it, or raises `AlertError`."""

from __future__ import annotations

import base64
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from camlink.pipeline.config.alerts import shown_place
from camlink.pipeline.errors import AlertError, BusError
from camlink.pipeline.urls import open_backend

TIMEOUT_S = 10.0
SENDERS = {
    scheme: f"{__name__}:{name}"
    for scheme, name in (
        ("http", "Webhook"),
        ("https", "Webhook"),
        ("mqtt", "Mqtt"),
        ("mqtts", "Mqtt"),
        ("kafka", "KafkaTopic"),
    )
}


class Sender(Protocol):
    """One place that alerts go to."""

    def send(self, key: str, body: bytes) -> None:
        """Return once ``body`` (JSON) has arrived. ``key`` is the same for repeats. Raises `AlertError`."""
        ...

    def close(self) -> None:
        """Give back the connection."""
        ...


def open_sender(address: str) -> Sender:
    """Return the sender for an address. Raises `AlertError`."""
    sender: Sender = open_backend(address, SENDERS, AlertError, "alerts")
    return sender


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """An alert goes where the configuration says, and nowhere else."""

    def redirect_request(self, *arguments: Any, **more: Any) -> None:
        return None


class Webhook:
    """POSTs the alert; any 2xx answer means that it has arrived. ``Idempotency-Key`` is the alert's id.

    User and password may be in the address: they are sent by Basic authentication.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        login, _, host = parts.netloc.rpartition("@")  # urllib would take the login for a part of the host's name
        self._address, self._shown = parts._replace(netloc=host).geturl(), shown_place(address)
        basic = base64.b64encode(unquote(login).encode()).decode()
        self._login = {"Authorization": f"Basic {basic}"} if login else {}
        self._opener = urllib.request.build_opener(_NoRedirects)

    def send(self, key: str, body: bytes) -> None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key, "User-Agent": "camlink", **self._login}
        request = urllib.request.Request(self._address, body, headers, method="POST")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                answer.read(1024)
        except urllib.error.HTTPError as error:
            error.close()
            raise AlertError(f"{self._shown}: answered {error.code} to an alert") from None  # a cause holds the address
        except (OSError, ValueError, HTTPException) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise AlertError(f"{self._shown}: cannot be reached: {reason}") from None

    def close(self) -> None:
        """Nothing is kept open."""


class Mqtt:
    """Publishes with quality of service 1: the broker has acknowledged it. User and password may be in the address."""

    def __init__(self, address: str) -> None:
        try:
            import paho.mqtt.client  # noqa: F401
        except ImportError as error:
            raise AlertError("paho-mqtt is not installed: pip install 'camlink[mqtt]'") from error
        self._parts = urlsplit(address)
        self._shown, self._topic = shown_place(address), self._parts.path.strip("/")
        self._client: Any = None

    def send(self, key: str, body: bytes) -> None:
        try:
            self._client = self._client or self._connected()
            sent = self._client.publish(self._topic, body, qos=1)
            sent.wait_for_publish(TIMEOUT_S)
            arrived = sent.is_published()
        except (OSError, ValueError, RuntimeError) as error:
            self.close()
            raise AlertError(f"{self._shown}: cannot be reached: {error}") from error
        if not arrived:
            self.close()
            raise AlertError(f"{self._shown}: has not acknowledged an alert within {TIMEOUT_S:.0f} s")

    def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            client.disconnect()
            client.loop_stop()

    def _connected(self) -> Any:
        """Return a new client for each connection: one that failed would send again all that it still holds."""
        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        parts = self._parts
        client, secure = mqtt.Client(CallbackAPIVersion.VERSION2), parts.scheme == "mqtts"
        if parts.username:
            client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if secure:
            client.tls_set()
        client.connect(str(parts.hostname), parts.port or (8883 if secure else 1883), keepalive=30)
        client.loop_start()
        return client


class KafkaTopic:
    """Publishes to a topic, which must be there, and waits until all replicas have it; its key is the alert's id.

    Credentials come from the environment, as those of the bus: see `camlink.pipeline.bus.kafka_topics`.
    """

    def __init__(self, address: str) -> None:
        from camlink.pipeline.bus.kafka_topics import KafkaAddress

        try:
            from camlink.pipeline.bus.kafka_client import Place
            from camlink.pipeline.bus.kafka_python import PythonClient

            self._address = KafkaAddress.parse(address)  # its site is the topic's name
            self._place = Place(self._address.site, 0)
            self._producer = PythonClient(self._address).producer(lambda: None)
        except ImportError as error:
            raise AlertError("kafka-python is not installed: pip install 'camlink[kafka]'") from error
        except BusError as error:
            raise AlertError(f"{shown_place(address)}: {error}") from error

    def send(self, key: str, body: bytes) -> None:
        try:
            self._producer.send(self._place, key.encode(), body)
            self._producer.flush()
        except BusError as error:
            raise AlertError(f"{self._address}: an alert could not be delivered: {error}") from error

    def close(self) -> None:
        self._producer.close()
