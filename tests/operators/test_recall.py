"""What a model said last: only from before, and never replaced by something older."""

from datetime import UTC, datetime, timedelta

import numpy as np

from camlink.operators.recall import LastExecuted

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
