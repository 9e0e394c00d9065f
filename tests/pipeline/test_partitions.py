"""Where a subscription stands: nothing is given out twice, skipped, or committed while it is held."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camlink.pipeline.bus.kafka_client import BEGINNING, Message, Place
from camlink.pipeline.bus.kafka_topics import KafkaAddress
from camlink.pipeline.bus.partitions import Positions
from camlink.pipeline.errors import BusError
from camlink.pipeline.records import Settled

FRAMES, LINKS = Place("site.frames", 0), Place("site.links", 0)


def message(offset: int, place: Place = FRAMES, size: int = 10) -> Message:
    return Message(place, offset, b"x" * size)


def member(most_backlog: int = 100) -> Positions:
    positions = Positions(most_backlog)
    positions.follow([LINKS])
    positions.share({FRAMES: 5})
    return positions


def test_what_lies_beside_is_not_shared_and_both_go_on_where_they_were_read_to() -> None:
    positions = member()
    assert positions.to_read() == {LINKS: BEGINNING, FRAMES: 5}
    assert not positions.take(message(0, LINKS))
    assert positions.take(message(5))
    assert positions.to_read() == {LINKS: 1, FRAMES: 6}


def test_a_full_backlog_leaves_shared_topics_out_until_half_of_it_is_given_out() -> None:
    positions = member(most_backlog=100)
    for offset in range(5, 16):
        positions.take(message(offset))
    assert positions.turn_tide()
    assert positions.to_read() == {LINKS: BEGINNING}
    given = [m.offset for _, m in positions.given_out((), 3)]
    assert not positions.turn_tide(), "still more than half full"
    given += [m.offset for _, m in positions.given_out((), 4)]
    assert positions.turn_tide()
    assert positions.to_read() == {LINKS: BEGINNING, FRAMES: 16}
    assert given == list(range(5, 12))


def test_what_was_fetched_before_a_reassignment_and_comes_again_is_not_given_out_again() -> None:
    positions = member()
    for offset in (5, 6, 5, 6, 7):
        positions.take(message(offset))
    assert [m.offset for _, m in positions.given_out((), 100)] == [5, 6, 7]


def test_nothing_is_given_out_for_a_partition_whose_camera_is_held_back() -> None:
    positions = member()
    positions.take(message(5))
    for place, m in positions.given_out((), 1):
        positions.note(Settled("hall", 5, datetime.now(UTC)), "hall", place, m.offset)
    positions.take(message(6))
    assert not positions.has_ready({"hall"})
    assert list(positions.given_out({"hall"}, 10)) == []
    assert positions.has_ready({"yard"})


def test_a_partition_that_went_takes_its_backlog_cameras_and_what_lies_beside_with_it() -> None:
    positions = member()
    positions.take(message(5))
    for place, m in positions.given_out((), 1):
        positions.note(Settled("hall", 5, datetime.now(UTC)), "hall", place, m.offset)
    positions.take(message(6))
    assert positions.drop(FRAMES, [LINKS.topic]) == {"hall"}
    assert positions.to_read() == {}
    assert positions.committable([]) == {}
    assert positions.take(message(7)), "late messages are swallowed"
    assert not positions.has_ready(())


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_the_commit_never_passes_the_oldest_record_that_is_held(held: list[bool]) -> None:
    positions = member(most_backlog=10_000)
    records = []
    for number in range(len(held)):
        positions.take(message(5 + number))
    for place, m in positions.given_out((), 100):
        records.append(Settled("hall", m.offset, datetime.now(UTC)))
        positions.note(records[-1], "hall", place, m.offset)
    kept = [record for record, is_held in zip(records, held, strict=True) if is_held]
    expected = kept[0].frame_index if kept else 5 + len(held)
    assert positions.committable(kept) == {FRAMES: expected}


def test_the_url_chooses_the_client() -> None:
    assert KafkaAddress.parse("kafka://a:9092/north").client == "kafka-python"
    assert KafkaAddress.parse("kafka://a:9092/north?client=confluent&partitions=3").client == "confluent"
    with pytest.raises(BusError, match="client=confluant is not known"):
        KafkaAddress.parse("kafka://a:9092/north?client=confluant")
