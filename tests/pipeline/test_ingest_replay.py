"""Several recorded cameras as one stream, and replay at the speed of life."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from camlink.pipeline.clock import ManualClock
from camlink.pipeline.ingest import Reading, merge
from camlink.pipeline.ingest.replay import MAX_PAUSE_S, SLICE_S, Rest, paced, time_of
from camlink.pipeline.records import CameraEvent, Frame

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
NO_PIXELS = np.zeros((0, 0, 3), dtype=np.uint8)


class ListSource:
    def __init__(self, camera_id: str, seconds: Sequence[float]) -> None:
        self.camera_id = camera_id
        self.captured = 0
        self.is_closed = False
        self._seconds = seconds

    def __iter__(self) -> Iterator[Reading]:
        for index, seconds in enumerate(self._seconds):
            self.captured += 1
            yield Frame(self.camera_id, index, START + timedelta(seconds=seconds), NO_PIXELS)

    def close(self) -> None:
        self.is_closed = True


def places(readings: Iterator[Reading]) -> list[tuple[str, float]]:
    return [(reading.camera_id, (time_of(reading) - START).total_seconds()) for reading in readings]


def test_sources_are_merged_by_event_time_and_ties_by_camera() -> None:
    expected = [("a", 0.0), ("b", 0.0), ("a", 1.0), ("b", 1.5), ("a", 2.0), ("b", 2.0)]
    a, b = ListSource("a", [0, 1, 2]), ListSource("b", [0, 1.5, 2])
    assert places(merge([a, b])) == expected
    assert places(merge([ListSource("b", [0, 1.5, 2]), ListSource("a", [0, 1, 2])])) == expected
    assert a.is_closed and b.is_closed


@given(st.lists(st.lists(st.integers(0, 20), max_size=8), min_size=1, max_size=4))
def test_a_merge_loses_nothing_and_is_in_order(times: list[list[int]]) -> None:
    sources = [ListSource(f"c{number}", sorted(moments)) for number, moments in enumerate(times)]
    merged = places(merge(sources))
    assert sorted(merged) == sorted((f"c{n}", float(t)) for n, moments in enumerate(times) for t in moments)
    assert [(seconds, camera) for camera, seconds in merged] == sorted((s, c) for c, s in merged)


def test_giving_up_a_merge_closes_its_sources() -> None:
    source = ListSource("a", [0, 1, 2])
    merged = merge([source])
    next(merged)
    merged.close()  # type: ignore[attr-defined]
    assert source.is_closed


def test_a_paced_replay_waits_as_long_as_was_recorded() -> None:
    clock, waits = ManualClock(datetime(2030, 1, 1, tzinfo=UTC)), []

    def wait(seconds: float) -> None:
        waits.append(round(seconds, 3))
        clock.advance(seconds)

    for reading in paced(ListSource("a", [0, 0.5, 1.0, 3.0]), clock, wait):
        if (time_of(reading) - START).total_seconds() == 0.5:
            clock.advance(0.8)  # the user took long: the next is due already, and the one after that is not put off
    assert waits == [0.5, 1.7]


def test_long_recorded_pauses_are_cut() -> None:
    clock, waits = ManualClock(START), []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        clock.advance(seconds)

    list(paced(ListSource("a", [0, 86400, 86401]), clock, wait))
    assert waits == [MAX_PAUSE_S, 1.0]


def test_a_rest_that_is_cut_short_ends_at_once() -> None:
    """Ctrl-C in a replay of one still a minute must not wait for the next."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 5.0:
            rest.cut()

    rest = Rest(sleep, lambda: now[0])
    rest(3.0)
    assert now[0] == 3.0
    rest(60.0)
    assert 5.0 < now[0] <= 5.0 + 2 * SLICE_S
    rest(60.0)
    assert now[0] <= 5.0 + 2 * SLICE_S


def test_events_have_their_time_too() -> None:
    assert time_of(CameraEvent("a", START, "ended", "")) == START
