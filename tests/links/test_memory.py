"""Memory: what was executed last counts fully when fresh, not at all when stale, and as much as it deserves."""

import numpy as np
import pytest

from camlink.links.memory import SURE, fit_memory

RNG = np.random.default_rng(5)
TIMES = np.arange(600, dtype=np.float64)


def telegraph(change: float) -> np.ndarray:
    """A state that flips with probability ``change`` per second."""
    return (np.cumsum(RNG.random(600) < change) % 2).astype(np.float32)[:, None]


def test_a_lasting_state_is_remembered_longer_than_a_flickering_one() -> None:
    both = np.concatenate([telegraph(0.005), telegraph(0.2)], axis=1)
    lasting, flickering = fit_memory(both, TIMES).lifetime_s * fit_memory(both, TIMES).steady
    assert lasting > 4 * flickering


def test_noise_is_not_remembered() -> None:
    noise = (RNG.random((600, 1)) < 0.3).astype(np.float32)
    memory = fit_memory(noise, TIMES)
    low, high = (memory.chances(np.array([last], np.float32), 2.0)[0] for last in (0.0, 1.0))
    assert low == pytest.approx(high, abs=0.12)


def test_chances_match_what_happens() -> None:
    state = telegraph(0.02)
    memory = fit_memory(state, TIMES)
    for gap in (1, 5, 20):
        now, last = state[gap:, 0], state[:-gap]
        said = memory.chances(last, np.full(len(last), float(gap)))[:, 0]
        for value in (0.0, 1.0):
            rows = last[:, 0] == value
            assert said[rows].mean() == pytest.approx(now[rows].mean(), abs=0.12)


def test_ages_beyond_all_lifetimes_give_the_base_rate_and_nothing_is_certain() -> None:
    memory = fit_memory(telegraph(0.01), TIMES)
    old = memory.chances(np.ones((1, 1), np.float32), np.array([1e9]))
    assert old[0, 0] == pytest.approx(memory.base[0], abs=1e-6)
    fresh = memory.chances(np.ones((1, 1), np.float32), np.array([0.0]))
    assert memory.base[0] < fresh[0, 0] <= 1 - SURE


def test_one_frame_is_too_few_to_remember_anything() -> None:
    memory = fit_memory(np.ones((1, 2), np.float32), np.zeros(1))
    np.testing.assert_array_equal(memory.steady, 0.0)
