"""The parts that baselines are made of: allowance, options, thresholds, intervals, the choice of sources."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camlink.models.base import OutputSpec
from camlink.operators.allowance import Allowance
from camlink.operators.baselines.options import Option, best_options, within_memory
from camlink.operators.baselines.periodic import NEVER, interval_options
from camlink.operators.baselines.reducto import last_executed, threshold_options
from camlink.operators.baselines.warm_links import LinkTrainer, correlations, hub_sources
from camlink.operators.selection import Budget, Costs

COUNT = OutputSpec("m", "vector", 1, "count")


def options() -> st.SearchStrategy[list[Option[int]]]:
    other = st.builds(Option, st.floats(0.1, 50.0), st.floats(0.0, 1.0), st.integers())
    return st.lists(other, max_size=4).map(lambda found: [Option(0.0, 0.1, 0), *found])


@given(st.lists(options(), min_size=1, max_size=4), st.floats(0.0, 120.0))
def test_the_best_options_are_within_the_budget_and_as_good_as_enumeration_says(
    choices: list[list[Option[int]]], limit_ms: float
) -> None:
    named = {f"m{i}": c for i, c in enumerate(choices)}
    chosen = best_options(named, limit_ms).values()
    assert sum(o.cost_ms for o in chosen) <= limit_ms + 1e-6
    rounded = limit_ms * (1 - len(choices) / 1000)  # costs are rounded up to a thousandth of the budget each
    best = max(sum(o.agreement for o in c) for c in product(*choices) if sum(o.cost_ms for o in c) <= rounded)
    assert sum(o.agreement for o in chosen) >= best - 1e-9


def test_what_is_ever_executed_fits_into_memory_together() -> None:
    costs = Costs({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 3.0, "b": 2.0, "c": 2.0})
    gains = {"a": 0.4, "b": 0.3, "c": 0.3}
    named = {m: [Option(0.0, 0.0, "never"), Option(1.0, g, "always")] for m, g in gains.items()}
    chosen = within_memory(named, costs, Budget(memory_gb=4.0))
    assert {m: o.how for m, o in chosen.items()} == {"a": "never", "b": "always", "c": "always"}


def test_an_interval_is_worth_what_its_ages_are_worth() -> None:
    values = np.array([[i // 2 % 2] for i in range(400)], np.float32)  # 0 0 1 1: one frame old is right half the time
    found = {o.how: (o.cost_ms, o.agreement) for o in interval_options(COUNT, values, 12.0)}
    assert found[1.0] == (12.0, 1.0)
    assert found[2.0][0] == 6.0 and found[2.0][1] == pytest.approx((1 + 0.5) / 2, abs=0.01)
    assert found[4.0][1] == pytest.approx((1 + 0.5 + 0 + 0.5) / 4, abs=0.01)
    assert found[NEVER][0] == 0.0


def test_changes_add_up_to_the_threshold_from_the_last_execution_on() -> None:
    change = np.array([9.0, 1, 1, 0, 0, 5, 1, 1, 1])
    assert last_executed(np.cumsum(change), 2.0).tolist() == [0, 0, 2, 2, 2, 5, 5, 7, 7]


def test_a_threshold_is_priced_by_filtering_the_warm_up() -> None:
    values = (np.arange(100) // 5).astype(np.float32)[:, None]
    change = np.diff(values[:, 0], prepend=0).astype(np.float64)
    exact = [o for o in threshold_options(COUNT, values, change, 10.0, "pixel_change") if o.agreement == 1.0]
    assert min(o.cost_ms for o in exact) == pytest.approx(10.0 * 20 / 100)


def test_a_debt_is_never_afforded_and_memory_makes_room() -> None:
    costs = Costs({"a": 10.0, "b": 10.0, "big": 10.0}, {"a": 1.0, "b": 1.0, "big": 5.0})
    allowance = Allowance(costs, Budget(memory_gb=1.5, time_share=0.5), load_ms=2.0)
    assert not allowance.affords("a")
    allowance.next_frame()  # 15 ms
    assert allowance.affords("a") and allowance.price("a") == 12.0 and not allowance.affords("big")
    allowance.spend("a")
    assert (allowance.left_ms, allowance.loads, allowance.affords("a")) == (3.0, 1, False)
    allowance.next_frame()
    allowance.spend("b")
    assert (allowance.loaded, allowance.loads, allowance.left_ms) == (("b",), 2, 6.0)


def test_the_time_until_something_is_paid_counts_what_executes_meanwhile() -> None:
    costs = Costs({"a": 10.0, "b": 30.0}, {"a": 1.0, "b": 1.0})
    allowance = Allowance(costs, Budget(time_share=0.5))  # 20 ms a frame
    assert allowance.frames_until(40.0, ("a",)) == pytest.approx(2.0, abs=1e-4)
    for _ in range(2):
        allowance.next_frame()
        allowance.spend("a")
    allowance.next_frame()
    assert allowance.affords_all(("a", "b"))


def test_links_start_from_models_that_correlate_with_the_rest() -> None:
    rng = np.random.default_rng(0)
    people, cars = rng.normal(size=(2, 500, 1))
    noise = {f"noise{i}": rng.normal(size=(500, 1)) for i in range(3)}
    samples = {"people": people, "cars": cars, "both": np.hstack([people, cars]), **noise}
    samples = {m: v.astype(np.float32) for m, v in samples.items()}
    assert hub_sources(samples, 1) == ("both",)
    np.testing.assert_allclose(np.diag(correlations(samples)), 1.0, atol=1e-6)


def test_links_are_learnt_once_for_the_same_warm_up() -> None:
    rng = np.random.default_rng(0)
    specs = {m: OutputSpec(m, "vector", 1, "count") for m in ("a", "b")}
    samples = {m: rng.integers(0, 2, (30, 1)).astype(np.float32) for m in specs}
    trainer, times = LinkTrainer(), np.arange(30.0)
    first = trainer.train(specs, samples, times, seed=0)
    assert trainer.train(specs, samples, times, seed=0) is first
    assert trainer.train(specs, samples, times, seed=1) is not first


def test_long_outputs_are_linked_from_and_not_to() -> None:
    rng = np.random.default_rng(0)
    specs = {
        "a": OutputSpec("a", "vector", 1, "count"),
        "classes": OutputSpec("classes", "vector", 300, "single_label"),
    }
    samples = {m: rng.random((30, spec.size)).astype(np.float32) for m, spec in specs.items()}
    assert list(LinkTrainer().train(specs, samples, np.arange(30.0), seed=0).ensembles) == ["a"]


def test_sequences_and_short_warm_ups_give_no_links() -> None:
    specs = {"a": OutputSpec("a", "vector", 1, "count"), "b": OutputSpec("b", "sequence", 9, "tokens")}
    samples = {m: np.ones((30, 1), np.float32) for m in specs}
    assert not LinkTrainer().train(specs, samples, np.arange(30.0), seed=0).ensembles
    both = {m: OutputSpec(m, "vector", 1, "count") for m in ("a", "b")}
    short = {m: np.ones((5, 1), np.float32) for m in both}
    assert not LinkTrainer().train(both, short, np.arange(5.0), seed=0).ensembles
