"""Models that go on failing: under policies that decide per period, they are no sources for others."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import numpy as np
import pytest

from camlink.links.train import train_ensembles
from camlink.models.base import OutputSpec
from camlink.operators.profiling import LinkScorer
from camlink.operators.sampling import SamplingRules
from camlink.operators.scheduler import SchedulerOperator
from camlink.operators.selection import Budget, CameraScores, Costs, select
from camlink.operators.snapshots import Snapshot
from camlink.pipeline.records import Decision, FrameResult, ModelOutput
from camlink.pipeline.testing import START, TinyModel, make_frames, run_frames
from tests.scenes import USUAL, groups


@pytest.mark.parametrize("policy", ["mlink", "mlink-exact"])
def test_the_next_decision_does_without_a_model_that_fails(policy: str) -> None:
    fails = frozenset(range(200, 900))
    models = [
        TinyModel.count("objects", lambda f: [groups(f), 1], size=2, time_ms=20.0),
        TinyModel.count("persons", groups, fails_on=fails),
        TinyModel.count("bags", lambda f: groups(f) // 2),
    ]
    records = run_frames(make_frames("hall", 900), models, **USUAL, policy=policy)
    first, *later = [r for r in records if isinstance(r, Decision)]
    assert first.execute == ("persons",), "or it is not the one that matters"
    assert all("persons" not in decision.execute and decision.execute for decision in later)
    assert all("not executed, for want of any answer of late: persons" in decision.reason for decision in later)
    frames = [r for r in records if isinstance(r, FrameResult) and r.captured_at > later[0].start]
    hows = Counter(o.how for r in frames if r.purpose == "serve" for o in r.outputs)
    assert hows["linked"] > 300 and not hows["abstained"]


def test_another_worker_goes_on_without_a_model_that_fails() -> None:
    specs = {name: OutputSpec(name, "vector", 1, "count") for name in ("a", "b")}
    costs, rules = Costs({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 1.0}), SamplingRules(timedelta(hours=1), 0.0, 5, 0.1, 0)
    one, other = (SchedulerOperator(specs, costs, Budget(time_share=0.7), rules, "mlink") for _ in range(2))

    def profiled(index: int) -> FrameResult:
        at, value = START + timedelta(seconds=index), np.ones(1, np.float32)
        only = ModelOutput("hall", index, at, "b", value, "profile", "executed")
        return FrameResult("hall", index, at, "profile", (only,), profile_ends=index == 4)

    for index in range(4):
        assert list(one.on_records([profiled(index)])) == []
    other.resume_tally("hall", Snapshot.from_bytes(one.tally("hall").to_bytes()))
    for worker in (one, other):
        (decision,) = worker.on_records([profiled(4)])
        assert isinstance(decision, Decision) and decision.execute == ("b",)


@pytest.mark.parametrize("policy", ["mlink", "mlink-exact", "standalone"])
def test_what_fails_on_one_camera_is_executed_on_the_others(policy: str) -> None:
    costs = Costs({"a": 1.0, "b": 2.0, "c": 3.0}, dict.fromkeys("abc", 1.0))
    cameras = {name: CameraScores({}, lambda sources, target: 0.0) for name in ("hall", "yard")}
    budget = Budget(time_share=0.5)
    chosen = select(policy, cameras, costs, budget, {"hall": ["a"]}, failing={"hall": ["a"]})
    assert "a" not in chosen.execute["hall"] and "a" in chosen.execute["yard"]
    assert chosen.execute["hall"]
    alone = {"hall": cameras["hall"]}
    tight = select(policy, alone, costs, Budget(memory_gb=1.0), failing={"hall": ["a"]})
    assert len(tight.loaded) == 1 and "a" not in tight.loaded


def test_links_are_scored_by_the_sources_that_answered() -> None:
    rng = np.random.default_rng(0)
    count = rng.integers(0, 5, (60, 1)).astype(np.float32)
    specs = {name: OutputSpec(name, "vector", 1, "count") for name in ("a", "b", "c")}
    ensembles = train_ensembles(specs, dict.fromkeys(specs, count), seed=0, targets=["c"])
    scorer = LinkScorer(specs)
    for i, value in enumerate(count[:20]):
        there = ("a", "c") if i % 2 else ("a", "b", "c")
        scorer.observe(START + timedelta(seconds=i), dict.fromkeys(there, value), ensembles)
    found = scorer.scores()
    assert found.subset(("a",), "c") == pytest.approx(1.0)
    assert found.subset(("b",), "c") == pytest.approx(0.5), "where it gave nothing, it told nothing"
