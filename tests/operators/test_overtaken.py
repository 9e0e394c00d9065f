"""Frames that a live camera's next frame has overtaken: answered without a model, and judged as any others."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Literal

import pytest

from camlink.models.pool import ModelPool
from camlink.operators.gate import PER_FRAME_POLICIES, Gate
from camlink.operators.inference import InferenceOperator
from camlink.operators.paced_inference import LIVE_QUEUE, PacedInference
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import PolicySetup
from camlink.operators.sampling import FramePlanner, SamplingRules
from camlink.operators.selection import Budget, Costs
from camlink.pipeline.assembly import CameraFacts
from camlink.pipeline.bus.memory import MemoryBus
from camlink.pipeline.clock import ManualClock
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.distributed import inference as process
from camlink.pipeline.graph import GRAPH
from camlink.pipeline.records import Decision, Frame, FrameDropped, FrameResult, OutputReady, Record
from camlink.pipeline.state.memory import MemoryState
from camlink.pipeline.testing import START, TinyModel, make_frames, outputs, run_frames
from camlink.pipeline.worker import Worker
from tests.scenes import USUAL, groups

RULES = USUAL | {"policy": "camlink"}


def models() -> list[TinyModel]:
    return [TinyModel.count("persons", groups), TinyModel.count("bags", lambda f: groups(f) // 2)]


def behind(count: int, of: int = 3) -> list[Frame]:
    """Return frames of a machine that has time for every ``of``-th."""
    return [replace(frame, overtaken=frame.index % of != 0) for frame in make_frames("hall", count)]


def results(records: list[Record], purpose: str) -> list[FrameResult]:
    return [r for r in records if isinstance(r, FrameResult) and r.purpose == purpose]


@pytest.mark.parametrize("policy", PER_FRAME_POLICIES)
def test_every_frame_is_answered_and_no_model_runs_on_overtaken_ones(policy: str) -> None:
    records = run_frames(behind(600), models(), **RULES | {"policy": policy})
    assert set(Counter((o.frame_index, o.model) for o in outputs(records)).values()) == {1}
    assert not any(isinstance(r, FrameDropped) for r in records)
    overtaken = results(records, "overtaken")
    assert 300 < len(overtaken) < 400 and not any(r.executed() for r in overtaken)
    assert all(o.how in ("reused", "abstained") for r in overtaken for o in r.outputs)
    assert all(o.value is not None for r in overtaken for o in r.outputs), "the very first frame was not overtaken"
    spent = sum(len(r.executed()) for r in results(records, "serve"))
    assert 0 < spent <= 0.4 * 2 * 200, "they allow for nothing: what there is time for keeps to the budget"


def test_the_camera_learns_from_as_many_frames_as_ever_and_then_decides() -> None:
    records = run_frames(behind(600), models(), **RULES)
    learnt = [r.frame_index for r in results(records, "profile") if r.captured_at < START + timedelta(minutes=5)]
    usual = results(run_frames(make_frames("hall", 200), models(), **RULES), "profile")
    assert learnt == [3 * place for place in range(len(usual))]
    first = next(r for r in records if isinstance(r, Decision))
    assert first.start == START + timedelta(seconds=learnt[-1]), "not before: overtaken frames teach nothing"


def test_some_are_audited_and_what_would_have_been_served_without_a_model_is_judged() -> None:
    records = run_frames(behind(1500), models(), **RULES)
    audits = [r for r in results(records, "audit") if r.frame_index % 3]
    assert 60 < len(audits) < 140  # a tenth of 1,000
    assert all(len(r.executed()) == 2 for r in audits)
    assert all(Counter(o.served for o in r.outputs) == {True: 2, False: 2} for r in audits), "a shadow for each model"
    assert {r.audit_probability for r in results(records, "overtaken")} == {0.1}


@pytest.mark.parametrize("policy", ["mlink", "all"])
def test_policies_that_cannot_answer_without_a_model_drop_them(policy: str) -> None:
    records = run_frames(behind(300), models(), **RULES | {"policy": policy})
    dropped = [r.first_index for r in records if isinstance(r, FrameDropped) and r.reason == "overload"]
    assert dropped == [index for index in range(300) if index % 3]
    assert {o.frame_index for o in outputs(records)} == {index for index in range(300) if not index % 3}


def test_none_is_answered_while_what_came_before_waits_to_be_learnt_from() -> None:
    """Where not all models fit together; a policy learns from frames in their order."""
    records = run_frames(behind(600), models(), **RULES | {"budgets": {"time_share": 0.4, "memory_gb": 1.0}})
    dropped = {r.first_index for r in records if isinstance(r, FrameDropped)}
    answered = [o.frame_index for o in outputs(records)]
    assert dropped and sorted(dropped | set(answered)) == list(range(600)) and not dropped & set(answered)
    assert sum(index >= 160 for index in dropped) < len(results(records, "overtaken"))
    for result in results(records, "overtaken"):
        waiting = [r for r in results(records, "profile") if r.frame_index < result.frame_index]
        assert all(records.index(r) < records.index(result) for r in waiting)


@pytest.mark.parametrize("behind", ["block", "drop-oldest"])
def test_between_processes_frames_that_wait_for_models_are_delivered_again_after_a_crash(
    behind: Literal["block", "drop-oldest"],
) -> None:
    """A bus knows what is held by the very objects that it delivered."""
    config = SiteConfig(models="building", **RULES | {"budgets": {"time_share": 0.4, "memory_gb": 1.0}})
    bus, state = MemoryBus(), MemoryState()
    operator = process(config, ModelPool(models(), 1.0), {"hall": CameraFacts(1.0)}, state, behind=behind)
    worker = Worker(GRAPH[1], operator, bus, state, ManualClock(), seconds=lambda: 0.0)
    for frame in make_frames("hall", 5):
        bus.publish("frames", frame)
    worker.once()
    worker.checkpoint()
    assert [f.index for f in operator.held() if isinstance(f, Frame)] == list(range(5))
    worker._subscription.rewind()  # type: ignore[attr-defined]  # a crash
    assert [f.index for f in worker._subscription.poll() if isinstance(f, Frame)] == list(range(5))


@pytest.mark.parametrize("policy", PER_FRAME_POLICIES)
def test_between_processes_a_long_backlog_is_answered_however_late_others_settle_it(policy: str) -> None:
    config = SiteConfig(models="building", **RULES | {"policy": policy})
    worker = process(config, ModelPool(models()), {"hall": CameraFacts(1.0)}, MemoryState(), behind="drop-oldest")
    worker.resume("hall", {})
    told = list(worker.on_records(make_frames("hall", 200)))
    for _ in range(LIVE_QUEUE):
        told += worker.on_time(START)
    assert [r.frame_index for r in told if isinstance(r, OutputReady)] == list(range(200))
    assert not any(isinstance(r, FrameDropped) for r in told)


def test_between_processes_frames_are_answered_while_a_decision_is_waited_for() -> None:
    config = SiteConfig(models="building", **RULES | {"links": {"bootstrap_frames": 1}})
    worker = process(config, ModelPool(models()), {"hall": CameraFacts(1.0)}, MemoryState(), behind="drop-oldest")
    worker.resume("hall", {})
    told = [record for frame in make_frames("hall", 2) for record in worker.on_records([frame])]
    assert [r.profile_ends for r in told if isinstance(r, OutputReady)] == [False, True]
    late = list(worker.on_records(make_frames("hall", 30, first=2)))
    answered = [r for r in late if isinstance(r, OutputReady)]
    assert [r.frame_index for r in answered] == list(range(2, 32 - LIVE_QUEUE))
    assert {r.purpose for r in answered} == {"overtaken", "audit"}
    assert not any(isinstance(r, FrameDropped) for r in late) and len(worker.held()) == LIVE_QUEUE


def inference() -> PacedInference:
    """Return inference as a process of its own, with a policy that may execute everything."""
    pool = ModelPool(models())
    costs = Costs({"persons": 10.0, "bags": 10.0}, {"persons": 1.0, "bags": 1.0})
    gate = Gate(lambda camera: PerFrame(PolicySetup(camera, pool.specs, costs, Budget(time_share=1.0))))
    rules = SamplingRules(timedelta(hours=1), 0.0, 0, 0.0, 0, 0)
    operator = InferenceOperator(pool, lambda camera: FramePlanner(camera, rules, 1.0), MemoryState(), gate=gate)
    worker = PacedInference(operator, lambda: 0.0, in_step=False, drops_oldest=True)
    worker.resume("hall", {})
    return worker


def test_between_processes_what_waits_beyond_the_queue_is_overtaken_and_all_stay_in_order() -> None:
    worker = inference()
    everything = ("persons", "bags")
    decision = Decision(
        *("hall", START - timedelta(seconds=1), START + timedelta(hours=1), (), everything, everything),
        *({}, {}, {}, None, "a test"),
        per_frame=True,
    )
    told = list(worker.on_records([decision, *make_frames("hall", 1)]))
    told += worker.on_records(make_frames("hall", LIVE_QUEUE + 20, first=1))
    for _ in range(LIVE_QUEUE + 1):
        told += worker.on_time(START)
    ready = [r for r in told if isinstance(r, OutputReady)]
    assert [r.frame_index for r in ready] == list(range(LIVE_QUEUE + 21))
    assert [r.purpose for r in ready] == ["serve"] + 20 * ["overtaken"] + LIVE_QUEUE * ["serve"]
    assert not worker.held() and not any(isinstance(r, FrameDropped) for r in told)
