"""Alerts: when they are told, how sure they are, and that none is lost on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np

from camlink.models.base import OutputSpec
from camlink.pipeline.alerts.alert import Alert
from camlink.pipeline.alerts.rules import CONFIRM_WITHIN, GAP, TRIES, AlertRules
from camlink.pipeline.config.alerts import AlertRule
from camlink.pipeline.records import CameraEvent, FrameResult, ModelOutput, Record, RelabelRequest
from camlink.pipeline.testing import START

PERSONS = OutputSpec("persons", "vector", 2, "count", ("adult", "child"))
ACTION = OutputSpec("action", "vector", 2, "multi_label", ("normal", "fall"))
SPECS = {"persons": PERSONS, "action": ACTION}
CROWD: dict[str, Any] = {"name": "crowd", "when": "count_above", "model": "persons", "above": 5}


def rule(**fields: Any) -> AlertRule:
    return AlertRule.model_validate({**CROWD, "lasting": "3s", "cool_down": "1min", **fields})


def result(second: float, count: float | None, how: str = "executed", camera: str = "hall", **more: Any) -> FrameResult:
    at = START + timedelta(seconds=second)
    value = None if count is None else np.array([count, 0.0], np.float32)
    purpose = more.pop("purpose", "serve")
    output = ModelOutput(camera, int(second), at, "persons", value, purpose, how, **more)  # type: ignore[arg-type]
    return FrameResult(camera, int(second), at, purpose, (output,))


def watch(found: AlertRule, *records: Record, **more: Any) -> list[Alert | RelabelRequest]:
    return list(AlertRules([found], SPECS, **more).observe(records))


def counts(*values: float | None, how: str = "executed") -> list[FrameResult]:
    return [result(second, value, how) for second, value in enumerate(values)]


def test_a_count_must_stay_above_for_as_long_as_the_rule_says() -> None:
    assert watch(rule(), *counts(6, 6, 6)) == []
    (alert,) = watch(rule(), *counts(6, 6, 6, 7))
    assert isinstance(alert, Alert)
    assert (alert.since, alert.at) == (START, START + timedelta(seconds=3))
    assert (alert.value, alert.how, alert.executed_frames, alert.predicted_frames) == (7.0, "executed", 4, 0)


def test_one_frame_below_starts_it_anew() -> None:
    assert watch(rule(), *counts(6, 6, 5, 6, 6, 6)) == []


def test_a_frame_without_an_answer_neither_breaks_nor_tells() -> None:
    (alert,) = watch(rule(), *counts(6, 6, 6, None, 6))
    assert alert == watch(rule(), *counts(6, 6, 6, None, 6))[0]
    assert isinstance(alert, Alert) and alert.executed_frames == 4
    assert watch(rule(), *counts(6, None, None, None, None)) == []


def test_nothing_is_claimed_across_a_long_gap() -> None:
    late = GAP.total_seconds() + 5.0
    assert watch(rule(), result(0, 9), result(late, 9)) == []


def test_a_camera_is_left_alone_while_it_cools_down_but_others_are_not() -> None:
    hall = counts(*[9] * 60)
    assert len(watch(rule(), *hall)) == 1
    assert len(watch(rule(), *counts(*[9] * 70))) == 2
    both = watch(rule(), *hall, *(result(second, 9, camera="yard") for second in range(4)))
    assert [alert.camera_id for alert in both] == ["hall", "yard"]


def test_a_clock_that_is_set_back_silences_no_rule_until_it_is_there_again() -> None:
    ahead, now = [result(36000 + second, 9) for second in range(10)], counts(*[9] * 10)
    early, late = watch(rule(), *ahead, *now)
    assert (early.at, late.at) == (START + timedelta(seconds=36003), START + timedelta(seconds=3))  # type: ignore[union-attr]
    assert [found.at for found in watch(rule(), *ahead[:2], *now)] == [START + timedelta(seconds=3)]  # type: ignore[union-attr]
    down = rule(when="camera_down", model=None, above=None)
    events = [CameraEvent("hall", START + timedelta(hours=10), "down", "no frame")]
    (told,) = watch(down, *events, *(replace(one, camera_id="yard") for one in now))
    assert isinstance(told, Alert) and told.camera_id == "hall"
    asks = watch(rule(confirm=True), *(result(36000 + s, 9, how="linked") for s in range(5)), *counts(*[9] * 9))
    assert [type(found) for found in asks] == [RelabelRequest, Alert]


def test_a_rule_about_some_cameras_is_about_those() -> None:
    assert watch(rule(cameras=["yard"]), *counts(9, 9, 9, 9)) == []


def test_a_label_is_counted_or_seen_alone() -> None:
    assert watch(rule(label="child"), *counts(9, 9, 9, 9)) == []
    fall = rule(name="fall", when="label_seen", model="action", label="fall", above=None)
    seen = [
        replace(r, outputs=(replace(r.outputs[0], model="action", value=np.array([0.9, 0.6], np.float32)),))
        for r in counts(1, 1, 1, 1)
    ]
    (alert,) = watch(fall, *seen)
    assert isinstance(alert, Alert) and alert.detail == "action gives fall"


def test_a_predicted_value_is_told_as_such_with_what_is_known_of_its_accuracy() -> None:
    linked = [result(second, 9, "linked", confidence=0.8) for second in range(4)]
    (alert,) = watch(rule(), *linked)
    assert isinstance(alert, Alert)
    assert (alert.how, alert.confidence, alert.predicted_frames, alert.agreement) == ("predicted", 0.8, 4, None)


def audits(agree: bool, number: int = 60) -> list[FrameResult]:
    """Audit frames on which the shadow prediction is, or is not, what the model says; counts stay low."""
    made = []
    for second in range(-number, 0):
        served = result(second, 1, purpose="audit", audit_probability=0.5)
        shadow = replace(
            served.outputs[0], how="linked", served=False, value=np.array([1.0 if agree else 4.0, 0.0], np.float32)
        )
        made.append(replace(served, outputs=(served.outputs[0], shadow), audit_probability=0.5))
    return made


def test_two_models_that_miss_their_targets_on_one_frame_are_two_events() -> None:
    """Receivers and the outbox leave out what has an id that they know."""

    def both(result: FrameResult) -> FrameResult:
        other = tuple(replace(output, model="people") for output in result.outputs)
        return replace(result, outputs=(*result.outputs, *other))

    below = AlertRule.model_validate({"name": "target", "when": "target_not_met", "lasting": "1s"})
    specs = {"persons": PERSONS, "people": replace(PERSONS, model="people")}
    told = AlertRules([below], specs, lambda camera, model: 0.9).observe(map(both, audits(agree=False)))
    ids = {alert.id: alert.model for alert in told if isinstance(alert, Alert)}
    assert set(ids.values()) == {"persons", "people"}


def test_an_alert_states_the_agreement_that_was_measured_with_its_interval() -> None:
    (alert,) = watch(rule(), *audits(agree=True), *counts(9, 9, 9, 9, how="linked"))
    assert isinstance(alert, Alert) and alert.agreement is not None
    told = json.loads(alert.to_json())["agreement"]
    assert told["audits"] == 60 and told["low"] < told["estimate"] <= told["high"]


def test_a_target_is_told_of_only_when_the_whole_interval_lies_below_it() -> None:
    below = AlertRule.model_validate({"name": "target", "when": "target_not_met", "lasting": "1s"})
    wrong = watch(below, *audits(agree=False), targets=lambda camera, model: 0.9)
    assert isinstance(wrong[0], Alert) and wrong[0].how == "measured" and "below the target of 90.0%" in wrong[0].detail
    assert watch(below, *audits(agree=True), targets=lambda camera, model: 0.9) == []
    assert watch(below, *audits(agree=False), targets=lambda camera, model: None) == []


def test_a_camera_that_stays_down_is_told_of_without_any_further_record() -> None:
    down = AlertRule.model_validate({"name": "down", "when": "camera_down", "lasting": "20s"})
    rules = AlertRules([down], SPECS)
    assert list(rules.observe([CameraEvent("gate", START, "down", "no frame")])) == []
    assert list(rules.on_time(START + timedelta(seconds=19))) == []
    (alert,) = rules.on_time(START + timedelta(seconds=20))
    assert isinstance(alert, Alert) and (alert.kind, alert.detail) == ("camera_down", "no frame")
    assert list(rules.on_time(START + timedelta(seconds=500))) == []


def test_a_camera_that_recovers_in_time_is_not_told_of() -> None:
    down = AlertRule.model_validate({"name": "down", "when": "camera_down", "lasting": "20s"})
    later = START + timedelta(seconds=10)
    rules = AlertRules([down], SPECS)
    list(rules.observe([CameraEvent("gate", START, "down", ""), CameraEvent("gate", later, "recovered", "")]))
    assert list(rules.on_time(START + timedelta(hours=1))) == []


def test_confirming_asks_for_an_execution_of_the_deciding_frame_and_tells_what_it_says() -> None:
    rules = AlertRules([rule(confirm=True)], SPECS)
    (asked,) = rules.observe(counts(9, 9, 9, 9, how="linked"))
    assert isinstance(asked, RelabelRequest) and (asked.frame_index, asked.models) == (3, ("persons",))
    (alert,) = rules.observe([result(3, 8, purpose="relabel", served=False)])
    assert isinstance(alert, Alert)
    assert (alert.how, alert.value, alert.confirmed) == ("executed", 8.0, "by execution")


def test_what_an_execution_refutes_is_not_told() -> None:
    rules = AlertRules([rule(confirm=True)], SPECS)
    assert len(list(rules.observe(counts(9, 9, 9, 9, how="linked")))) == 1
    assert list(rules.observe([result(3, 2, purpose="relabel", served=False)])) == []
    assert list(rules.observe([result(4 + i, 9, "linked") for i in range(3)])) == []  # it must last anew


def test_an_executed_value_needs_no_confirmation() -> None:
    (alert,) = watch(rule(confirm=True), *counts(9, 9, 9, 9))
    assert isinstance(alert, Alert) and alert.confirmed == "not asked"


def test_an_alarm_that_cannot_be_confirmed_is_told_in_the_end_and_says_so() -> None:
    rules = AlertRules([rule(confirm=True)], SPECS)
    step = int(CONFIRM_WITHIN.total_seconds()) + 1
    found = list(rules.observe(result(second, 9, "linked") for second in range((TRIES + 1) * (step + 2))))
    asked = [one for one in found if isinstance(one, RelabelRequest)]
    (alert,) = [one for one in found if isinstance(one, Alert)]
    assert len(asked) == TRIES
    assert (alert.how, alert.confirmed) == ("predicted", "not possible")
