"""Which frames are profiled and audited: known to all operators without a message, and honest in their probability."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from camlink.operators.sampling import FramePlanner, SamplingRules, unit_hash
from camlink.pipeline.errors import StateError

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def rules(**changes: object) -> SamplingRules:
    settings = {
        "period": timedelta(minutes=10),
        "profile_fraction": 0.01,
        "profile_min_frames": 5,
        "audit_fraction": 0.1,
        "bootstrap_frames": 20,
        "seed": 0,
    }
    return SamplingRules(**{**settings, **changes})  # type: ignore[arg-type]


def plans(planner: FramePlanner, count: int, every_s: float = 1.0) -> list:  # type: ignore[type-arg]
    return [planner.plan(i, START + timedelta(seconds=every_s * i)) for i in range(count)]


def test_bootstrap_comes_first_then_profile_then_served_frames() -> None:
    made = plans(FramePlanner("hall", rules(), fps=1.0), 600)
    assert [p.bootstrap for p in made[:26]] == [True] * 20 + [False] * 6
    assert [p.purpose for p in made[:26]] == ["profile"] * 26
    assert made[25].profile_ends
    assert sum(p.profile_ends for p in made) == 1
    assert {p.purpose for p in made[26:]} == {"serve", "audit"}


def test_each_period_opens_with_profile_frames() -> None:
    made = plans(FramePlanner("hall", rules(bootstrap_frames=0), fps=1.0), 1800)
    profiled = [i for i, p in enumerate(made) if p.purpose == "profile"]
    assert profiled == [start + i for start in (0, 600, 1200) for i in range(6)]  # 1 % of 600 frames


def test_slow_cameras_get_the_least_number_of_profile_frames() -> None:
    assert rules().profile_frames(fps=1 / 60) == 5
    assert rules().profile_frames(fps=None) == 5
    assert rules(period=timedelta(hours=1)).profile_frames(fps=1.0) == 36


def test_audit_frames_come_as_often_as_they_say_and_repeat_exactly() -> None:
    made = plans(FramePlanner("hall", rules(bootstrap_frames=0), fps=1.0), 20_000, every_s=0.01)
    audits = [i for i, p in enumerate(made) if p.purpose == "audit"]
    assert abs(len(audits) / 20_000 - 0.1) < 0.01
    assert {made[i].audit_probability for i in audits} == {0.1}
    again = plans(FramePlanner("hall", rules(bootstrap_frames=0), fps=1.0), 20_000, every_s=0.01)
    assert made == again


def test_cameras_and_seeds_are_audited_independently() -> None:
    frames = range(5000)
    hall = {i for i in frames if unit_hash(0, "hall", i) < 0.1}
    yard = {i for i in frames if unit_hash(0, "yard", i) < 0.1}
    other_seed = {i for i in frames if unit_hash(1, "hall", i) < 0.1}
    for rival in (yard, other_seed):
        assert len(hall & rival) < 0.03 * len(frames)


def test_no_audit_share_means_no_audit_frames() -> None:
    made = plans(FramePlanner("hall", rules(audit_fraction=0.0), fps=1.0), 600)
    assert "audit" not in {p.purpose for p in made}


def test_dropped_frames_do_not_shift_which_frames_are_audited() -> None:
    whole, gappy = (FramePlanner("hall", rules(bootstrap_frames=0, profile_min_frames=1), fps=None) for _ in range(2))
    everything = {i: whole.plan(i, START + timedelta(seconds=i)).purpose for i in range(300)}
    some = {i: gappy.plan(i, START + timedelta(seconds=i)).purpose for i in range(300) if i % 7}
    assert all(everything[i] == purpose for i, purpose in some.items() if i > 5)


@pytest.mark.parametrize(
    "damage", [{"period_us": 10**30}, {"profile_left": float("inf")}, {"period_us": None}, {"bootstrap_left": "many"}]
)
def test_a_plan_that_is_none_is_refused_and_changes_nothing(damage: dict[str, Any]) -> None:
    planner = FramePlanner("hall", rules(), 1.0)
    plans(planner, 7)
    before = planner.state()
    for spoilt in (before | damage, {name: before[name] for name in before.keys() - damage.keys()}):
        with pytest.raises(StateError, match="not a snapshot"):
            planner.resume(spoilt)
    assert planner.state() == before
