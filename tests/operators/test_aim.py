"""Targets in place of budgets: the least cost at which what is served is expected to agree as asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from camlink.models.trace_arrays import CameraTrace
from camlink.operators.aim import CAUTION, REACH, Aim, Aims
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import PolicySetup
from camlink.operators.selection import Budget
from camlink.operators.worth import Outlook, Prices
from camlink.pipeline.lab.play import Split, play
from camlink.pipeline.lab.zoo import shown
from tests.operators.test_per_frame import wrong_at
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
        aim.told(CAUTION * 0.1)
    assert aim.factor == pytest.approx(1.0)
    for _ in range(20):
        aim.told(1.5 * CAUTION * 0.1)
    low = aim.factor
    for _ in range(20):
        aim.told(0.5 * CAUTION * 0.1)
    assert low < 1.0 and aim.factor == pytest.approx(1.0)
    for _ in range(10_000):
        aim.told(1.0)
    assert aim.factor == pytest.approx(np.exp(-REACH))
    for _ in range(1000):
        aim.rest()
    assert aim.factor > 0.99


def test_the_price_for_answers_is_where_they_agree_as_asked_between_executions() -> None:
    prices = Prices([OUTLOOK])
    for target in (0.7, 0.9):
        (interval,) = prices.intervals(prices.for_answers(target))
        ages = np.arange(1, round(interval))
        assert np.mean([wrong_at(OUTLOOK, age) for age in ages]) == pytest.approx(1.0 - target, abs=0.03)
    assert prices.intervals(prices.for_answers(0.99)) == pytest.approx(
        [1.0]
    )  # not even the first answer agrees as often
    (interval,) = Prices([replace(OUTLOOK, stale=0.05)]).intervals(prices.for_answers(0.9))
    assert interval > 20.0


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
    assert after.price("near") == Prices([OUTLOOK]).for_agreement(1.0 - CAUTION * 0.2)
    assert not Aims(setup_of())
