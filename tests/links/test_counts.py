"""Counts as distributions: nothing is lost on the way to thresholds and back, and the mode is served."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from camlink.links.counts import MAX_LEVELS, CountCode, code_for
from camlink.models.base import OutputSpec

levels = st.lists(st.integers(1, 7), min_size=1, max_size=6).map(tuple)


@given(levels, st.data())
def test_every_count_within_the_levels_survives_the_round_trip(tops: tuple[int, ...], data: st.DataObject) -> None:
    counts = np.array([[data.draw(st.integers(0, top)) for top in tops] for _ in range(4)], np.float32)
    code = CountCode(tops)
    value, chance = code.most_probable(code.encode(counts))
    np.testing.assert_array_equal(value, counts)
    np.testing.assert_array_equal(chance, 1.0)


@given(levels, st.integers(0, 1000))
def test_chances_are_those_of_a_distribution_and_the_best_is_served(tops: tuple[int, ...], seed: int) -> None:
    code = CountCode(tops)
    more_than = np.random.default_rng(seed).random((5, code.width)).astype(np.float32)  # not even falling
    value, chance = code.most_probable(more_than)
    for row in range(5):
        start = 0
        for entry, top in enumerate(tops):
            survival = np.minimum.accumulate([1.0, *more_than[row, start : start + top], 0.0])
            masses = survival[:-1] - survival[1:]
            assert value[row, entry] == masses.argmax()
            assert abs(chance[row, entry] - masses.max()) < 1e-6
            start += top


def test_one_frame_and_a_batch_agree() -> None:
    code = CountCode((3, 1))
    more_than = np.random.default_rng(0).random((6, 4)).astype(np.float32)
    values, chances = code.most_probable(more_than)
    for i in range(6):
        value, chance = code.most_probable(more_than[i])
        np.testing.assert_array_equal(value, values[i])
        np.testing.assert_allclose(chance, chances[i])


def test_counts_beyond_the_levels_saturate() -> None:
    code = CountCode((2,))
    np.testing.assert_array_equal(code.encode(np.array([[9.0]], np.float32)), [[1.0, 1.0]])


def test_other_tasks_and_very_high_counts_are_left_to_regression() -> None:
    count, labels = OutputSpec("a", "vector", 1, "count"), OutputSpec("b", "vector", 1, "multi_label")
    assert code_for(labels, np.ones((3, 1), np.float32)) is None
    assert code_for(count, np.full((3, 1), MAX_LEVELS + 1, np.float32)) is None
    assert code_for(count, np.zeros((3, 1), np.float32)) == CountCode((1,))
