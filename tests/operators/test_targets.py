"""Targets: what provably falls short is executed, tried on, and taken back when it is good again; never silently."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from camlink.operators.evidence import Certificate
from camlink.operators.selection import Budget, CameraScores, Costs, select
from camlink.operators.targets import Standing, TargetWatch, spared, trials
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Decision, Frame, FrameResult, ModelOutput, Record
from camlink.pipeline.testing import START, TinyModel, make_frames, outputs, run_frames
from tests.scenes import crowd

RULES: dict[str, Any] = {
    "period": timedelta(minutes=5),
    "links": {"bootstrap_frames": 60, "min_train_frames": 60},
    "audit": {"fraction": 0.2},
    "adaptation": {"policy": "off"},
    "budgets": {"time_share": 0.34},
    "policy": "mlink-exact",
    "targets": {"action": 0.9},
}
TOMORROW = START + timedelta(days=1)


def models(**more: Any) -> list[TinyModel]:
    """What the action is (a count here) cannot be told from 300 to 2000; before and after it follows the persons."""

    def action(frame: Frame) -> int:
        astray = 300 <= frame.index < 2000
        return frame.index * 7919 % 11 + 3 if astray else crowd(frame) // 2

    return [
        TinyModel.count("objects", lambda f: [crowd(f), crowd(f) % 2], size=2),
        TinyModel.count("persons", crowd),
        TinyModel.count("action", action, **more),
    ]


def two_days() -> list[Frame]:
    return make_frames("hall", 2000) + make_frames("hall", 900, start=TOMORROW, first=2000)


def decisions(records: list[Record]) -> list[Decision]:
    return [r for r in records if isinstance(r, Decision)]


@pytest.fixture(scope="module")
def run() -> list[Record]:
    return run_frames(two_days(), models(), **RULES)


def test_a_model_that_provably_misses_its_target_is_executed_from_the_next_decision_on(run: list[Record]) -> None:
    states = [d.target_states["action"] for d in decisions(run)]
    assert states[0] == "not known"
    first = states.index("not met")
    decided = decisions(run)[first]
    assert "action" in decided.execute
    assert "target not met, so executed: action" in decided.reason
    figures = decided.certificates["action"]
    assert figures["high"] < figures["target"] == 0.9
    served = [o for o in outputs(run) if o.model == "action" and decided.start < o.captured_at < TOMORROW]
    assert len(served) > 1000
    assert {o.how for o in served} == {"executed"}


def test_budgets_hold_also_where_targets_press(run: list[Record]) -> None:
    assert all(d.budget["time_share_used"] <= 0.34 for d in decisions(run))


def test_trials_are_made_on_audit_frames_only_and_never_served(run: list[Record]) -> None:
    tried = [o for o in outputs(run, served=None) if (o.reason or "").startswith("on trial")]
    assert len(tried) > 30
    assert {(o.purpose, o.served, o.model) for o in tried} == {("audit", False, "action")}
    held = [r for r in run if isinstance(r, FrameResult) and r.purpose == "audit" and r.trial]
    assert len(tried) == len(held)


def test_links_that_are_good_again_are_found_out_on_trial_and_predict_again(run: list[Record]) -> None:
    later = [d for d in decisions(run) if d.start >= TOMORROW]
    assert later[0].target_states["action"] == "not met"  # a new day proves nothing yet
    assert "action" in later[0].execute
    assert later[-1].target_states["action"] != "not met"
    assert not later[-1].trial


def test_a_budget_without_room_is_said_rather_than_hidden() -> None:
    tight = {**RULES, "budgets": {"time_share": 0.34}}
    records = run_frames(make_frames("hall", 2000), models(time_ms=60.0), **tight)
    told = [d for d in decisions(records) if d.target_states["action"] == "not met"]
    assert told
    assert all("the budgets leave no room: action" in d.reason and not d.trial for d in told)


def test_without_targets_decisions_say_nothing_of_them() -> None:
    rules = {key: value for key, value in RULES.items() if key != "targets"}
    records = run_frames(make_frames("hall", 700), models(), **rules)
    assert all(not (d.target_states or d.certificates or d.trial) for d in decisions(records))


def test_another_worker_takes_over_what_was_not_met() -> None:
    specs = {m.spec.model: m.spec for m in models()}
    watch = TargetWatch("hall", specs, lambda camera, model: 0.9, timedelta(hours=1))
    told = Decision("hall", START, START, (), (), (), {}, {}, {}, None, "", {"action": "not met", "persons": "met"})
    watch.resume(told)
    assert watch.not_met() == ("action",)


def test_a_frame_that_comes_late_after_midnight_begins_no_new_day() -> None:
    spec = models()[1].spec
    watch = TargetWatch("hall", {"persons": spec}, lambda camera, model: 0.9, timedelta(hours=1))

    def audited(index: int, second: int) -> FrameResult:
        at, value = TOMORROW.replace(hour=0) + timedelta(seconds=second), np.ones(1, np.float32)
        truth = ModelOutput("hall", index, at, "persons", value, "audit", "executed")
        shadow = ModelOutput("hall", index, at, "persons", value, "audit", "linked", served=False)
        return FrameResult("hall", index, at, "audit", (truth, shadow), 0.1)

    for index, second in enumerate([0, 10, 20, -5, 30]):
        watch.observe(audited(index, second))
    assert watch.certificates()["persons"].audits == 5


def test_a_clock_that_is_set_back_by_days_begins_a_day_anew() -> None:
    spec = models()[1].spec
    watch = TargetWatch("hall", {"persons": spec}, lambda camera, model: 0.9, timedelta(hours=1))
    for index, day in enumerate([400, 400, 0, 0, 0, 1, 1]):
        at, value = START + timedelta(days=day), np.ones(1, np.float32)
        truth = ModelOutput("hall", index, at, "persons", value, "audit", "executed")
        shadow = ModelOutput("hall", index, at, "persons", value, "audit", "linked", served=False)
        watch.observe(FrameResult("hall", index, at, "audit", (truth, shadow), 0.1))
    assert watch.certificates()["persons"].audits == 2, "those of the last day"


def scores(table: dict[tuple[str, ...], dict[str, float]]) -> CameraScores:
    return CameraScores({}, lambda sources, target: table.get(sources, {}).get(target, 0.0))


def standing(state: str) -> Standing:
    return Standing(0.9, Certificate(0.95, 0.92, 0.97, 300, 9000), state)  # type: ignore[arg-type]


COSTS = Costs({"a": 1.0, "b": 5.0, "c": 9.0}, {"a": 1.0, "b": 1.0, "c": 1.0})
GOOD = scores({("a",): {"b": 0.95, "c": 0.93}, ("b",): {"a": 0.95, "c": 0.5}})


@pytest.mark.parametrize(
    ("states", "left"),
    [
        ({"a": "not known", "b": "not known", "c": "met"}, ("a",)),  # b is dearer, and a alone does for all
        ({"a": "not known", "b": "not met", "c": "met"}, ("a", "b")),
        ({"a": "not known", "b": "not known", "c": "not known"}, ("a", "b")),
        ({"a": "not known", "c": "met"}, ("a", "b")),  # b has no target that could take it back
    ],
)
def test_a_model_is_spared_only_while_all_predictions_are_proven(states: dict[str, str], left: tuple[str, ...]) -> None:
    assert spared(("a", "b"), {m: standing(s) for m, s in states.items()}, GOOD, COSTS) == left


def test_nothing_is_spared_where_nothing_was_ever_predicted() -> None:
    assert spared(("a", "b", "c"), {m: standing("met") for m in "abc"}, GOOD, COSTS) == ("a", "b", "c")


def test_trials_use_what_would_be_executed_otherwise_and_never_the_model_itself() -> None:
    assert trials(("b", "c"), ("b",), ("a",)) == {"b": ("a",)}
    assert trials(("b",), ("a", "b"), ("a", "b")) == {"b": ("a",)}
    assert trials(("b",), ("b", "c"), ("b",)) == {"b": ("c",)}
    assert trials(("b",), ("b",), ("b",)) == {}


@pytest.mark.parametrize("policy", ["mlink", "mlink-exact"])
def test_urgent_models_come_first_within_the_budget(policy: str) -> None:
    cameras = {"hall": scores({}), "yard": scores({})}
    chosen = select(policy, cameras, COSTS, Budget(time_share=0.65), {"hall": ["c"]})
    assert "c" in chosen.execute["hall"]
    assert all(COSTS.time(e) <= 0.65 * 15 for e in chosen.execute.values())
    too_dear = select(policy, cameras, COSTS, Budget(time_share=0.5), {"hall": ["c"]})
    assert "c" not in too_dear.execute["hall"]
    assert np.isfinite(too_dear.expected["hall"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda told, parts: told.pop("failed"),
        lambda told, parts: told.update(start="yesterday"),
        lambda told, parts: parts.clear(),
        lambda told, parts: parts.update({"certificate/action": b"\0" * 80}),
        lambda told, parts: parts.update({"certificate/action": b"odd"}),
    ],
)
def test_a_state_that_cannot_be_read_is_refused_and_changes_nothing(spoil: Any, run: list[Record]) -> None:
    specs = {model.spec.model: model.spec for model in models()}
    watches = [TargetWatch("hall", specs, lambda camera, model: 0.9, timedelta(minutes=5)) for _ in range(2)]
    for watch in watches:
        for record in run:
            if isinstance(record, FrameResult):
                watch.observe(record)
    parts: dict[str, bytes] = {}
    told = watches[0].put_state(parts)
    assert "certificate/action" in parts
    spoil(told, parts)
    with pytest.raises(StateError, match="not a snapshot"):
        watches[1].get_state(told, parts)
    assert watches[1].standings() == watches[0].standings()
