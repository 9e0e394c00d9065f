"""Targets in place of budgets: the least cost at which what is served is expected to agree as asked."""

from __future__ import annotations

from dataclasses import replace
from math import log
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camlink.models.trace_arrays import CameraTrace
from camlink.operators.aim import OF_ANSWERS, OF_MEAN, REACH, Aim, Aims, Pace
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import PolicySetup
from camlink.operators.selection import Budget
from camlink.operators.worth import Outlook, Prices, price_for_answers
from camlink.pipeline.lab.play import Split, play
from camlink.pipeline.lab.zoo import shown
from tests.operators.test_policy_state import go_on
from tests.operators.test_zoo import COSTS, SPECS, camera

OUTLOOK = Outlook(stale=0.8, renewed=0.8, steady=0.99, hazard=0.05, time_ms=10.0)


def setup_of(**more: object) -> PolicySetup:
    return PolicySetup("cam", SPECS, COSTS, Budget(), **more)  # type: ignore[arg-type]


def played(setup: PolicySetup, seen: CameraTrace, warm_up: int = 60) -> tuple[float, float, list[float]]:
    """Return agreement, cost, and of each model the agreement of its answers, executions left out."""
    tally = play(seen, PerFrame, setup, Split(warm_up, np.zeros(len(seen) - warm_up, np.intp)), name="camlink")
    executed, slots = tally.hows[0, :, 0], tally.hows.sum(axis=2)[0]
    answers = (tally.agreed[0] - executed) / np.maximum(slots - executed, 1.0)
    cost = tally.spent_ms.sum() / (tally.frames.sum() * COSTS.time(COSTS.models))
    return float(tally.agreed.sum() / tally.hows.sum()), float(cost), answers.tolist()


def test_answers_worse_than_allowed_make_it_pay_more_and_better_ones_less() -> None:
    aim = Aim(0.9)
    for _ in range(20):
        aim.told(OF_ANSWERS.caution * 0.1)
    assert aim.factor == pytest.approx(1.0)
    for _ in range(20):
        aim.told(1.5 * OF_ANSWERS.caution * 0.1)
    low = aim.factor
    for _ in range(20):
        aim.told(0.5 * OF_ANSWERS.caution * 0.1)
    assert low < 1.0 and aim.factor == pytest.approx(1.0)
    for _ in range(10_000):
        aim.told(1.0)
    assert aim.factor == pytest.approx(np.exp(-REACH))
    for _ in range(1000):
        aim.rest()
    assert aim.factor > 0.99
    for _ in range(20):
        aim.told(0.0)
    earned = aim.factor
    aim.rest()
    assert aim.factor == earned > 1.4  # what few answers have earned is not lost on the frames that execute


@given(
    st.sampled_from([OF_ANSWERS, OF_MEAN]),
    st.floats(0.5, 0.99),
    st.lists(st.floats(0.0, 3.9), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
def test_what_was_missed_so_far_counts_in_full_whenever_it_was(
    pace: Pace, target: float, times_allowed: list[float], random: Random
) -> None:
    """Over the whole period: the mean that was told misses what is allowed by what the price was moved, no more."""
    allowed = pace.caution * (1.0 - target)
    aim, other = Aim(target, pace), Aim(target, pace)
    for times in times_allowed:
        aim.told(times * allowed)
    if abs(log(aim.factor)) > REACH - 0.01 or pace.gain * sum(times_allowed) > REACH:
        return
    missed = 1.0 - np.mean(times_allowed)
    assert missed == pytest.approx(log(aim.factor) / (pace.gain * len(times_allowed)), abs=1e-6)
    random.shuffle(times_allowed)
    for times in times_allowed:
        other.told(times * allowed)
    assert other.factor == pytest.approx(aim.factor)


def test_on_a_clip_whose_forecast_was_too_hopeful_the_mean_still_comes_near_what_is_allowed() -> None:
    def mean_told(aim: Aim, frames: int, hope: float) -> float:
        """Of answers that are as wrong as the price is high, in units of what is allowed."""
        told = []
        for frame in range(frames):
            told.append(hope * aim.factor * (2.0 if frame % 10 else 0.0) / 1.8)  # on each tenth frame all execute
            aim.told(told[-1] * (1.0 - aim.aimed))
        return float(np.mean(told))

    assert mean_told(Aim(0.95, OF_MEAN), 120, hope=2.0) < 1.2
    assert mean_told(Aim(0.95, OF_ANSWERS), 120, hope=2.0) > 1.2  # whose answers are counted over days
    assert mean_told(Aim(0.95, OF_MEAN), 120, hope=0.5) > 0.8


def test_frames_that_are_wrong_in_all_models_count_for_a_mean_as_far_as_they_are_wrong() -> None:
    aim = Aim(0.95, OF_MEAN)
    allowed = 1.0 - aim.aimed
    for _ in range(10):
        aim.told(8.0 * allowed)
        for _ in range(7):
            aim.told(0.0)
    assert aim.factor == pytest.approx(1.0)


def test_a_target_by_model_keeps_the_pace_of_answers() -> None:
    aims = Aims(setup_of(targets={"near": 0.9}))
    aims.look({"near": OUTLOOK})
    assert aims.price("near") == price_for_answers(OUTLOOK, 1.0 - OF_ANSWERS.caution * 0.1)
    aims.served({"near": 0.0})
    assert aims.price("near") == pytest.approx(
        price_for_answers(OUTLOOK, 1.0 - OF_ANSWERS.caution * 0.1) * np.exp(OF_ANSWERS.gain)
    )


def test_the_price_for_answers_is_where_they_agree_as_asked_between_executions() -> None:
    prices = Prices([OUTLOOK])
    for target in (0.7, 0.9):
        (interval,) = prices.intervals(price_for_answers(OUTLOOK, target))
        ages = np.arange(1, round(interval))
        assert np.mean([OUTLOOK.wrong_at(age) for age in ages]) == pytest.approx(1.0 - target, abs=0.03)
    calm = replace(OUTLOOK, stale=0.05)
    (interval,) = Prices([calm]).intervals(price_for_answers(calm, 0.9))
    assert interval > 20.0


def test_where_answers_hardly_ever_agree_as_asked_only_those_are_given_that_do() -> None:
    flickers = replace(OUTLOOK, steady=0.2)  # not even the first answer after an execution agrees as often
    price = price_for_answers(flickers, 0.9)
    for wrong, gone in ((0.05, 0.0), (0.11, 0.0), (0.5, 0.3), (0.7, 0.9)):
        assert (flickers.worth(wrong, gone) / flickers.time_ms < price) == (wrong <= 0.1)


def test_a_target_for_all_is_met_nearly_and_a_higher_one_costs_more() -> None:
    seen = [camera(seed, 700, 0.93) for seed in (5, 6, 7)]
    met = [np.mean([played(setup_of(target_agreement=t), s)[:2] for s in seen], axis=0) for t in (0.85, 0.95)]
    low, high = ((float(agreement), float(cost)) for agreement, cost in met)
    assert abs(low[0] - 0.85) < 0.08 and abs(high[0] - 0.95) < 0.03
    assert low[1] < 0.7 * high[1] < 0.5


def test_a_target_by_model_is_met_by_its_answers_and_a_model_without_one_executes() -> None:
    setup = setup_of(targets={"near": 0.9, "level": 0.8})
    agreement, cost, answers = played(setup, camera(5, 700, 0.93))
    by_model = dict(zip(SPECS, answers, strict=True))
    assert by_model["near"] > 0.87 and by_model["level"] > 0.7
    assert 1 / 3 <= cost < 0.9 and agreement > 0.9


def test_a_restored_policy_aims_as_one_that_was_never_interrupted() -> None:
    frames = shown(camera(3, 140, 0.9))
    for setup in (setup_of(target_agreement=0.9), setup_of(targets={"near": 0.9, "far": 0.8})):
        before, after = PerFrame(setup), PerFrame(setup)
        told = go_on(before, frames[:90])
        after.resume(before.snapshot())
        assert told + go_on(after, frames[90:]) == go_on(PerFrame(setup), frames)


def test_an_aim_at_another_target_starts_anew() -> None:
    before, after = Aims(setup_of(target_agreement=0.9)), Aims(setup_of(target_agreement=0.8))
    before.look({"near": OUTLOOK})
    before.served({"near": 0.9})
    after.resume(before.state())
    after.look({"near": OUTLOOK})
    assert after.price("near") == Prices([OUTLOOK]).for_agreement(1.0 - OF_MEAN.caution * 0.2)
    assert not Aims(setup_of())
