"""Alerts on their way: none is lost, none shows a secret, and each place gets them."""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from camlink.models.pool import ModelPool
from camlink.pipeline.alerts.alert import Alert
from camlink.pipeline.alerts.delivery import Alerts, _name
from camlink.pipeline.alerts.outbox import BACKOFF_FIRST_S, BACKOFF_MOST_S, FILE_NAME, KEPT_S, Outbox
from camlink.pipeline.alerts.senders import Webhook, open_sender
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.config.alerts import AlertsConfig, shown_place
from camlink.pipeline.errors import AlertError
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.testing import TinyModel, make_frames
from tests.pipeline.test_alerts import CROWD, SPECS, counts, rule, watch


def test_a_real_run_confirms_by_executing_a_frame_that_was_predicted(tmp_path: Path) -> None:
    """Through the whole pipeline: the request reaches inference, and its execution comes back."""

    def crowd(frame: Any) -> int:
        return 9 if frame.index % 100 > 60 else 1

    site = SiteConfig.model_validate(
        {
            "models": "building",
            "policy": "mlink",  # which predicts persons for a whole period
            "links": {"bootstrap_frames": 130, "min_train_frames": 40},
            "adaptation": {"policy": "off"},
            "budgets": {"time_share": 0.5},
            "audit": {"fraction": 0.0},
        }
    )
    models = [TinyModel.count("objects", crowd), TinyModel.count("persons", crowd, time_ms=50.0)]
    config = AlertsConfig.model_validate({"to": ["https://hooks.example/x"], "rules": [_rule_json(confirm=True)]})
    sent: list[dict[str, Any]] = []
    alerts = Alerts(
        config, {m.spec.model: m.spec for m in models}, tmp_path, live=False, open_sender=lambda _: Kept(sent)
    )
    session = Session(
        site, ModelPool(models), {"hall": Camera("x", "x", 1.0)}, tmp_path / "run", listeners=[alerts.observe]
    )
    session.run(make_frames("hall", 600), lambda: {"hall": 600})
    alerts.close()
    assert alerts.counts["confirmations"] > 0
    assert {told["confirmed"] for told in sent if told["at"] > "2026-01-05T08:03"} == {"by execution"}
    assert alerts.counts["delivered"] == len(sent) > 0


def _rule_json(**more: Any) -> dict[str, Any]:
    return {**CROWD, "lasting": "3s", "cool_down": "1min", **more}


class Kept:
    """Keeps what it is sent; fails the first ``failures`` times."""

    def __init__(self, sent: list[dict[str, Any]], failures: int = 0) -> None:
        self.sent, self.failures = sent, failures

    def send(self, key: str, body: bytes) -> None:
        if self.failures:
            self.failures -= 1
            raise AlertError("https://hooks.example: answered 503 to an alert")
        self.sent.append(json.loads(body))

    def close(self) -> None:
        """Nothing to close."""


def site_alerts(folder: Path, sender: Any, now: list[float], *places: str) -> Alerts:
    config = AlertsConfig.model_validate({"to": places or ["https://hooks.example/secret"], "rules": [_rule_json()]})
    return Alerts(config, SPECS, folder, live=False, open_sender=lambda _: sender, now_s=lambda: now[0])


def test_delivery_is_tried_again_later_and_later_until_it_arrives(tmp_path: Path) -> None:
    now, sent = [1000.0], list[dict[str, Any]]()
    alerts = site_alerts(tmp_path, Kept(sent, failures=2), now)
    alerts.observe(counts(9, 9, 9, 9))
    assert alerts.deliver() == 0 and alerts.deliver() == 0  # not due again yet
    now[0] += BACKOFF_FIRST_S
    assert alerts.deliver() == 0
    now[0] += BACKOFF_FIRST_S
    assert alerts.deliver() == 0
    now[0] += BACKOFF_FIRST_S
    assert alerts.deliver() == 1
    assert alerts.waiting() == 0 and len(sent) == 1
    alerts.close()


def test_what_was_not_delivered_before_a_crash_is_delivered_after_it_once(tmp_path: Path) -> None:
    now, sent = [1000.0], list[dict[str, Any]]()
    records = counts(9, 9, 9, 9)
    site_alerts(tmp_path, Kept(sent, failures=99), now).observe(records)  # and never closed
    again = site_alerts(tmp_path, Kept(sent), now)
    again.observe(records)  # the bus gives them again
    assert again.deliver() == 1
    assert again.deliver() == 0
    assert [told["rule"] for told in sent] == ["crowd"]
    again.close()


def test_a_place_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    """Each try costs a time limit of 10 s, and letters for a dead place pile up."""
    now, sent, tries = [1000.0], list[dict[str, Any]](), list[str]()

    class Dead(Kept):
        def send(self, key: str, body: bytes) -> None:
            tries.append(key)
            raise AlertError("https://dead.example: cannot be reached: timed out")

    config = AlertsConfig.model_validate({"to": ["https://dead.example/x", "https://well.example/x"], "rules": []})
    alerts = Alerts(
        *(config, SPECS, tmp_path),
        live=False,
        open_sender=lambda address: Dead([]) if "dead" in address else Kept(sent),
        now_s=lambda: now[0],
    )
    alerts._places = {"crowd": config.to}
    alerts._addresses = {_name(place): place for place in config.to}
    (alert,) = watch(rule(), *counts(9, 9, 9, 9))
    assert isinstance(alert, Alert)
    alerts._sort(replace(alert, since=alert.since + timedelta(seconds=number)) for number in range(60))
    assert alerts.deliver() == 60 and len(sent) == 60
    assert len(tries) == 1, "where one letter does not arrive, the others of that place wait for the next turn"
    alerts.deliver()
    assert len(set(tries)) == 2, "and one letter that never arrives does not keep the others of its place"
    alerts.close()


def test_an_alert_that_has_not_arrived_within_a_week_is_forgotten_and_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1000.0]
    alerts = site_alerts(tmp_path, Kept([], failures=10**9), now)
    alerts.observe(counts(9, 9, 9, 9))
    for now[0] in (1000.0, 1000.0 + KEPT_S, 1000.0 + KEPT_S + 301):
        alerts.deliver()
    assert alerts.waiting() == 0
    assert "1 alert that has not arrived" in caplog.text
    alerts.close()


def test_the_outbox_holds_no_secret(tmp_path: Path) -> None:
    now, sent = [1000.0], list[dict[str, Any]]()
    alerts = site_alerts(tmp_path, Kept(sent, failures=99), now, "https://user:hunter2@hooks.example/T0/secret")
    alerts.observe(counts(9, 9, 9, 9))
    alerts.close()
    kept = b"".join(file.read_bytes() for file in tmp_path.glob(f"{FILE_NAME}*"))
    assert b"hooks.example" in kept and b"hunter2" not in kept and b"T0/secret" not in kept


def test_the_wait_between_tries_is_bounded(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    (alert,) = watch(rule(), *counts(9, 9, 9, 9))
    assert isinstance(alert, Alert)
    outbox.put(alert, ["a"], 0.0)
    waits = []
    for _ in range(12):
        (letter,) = outbox.due(1e9, "a")
        waits.append(outbox.failed(letter, "x", 0.0))
    assert waits == sorted(waits) and waits[-1] == BACKOFF_MOST_S
    outbox.close()


@pytest.fixture
def hook() -> Iterator[tuple[str, list[Any], list[int]]]:
    """A webhook on loopback: its address, what it got, and the codes it answers with, last one for ever."""
    got: list[Any] = []
    codes = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.headers["Idempotency-Key"], json.loads(body)))
            self.send_response(codes.pop(0) if len(codes) > 1 else codes[0])
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """A test needs no log."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook?key=hunter2", got, codes
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_webhook_gets_the_alert_with_its_key(hook: tuple[str, list[Any], list[int]]) -> None:
    address, got, _ = hook
    Webhook(address).send("abc", b'{"rule": "crowd"}')
    assert got == [("abc", {"rule": "crowd"})]


def test_a_webhook_with_a_login_in_its_address_is_logged_in_to(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    hook = Webhook("https://camlink:p%40ss%2Fw@hooks.example:8443/in?key=1")
    monkeypatch.setattr(hook._opener, "open", lambda request, timeout: sent.append(request) or io.BytesIO())
    hook.send("abc", b"{}")
    assert sent[0].full_url == "https://hooks.example:8443/in?key=1"
    assert base64.b64decode(sent[0].get_header("Authorization").removeprefix("Basic ")) == b"camlink:p@ss/w"


@pytest.mark.parametrize("code", [301, 307, 404, 500])
def test_a_webhook_that_does_not_take_it_is_an_error_without_secrets(
    hook: tuple[str, list[Any], list[int]], code: int
) -> None:
    address, got, codes = hook
    codes[:] = [code]
    with pytest.raises(AlertError, match=str(code)) as raised:
        open_sender(address).send("abc", b"{}")
    assert "hunter2" not in str(raised.value) and len(got) == 1


def test_a_place_that_cannot_be_reached_is_an_error_without_secrets() -> None:
    with pytest.raises(AlertError, match="cannot be reached") as raised:
        open_sender("http://user:hunter2@127.0.0.1:9/hook").send("abc", b"{}")
    assert "hunter2" not in str(raised.value)


def test_a_place_that_speaks_no_http_is_an_error_without_secrets() -> None:
    """As where the port is that of another service."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with server.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        (thread := threading.Thread(target=greet)).start()
        port = server.getsockname()[1]
        with pytest.raises(AlertError, match=f"http://127.0.0.1:{port}: cannot be reached: BadStatusLine") as told:
            Webhook(f"http://127.0.0.1:{port}/secret").send("key", b"{}")
        thread.join()
    assert "secret" not in str(told.value)


def test_addresses_are_shown_without_what_may_be_secret() -> None:
    assert shown_place("mqtt://u:p@broker:1883/site/alerts") == "mqtt://broker:1883"
    config = SiteConfig.model_validate(
        {"models": "building", "alerts": {"to": ["https://u:hunter2@hooks.example/T0"], "rules": [_rule_json()]}}
    )
    assert "hunter2" not in json.dumps(config.masked()) and "hunter2" not in repr(config)
    assert config.masked()["alerts"]["to"] == ["https://hooks.example"]


@pytest.mark.broker
def test_a_kafka_topic_gets_the_alert(broker_address: str) -> None:
    from kafka import KafkaAdminClient

    from camlink.pipeline.bus.kafka_client import BEGINNING, Place
    from camlink.pipeline.bus.kafka_python import PythonClient
    from camlink.pipeline.bus.kafka_topics import KafkaAddress

    admin = KafkaAdminClient(bootstrap_servers=[broker_address])
    admin.create_topics({"alerting": {"num_partitions": 1, "replication_factor": 1}})
    admin.close()
    sender = open_sender(f"kafka://{broker_address}/alerting")
    sender.send("abc", b'{"rule": "crowd"}')
    sender.close()
    reader = PythonClient(KafkaAddress.parse(f"kafka://{broker_address}/alerting")).reader()
    reader.assign({Place("alerting", 0): BEGINNING})
    assert [message.value for message in reader.poll(10.0, 10)] == [b'{"rule": "crowd"}']
    reader.close()


def test_an_mqtt_broker_that_is_not_there_is_an_error_without_secrets() -> None:
    with pytest.raises(AlertError, match="cannot be reached") as raised:
        open_sender("mqtt://user:hunter2@127.0.0.1:9/alerts").send("abc", b"{}")
    assert "hunter2" not in str(raised.value)


@pytest.fixture
def mqtt_broker(tmp_path: Path) -> Iterator[int]:
    """The port of a broker of our own on loopback, for as long as the test lasts."""
    from camlink.pipeline.testbed import Server

    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if binary is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")

    def command(port: int, folder: Path) -> list[str]:
        settings = folder / "mosquitto.conf"
        settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
        return [binary, "-c", str(settings)]

    server = Server(command, tmp_path / "log")
    yield server.port
    server.stop()


@pytest.mark.broker
def test_an_mqtt_broker_gets_the_alert_and_acknowledges_it(mqtt_broker: int) -> None:
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    got: list[bytes] = []
    arrived, listening = threading.Event(), threading.Event()
    receiver = mqtt.Client(CallbackAPIVersion.VERSION2)
    receiver.on_message = lambda client, data, message: (got.append(message.payload), arrived.set())  # type: ignore[assignment]
    receiver.on_subscribe = lambda *more: listening.set()  # type: ignore[assignment]
    receiver.connect("127.0.0.1", mqtt_broker)
    receiver.subscribe("site/alerts", qos=1)
    receiver.loop_start()
    assert listening.wait(20)
    sender = open_sender(f"mqtt://127.0.0.1:{mqtt_broker}/site/alerts")
    sender.send("abc", b'{"rule": "crowd"}')
    sender.send("def", b'{"rule": "fall"}')
    assert arrived.wait(20)
    sender.close()
    receiver.disconnect()
    receiver.loop_stop()
    assert got[0] == b'{"rule": "crowd"}'
