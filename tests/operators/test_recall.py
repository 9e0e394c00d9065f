"""What a model said last: only from before, and never replaced by something older."""

from datetime import UTC, datetime, timedelta

import numpy as np

from camlink.operators.recall import MOST_LATE, LastExecuted

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def value(count: float) -> np.ndarray:
    return np.array([count], np.float32)


def test_nothing_is_recalled_of_the_frame_itself_or_of_later_ones() -> None:
    last = LastExecuted()
    last.update(at(5), {"persons": value(2)})
    assert last.of("persons", at(5)) is None
    assert last.of("persons", at(4)) is None
    assert last.of("objects", at(9)) is None
    recall = last.of("persons", at(8))
    assert recall is not None
    assert recall.age_s == 3.0
    assert recall.value[0] == 2


def test_a_late_frame_does_not_replace_a_newer_one() -> None:
    last = LastExecuted()
    last.update(at(5), {"persons": value(2)})
    last.update(at(3), {"persons": value(7), "objects": value(1)})
    recall, other = last.of("persons", at(6)), last.of("objects", at(6))
    assert recall is not None
    assert other is not None
    assert recall.value[0] == 2
    assert other.age_s == 3.0


def test_frames_that_come_late_together_are_known_from_the_next_newer_one_on() -> None:
    last = LastExecuted()
    for second in range(10):
        last.show(at(second))
    last.show(at(3))
    last.update(at(3), {"persons": value(7)})
    last.show(at(5))
    assert last.of("persons", at(5)) is None
    last.show(at(10))
    recall = last.of("persons", at(10))
    assert recall is not None and recall.age_s == 7.0


def test_a_clock_that_was_set_back_neither_piles_up_frames_nor_silences_what_models_say_then() -> None:
    last = LastExecuted()
    last.show(at(36000))
    last.update(at(36000), {"persons": value(2), "objects": value(1)})
    for second in range(10 * MOST_LATE):
        last.show(at(second))
        last.update(at(second), {"persons": value(second)})
        assert len(last._late) <= MOST_LATE + 1
    recall = last.of("persons", at(10 * MOST_LATE))
    assert recall is not None and recall.age_s == 1.0
    assert last.of("objects", at(10 * MOST_LATE)) is None, "that was said at another time"
