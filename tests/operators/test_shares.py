"""The time that a machine has, shared among its cameras by what they gain from it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camlink.operators.demands import demand_of
from camlink.operators.gate import Gate
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import FrameFacts, PolicySetup
from camlink.operators.selection import Budget, Costs
from camlink.operators.shares import CHEAPEST, DEAREST, LEAST, SETTLES, Demand, Shares
from camlink.operators.throttle import EVERY_S, FEWEST, Throttle
from camlink.operators.worth import HIGHEST, LOWEST, Outlook, Prices
from camlink.pipeline.testing import TinyModel, make_frames

PRICES = [10.0**-n for n in range(10)]
WORTHS = st.floats(1e-6, 10.0)
MODELS = [TinyModel.count("persons", lambda f: f.index % 3), TinyModel.count("bags", lambda f: f.index % 2)]
SPECS = {model.spec.model: model.spec for model in MODELS}
COSTS = Costs({"persons": 30.0, "bags": 10.0}, dict.fromkeys(SPECS, 1.0))


def gains(worth: float) -> Demand:
    """Return the demand of a camera that gains ``worth`` times the logarithm of what it takes."""
    return lambda price: min(1.0, worth / price)


def settled(share: float, demands: Mapping[str, Demand | None], rates: Mapping[str, int]) -> dict[str, float]:
    """Return what cameras have once nothing changes any more."""
    shares, found = Shares(), dict[str, float]()
    for _ in range(200):
        shares.age()
        shares.see(camera for camera, rate in rates.items() for _ in range(rate))
        found = shares.of(share, demands)
    return found


def test_cameras_share_in_proportion_to_what_they_gain_and_take_all_there_is() -> None:
    found = settled(0.4, {"busy": gains(3.0), "quiet": gains(1.0)}, {"busy": 5, "quiet": 5})
    assert found == pytest.approx({"busy": 0.6, "quiet": 0.2}, rel=1e-3)


def test_each_camera_counts_alike_whatever_its_frame_rate() -> None:
    found = settled(0.3, {"fast": gains(1.0), "slow": gains(1.0)}, {"fast": 10, "slow": 5})
    assert 10 * found["fast"] == pytest.approx(5 * found["slow"], rel=1e-3), "the same time in a second"
    assert 10 * found["fast"] + 5 * found["slow"] == pytest.approx(15 * 0.3)


def test_what_one_camera_has_no_use_for_others_have_and_it_keeps_a_part_to_learn_from() -> None:
    found = settled(0.4, {"busy": gains(1.0), "still": lambda price: 0.0}, {"busy": 5, "still": 5})
    assert found == pytest.approx({"busy": 0.8 - LEAST * 0.4, "still": LEAST * 0.4}, rel=1e-3)
    found = settled(0.8, {"busy": gains(1.0), "still": lambda price: 0.0}, {"busy": 5, "still": 5})
    assert found == pytest.approx({"busy": 1.0, "still": 0.6}), "more than everything cannot execute"


def test_cameras_of_which_nothing_is_known_yet_have_an_equal_share() -> None:
    demands = {"busy": gains(3.0), "quiet": gains(1.0), "new": None}
    found = settled(0.3, demands, {"busy": 5, "quiet": 5, "new": 5})
    assert found["new"] == 0.3
    assert found["busy"] + found["quiet"] == pytest.approx(0.6)


def test_a_camera_that_joins_starts_from_an_equal_share_and_one_that_leaves_takes_nothing() -> None:
    shares, rates = Shares(), ["busy"] * 5 + ["quiet"] * 5
    for _ in range(100):
        shares.age()
        shares.see(rates)
        before = shares.of(0.3, {"busy": gains(3.0), "quiet": gains(1.0)})
    shares.age()
    shares.see([*rates, *["new"] * 5])
    found = shares.of(0.3, {"busy": gains(3.0), "quiet": gains(1.0), "new": gains(1.0)})
    assert found == pytest.approx({**before, "new": 0.3}, rel=0.2), "none changes by much at once"
    for _ in range(200):
        shares.age()
        shares.see(["quiet"] * 5 + ["new"] * 5)
        found = shares.of(0.3, {"busy": gains(3.0), "quiet": gains(1.0), "new": gains(1.0)})
    assert found == pytest.approx({"busy": 0.3, "quiet": 0.3, "new": 0.3}, rel=1e-3), "also while its policy is kept"


def test_with_time_for_everything_no_camera_is_limited() -> None:
    demands, shares = {"busy": gains(3.0), "quiet": gains(1e-6), "still": lambda price: 0.0}, Shares()
    for share in (0.3, 0.31, 0.29, 0.37, 0.99, 1.0):
        shares.age()
        shares.see(["busy", *["quiet"] * 7, *["still"] * 3])
        found = shares.of(share, demands)
        assert (set(found.values()) == {1.0}) == (share == 1.0)


@given(
    st.lists(
        st.tuples(
            st.floats(0.01, 1.0),
            st.dictionaries(st.sampled_from("abcde"), st.tuples(st.integers(0, 9), st.none() | WORTHS), min_size=1),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_cameras_take_together_just_what_there_is_and_each_has_its_least(
    steps: list[tuple[float, dict[str, tuple[int, float | None]]]],
) -> None:
    shares = Shares()
    for share, cameras in steps:
        shares.age()
        shares.see(camera for camera, (frames, _) in cameras.items() for _ in range(frames))
        rates = dict(shares._frames)
        demands = {c: None if worth is None else gains(worth) for c, (_, worth) in cameras.items()}
        found = shares.of(share, demands)
        assert found.keys() == cameras.keys()
        assert all(LEAST * share - 1e-9 <= each <= 1.0 for each in found.values())
        taken = sum(rates.get(c, 0.0) * each for c, each in found.items())
        assert taken == pytest.approx(share * sum(rates.get(c, 0.0) for c in found), rel=1e-6, abs=1e-9)


@given(st.lists(st.tuples(*[st.floats(0.01, 0.99)] * 3, st.floats(1e-4, 1.0), st.floats(1.0, 100.0)), min_size=1))
def test_the_dearer_time_is_the_less_a_camera_takes(known: list[tuple[float, float, float, float, float]]) -> None:
    outlooks = {str(n): Outlook(*each) for n, each in enumerate(known)}
    total_ms = sum(o.time_ms for o in outlooks.values())
    demand = demand_of(outlooks, total_ms, 0.8)
    assert demand is not None
    taken = [demand(price) for price in PRICES]
    assert all(dearer <= cheaper + 1e-9 for dearer, cheaper in pairwise(taken))
    assert taken[0] >= 0.0 and taken[-1] <= 0.8
    price = Prices(list(outlooks.values())).for_time(0.3 * total_ms)
    assert demand(1.01 * price) <= 0.3 + 1e-9, "as it would choose with that much"


def test_what_has_to_execute_does_at_any_price_and_what_meets_its_target_no_more_often_than_that_takes() -> None:
    outlooks = {"persons": Outlook(0.5, 0.5, 0.95, 0.05, 30.0), "bags": Outlook(0.5, 0.5, 0.95, 0.05, 10.0)}
    free, required, aimed = (
        demand_of(outlooks, 40.0),
        demand_of(outlooks, 40.0, required=["persons"]),
        demand_of(outlooks, 40.0, least=lambda name: 0.05),
    )
    assert free and required and aimed
    assert (free(10.0), required(10.0)) == (0.0, 0.75)
    assert aimed(1e-9) == free(0.05) < free(1e-9)
    assert aimed(0.1) == free(0.1)
    assert demand_of({}, 40.0) is None
    assert (CHEAPEST, DEAREST) == (LOWEST, HIGHEST)


def learnt(policy: PerFrame, frames: int) -> None:
    for model in MODELS:
        model.load()
    for frame in make_frames("hall", frames):
        policy.begin(FrameFacts(frame.index, frame.captured_at.timestamp(), frame.stats))
        policy.learn({m.spec.model: m.run([frame])[0].value for m in MODELS}, chosen=False)


def test_a_policy_says_what_it_would_take_once_it_has_chosen_and_no_more_than_its_budget() -> None:
    policy = PerFrame(PolicySetup("hall", SPECS, COSTS, Budget(time_share=0.6)))
    learnt(policy, 60)
    assert policy.demand() is None
    policy.begin(FrameFacts(60, 1e9))
    policy.choose({})
    demand = policy.demand()
    assert demand is not None and demand(1e-9) == 0.6 and demand(10.0) == 0.0
    again = PerFrame(PolicySetup("hall", SPECS, COSTS, Budget(time_share=0.6)))
    again.resume(policy.snapshot())
    told = again.demand()
    assert told is not None and [told(price) for price in PRICES] == [demand(price) for price in PRICES]


def test_a_gate_limits_each_camera_to_its_own_and_new_ones_to_the_mean() -> None:
    policies = {c: PerFrame(PolicySetup(c, SPECS, COSTS, Budget(time_share=1.0))) for c in ("busy", "quiet", "new")}
    gate = Gate(policies.__getitem__)
    for camera in ("busy", "quiet"):
        gate.begin(make_frames(camera, 1)[0])
    assert gate.demands() == {"busy": None, "quiet": None}
    gate.limit(0.3, {"busy": 0.5, "quiet": 0.1})
    gate.begin(make_frames("new", 1)[0])
    given_ms = {camera: policy._allowance.per_frame_ms for camera, policy in policies.items()}
    assert given_ms == pytest.approx({"busy": 20.0, "quiet": 4.0, "new": 12.0})
    gate.forget("quiet")
    assert gate.demands().keys() == {"busy", "new"}


def test_shares_are_found_anew_as_long_as_there_is_no_time_for_everything() -> None:
    now_s, busy_ms = [0.0], [0.0]
    throttle = Throttle(COSTS.time_ms, lambda: busy_ms[0], lambda: now_s[0])

    def work(takes_s: float) -> bool:
        """Execute everything on frames of two cameras until there is another estimate."""
        found = False
        for _ in range(FEWEST):
            throttle.choosing(2)
            now_s[0] += max(takes_s, EVERY_S / FEWEST)
            busy_ms[0] += 1000.0 * takes_s
            throttle.chose(["persons", "bags"] * 2)
            found |= throttle.see([("busy", "serve"), ("quiet", "overtaken")])
        return found

    assert not any(work(0.01) for _ in range(200))
    assert throttle.shares == {}
    assert sum(throttle._among._frames.values()) < 2 * FEWEST / SETTLES, "an hour ago other cameras may have been there"
    assert work(1.0)
    shares = throttle.shared({"busy": gains(3.0), "quiet": gains(1.0)})
    assert throttle.shares == shares and shares["busy"] > throttle.share > shares["quiet"]
    assert all(work(1.0) for _ in range(20)), "also where the share stays as it is"
    before = throttle.share
    assert work(1.0) and throttle.share == pytest.approx(before, rel=1e-6)
