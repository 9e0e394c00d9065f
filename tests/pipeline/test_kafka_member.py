"""Taking part in a group of a broker, however seldom and briefly a member is given its turn."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from camlink.pipeline import testbed
from camlink.pipeline.bus.kafka_client import Member
from camlink.pipeline.bus.kafka_python import PythonClient, make_topics
from camlink.pipeline.bus.kafka_topics import KafkaAddress

pytestmark = pytest.mark.broker
PATIENCE_S = 60.0  # on a condition; a broker that works needs a few seconds
ASKED_AND_JOINED = 2  # joins of a new member: the first only learns its id


def members(address: KafkaAddress, groups: Sequence[str]) -> dict[str, Member]:
    make_topics(address)
    client = PythonClient(address)
    return {group: client.member(group, [address.topic("frames")]) for group in groups}


def joins(caplog: pytest.LogCaptureFixture) -> Counter[str]:
    """Count the joins that the client has begun, by group."""
    said = [record.getMessage() for record in caplog.records if record.name.startswith("kafka.coordinator")]
    return Counter(line.rpartition(" ")[2] for line in said if line.startswith("(Re-)joining group"))


def test_members_that_one_thread_polls_in_turn_join_once_each(
    broker_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="kafka.coordinator")
    address = KafkaAddress.parse(f"kafka://{broker_address}/turns?partitions=2")
    there = members(address, ("turns.a", "turns.b", "turns.c"))
    shares: dict[str, frozenset[object]] = {}
    deadline = time.monotonic() + PATIENCE_S
    while len(shares) < len(there):
        assert time.monotonic() < deadline, f"only {', '.join(shares) or 'nobody'} joined, after {joins(caplog)}"
        for group, member in there.items():
            assigned = member.turn(0.05).assigned
            if assigned:
                shares[group] = assigned
    for member in there.values():
        member.close()
    assert all(len(share) == address.partitions for share in shares.values())
    assert joins(caplog) == dict.fromkeys(there, ASKED_AND_JOINED)


def test_a_member_leaves_while_its_join_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camlink.pipeline.bus.kafka_python.SETTLE_S", 0.1)
    monkeypatch.setattr("camlink.pipeline.bus.kafka_python.LEAVE_S", 0.1)
    with testbed.broker() as server:
        address = KafkaAddress.parse(f"kafka://127.0.0.1:{server.port}/silent?partitions=2")
        member = members(address, ["silent"])["silent"]
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        try:
            member.turn(0.0)
            joining = [thread for thread in threading.enumerate() if thread.name == "joining silent"]
            member.close()
        finally:
            server.process.send_signal(signal.SIGCONT)
    assert len(joining) == 1
    joining[0].join(PATIENCE_S)
    assert not joining[0].is_alive()
