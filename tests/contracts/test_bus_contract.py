"""What every bus promises, in memory and on a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count

import numpy as np
import pytest

from camlink.pipeline.bus.base import Bus, Subscription, open_bus
from camlink.pipeline.bus.memory import MemoryBus
from camlink.pipeline.errors import BusError
from camlink.pipeline.records import Decision, Frame, LinkPromotion, Record, RelabelRequest, Settled

START = datetime(2026, 1, 5, 8, tzinfo=UTC)
PATIENCE_S = 60.0  # on a condition; a broker that works needs a few seconds
SITES = count()

Connect = Callable[[], Bus]


BROKER = [pytest.param(client, marks=pytest.mark.broker) for client in ("kafka-python", "confluent")]


@pytest.fixture(params=["memory", *BROKER])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Gives a connection to one bus, each time it is called."""
    opened: list[Bus] = []
    if request.param == "memory":
        shared = open_bus("memory://")
        yield lambda: shared
        shared.close()
        return
    address, site = request.getfixturevalue("broker_address"), f"contract{next(SITES)}"

    def open_another() -> Bus:
        opened.append(open_bus(f"kafka://{address}/{site}?partitions=4&wait_ms=5&client={request.param}"))
        return opened[-1]

    yield open_another
    for bus in opened:
        bus.close()


def settled(camera: str, number: int) -> Settled:
    return Settled(camera, number, START + timedelta(seconds=number))


def receive(subscription: Subscription, until: Callable[[list[Record]], bool]) -> list[Record]:
    """Poll until the condition holds; fail loudly if it never does."""
    got: list[Record] = []
    deadline = time.monotonic() + PATIENCE_S
    while not until(got):
        assert time.monotonic() < deadline, f"only {len(got)} records came"
        got.extend(subscription.poll(0.2))
    return got


def numbers(records: Sequence[Record], camera: str) -> list[int]:
    return [r.frame_index for r in records if isinstance(r, Settled) and r.camera_id == camera]


def test_one_cameras_records_come_in_order_and_each_group_gets_all(connect: Connect) -> None:
    bus = connect()
    first, second = bus.subscribe(["results"], "first"), bus.subscribe(["results"], "second")
    for number in range(50):
        for camera in "abc":
            bus.publish("results", settled(camera, number))
    bus.flush()
    for subscription in (first, second):
        got = receive(subscription, lambda got: len(got) >= 150)
        assert len(got) == 150
        for camera in "abc":
            assert numbers(got, camera) == list(range(50))


def test_frames_arrive_as_frames(connect: Connect) -> None:
    bus = connect()
    subscription = bus.subscribe(["frames"], "inference")
    pixels = np.full((48, 64, 3), 90, np.uint8)
    bus.publish("frames", Frame("hall", 3, START, pixels))
    (frame,) = receive(subscription, bool)
    assert isinstance(frame, Frame)
    assert (frame.camera_id, frame.index, frame.captured_at) == ("hall", 3, START)
    assert np.abs(frame.pixels.astype(int) - 90).max() <= 2


def test_what_is_held_when_committing_comes_again_and_what_is_dealt_with_does_not(connect: Connect) -> None:
    bus = connect()
    subscription = bus.subscribe(["results"], "group")
    for number in range(10):
        bus.publish("results", settled("hall", number))
    bus.flush()
    got = receive(subscription, lambda got: len(got) >= 10)
    subscription.commit(held=[got[6], got[8]])
    if hasattr(subscription, "rewind"):
        subscription.rewind()
    else:
        subscription.close()
        subscription = connect().subscribe(["results"], "group")
    again = receive(subscription, lambda got: len(got) >= 4)
    assert numbers(again, "hall") == [6, 7, 8, 9]
    subscription.commit()
    bus.publish("results", settled("hall", 10))
    bus.flush()
    assert numbers(receive(subscription, bool), "hall") == [10]


def decision(camera: str, number: int) -> Decision:
    start = START + timedelta(hours=number)
    return Decision(
        camera, start, start + timedelta(hours=1), ("m",), (), ("m",), {}, {}, {}, None, f"decision {number}"
    )


def test_who_follows_a_state_topic_first_gets_the_latest_of_each_key(connect: Connect) -> None:
    bus = connect()
    for number in range(5):
        bus.publish("decisions", decision("hall", number))
    bus.publish("decisions", decision("yard", 9))
    bus.flush()
    subscription = bus.subscribe(["frames"], "inference", follow=["decisions"])
    bus.publish("frames", Frame("hall", 0, START, np.zeros((0, 0, 3), np.uint8)))
    bus.flush()
    got = receive(subscription, lambda got: any(isinstance(r, Frame) for r in got))
    before = [r for r in got if isinstance(r, Decision)]
    assert {r.camera_id: r.reason for r in before} == {"hall": "decision 4", "yard": "decision 9"}
    assert isinstance(got[-1], Frame), "the state comes first"
    bus.publish("decisions", decision("hall", 5))
    bus.flush()
    (later,) = receive(subscription, bool)
    assert isinstance(later, Decision)
    assert later.reason == "decision 5"


def test_who_restores_a_state_topic_gets_its_present_state_first_and_nothing_of_it_later(connect: Connect) -> None:
    bus = connect()
    for number in range(3):
        bus.publish("decisions", decision("hall", number))
    bus.publish("frames", Frame("hall", 0, START, np.zeros((0, 0, 3), np.uint8)))
    bus.flush()
    subscription = bus.subscribe(["frames"], "inference", follow=["links"], restore=["decisions"])
    if isinstance(bus, MemoryBus):  # it gives what comes from now on
        bus.publish("frames", Frame("hall", 0, START, np.zeros((0, 0, 3), np.uint8)))
    before, first = receive(subscription, lambda got: any(isinstance(r, Frame) for r in got))
    assert isinstance(before, Decision) and before.reason == "decision 2"
    assert isinstance(first, Frame)
    bus.publish("decisions", decision("hall", 3))
    bus.publish("links", settled("hall", 1))
    bus.flush()
    bus.publish("frames", Frame("hall", 1, START, np.zeros((0, 0, 3), np.uint8)))
    later = receive(subscription, lambda got: any(isinstance(r, Frame) for r in got) and len(got) >= 2)
    assert not any(isinstance(r, Decision) for r in later)
    assert numbers(later, "hall") == [1]


def test_the_present_state_of_all_cameras_can_be_read(connect: Connect) -> None:
    bus = connect()
    for version in (1, 2, 3):
        for target in ("persons", "bags"):
            bus.publish("links", LinkPromotion("hall", target, version, START, b"weights"))
        bus.publish("links", settled("hall", version))
    bus.flush()
    promotions = [r for r in bus.read_all("links") if isinstance(r, LinkPromotion)]
    assert {(p.target, p.version) for p in promotions} == {("persons", 3), ("bags", 3)}
    assert numbers(bus.read_all("links"), "hall") == [3]
    assert list(bus.read_all("models")) == []


def test_a_refused_record_lies_on_the_dead_letter_topic(connect: Connect) -> None:
    bus = connect()
    subscription = bus.subscribe(["dead-letter"], "people")
    bus.refuse("results", RelabelRequest("hall", 4, START, ("m",), "why"), "it broke the links")
    bus.flush()
    (refused,) = receive(subscription, bool)
    assert isinstance(refused, RelabelRequest)
    assert refused.frame_index == 4


def test_a_group_receives_its_topics_and_no_other_and_unread_topics_are_no_error(connect: Connect) -> None:
    bus = connect()
    subscription = bus.subscribe(["results"], "one")
    bus.publish("events", settled("hall", 1))
    bus.publish("results", settled("hall", 2))
    bus.flush()
    assert numbers(receive(subscription, bool), "hall") == [2]


def test_one_process_cannot_join_a_group_of_a_memory_bus_twice() -> None:
    bus = open_bus("memory://")
    bus.subscribe(("frames",), group="inference")
    with pytest.raises(BusError, match='group "inference" is subscribed already'):
        bus.subscribe(("events",), group="inference")


def test_an_unknown_scheme_is_answered_with_what_was_meant() -> None:
    with pytest.raises(BusError, match='did you mean "kafka://"'):
        open_bus("kafak://localhost:9092")
    with pytest.raises(BusError, match="known: memory://"):
        open_bus("carrierpigeon://")
    with pytest.raises(BusError, match="CAMLINK_KAFKA_PASSWORD"):
        open_bus("kafka://me:secret@localhost:9092/x")
    with pytest.raises(BusError, match="there are kafka-python and confluent"):
        open_bus("kafka://localhost:9092/x?client=confluant")
    with pytest.raises(BusError, match="partitions=0 is not understood"):
        open_bus("kafka://localhost:9092/x?partitions=0")
