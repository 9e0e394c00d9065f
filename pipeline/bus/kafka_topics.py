"""Where the broker is, who we are to it, and what its topics are like.

Credentials are taken from the environment, so that no URL, file or process list holds a secret:
``CAMLINK_KAFKA_SECURITY`` (PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL), ``CAMLINK_KAFKA_MECHANISM`` (PLAIN,
SCRAM-SHA-256, SCRAM-SHA-512), ``CAMLINK_KAFKA_USERNAME``, ``CAMLINK_KAFKA_PASSWORD``, ``CAMLINK_KAFKA_CA`` (file).
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from camlink.pipeline.bus.base import DEAD_LETTER
from camlink.pipeline.errors import BusError
from camlink.pipeline.graph import STATE_TOPICS, TOPICS

logger = logging.getLogger(__name__)

WATCH_S = 3.0  # between looks at whether the topics are still those that were there
LOOK = {"bootstrap_timeout_ms": 5000, "request_timeout_ms": 5000}  # a look that hangs is given up for the next
MINUTE_MS = 60_000
RETENTION_MS = {  # frames are large and of no use once they are late; results must outlive a long weekend's fault
    "frames": 10 * MINUTE_MS,
    "outputs": 60 * MINUTE_MS,
    "relabel": 10 * MINUTE_MS,
    "results": 7 * 24 * 60 * MINUTE_MS,
    "events": 7 * 24 * 60 * MINUTE_MS,
    "federation": 24 * 60 * MINUTE_MS,
    "federation-updates": 60 * MINUTE_MS,
    DEAD_LETTER: 14 * 24 * 60 * MINUTE_MS,
}
CLIENTS = ("kafka-python", "confluent")
_SITE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CREDENTIALS = {
    "security_protocol": "CAMLINK_KAFKA_SECURITY",
    "sasl_mechanism": "CAMLINK_KAFKA_MECHANISM",
    "sasl_plain_username": "CAMLINK_KAFKA_USERNAME",
    "sasl_plain_password": "CAMLINK_KAFKA_PASSWORD",
    "ssl_cafile": "CAMLINK_KAFKA_CA",
}


@dataclass(frozen=True)
class KafkaAddress:
    """A broker and a site on it. ``partitions`` bounds how many workers of one kind can share the cameras.

    ``wait_ms`` is how long the broker may keep a request for records open while there are none. Apache Kafka answers
    at once when one comes; with a broker that does not (the test bed's) each hop takes about half of it.
    """

    servers: tuple[str, ...]
    site: str
    partitions: int = 12
    replication: int = 1
    wait_ms: int = 200
    client: str = CLIENTS[0]

    @classmethod
    def parse(cls, url: str) -> KafkaAddress:
        """Read ``kafka://HOST:PORT/SITE?partitions=12&client=confluent``. Raises `BusError` for anything else.

        >>> KafkaAddress.parse("kafka://a:9092,b:9092/north?partitions=3").servers
        ('a:9092', 'b:9092')
        """
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise BusError("kafka:// takes no user or password; set CAMLINK_KAFKA_USERNAME and CAMLINK_KAFKA_PASSWORD")
        site = parts.path.strip("/") or "camlink"
        servers = tuple(parts.netloc.split(","))
        if not all(map(_is_server, servers)) or not _SITE.fullmatch(site):
            raise BusError(f'"{url}" is no broker; write kafka://HOST:PORT/SITE, SITE of letters, digits, "_" and "-"')
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        client = options.pop("client", CLIENTS[0])
        if client not in CLIENTS:
            raise BusError(f'"{url}": client={client} is not known; there are {" and ".join(CLIENTS)}')
        return cls(servers, site, **_numbers(url, options), client=client)

    def __str__(self) -> str:
        return f"kafka://{','.join(self.servers)}/{self.site}"

    def topic(self, name: str) -> str:
        """Return a topic's name on the broker."""
        return f"{self.site}.{name}"

    def bare(self, topic: str) -> str:
        """Return our name for a topic of the broker."""
        return topic.removeprefix(f"{self.site}.")

    def credentials(self) -> dict[str, str]:
        """Return what the environment says of security, by kafka-python's names of options."""
        return {option: os.environ[name] for option, name in _CREDENTIALS.items() if os.environ.get(name)}


def _is_server(place: str) -> bool:
    try:
        parts = urlsplit(f"//{place}")
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port
        return False


def _numbers(url: str, options: Mapping[str, str]) -> dict[str, int]:
    for name, value in options.items():
        if (
            name not in ("partitions", "replication", "wait_ms")
            or not value.isdecimal()
            or not 1 <= int(value) <= 10_000
        ):
            raise BusError(
                f'"{url}": {name}={value} is not understood; there are partitions, replication, wait_ms and client'
            )
    return {name: int(value) for name, value in options.items()}


def create_topics(admin: Any, address: KafkaAddress) -> None:
    """Create the topics that are missing. Raises `BusError` if one exists with another number of partitions.

    ``admin`` is a `kafka.KafkaAdminClient`. Another worker may be quicker: that a topic exists by now is no error, and
    one that could not be made for another reason is found missing at the end.
    """
    names = [*TOPICS, DEAD_LETTER]
    there = set(admin.list_topics())
    for name in names:
        if address.topic(name) not in there:
            admin.create_topics({address.topic(name): _wanted(address, name)}, raise_errors=False)
    missing = {address.topic(name) for name in names} - set(admin.list_topics())
    if missing:
        raise BusError(
            f"{address}: topics {', '.join(sorted(missing))} could not be made; may this user create topics?"
        )
    _check_partitions(admin, address, names)


def generation(admin: Any, address: KafkaAddress) -> str | None:
    """Return what stands for the present life of our topics, or None if some are not there.

    A broker gives each topic an id when it is made: other ids mean that what was in them is lost.
    """
    described = admin.describe_topics([address.topic(name) for name in (*TOPICS, DEAD_LETTER)])
    ids = {entry["name"]: entry.get("topic_id") for entry in described if not entry["error_code"]}
    return ",".join(str(ids[name]) for name in sorted(ids)) if len(ids) == len(described) else None


class TopicWatch:
    """Looks every few seconds whether the broker still has what was in our topics, in a thread of its own.

    Consumers alone would not tell: positions beyond the end of a new topic are quietly set back, or fit by chance. The
    log has one line when the broker does not answer and one when it does again, where a client would have thousands.
    """

    def __init__(self, look: Callable[[], str | None], before: str | None, address: KafkaAddress) -> None:
        """``look`` returns the present `generation`; it may raise while the broker is away."""
        self.lost: str | None = None
        self._answers = True
        self._stopped = threading.Event()
        self._look, self._before, self._address = look, before, address
        self._thread = threading.Thread(target=self._run, name="camlink-topics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more; a look that is under way ends first."""
        self._stopped.set()
        self._thread.join(2 * LOOK["request_timeout_ms"] / 1000.0)

    def once(self) -> bool:
        """Look once; return whether there was an answer."""
        try:
            now = self._look()
        except Exception as error:  # away, or another broker of a cluster answered half: the next look tells
            if self._answers:
                logger.warning("%s: the broker does not answer; trying again until it does: %s", self._address, error)
            self._answers = False
            return False
        if not self._answers:
            logger.warning("%s: the broker answers again", self._address)
        self._answers = True
        if now != self._before and self.lost is None:
            self.lost = f"{self._address}: the broker has lost its topics, and all that was in them"
            logger.error("%s; this worker ends, to begin anew with topics made anew", self.lost)
        return True

    def _run(self) -> None:
        while self.lost is None and not self._stopped.wait(WATCH_S):
            self.once()


def _wanted(address: KafkaAddress, name: str) -> dict[str, Any]:
    configs = {"cleanup.policy": "compact"} if name in STATE_TOPICS else {"retention.ms": str(RETENTION_MS[name])}
    return {"num_partitions": address.partitions, "replication_factor": address.replication, "configs": configs}


def _check_partitions(admin: Any, address: KafkaAddress, names: list[str]) -> None:
    for described in admin.describe_topics([address.topic(name) for name in names]):
        count = len(described["partitions"])
        if count and count != address.partitions:
            raise BusError(
                f'{address}: topic "{described["name"]}" has {count} partitions, {address.partitions} were asked for; '
                f"say ?partitions={count}, or give the site another name"
            )
