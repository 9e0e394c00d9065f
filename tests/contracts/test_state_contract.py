"""What every state store promises, in memory and on a real Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest

from camlink.operators.base import StateStore
from camlink.pipeline import testbed
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import ModelOutput
from camlink.pipeline.state.base import open_state
from camlink.pipeline.state.memory import MemoryState

NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.broker)])
def store(request: pytest.FixtureRequest) -> Iterator[StateStore]:
    opened = open_state("memory://" if request.param == "memory" else request.getfixturevalue("redis_url"))
    yield opened
    opened.close()


def outputs(*models: str) -> tuple[ModelOutput, ...]:
    value = np.array([1.5, 2.0], np.float32)
    return tuple(ModelOutput("hall", 4, NOW, m, value, "serve", "executed") for m in models)


def test_outputs_come_back_in_the_order_asked_for(store: StateStore) -> None:
    store.put("order/1", outputs("a", "b"), 60)
    store.put("order/2", outputs(), 60)
    store.flush()
    missing, first, second = store.get_many(["order/3", "order/1", "order/2"])
    assert missing is None
    assert second == ()
    assert first is not None
    assert [o.model for o in first] == ["a", "b"]
    assert first[0].value is not None
    assert first[0].value.tolist() == [1.5, 2.0]
    assert store.get_many([]) == []


def test_a_later_value_replaces_an_earlier_one(store: StateStore) -> None:
    store.put("twice", outputs("a"), 60)
    store.flush()
    store.put("twice", outputs("b"), 60)
    store.flush()
    (found,) = store.get_many(["twice"])
    assert found is not None
    assert [o.model for o in found] == ["b"]


def test_outputs_expire(store: StateStore) -> None:
    store.put("brief", outputs("a"), 0.05)
    store.flush()
    deadline = time.monotonic() + 30
    while store.get_many(["brief"]) != [None]:
        assert time.monotonic() < deadline, "never expired"


def test_blobs_are_bytes_in_a_space_of_their_own(store: StateStore) -> None:
    store.put_blob("same", b"\x00\xff", 60)
    store.put("same", outputs("a"), 60)
    store.flush()
    assert store.get_blobs(["same", "other"]) == [b"\x00\xff", None]
    assert store.get_many(["same"])[0] is not None


def test_entries_in_memory_are_freed_as_others_come() -> None:
    now = 0.0
    store = MemoryState(now_s=lambda: now)
    for i in range(1000):
        now = float(i)
        store.put(f"hall/{i}/serve", outputs("objects"), ttl_s=10)
        assert len(store) <= 11
    now = 1004.0
    assert store.get_many(["hall/990/serve", "hall/999/serve"])[0] is None
    assert store.get_many(["hall/999/serve"])[0] is not None


def test_a_wrong_scheme_says_what_was_probably_meant() -> None:
    with pytest.raises(StateError, match='did you mean "memory://"'):
        open_state("memry://")


def test_a_store_that_nobody_serves_is_reported_within_seconds() -> None:
    store = open_state(f"redis://127.0.0.1:{testbed.free_port()}")
    started = time.monotonic()
    with pytest.raises(StateError, match=r"redis://127\.0\.0\.1"):
        store.get_many(["x"])
    store.put("x", outputs("a"), 1)
    with pytest.raises(StateError, match="1 entries not kept"):
        store.flush()
    assert time.monotonic() - started < 10
    store.close()


def test_secrets_do_not_belong_in_a_url() -> None:
    with pytest.raises(StateError, match="CAMLINK_REDIS_PASSWORD") as refusal:
        open_state("redis://:hunter2@localhost")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.broker
def test_a_damaged_entry_counts_as_lost_and_harms_no_other(redis_url: str) -> None:
    import socket

    with socket.create_connection(("127.0.0.1", int(redis_url.rsplit(":", 1)[1])), timeout=10) as raw:
        raw.sendall(b"SET o/damaged garbage\r\n")
        assert raw.recv(100).startswith(b"+OK")
    store = open_state(redis_url)
    store.put("whole", outputs("a"), 60)
    store.flush()
    assert [found is None for found in store.get_many(["damaged", "whole"])] == [True, False]
    store.close()


def test_authorities_are_for_addresses_with_tls_and_reach_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMLINK_REDIS_CA", "/etc/camlink/certificates/redis.pem")
    with pytest.raises(StateError, match="write rediss://"):
        open_state("redis://127.0.0.1:6379")
    store = open_state("rediss://127.0.0.1:6379")
    assert store._client.connection_pool.connection_kwargs["ssl_ca_certs"].endswith("redis.pem")  # type: ignore[attr-defined]
    store.close()
