"""What every bus promises, whatever carries the records."""

from collections.abc import Callable, Iterator

import pytest

from camlink.pipeline.bus.base import Bus, open_bus
from camlink.pipeline.errors import BusError
from camlink.pipeline.testing import make_frames

FACTORIES: dict[str, Callable[[], Bus]] = {"memory": lambda: open_bus("memory://")}


@pytest.fixture(params=FACTORIES)
def bus(request: pytest.FixtureRequest) -> Iterator[Bus]:
    made = FACTORIES[request.param]()
    yield made
    made.close()


def test_records_of_a_camera_arrive_once_and_in_order(bus: Bus) -> None:
    inbox = bus.subscribe(("frames",), group="inference")
    frames = make_frames("hall", 50)
    for frame in frames:
        bus.publish("frames", frame)
    assert [f.index for f in inbox.poll(1.0)] == list(range(50))  # type: ignore[union-attr]
    assert list(inbox.poll()) == []


def test_every_group_receives_every_record_of_its_topics_and_no_other(bus: Bus) -> None:
    one, two = bus.subscribe(("frames",), group="one"), bus.subscribe(("frames", "events"), group="two")
    other = bus.subscribe(("events",), group="three")
    bus.publish("frames", make_frames("hall", 1)[0])
    assert len(one.poll(1.0)) == 1
    assert len(two.poll(1.0)) == 1
    assert len(other.poll()) == 0


def test_publishing_to_a_topic_that_nobody_reads_is_no_error(bus: Bus) -> None:
    bus.publish("frames", make_frames("hall", 1)[0])


def test_a_wrong_scheme_says_what_was_probably_meant() -> None:
    with pytest.raises(BusError, match='did you mean "memory://"'):
        open_bus("memoy://")
    with pytest.raises(BusError, match="known: memory://"):
        open_bus("carrierpigeon://")


def test_what_was_polled_but_not_committed_comes_again_after_a_crash() -> None:
    from camlink.pipeline.bus.memory import MemoryBus

    bus = MemoryBus()
    inbox = bus.subscribe(("frames",), group="inference")
    for frame in make_frames("hall", 4):
        bus.publish("frames", frame)
    inbox.poll()
    inbox.rewind()
    assert [f.index for f in inbox.poll()] == [0, 1, 2, 3]  # type: ignore[union-attr]
    inbox.commit()
    inbox.rewind()
    assert list(inbox.poll()) == []


def test_one_process_cannot_join_a_group_twice() -> None:
    from camlink.pipeline.bus.memory import MemoryBus

    bus = MemoryBus()
    bus.subscribe(("frames",), group="inference")
    with pytest.raises(BusError, match='group "inference" is subscribed already'):
        bus.subscribe(("events",), group="inference")
