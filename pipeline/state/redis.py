"""The state store between processes: Redis, everything of one batch in one round trip.

    redis://HOST:PORT[/DB]    rediss:// for TLS

Credentials come from the environment: ``CAMLINK_REDIS_USERNAME``, ``CAMLINK_REDIS_PASSWORD``, and for ``rediss://`` the
authorities' file ``CAMLINK_REDIS_CA`` (without it, the system's). A store that does not answer is reported within a
second or two, not after the client's own patience.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from camlink.operators.base import Outputs
from camlink.pipeline.codec import decode_outputs, encode_outputs
from camlink.pipeline.errors import CodecError, StateError

logger = logging.getLogger(__name__)

TIMEOUT_S = 1.0
PAUSE_S = 2.0  # after a failure, for which the store is not asked again


class RedisState:
    """Puts are collected until `flush`. Reading and flushing raise `StateError` when the store is away or full."""

    def __init__(self, url: str, seconds: Callable[[], float] = time.monotonic) -> None:
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise StateError(
                "redis:// takes no user or password; set CAMLINK_REDIS_USERNAME and CAMLINK_REDIS_PASSWORD"
            )
        try:
            self._shown = f"redis://{parts.hostname}:{parts.port or 6379}"
        except ValueError as cause:  # of the port
            raise StateError(f"{url} is no address: {cause}") from cause
        self._pending: dict[str, tuple[bytes, float]] = {}
        self._outputs_pending: dict[str, Outputs] = {}
        self._untaken: dict[str, Outputs] = {}
        self._seconds = seconds
        self._down_until = -math.inf
        self._client = redis.Redis.from_url(
            url,
            username=os.environ.get("CAMLINK_REDIS_USERNAME") or None,
            password=os.environ.get("CAMLINK_REDIS_PASSWORD") or None,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),  # one try more, for a connection that went stale
            health_check_interval=15,
            **_trust(parts.scheme),
        )

    def put(self, key: str, value: Outputs, ttl_s: float) -> None:
        self._pending[f"o/{key}"] = (encode_outputs(value), ttl_s)
        self._outputs_pending[key] = value

    def get_many(self, keys: Sequence[str]) -> list[Outputs | None]:
        found = self._mget([f"o/{key}" for key in keys])
        return [None if data is None else self._outputs(data) for data in found]

    def put_blob(self, key: str, value: bytes, ttl_s: float) -> None:
        self._pending[f"b/{key}"] = (value, ttl_s)

    def get_blobs(self, keys: Sequence[str]) -> list[bytes | None]:
        return self._mget([f"b/{key}" for key in keys])

    def flush(self) -> None:
        pending, self._pending = self._pending, {}
        outputs, self._outputs_pending, self._untaken = self._outputs_pending, {}, {}
        if not pending:
            return
        try:
            self._check()
            with self._client.pipeline(transaction=False) as pipeline:
                for key, (data, ttl_s) in pending.items():
                    # not `set`, which takes longer to look through its options than to be sent
                    pipeline.execute_command("SET", key, data, "PX", max(1, round(ttl_s * 1000)))  # type: ignore[no-untyped-call]
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            self._untaken = outputs
            raise self._failed(f"{len(pending)} entries not kept: {error}") from error

    def untaken(self) -> dict[str, Outputs]:
        return self._untaken

    def close(self) -> None:
        self._client.close()

    def _mget(self, keys: Sequence[str]) -> list[bytes | None]:
        if not keys:
            return []
        try:
            self._check()
            found: list[bytes | None] = self._client.mget(keys)  # type: ignore[assignment]
        except (redis.RedisError, OSError) as error:
            raise self._failed(str(error)) from error
        return found

    def _check(self) -> None:
        """Do not ask again so soon: each time limit that runs out holds up its worker."""
        if self._seconds() < self._down_until:
            raise redis.ConnectionError(f"it failed less than {PAUSE_S:.0f} s ago")

    def _failed(self, what: str) -> StateError:
        now = self._seconds()
        if now >= self._down_until:
            self._down_until = now + PAUSE_S
        return StateError(f"{self._shown}: {what}")

    def _outputs(self, data: bytes) -> Outputs | None:
        """A damaged entry counts as lost: its frame waits and abstains, the others of the batch do not."""
        try:
            return decode_outputs(data)
        except CodecError as error:
            logger.warning("%s: %s", self._shown, error)
            return None


def _trust(scheme: str) -> dict[str, Any]:
    """Return whom a TLS connection trusts. Raises `StateError` where that is said of an address without TLS."""
    authorities = os.environ.get("CAMLINK_REDIS_CA")
    if not authorities:
        return {}
    if scheme != "rediss":
        raise StateError(f"CAMLINK_REDIS_CA is set, but {scheme}:// does not use TLS; write rediss://")
    return {"ssl_ca_certs": authorities}
