"""Models that go on failing, or cannot be loaded: they are no sources for others, end no run, are tried anew later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TypeGuard

import numpy as np
import pytest

from camlink.links.train import train_ensembles
from camlink.models.base import OutputSpec
from camlink.models.pool import ModelPool
from camlink.operators.gate import TRIES
from camlink.operators.inference import InferenceOperator
from camlink.operators.profiling import LinkScorer
from camlink.operators.sampling import FramePlanner, SamplingRules
from camlink.operators.scheduler import SchedulerOperator
from camlink.operators.selection import Budget, CameraScores, Costs, select
from camlink.operators.snapshots import Snapshot
from camlink.pipeline.assembly import gate_of, sampling_rules
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.records import Decision, Frame, FrameResult, ModelOutput, OutputReady, Record
from camlink.pipeline.state.memory import MemoryState
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


@pytest.mark.parametrize(
    ("policy", "memory_gb"), [("all", None), ("camlink", None), ("camlink", 2.0), ("mlink", None), ("mlink", 2.0)]
)
def test_a_model_that_cannot_be_loaded_ends_no_run(policy: str, memory_gb: float | None) -> None:
    class Gone(TinyModel):
        def load(self) -> None:
            raise OSError("no weights there")

    models = [Gone.count("objects", groups), TinyModel.count("persons", groups), TinyModel.count("bags", groups)]
    budgets = {"memory_gb": memory_gb, **({} if policy == "all" else {"time_share": 0.7})}
    records = run_frames(make_frames("hall", 300), models, **{**USUAL, "budgets": budgets}, policy=policy)
    served = [o for r in records if isinstance(r, FrameResult) for o in r.outputs if o.served]
    assert Counter(o.model for o in served) == dict.fromkeys(("objects", "persons", "bags"), 300)
    assert {o.how for o in served if o.model == "objects"} == {"abstained"}
    assert sum(o.how == "executed" for o in served if o.model != "objects") > 150


def test_another_worker_tries_a_model_anew_that_failed_on_the_first() -> None:
    """Which models fail is in no snapshot: the restart may have been what mends them, and costs a few frames else."""
    config = SiteConfig(models="building", policy="camlink", budgets={"time_share": 0.6}, audit={"fraction": 0.0})
    rules = replace(sampling_rules(config), bootstrap_frames=30, profile_min_frames=0, profile_fraction=0.0)

    def worker(fails: bool) -> InferenceOperator:
        fails_on = frozenset(range(30, 900)) if fails else frozenset()
        models = [TinyModel.count("persons", groups, fails_on=fails_on), TinyModel.count("objects", groups)]
        pool = ModelPool(models)
        gate = gate_of(config, pool)
        return InferenceOperator(pool, lambda camera: FramePlanner(camera, rules, 1.0), MemoryState(), gate=gate)

    def tried(operator: InferenceOperator, frames: Sequence[Frame]) -> list[str]:
        """Return on each frame whether persons was executed, with or without success."""
        ready = [r for frame in frames for r in operator.on_records([frame]) if isinstance(r, OutputReady)]
        return ["ran" if "persons" in r.ran else "failed" if "persons" in r.failed else "" for r in ready]

    first, second = worker(fails=True), worker(fails=False)
    frames, both = make_frames("hall", 300), ("persons", "objects")
    end = START + timedelta(hours=1)
    decision = Decision("hall", START, end, (), both, both, {}, {}, {}, None, "", per_frame=True)
    list(first.on_records(frames[:30]))
    list(first.on_records([decision]))
    assert Counter(tried(first, frames[30:150]))["failed"] == TRIES
    policy = first.policy_of("hall")
    assert policy is not None
    second.resume("hall", first.plan_of("hall"))
    second.resume_policy("hall", policy)
    list(second.on_records([decision]))  # the one in force is read from the topic by each worker that starts
    counts = Counter(tried(second, frames[150:]))
    assert counts["ran"] > 20 and not counts["failed"]


@pytest.mark.parametrize("policy", ["mlink", "mlink-exact", "standalone"])
def test_where_no_model_answers_decisions_do_not_blame_the_budget(policy: str) -> None:
    fails_on = frozenset(range(100, 900))
    models = [TinyModel.count(name, groups, fails_on=fails_on) for name in ("objects", "persons")]
    rules = {**USUAL, "budgets": {"time_share": 0.5}}
    *_, last = (r for r in run_frames(make_frames("hall", 700), models, **rules, policy=policy) if is_decision(r))
    assert last.execute == () and "budget" not in last.reason
    assert "not executed, for want of any answer of late: objects, persons" in last.reason


def is_decision(record: Record) -> TypeGuard[Decision]:
    return isinstance(record, Decision)


@pytest.mark.parametrize("policy", ["periodic", "reducto"])
@pytest.mark.parametrize("dead", ["objects", "bags"])
def test_baselines_are_tuned_on_the_models_that_answer(policy: str, dead: str) -> None:
    """Else nothing is known of any: the first was executed on every frame, and the others never again."""
    models = [
        TinyModel.count(name, groups, fails_on=frozenset(range(900) if name == dead else ()))
        for name in ("objects", "persons", "bags")
    ]
    records = run_frames(make_frames("hall", 500), models, **USUAL, policy=policy)
    served = [o for r in records if isinstance(r, FrameResult) and r.purpose == "serve" for o in r.outputs if o.served]
    frames, ran = len(served) // 3, Counter(o.model for o in served if o.how == "executed")
    assert set(ran) == {"objects", "persons", "bags"} - {dead} and min(ran.values()) > frames / 20
