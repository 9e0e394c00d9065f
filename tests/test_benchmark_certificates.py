"""A small version of `python -m benchmarks.certificates`: every scenario, both rules of auditing."""

import numpy as np
import pytest

from benchmarks.certificates.simulation import SCENARIOS, Outcome, adaptive, fixed, simulate

DAYS = 40


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    rng = np.random.default_rng(5)
    return [
        simulate(rng, draw(rng, DAYS, 1200), rule)
        for draw in SCENARIOS.values()
        for rule in (fixed(0.04), adaptive(0.04))
    ]


def test_certificates_cover_at_the_most_unfavourable_moment(outcomes: list[Outcome]) -> None:
    assert np.mean([o.missed for o in outcomes]) <= 0.05
    assert max(o.missed for o in outcomes) <= 0.1


def test_the_days_are_hard_enough_to_catch_an_interval_that_is_for_one_look_only(outcomes: list[Outcome]) -> None:
    assert np.mean([o.wilson_missed for o in outcomes]) > 0.15


def test_what_validity_at_any_time_costs_is_bounded(outcomes: list[Outcome]) -> None:
    assert all(o.width / o.wilson_width < 2.2 for o in outcomes)
