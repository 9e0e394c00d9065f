"""Policies that decide on every frame, in the whole pipeline."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

import numpy as np
import pytest

from camlink.models.pool import ModelPool
from camlink.operators.certificates import Ledger
from camlink.operators.evidence import certify
from camlink.operators.gate import PER_FRAME_POLICIES, UNKNOWN, Gate
from camlink.operators.policy import Answer, FramePolicy
from camlink.operators.sampling import FramePlan
from camlink.pipeline.assembly import check_budgets
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.errors import ConfigError
from camlink.pipeline.records import Decision, Frame, FrameResult, Purpose, Record, Value
from camlink.pipeline.testing import TinyModel, make_frames, outputs, run_frames
from tests.scenes import USUAL, groups

RULES: dict[str, Any] = USUAL | {"policy": "camlink"}


def models(**more: Any) -> list[TinyModel]:
    return [
        TinyModel.count("objects", lambda f: [groups(f), 1], size=2, time_ms=20.0),
        TinyModel.count("persons", groups),
        TinyModel.count("bags", lambda f: groups(f) // 2, **more),
    ]


def served(records: list[Record]) -> Counter[tuple[str, int, str]]:
    return Counter((o.camera_id, o.frame_index, o.model) for o in outputs(records))


def on_serve_frames(records: list[Record]) -> list[FrameResult]:
    return [r for r in records if isinstance(r, FrameResult) and r.purpose == "serve"]


@pytest.mark.parametrize("policy", PER_FRAME_POLICIES)
def test_every_model_is_served_once_per_frame_within_the_budget(policy: str) -> None:
    records = run_frames(make_frames("hall", 500), models(), **RULES | {"policy": policy})
    assert len(served(records)) == 500 * 3
    assert set(served(records).values()) == {1}
    cost = {"objects": 20.0, "persons": 10.0, "bags": 10.0}
    frames = on_serve_frames(records)
    spent = sum(cost[o.model] for r in frames for o in r.outputs if o.how == "executed")
    audits = sum(isinstance(r, FrameResult) and r.purpose == "audit" for r in records)
    assert 0 < spent <= 0.4 * 40.0 * (len(frames) + audits) + 1e-6  # audit frames bring their share, too


def test_decisions_say_that_every_frame_is_decided_on() -> None:
    decisions = [r for r in run_frames(make_frames("hall", 400), models(), **RULES) if isinstance(r, Decision)]
    assert decisions
    assert all(d.per_frame and not d.execute and "every frame" in d.reason for d in decisions)


def test_audit_frames_serve_the_truth_and_keep_what_the_policy_would_have_said() -> None:
    records = run_frames(make_frames("hall", 800), models(), **RULES)
    audits = [r for r in records if isinstance(r, FrameResult) and r.purpose == "audit"]
    shadows = [o for r in audits for o in r.outputs if not o.served]
    assert len(audits) > 30 and len(shadows) > 20
    assert all(o.how in ("reused", "linked") and o.audit_probability == 0.1 for o in shadows)
    assert all(
        {o.model for o in r.outputs if o.served and o.how == "executed"} == {"objects", "persons", "bags"}
        for r in audits
    )


def test_what_was_chosen_to_execute_says_what_was_expected_of_answering_without() -> None:
    expected = re.compile(r"without executing, disagreement of (\d+\.\d) % was expected")
    records = run_frames(make_frames("hall", 400), models(), **RULES)
    executed = [o for r in on_serve_frames(records) for o in r.outputs if o.how == "executed"]
    told = [float(expected.fullmatch(o.reason or "").group(1)) for o in executed]  # type: ignore[union-attr]
    assert told and min(told) < 5.0 < max(told)
    assert all(o.reason is None for o in outputs(records) if o.purpose == "profile" or o.how in ("linked", "reused"))
    silent = run_frames(make_frames("hall", 400), models(), **RULES | {"policy": "periodic"})
    assert all(o.reason is None for o in outputs(silent) if o.how == "executed"), "it expects nothing"


def test_a_model_that_fails_is_answered_for_and_stops_nothing() -> None:
    records = run_frames(make_frames("hall", 400), models(fails_on=frozenset(range(100, 400))), **RULES)
    assert set(served(records).values()) == {1}
    assert all(o.how != "executed" for o in outputs(records) if o.model == "bags" and o.frame_index >= 100)
    assert any(o.how == "executed" for o in outputs(records) if o.model == "persons" and o.frame_index >= 300)


@pytest.mark.parametrize("first", [0, 100])
def test_a_model_that_goes_on_failing_takes_no_turns_of_others(first: int) -> None:
    records = run_frames(make_frames("hall", 600), models(fails_on=frozenset(range(first, 600))), **RULES)
    served = [o for r in on_serve_frames(records) for o in r.outputs if o.frame_index >= 200]
    executed = Counter(o.model for o in served if o.how == "executed")
    assert executed["persons"] > 100 and not executed["bags"]
    assert all(o.how != "abstained" for o in served if o.model != "bags")


def test_a_model_that_answers_again_is_chosen_again() -> None:
    records = run_frames(make_frames("hall", 900), models(fails_on=frozenset(range(100, 400))), **RULES)
    bags = [o for r in on_serve_frames(records) for o in r.outputs if o.model == "bags" and o.how == "executed"]
    assert any(o.frame_index < 100 for o in bags) and any(o.frame_index >= 450 for o in bags)


def test_periodic_comes_round_to_others_while_a_model_fails() -> None:
    rules = RULES | {"policy": "periodic"}
    records = run_frames(make_frames("hall", 600), models(fails_on=frozenset(range(200, 600))), **rules)
    late = [o for r in on_serve_frames(records) for o in r.outputs if o.how == "executed" and o.frame_index >= 300]
    assert len(late) > 100


def test_failures_on_audit_frames_do_not_count_as_wrong_answers() -> None:
    failing = frozenset(range(100, 1500, 5))
    records = run_frames(make_frames("hall", 1500), models(fails_on=failing), **RULES)
    ledger = Ledger({m.spec.model: m.spec for m in models()}, timedelta(hours=1))
    frames = [r for r in records if isinstance(r, FrameResult) and r.purpose in ("serve", "audit")]
    for result in frames:
        ledger.observe(result)
    predicted = [o for r in frames for o in r.outputs if o.served and o.model == "bags" and o.how != "executed"]
    assert {o.how for o in predicted} == {"linked", "reused"}
    certificate = certify(ledger.evidence(model="bags"))
    right = [float(o.value[0]) == (o.frame_index // 12) % 4 // 2 for o in predicted if o.value is not None]
    assert certificate.low is not None and certificate.high is not None
    assert certificate.low <= float(np.mean(right)) <= certificate.high


def test_models_that_do_not_fit_together_are_never_chosen_together() -> None:
    records = run_frames(make_frames("hall", 400), models(), **RULES | {"budgets": {"memory_gb": 2.0}})
    assert set(served(records).values()) == {1}
    for result in on_serve_frames(records):
        assert sum(o.how == "executed" for o in result.outputs) <= 2


def lonely(frame: Frame) -> int:
    """Return what nothing else tells of: it changes faster than full frames are run, if not all models fit."""
    return (frame.index // 50) % 3


@pytest.mark.parametrize("policy", ["camlink", "mlink-exact"])
def test_where_not_all_models_fit_audits_judge_what_is_served_and_nothing_fresher(policy: str) -> None:
    functions = {"objects": groups, "persons": groups, "bags": lonely}
    tiny = [TinyModel.count(name, function) for name, function in functions.items()]
    rules = RULES | {"budgets": {"memory_gb": 1.0}, "policy": policy}
    records = run_frames(make_frames("hall", 3000), tiny, **rules)
    agreed: dict[str, list[bool]] = {"serve": [], "audit": []}
    for result in (r for r in records if isinstance(r, FrameResult)):
        frame = make_frames("hall", 1, first=result.frame_index)[0]
        for o in result.outputs:
            if o.how != "executed":
                right = o.value is not None and round(float(o.value[0])) == functions[o.model](frame)
                agreed[result.purpose].append(right)
    served, judged = (sum(each) / len(each) for each in agreed.values())
    assert len(agreed["audit"]) > 150 and served < 0.9
    assert judged == pytest.approx(served, abs=0.08)  # some 280 audits of outputs that repeat: two standard errors


def test_where_not_all_models_fit_one_that_is_not_loaded_is_learnt_of_on_full_frames() -> None:
    functions = {"objects": groups, "persons": groups, "bags": lambda frame: 3 - groups(frame)}
    tiny = [TinyModel.count(name, function) for name, function in functions.items()]
    rules = RULES | {"budgets": {"memory_gb": 1.0, "time_share": 0.34}}
    records = run_frames(make_frames("hall", 600), tiny, **rules)
    rows = [o for r in on_serve_frames(records) for o in r.outputs]
    assert not [o for o in rows if o.how == "abstained"]
    executed = {o.model for o in rows if o.how == "executed"}
    others = [o for o in rows if o.model not in executed]
    frames = {f.index: f for f in make_frames("hall", 600)}
    right = [
        round(float(o.value[0])) == functions[o.model](frames[o.frame_index]) for o in others if o.value is not None
    ]
    assert len(executed) == 1 and sum(right) > 0.97 * len(others)


@pytest.mark.parametrize("purpose", ["serve", "audit"])
def test_a_model_without_an_answer_abstains_on_audit_frames_as_a_shadow(purpose: Purpose) -> None:
    class Silent:
        def answer(self, executed: Mapping[str, Value]) -> dict[str, Answer]:
            return {"persons": Answer(np.ones(1, np.float32), "reused", 0.9)}

    gate, (frame,) = Gate(lambda camera_id: cast("FramePolicy", Silent())), make_frames("hall", 1)
    rows = gate.answer(frame, FramePlan(purpose, 0.1), (), ["persons", "bags"], {})
    assert [(o.model, o.how, o.reason, o.audit_probability) for o in rows] == [
        ("persons", "reused", None, 0.1),
        ("bags", "abstained", UNKNOWN, 0.1),
    ]
    assert {o.served for o in rows} == {purpose == "serve"}


def test_baselines_ask_for_memory_for_all() -> None:
    config = SiteConfig(models="building", policy="reducto", budgets={"memory_gb": 2.0})
    with pytest.raises(ConfigError, match="policy reducto holds all models at once"):
        check_budgets(config, ModelPool(models(), 2.0))


@pytest.mark.parametrize("policy", PER_FRAME_POLICIES)
def test_a_share_below_the_cheapest_model_is_saved_up_for(policy: str) -> None:
    rules = RULES | {"policy": policy, "budgets": {"time_share": 0.1}}
    check_budgets(SiteConfig(models="building", **rules), ModelPool(models()))
    records = run_frames(make_frames("hall", 400), models(), **rules)
    ran = Counter(o.model for r in on_serve_frames(records) for o in r.outputs if o.how == "executed")
    assert ran.keys() == {"objects", "persons", "bags"} and set(served(records).values()) == {1}


def test_what_is_loaded_for_a_small_share_is_what_fits_and_executes_now_and_then() -> None:
    rules = RULES | {"budgets": {"time_share": 0.1, "memory_gb": 2.0}}
    check_budgets(SiteConfig(models="building", **rules), ModelPool(models(), 2.0))
    records = run_frames(make_frames("hall", 600), models(), **rules)
    decisions = [r for r in records if isinstance(r, Decision)]
    ran = Counter(o.model for r in on_serve_frames(records) for o in r.outputs if o.how == "executed")
    assert decisions and all(len(d.loaded) == 2 and not d.execute for d in decisions)
    assert ran and set(ran) == {m for d in decisions for m in d.loaded}


def test_a_repeating_policy_says_when_it_is_never_to_execute(caplog: pytest.LogCaptureFixture) -> None:
    rules = RULES | {"policy": "periodic", "budgets": {"time_share": 1e-4}}
    run_frames(make_frames("hall", 100), models(), **rules)
    (warning,) = (r.getMessage() for r in caplog.records if r.name.endswith("repeating"))
    assert warning.startswith('camera "hall": Periodic executes no model any more')


def test_a_target_that_is_not_met_has_its_model_executed() -> None:
    noisy = [
        TinyModel.count("objects", lambda f: (f.index * 7919) % 5, time_ms=20.0),
        TinyModel.count("persons", lambda f: (f.index * 104729) % 7),
        TinyModel.count("bags", lambda f: (f.index * 1299709) % 11),
    ]
    rules = RULES | {"targets": {"objects": 1.0}, "audit": {"fraction": 0.4}, "budgets": {"time_share": 0.6}}
    records = run_frames(make_frames("hall", 1200), noisy, **rules)
    forced = [r for r in records if isinstance(r, Decision) and "objects" in r.execute]
    assert forced
    late = [r for r in on_serve_frames(records) if r.captured_at > forced[0].start]
    ran = [any(o.model == "objects" and o.how == "executed" for o in r.outputs) for r in late]
    assert sum(ran) > 0.8 * len(ran)
