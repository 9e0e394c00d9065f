"""Links are learnt among the models that answer: one that is dead, dies or comes back holds up none of the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from camlink.links.inputs import LinkInputs
from camlink.models.base import OutputSpec
from camlink.operators.adaptation import AdaptationOperator, LearningRules
from camlink.operators.relabelling import NoRelabelling, PeriodicRelabelling
from camlink.pipeline.records import (
    AdaptationEvent,
    Decision,
    FrameResult,
    LinkPromotion,
    ModelOutput,
    Purpose,
    Record,
    RelabelRequest,
)
from camlink.pipeline.testing import START, TinyModel, make_frames, run_frames

SPECS = {name: OutputSpec(name, "vector", 1, "count") for name in ("a", "b", "c")}
RULES = LearningRules(first_train_frames=40, retrain_after_frames=30, shadow_frames=12, history_frames=120)


def adaptation() -> AdaptationOperator:
    return AdaptationOperator(SPECS, RULES, NoRelabelling, LinkInputs(SPECS, context=("time_of_day",)))


def result(index: int, models: Iterable[str], purpose: Purpose = "audit") -> FrameResult:
    """Return a frame on which ``models`` answered; they all count the same, in random order."""
    at, value = START + timedelta(seconds=index), np.full(1, index * 7919 % 5, np.float32)
    outputs = tuple(ModelOutput("hall", index, at, model, value, purpose, "executed") for model in models)
    return FrameResult("hall", index, at, purpose, outputs)


def told(records: Iterable[Record], kind: str) -> list[tuple[str, str]]:
    return [(r.target, r.detail) for r in records if isinstance(r, AdaptationEvent) and r.kind == kind]


def fed(operator: AdaptationOperator, start: int, frames: int, models: str) -> list[Record]:
    return [r for i in range(start, start + frames) for r in operator.on_records([result(i, models)])]


def test_a_model_that_is_dead_from_the_start_keeps_the_others_from_no_links() -> None:
    operator = adaptation()
    assert told(fed(operator, 0, 39, "bc"), "promoted") == []
    records = fed(operator, 39, 1, "bc")
    assert told(records, "trained") == [
        (target, "on 40 frames, without a, for want of any answer of late") for target in ("b", "c")
    ]
    assert {r.target for r in records if isinstance(r, LinkPromotion)} == {"b", "c"}
    records = fed(operator, 40, 30, "bc")
    assert [target for target, _ in told(records, "trained")] == ["b", "c"], "retrained, too"
    records = fed(operator, 70, 120, "abc")
    assert [t for t, detail in told(records, "promoted") if detail == "the first version"] == ["a"], "it has come back"
    (trained, *_) = [detail for target, detail in told(records, "trained") if target == "a"]
    assert int(trained.split()[1]) >= RULES.first_train_frames and "without" not in trained


@pytest.mark.parametrize("on_trial", [False, True])
def test_a_model_that_dies_keeps_the_others_from_no_later_links(on_trial: bool) -> None:
    operator = adaptation()
    records = fed(operator, 0, 70 if on_trial else 50, "abc")
    assert {target for target, _ in told(records, "promoted")} == {"a", "b", "c"}
    assert (operator._cameras["hall"].targets["a"].trial is not None) == on_trial
    trained = told(fed(operator, 70, 150, "bc"), "trained")
    assert {target for target, _ in trained} == {"b", "c"}
    assert "without a" in trained[-1][1]
    trained = told(fed(operator, 220, 150, "abc"), "trained")
    assert {target for target, _ in trained} == {"a", "b", "c"}


def test_a_model_that_fails_now_and_then_is_waited_for() -> None:
    operator = adaptation()
    records = [r for i in range(50) for r in operator.on_records([result(i, "bc" if i % 5 == 0 else "abc")])]
    assert told(records, "trained") == [(target, "on 40 frames") for target in "abc"]


def test_where_no_two_models_answer_there_is_nothing_to_link() -> None:
    operator = adaptation()
    assert fed(operator, 0, 200, "a") == []
    assert not operator._cameras["hall"].history


def test_versions_that_no_executed_model_can_speak_for_are_not_scored() -> None:
    """The version on trial was learnt while a was dead; now c is, and a is all there is to predict b from."""
    operator = adaptation()
    fed(operator, 0, 40, "abc")
    fed(operator, 40, 70, "bc")
    trial = operator._cameras["hall"].targets["b"].trial or operator._cameras["hall"].targets["b"].watch
    assert trial is not None and set(trial.new.ensemble.links) == {"c"}
    scored = len(trial.new_scores)
    assert told(fed(operator, 110, 1, "ab"), "trained") == []
    assert len(trial.new_scores) == scored


def test_a_snapshot_keeps_which_models_failed_on_which_frames() -> None:
    one, other = adaptation(), adaptation()
    for i in range(100):
        list(one.on_records([result(i, "abc" if i < 20 else "bc" if i % 3 else "ac")]))
    other.restore("hall", one.snapshot("hall"))
    assert other.snapshot("hall") == one.snapshot("hall")
    alone, after = (told(fed(operator, 100, 80, "bc"), "trained") for operator in (one, other))
    assert after == alone != []


def test_under_mlink_a_dead_model_leaves_the_others_their_links() -> None:
    def people(index: int) -> int:
        return index // 12 % 4

    models = [
        TinyModel.count("objects", lambda f: people(f.index), fails_on=frozenset(range(900))),
        TinyModel.count("persons", lambda f: people(f.index)),
        TinyModel.count("bags", lambda f: people(f.index) // 2),
    ]
    records = run_frames(
        make_frames("hall", 900),
        models,
        policy="mlink",
        period=timedelta(minutes=5),
        links={"bootstrap_frames": 40, "min_train_frames": 40},
        budgets={"time_share": 0.4},
    )
    last = [r for r in records if isinstance(r, Decision)][-1]
    assert last.execute == ("persons",) and "judged on 0 frames" not in last.reason
    served = [o for r in records if isinstance(r, FrameResult) and r.purpose == "serve" for o in r.outputs if o.served]
    bags = [o for o in served if o.model == "bags" and o.captured_at > last.start]
    assert len(bags) > 200 and {o.how for o in bags} == {"linked"}


def test_a_model_that_failed_on_a_frame_is_not_run_on_it_again() -> None:
    operator = AdaptationOperator(SPECS, RULES, lambda: PeriodicRelabelling(timedelta(seconds=1), 5))
    failed = ModelOutput("hall", 0, START, "a", None, "serve", "failed", served=False, reason="broken")
    served = [result(i, "b", "serve") for i in range(40)]
    asked = [r for s in served for r in operator.on_records([replace(s, outputs=(*s.outputs, failed))])]
    assert {r.models for r in asked if isinstance(r, RelabelRequest)} == {("c",)}
