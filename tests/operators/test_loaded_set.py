"""What is held in memory for all cameras of a worker: by what their policies expect, and not by what links say."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from camlink.models.base import OutputSpec
from camlink.operators.loaded_set import LEAST_GAIN, CameraProspects, LoadedSet, choose_loaded
from camlink.operators.sampling import SamplingRules
from camlink.operators.scheduler import SchedulerOperator
from camlink.operators.selection import Budget, CameraScores, Costs, select
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.records import Decision, Frame, FrameResult, Prospect, Record
from camlink.pipeline.testing import START, TinyModel, make_frames, outputs, run_frames
from tests.integration.test_in_step import Site, mixed

COSTS = Costs({"a": 10.0, "b": 10.0, "c": 10.0}, dict.fromkeys("abc", 1.0))
ONE, TWO = Budget(memory_gb=1.0), Budget(memory_gb=2.0)
RULES: dict[str, Any] = {
    "period": timedelta(minutes=5),
    "links": {"bootstrap_frames": 40, "min_train_frames": 40},
    "audit": {"fraction": 0.1},
    "adaptation": {"policy": "off"},
    "policy": "camlink",
}


def prospect(usual: float, **told_by: float) -> Prospect:
    return Prospect(1.0 - usual, 1.0 - usual, 0.99, 0.1, usual, told_by)


def expecting(budget: Budget = ONE, costs: Costs = COSTS, **prospects: Prospect) -> CameraProspects:
    return CameraProspects(prospects, costs, budget)


# The choice


def test_the_set_is_best_for_all_cameras_together_and_for_none_alone() -> None:
    hall = {"hall": expecting(a=prospect(0.3), b=prospect(0.4), c=prospect(0.9))}
    yard = {"yard": expecting(a=prospect(0.9), b=prospect(0.4), c=prospect(0.3))}
    assert choose_loaded(hall, COSTS, ONE) == {"a"}
    assert choose_loaded(yard, COSTS, ONE) == {"c"}
    assert choose_loaded(hall | yard, COSTS, ONE) == {"b"}


def test_a_loaded_set_gives_way_only_to_one_that_is_expected_to_gain_enough() -> None:
    def chosen(more: float) -> frozenset[str]:
        camera = expecting(a=prospect(0.5), b=prospect(0.5 - more), c=prospect(0.9))
        return choose_loaded({"hall": camera}, COSTS, ONE, now=frozenset("a"))

    assert chosen(3 * LEAST_GAIN - 0.001) == {"a"}, "a third of the outputs are one model's"
    assert chosen(3 * LEAST_GAIN + 0.001) == {"b"}


def test_of_sets_that_do_about_as_well_the_cheapest_is_loaded_and_never_one_that_does_not_fit() -> None:
    dear = replace(COSTS, time_ms={"a": 30.0, "b": 10.0, "c": 20.0})
    cameras = {"hall": expecting(ONE, dear, a=prospect(0.5), b=prospect(0.51), c=prospect(0.5))}
    assert choose_loaded(cameras, dear, ONE) == {"b"}
    assert choose_loaded(cameras, dear, ONE, now=frozenset("a")) == {"a"}
    assert choose_loaded(cameras, dear, ONE, now=frozenset("ab")) == {"b"}, "as after a restart with less memory"


def test_a_model_that_misses_its_target_is_loaded_whatever_it_gains_and_stays_no_longer_than_it_must() -> None:
    cameras = {"hall": expecting(a=prospect(0.3), b=prospect(0.4), c=prospect(1.0))}
    urgent = choose_loaded(cameras, COSTS, TWO, {"hall": ("c",)}, now=frozenset("ab"))
    assert urgent == {"a", "c"}
    assert choose_loaded(cameras, COSTS, TWO, {"hall": ("c",), "yard": ("c", "b", "a")}) == {"a", "c"}
    assert choose_loaded(cameras, COSTS, TWO, now=urgent) == {"a", "b"}


def test_what_no_frame_has_time_for_is_never_loaded_not_even_where_it_is_urgent() -> None:
    slow, limit = replace(COSTS, time_ms={"a": 50.0, "b": 10.0, "c": 10.0}), Budget(1.0, 0.5, latency_ms=20.0)
    cameras = {"hall": expecting(limit, slow, a=prospect(0.1, c=0.5), b=prospect(0.6), c=prospect(0.8))}
    assert choose_loaded(cameras, slow, limit, {"hall": ("a",)}, now=frozenset("a")) == {"c"}


def test_a_small_share_is_saved_up_and_keeps_no_model_out() -> None:
    small = Budget(memory_gb=2.0, time_share=0.05)
    cameras = {"hall": expecting(small, a=prospect(0.5), b=prospect(0.6), c=prospect(0.9))}
    assert choose_loaded(cameras, COSTS, small) == {"a", "b"}


def test_many_models_are_grown_for_all_cameras_together() -> None:
    names = [f"m{i:02}" for i in range(16)]
    costs, budget = Costs(dict.fromkeys(names, 10.0), dict.fromkeys(names, 1.0)), Budget(memory_gb=2.0)
    told = {name: prospect(0.2, m03=0.7) for name in names[1:]}
    hall = CameraProspects(told | {"m00": prospect(0.2)}, costs, budget)
    yard = CameraProspects({name: prospect(0.95) for name in names}, costs, budget)
    assert choose_loaded({"hall": hall, "yard": yard}, costs, budget) == {"m00", "m03"}
    assert "m05" in choose_loaded({"hall": hall, "yard": yard}, costs, budget, {"yard": ("m05",)})


def test_cameras_that_said_nothing_yet_leave_what_is_loaded() -> None:
    chooser = LoadedSet(COSTS, ONE)
    assert chooser.choose({"hall": {}}, {}, ("b",)) == ("b",)
    assert len(chooser.choose({"hall": {}}, {}, None)) == 1
    known = {"hall": {"a": prospect(0.9), "b": prospect(0.9), "c": prospect(0.2)}, "yard": {}}
    assert chooser.choose(known, {}, ("b",)) == ("c",)


# The scheduler


def scheduler() -> SchedulerOperator:
    specs = {m: OutputSpec(m, "vector", 1, "count") for m in COSTS.models}
    return SchedulerOperator(specs, COSTS, ONE, SamplingRules(timedelta(minutes=5), 0.0, 10, 0.0, 0, 0), "camlink")


def profiled(camera: str, at: float, **prospects: Prospect) -> FrameResult:
    moment = START + timedelta(seconds=at)
    return FrameResult(camera, int(at), moment, "profile", (), profile_ends=True, prospects=prospects)


def told(records: list[Record]) -> dict[str, tuple[str, ...]]:
    return {r.camera_id: r.loaded for r in records if isinstance(r, Decision)}


def test_each_camera_is_told_when_what_another_expects_changes_the_set() -> None:
    operator = scheduler()
    hall = profiled("hall", 1, a=prospect(0.3), b=prospect(0.4), c=prospect(0.9))
    assert told(list(operator.on_records([hall]))) == {"hall": ("a",)}
    yard = profiled("yard", 2, a=prospect(0.9), b=prospect(0.4), c=prospect(0.3))
    assert told(list(operator.on_records([yard]))) == {"hall": ("b",), "yard": ("b",)}
    again = profiled("yard", 301, a=prospect(0.9), b=prospect(0.41), c=prospect(0.3))
    assert told(list(operator.on_records([again]))) == {"yard": ("b",)}


def test_what_cameras_expect_outlives_the_scheduler() -> None:
    operator, resumed = scheduler(), scheduler()
    hall = profiled("hall", 1, a=prospect(0.3), b=prospect(0.4, a=0.1), c=prospect(0.9))
    decisions = [r for r in operator.on_records([hall]) if isinstance(r, Decision)]
    resumed.restore("hall", operator.snapshot("hall"))
    for decision in decisions:
        resumed.resume(decision)
    yard = profiled("yard", 2, a=prospect(0.9), b=prospect(0.4), c=prospect(0.3))
    assert list(resumed.on_records([yard])) == list(operator.on_records([yard]))


# The whole pipeline


def crowd(frame: Frame) -> int:
    return (frame.index * 7919) % 5


def lively(frame: Frame) -> int:
    return (frame.index // 3) % 4 if frame.camera_id == "hall" else 2


def models() -> list[TinyModel]:
    """The slow one tells all of its echo, but changes on every frame and is seldom paid for; idle is the cheapest."""
    return [
        TinyModel.count("slow", crowd, time_ms=90.0),
        TinyModel.count("echo", crowd, time_ms=90.0),
        TinyModel.count("lively", lively, time_ms=5.0),
        TinyModel.count("idle", lambda frame: 1, time_ms=1.0),
    ]


def link_scores(source: str, target: str) -> float:
    return 1.0 if {source, target} == {"slow", "echo"} else 0.25


BUDGETS: Mapping[str, float] = {"memory_gb": 1.0, "time_share": 0.05}


def test_what_is_loaded_is_what_pays_on_frames_and_not_what_links_favour() -> None:
    costs = Costs({m.spec.model: m.time_ms for m in models()}, {m.spec.model: m.memory_gb for m in models()})
    scores = CameraScores({}, lambda sources, target: max(link_scores(s, target) for s in sources))
    assert select("mlink-exact", {"hall": scores}, costs, Budget(1.0)).loaded == ("slow",)
    records = run_frames(mixed(600, "hall", "yard"), models(), tick=2, **RULES | {"budgets": BUDGETS})
    decisions = [r for r in records if isinstance(r, Decision)]
    assert {r.loaded for r in decisions if r.camera_id == "hall"} == {("lively",)}
    assert all(not r.link_scores and r.per_frame for r in decisions)
    ran = {o.model for o in outputs(records) if o.how == "executed" and o.purpose == "serve"}
    assert ran == {"lively"}


def test_workers_load_what_the_policies_expect_to_pay_too() -> None:
    rules = RULES | {"budgets": BUDGETS}
    site = Site(SiteConfig(models="building", **rules), models(), ("hall", "yard"))
    records = site.run(mixed(600, "hall", "yard"), random.Random(1))
    decisions = [r for r in records if isinstance(r, Decision)]
    assert {r.loaded for r in decisions if r.camera_id == "hall"} == {("lively",)}
    ran = {o.model for o in outputs(records) if o.how == "executed" and o.purpose == "serve"}
    assert ran == {"lively"}


def test_the_set_follows_the_scene_from_period_to_period() -> None:
    def early(frame: Frame) -> int:
        return (frame.index // 4) % 4 if frame.index < 500 else 0

    def late(frame: Frame) -> int:
        return (frame.index // 4) % 4 if frame.index >= 500 else 0

    tiny = [TinyModel.count("early", early), TinyModel.count("late", late)]
    records = run_frames(make_frames("hall", 1800), tiny, **RULES | {"budgets": {"memory_gb": 1.0}})
    loaded = [r.loaded for r in records if isinstance(r, Decision)]
    assert loaded[0] == ("early",) and loaded[-1] == ("late",)
    assert sum(one != other for one, other in pairwise(loaded)) == 1, "once, and not back"


@pytest.mark.parametrize("memory_gb", [1.0, None])
def test_a_scheduler_of_policies_that_decide_on_every_frame_knows_of_no_links(memory_gb: float | None) -> None:
    records = run_frames(make_frames("hall", 400), models(), **RULES | {"budgets": {"memory_gb": memory_gb}})
    decisions = [r for r in records if isinstance(r, Decision)]
    assert decisions and all(not r.link_scores and not r.activation for r in decisions)
    assert all(len(r.loaded) == 4 for r in decisions) == (memory_gb is None)
