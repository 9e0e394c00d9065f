"""Selection: Eq. 7 by hand, budgets that are never exceeded, and exact selection that nothing beats."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camlink.operators.selection import (
    Budget,
    CameraScores,
    Costs,
    activation_probability,
    budget_costs,
    expected_agreement,
    select,
)


def test_activation_probability_by_hand() -> None:
    """Three models; Eq. 7 worked out on paper: (1 + P1 - P2) / (w c) with w = 2 / min c = 0.2."""
    pairs = {"a": {"b": 0.9, "c": 0.7}, "b": {"a": 0.5, "c": 0.3}, "c": {"a": 0.1, "b": 0.2}}
    cost = {"a": 10.0, "b": 20.0, "c": 40.0}
    p = activation_probability(pairs, cost)
    assert p["a"] == pytest.approx((1 + 0.8 - 0.3) / (0.2 * 10))
    assert p["b"] == pytest.approx((1 + 0.4 - 0.55) / (0.2 * 20))
    assert p["c"] == pytest.approx((1 + 0.15 - 0.5) / (0.2 * 40))


def test_the_perfect_model_has_activation_probability_one() -> None:
    pairs = {"a": {"b": 1.0, "c": 1.0}, "b": {"a": 0.0, "c": 0.5}, "c": {"a": 0.0, "b": 0.5}}
    assert activation_probability(pairs, {"a": 5.0, "b": 5.0, "c": 9.0})["a"] == pytest.approx(1.0)


def scores(table: dict[tuple[str, ...], dict[str, float]], models: tuple[str, ...]) -> CameraScores:
    pairs = {s: {t: table.get((s,), {}).get(t, 0.0) for t in models if t != s} for s in models}
    return CameraScores(pairs, lambda sources, target: table.get(sources, {}).get(target, 0.0))


def test_exact_selection_sees_mutual_assistance_that_greedy_cannot() -> None:
    models = ("a", "b", "c", "d")
    table = {
        ("a",): {"b": 0.6, "c": 0.6, "d": 0.6},
        ("b",): {"a": 0.1, "c": 0.5, "d": 0.5},
        ("c",): {"a": 0.1, "b": 0.5, "d": 0.5},
        ("a", "b"): {"c": 0.6, "d": 0.6},
        ("a", "c"): {"b": 0.6, "d": 0.6},
        ("b", "c"): {"a": 1.0, "d": 1.0},  # together they tell everything
    }
    costs = Costs(dict.fromkeys(models, 1.0), dict.fromkeys(models, 1.0))
    cameras = {"hall": scores(table, models)}
    exact = select("mlink-exact", cameras, costs, Budget(time_share=0.5))
    paper = select("mlink", cameras, costs, Budget(time_share=0.5))
    assert exact.execute["hall"] == ("b", "c")
    assert exact.expected["hall"] == pytest.approx(1.0)
    assert "a" in paper.execute["hall"]  # best pairwise links: ranked first
    assert paper.expected["hall"] < exact.expected["hall"]


def test_the_loaded_set_is_shared_and_serves_all_cameras() -> None:
    """Memory for one model only: the one that helps both cameras most, not each camera's favourite."""
    models = ("a", "b", "c")
    hall = scores({("a",): {"b": 0.9, "c": 0.9}, ("c",): {"a": 0.7, "b": 0.8}}, models)
    yard = scores({("b",): {"a": 0.9, "c": 0.9}, ("c",): {"a": 0.8, "b": 0.8}}, models)
    costs = Costs(dict.fromkeys(models, 1.0), dict.fromkeys(models, 1.0))
    chosen = select("mlink-exact", {"hall": hall, "yard": yard}, costs, Budget(memory_gb=1.0))
    assert chosen.loaded == ("c",)
    assert set(chosen.execute.values()) == {("c",)}


def test_when_all_models_fit_the_memory_all_stay_loaded() -> None:
    models = ("a", "b")
    costs = Costs(dict.fromkeys(models, 1.0), dict.fromkeys(models, 1.0))
    cameras = {"hall": scores({("a",): {"b": 1.0}}, models)}
    for policy in ("mlink", "mlink-exact"):
        chosen = select(policy, cameras, costs, Budget(time_share=0.5, memory_gb=2.0))
        assert chosen.loaded == models
        assert chosen.execute["hall"] == ("a",)


def test_standalone_takes_the_cheapest_and_expects_nothing_of_links() -> None:
    costs = Costs({"a": 3.0, "b": 1.0, "c": 2.0}, dict.fromkeys("abc", 1.0))
    cameras = {"hall": scores({("b",): {"a": 1.0, "c": 1.0}}, ("a", "b", "c"))}
    chosen = select("standalone", cameras, costs, Budget(time_share=0.5))
    assert chosen.execute["hall"] == ("b", "c")
    assert chosen.expected["hall"] == pytest.approx(2 / 3)


def test_an_unknown_policy_says_which_there_are() -> None:
    with pytest.raises(ValueError, match="choose mlink, mlink-exact, standalone or all"):
        select("best", {}, Costs({"a": 1.0}, {"a": 1.0}), Budget())


share = st.floats(0.0, 1.0)


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, CameraScores], Costs, Budget]:
    models = tuple("abcde"[: draw(st.integers(1, 5))])
    costs = Costs(
        {m: draw(st.floats(0.1, 100)) for m in models},
        {m: draw(st.floats(0.1, 8)) for m in models},
    )
    cameras = {}
    for camera in ("hall", "yard")[: draw(st.integers(1, 2))]:
        table = {
            subset: {t: draw(share) for t in models if t not in subset}
            for n in range(1, len(models))
            for subset in combinations(models, n)
        }
        cameras[camera] = scores(table, models)
    memory = draw(st.none() | st.floats(0.05, 20))
    time = draw(st.none() | st.floats(0.01, 1))
    return cameras, costs, Budget(memory, time)


@settings(max_examples=150)
@given(problems(), st.sampled_from(["mlink", "mlink-exact", "standalone"]))
def test_no_schedule_ever_exceeds_a_budget(problem: tuple, policy: str) -> None:  # type: ignore[type-arg]
    cameras, costs, budget = problem
    chosen = select(policy, cameras, costs, budget)
    assert costs.memory(chosen.loaded) <= budget.memory_limit() + 1e-6
    for camera in cameras:
        assert set(chosen.execute[camera]) <= set(chosen.loaded)
        assert costs.time(chosen.execute[camera]) <= budget.time_ms(costs) + 1e-6


@settings(max_examples=80)
@given(problems())
def test_nothing_beats_exact_selection(problem: tuple) -> None:  # type: ignore[type-arg]
    cameras, costs, budget = problem
    chosen = select("mlink-exact", cameras, costs, budget)
    reached = sum(chosen.expected.values())
    rival = select("mlink", cameras, costs, budget)
    assert sum(rival.expected.values()) <= reached + 1e-4
    if len(cameras) == 1:
        (s,) = cameras.values()
        for n in range(len(costs.models) + 1):
            for subset in combinations(costs.models, n):
                fits = costs.time(subset) <= budget.time_ms(costs) and costs.memory(subset) <= budget.memory_limit()
                if fits:
                    assert expected_agreement(subset, costs.models, s.subset) <= reached + 1e-4


def test_cost_under_two_budgets_is_the_share_of_the_tighter_one() -> None:
    costs = Costs({"a": 30.0, "b": 70.0}, {"a": 4.0, "b": 2.0})
    assert budget_costs(costs, Budget(memory_gb=4.0)) == {"a": 1.0, "b": 0.5}
    assert budget_costs(costs, Budget(time_share=0.5)) == {"a": 0.6, "b": 1.4}
    assert budget_costs(costs, Budget(memory_gb=4.0, time_share=0.5)) == {"a": 1.0, "b": 1.4}
