"""A latency limit: what models may take on one frame, by their costs on recordings and by the clock on live frames."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camlink.models.pool import ModelPool
from camlink.operators.allowance import Allowance, Turns
from camlink.operators.baselines.drls import reuse_age
from camlink.operators.baselines.mlink import choose_by
from camlink.operators.baselines.options import Option, within_memory
from camlink.operators.gate import PER_FRAME_POLICIES
from camlink.operators.inference import InferenceOperator
from camlink.operators.loaded_set import CameraProspects, choose_loaded
from camlink.operators.loading import Telling, what_fits
from camlink.operators.policy import MindsLatency, PolicySetup
from camlink.operators.sampling import FramePlanner
from camlink.operators.selection import Budget, CameraScores, Costs, budget_costs, select
from camlink.operators.worth import Outlook
from camlink.pipeline.assembly import CameraFacts, gate_of, sampling_rules
from camlink.pipeline.clock import ManualClock
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.distributed import inference
from camlink.pipeline.records import Decision, Frame, FrameDropped, FrameResult, OutputReady, Record, Settled
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.state.memory import MemoryState
from camlink.pipeline.testing import START, TinyModel, make_frames, outputs, run_frames
from tests.scenes import groups

COSTS = Costs({"a": 10.0, "b": 30.0, "c": 50.0}, {"a": 1.0, "b": 1.0, "c": 1.0})
TIME_MS = {"objects": 40.0, "persons": 20.0, "bags": 20.0}
BOOTSTRAP = 20
RULES: dict[str, Any] = {
    "links": {"bootstrap_frames": BOOTSTRAP, "min_train_frames": BOOTSTRAP},
    "audit": {"fraction": 0.0},
    "period": timedelta(days=1),
    "profile": {"fraction": 0.0, "min_frames": 1},
    "adaptation": {"policy": "off"},
    "policy": "camlink",
}


def models(clock: ManualClock | None = None, slower: float = 1.0) -> list[TinyModel]:
    """Return counters that take their time by ``clock``, or ``slower`` times as long as they cost."""

    def taking(time_ms: float, answer: Any) -> Any:
        def run(frame: Frame) -> Any:
            if clock is not None:
                clock.advance(slower * time_ms / 1000.0)
            return answer(frame)

        return run

    answers = {"objects": groups, "persons": groups, "bags": lambda f: groups(f) // 2}
    return [TinyModel.count(m, taking(TIME_MS[m], answer), time_ms=TIME_MS[m]) for m, answer in answers.items()]


# What a limit on each frame means beside a share of the time in the long run


def test_a_fixed_set_keeps_to_both_limits_and_the_long_run_only_to_its_share() -> None:
    tight, loose = Budget(time_share=0.5, latency_ms=30.0), Budget(time_share=0.5, latency_ms=60.0)
    assert (tight.time_ms(COSTS), tight.long_run_ms(COSTS)) == (30.0, 45.0)
    assert (loose.time_ms(COSTS), loose.long_run_ms(COSTS)) == (45.0, 45.0)
    assert tight.in_time(COSTS) == ("a", "b") and Budget().in_time(COSTS) == ("a", "b", "c")
    cameras = {"hall": CameraScores({}, lambda sources, target: 0.5)}
    for policy in ("mlink", "mlink-exact", "standalone"):
        assert COSTS.time(select(policy, cameras, COSTS, tight).execute["hall"]) <= 30.0
    assert budget_costs(COSTS, Budget(memory_gb=9.0, latency_ms=50.0)) == {"a": 1 / 3, "b": 0.6, "c": 1.0}


def test_what_no_frame_has_time_for_is_neither_chosen_nor_loaded() -> None:
    limit = Budget(memory_gb=2.0, latency_ms=30.0)
    always = {m: [Option(0.0, 0.0, False), Option(ms / 10.0, 1.0, True)] for m, ms in COSTS.time_ms.items()}
    chosen = within_memory(always, COSTS, limit)
    assert {m: o.how for m, o in chosen.items()} == {"a": True, "b": True, "c": False}
    assert what_fits({"a": 0.1, "b": 0.2, "c": 0.9}, COSTS, limit) == {"a", "b"}
    outlooks = {m: Outlook(0.9 if m == "c" else 0.5, 0.5, 0.95, 0.1, ms) for m, ms in COSTS.time_ms.items()}
    usual = dict.fromkeys(COSTS.models, 0.1)
    camera = CameraProspects(Telling(usual, {}).prospects(outlooks, usual), COSTS, limit)
    assert choose_loaded({"hall": camera}, COSTS, limit) == {"a", "b"}
    costs = Costs({"a": 10.0, "c": 12.0}, {"a": 1.0, "c": 1.0})
    scores = CameraScores({"c": {"a": 1.0}}, lambda sources, target: float("c" in sources))
    for policy in ("mlink", "mlink-exact"):  # not even the cheapest is paid for on every frame: the best one, paced
        assert choose_by(policy)(scores, costs, Budget(time_share=0.05)) == ("c",)
        assert choose_by(policy)(scores, costs, Budget(time_share=0.05, latency_ms=11.0)) == ("a",)


def test_how_old_repeated_values_are_follows_from_the_tighter_limit() -> None:
    ages = [
        reuse_age(PolicySetup("hall", {}, COSTS, Budget(time_share=share, latency_ms=limit)))
        for share, limit in ((0.25, None), (0.25, 9.0), (None, 9.0), (None, None))
    ]
    assert ages == [2, 5, 5, 1]


# The purse


@given(
    st.floats(1.0, 100.0),
    st.one_of(st.none(), st.floats(0.05, 1.0)),
    st.floats(0.0, 20.0),
    st.lists(st.lists(st.sampled_from("abc"), max_size=6), max_size=40),
)
def test_no_frame_is_ever_spent_more_on_than_the_limit(
    limit: float, share: float | None, load_ms: float, wanted: list[list[str]]
) -> None:
    allowance = Allowance(COSTS, Budget(memory_gb=2.0, time_share=share, latency_ms=limit), load_ms)
    for number, frame in enumerate(wanted, start=1):
        allowance.next_frame()
        before = allowance.spent_ms
        for model in frame:
            if allowance.affords(model):
                allowance.spend(model)
        assert allowance.spent_ms - before <= limit + 1e-3
        assert share is None or allowance.spent_ms <= share * 90.0 * number + 1e-3
        assert allowance.room_ms == pytest.approx(limit - (allowance.spent_ms - before))


def test_credit_buys_no_more_on_one_frame_and_a_new_frame_has_room_again() -> None:
    allowance = Allowance(COSTS, Budget(time_share=0.5, latency_ms=40.0))
    for _ in range(10):
        allowance.next_frame()
    assert allowance.affords_all(("a", "b")) and not allowance.affords_all(("a", "c"))
    assert not allowance.affords("c"), "too slow for any frame, whatever was saved"
    allowance.spend("a")
    allowance.spend("b")
    assert not allowance.affords("a") and allowance.left_ms == pytest.approx(410.0)
    allowance.next_frame()
    assert allowance.affords("a")


def test_what_a_set_needs_in_the_coming_frames_knows_the_limit() -> None:
    allowance = Allowance(COSTS, Budget(latency_ms=40.0))
    allowance.next_frame()
    allowance.spend("a")
    allowance.spend("b")
    assert allowance.frames_held(("a", "b"), 100) == 100
    assert Allowance(COSTS, Budget(latency_ms=39.0)).frames_held((), 100) == 100
    assert allowance.frames_until(90.0, ("a",)) == float("inf"), "a frame on which all execute never comes"
    tight = Allowance(COSTS, Budget(latency_ms=10.0), load_ms=0.0)
    for model in ("a", "b"):
        tight.spend(model)
    assert tight.frames_held(("a", "b"), 100) == 0


def test_what_the_clock_says_takes_the_place_of_what_models_cost() -> None:
    allowance = Allowance(COSTS, Budget(latency_ms=100.0))
    allowance.within(35.0)  # told before the frame's first choice
    allowance.next_frame()
    assert [m for m in COSTS.models if allowance.affords(m)] == ["a", "b"]
    allowance.spend("b")
    assert not allowance.affords("a"), "until the clock is looked at again"
    allowance.within(12.0)  # it was faster than it costs
    assert allowance.affords("a")
    allowance.within(-3.0)
    assert not any(map(allowance.affords, COSTS.models))


def test_what_does_not_fit_any_more_leaves_its_place_and_credit_is_still_waited_for() -> None:
    allowance = Allowance(COSTS, Budget(latency_ms=60.0))
    turns, ran = Turns(allowance), dict[str, Any]()
    while (model := turns.next(ran, lambda: ["c", "b", "a"])) is not None:
        ran[model] = 0
    assert list(ran) == ["c", "a"]
    saving = Turns(Allowance(COSTS, Budget(time_share=0.5)))  # 45 ms on the first frame
    assert saving.next({}, lambda: ["c", "a"]) is None, "what is due first is saved for"


# Live frames: waiting counts


class Site:
    """An inference operator for one camera after its bootstrap, on a clock that only models and waiting move."""

    def __init__(self, limit_ms: float | None, slower: float = 1.0, **rules: Any) -> None:
        config = SiteConfig(models="building", budgets={"latency_ms": limit_ms}, **RULES | rules)
        self.clock = ManualClock(START)
        pool = ModelPool(models(self.clock, slower))
        gate = gate_of(config, pool, self.clock)
        sampling = sampling_rules(config)
        self.operator = InferenceOperator(pool, lambda c: FramePlanner(c, sampling, 1.0), MemoryState(), None, gate)
        self.index = BOOTSTRAP + 1  # the last one is the period's profile frame
        for frame in make_frames("hall", self.index, fps=10.0):
            list(self.operator.on_records([frame]))
        self.decide()

    def decide(self, execute: tuple[str, ...] = ()) -> None:
        """Put a decision in force: ``execute`` have to, for their targets."""
        list(self.operator.on_records([decision(self.clock.now(), execute)]))

    def frame(self, waited_s: float) -> OutputReady:
        """Run a frame that was captured so long ago."""
        self.clock.advance(10.0)
        at = self.clock.now() - timedelta(seconds=waited_s)
        (ready,) = self.operator.on_records([Frame("hall", self.index, at, make_frames("hall", 1)[0].pixels)])
        assert isinstance(ready, OutputReady) and ready.purpose == "serve"
        self.index += 1
        assert set(ready.predict) == set(TIME_MS) - set(ready.ran) == {a.model for a in ready.answers}
        return ready


def decision(start: datetime, execute: tuple[str, ...] = ()) -> Decision:
    names = tuple(TIME_MS)
    left = tuple(m for m in names if m not in execute)
    day = timedelta(days=1)
    return Decision("hall", start, start + day, execute, left, names, {}, {}, {}, None, "every frame", per_frame=True)


@pytest.mark.parametrize("policy", PER_FRAME_POLICIES)
def test_a_frame_that_has_waited_too_long_executes_nothing_and_is_answered_and_a_fresh_one_executes(
    policy: str,
) -> None:
    site = Site(100.0, policy=policy)
    ran = [site.frame(waited_s).ran for waited_s in (0.0, 5.0, 0.2, 0.0, 0.15, 0.0)]
    assert [bool(models) for models in ran] == [True, False, False, True, False, True]
    assert set(ran[0]) == set(TIME_MS), "80 ms fit into 100"


@pytest.mark.parametrize("policy", PER_FRAME_POLICIES)
@given(waits_ms=st.lists(st.floats(0.0, 120.0), min_size=1, max_size=12))
def test_what_executes_is_done_within_the_limit_of_its_capture(policy: str, waits_ms: list[float]) -> None:
    site = Site(100.0, policy=policy)
    for waited_ms in waits_ms:
        ready = site.frame(waited_ms / 1000.0)
        done_ms = 1000.0 * (site.clock.now() - ready.captured_at).total_seconds()
        assert done_ms <= 100.0 + 1e-2 or not ready.ran
        assert ready.ran or waited_ms > 100.0 - min(TIME_MS.values()) - 1e-2, "as long as one fits, one executes"


def test_models_that_prove_slower_than_they_cost_are_stopped_by_the_clock() -> None:
    assert len(Site(100.0).frame(0.0).ran) == 3
    assert len(Site(100.0, slower=2.2).frame(0.0).ran) == 2  # two of 20 ms take 88: the clock says 12 are left


def test_what_has_to_execute_for_its_target_is_not_executed_late_either() -> None:
    site = Site(100.0)
    for execute in (("objects",), tuple(TIME_MS)):
        site.decide(execute)
        assert set(site.frame(0.0).ran) == set(TIME_MS)
        assert site.frame(0.5).ran == ()
    unlimited = Site(None)
    unlimited.decide(("objects",))
    assert "objects" in unlimited.frame(0.5).ran


def overtaken_and_executed(limit_ms: float | None) -> tuple[int, int]:
    """Send 400 frames in 20 s to a worker that needs 80 ms for one and gets one every 50 ms; count from half on."""
    clock = ManualClock(START)
    config = SiteConfig(models="building", budgets={"latency_ms": limit_ms}, **RULES)
    worker = inference(
        *(config, ModelPool(models(clock)), {"hall": CameraFacts(20.0)}, MemoryState()),
        seconds=lambda: clock.now().timestamp(),
        behind="drop-oldest",
        clock=clock,
    )
    worker.resume("hall", {})
    coming, overtaken, executed = deque(make_frames("hall", 400, fps=20.0)), 0, 0
    records: list[Record] = []
    while coming or worker.held():
        while coming and coming[0].captured_at <= clock.now():
            records.append(coming.popleft())
        given, records = list(worker.on_records(records)), []
        for record in given:
            if isinstance(record, OutputReady):
                records.append(Settled("hall", record.frame_index, record.captured_at))
            if isinstance(record, OutputReady) and record.profile_ends:
                records.append(decision(record.captured_at))
            if isinstance(record, FrameDropped):
                raise AssertionError(record)
            if isinstance(record, OutputReady) and record.frame_index >= 200:
                executed += len(record.ran)
                overtaken += record.purpose == "overtaken"
        if not given:
            clock.advance(0.005)
    return overtaken, executed


def test_under_a_limit_there_is_no_backlog_of_live_frames_that_is_overtaken() -> None:
    overtaken, executed = overtaken_and_executed(150.0)
    assert overtaken == 0 and executed > 200
    assert overtaken_and_executed(None)[0] > 50


def test_recorded_frames_have_not_waited_since_they_were_taken(caplog: pytest.LogCaptureFixture) -> None:
    ran = {}
    for recorded in (True, False):
        config = SiteConfig(models="building", budgets={"latency_ms": 150.0}, **RULES)
        worker = inference(
            *(config, ModelPool(models()), {"hall": CameraFacts(20.0)}, MemoryState()),
            behind="drop-oldest",
            clock=ManualClock(START + timedelta(days=400)),
            recorded=recorded,
        )
        worker.resume("hall", {})
        ran[recorded] = 0
        caplog.clear()
        for frame in make_frames("hall", 100):
            for record in worker.on_records([frame]):
                if isinstance(record, OutputReady):
                    ran[recorded] += len(record.ran) * (record.purpose == "serve")
                    list(worker.on_records([Settled("hall", record.frame_index, record.captured_at)]))
                    if record.profile_ends:
                        list(worker.on_records([decision(record.captured_at)]))
        told = [line for line in caplog.messages if "so that no model can be in time" in line]
        assert len(told) == (0 if recorded else 1), "once per camera, and only where age counts"
    assert ran[False] == 0 < ran[True]


def test_a_live_session_counts_by_the_clock_of_its_cameras(tmp_path: Path) -> None:
    ran = {}
    for live in (True, False):  # frames of long ago
        config = SiteConfig(models="building", budgets={"latency_ms": 100.0}, **RULES)
        records: list[Record] = []
        session = Session(
            *(config, ModelPool(models()), {"hall": Camera("default", "0", 1.0)}, tmp_path / str(live)),
            live=live,
            listeners=[lambda seen, kept=records: kept.extend(seen) or ()],  # type: ignore[misc]
        )
        session.run(make_frames("hall", 60, start=START - timedelta(days=400)), lambda: {"hall": 60})
        served = [r for r in records if isinstance(r, FrameResult) and r.purpose == "serve"]
        ran[live] = sum(o.how == "executed" for r in served for o in r.outputs)
    assert ran[True] == 0 < ran[False]


# Recordings: only what models cost counts


@pytest.mark.parametrize("policy", PER_FRAME_POLICIES)
def test_a_replay_keeps_to_the_limit_by_the_models_costs_and_repeats_itself(policy: str) -> None:
    rules = RULES | {"policy": policy, "budgets": {"latency_ms": 45.0}, "audit": {"fraction": 0.1}}
    records = run_frames(make_frames("hall", 400), models(), **rules)
    costs = [
        sum(TIME_MS[o.model] for o in r.outputs if o.how == "executed")
        for r in records
        if isinstance(r, FrameResult) and r.purpose == "serve"
    ]
    assert 0.0 < max(costs) <= 45.0
    audited = [r for r in records if isinstance(r, FrameResult) and r.purpose in ("audit", "profile")]
    assert all({o.model for o in r.outputs if o.served and o.how == "executed"} == set(TIME_MS) for r in audited)
    again = run_frames(make_frames("hall", 400), models(), **rules)
    rows = [[(o.frame_index, o.model, o.how, o.value.tolist()) for o in outputs(run)] for run in (records, again)]  # type: ignore[union-attr]
    assert rows[0] == rows[1]


def test_decisions_state_the_limit() -> None:
    rules = RULES | {"budgets": {"latency_ms": 30.0, "time_share": 0.5}}
    decisions = [r for r in run_frames(make_frames("hall", 400), models(), **rules) if isinstance(r, Decision)]
    assert decisions and all(d.budget["latency_ms"] == 30.0 and d.budget["time_share"] == 0.5 for d in decisions)
    assert all("within 50% of the time, each done within 30 ms" in d.reason for d in decisions)


@pytest.mark.parametrize("policy", PER_FRAME_POLICIES)
def test_every_policy_that_runs_live_minds_the_clock(policy: str) -> None:
    gate = gate_of(SiteConfig(models="building", policy=policy), ModelPool(models()))
    assert gate is not None and isinstance(gate._policy("hall"), MindsLatency)
