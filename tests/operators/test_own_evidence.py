"""What a model's own outputs tell beside the last level: how sure it was, and what it says at this time of day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camlink.models.base import OutputSpec
from camlink.models.detection_arrays import detection_arrays
from camlink.models.trace_arrays import TraceArrays
from camlink.operators import own_evidence
from camlink.operators.gate import Gate
from camlink.operators.own_evidence import OwnEvidence, chance_to_count
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import PolicySetup
from camlink.operators.selection import Budget
from camlink.pipeline.lab.play import play, split
from camlink.pipeline.lab.tally import calibration_error
from camlink.pipeline.records import Detections, ModelOutput, Value
from tests.lab_traces import random_trace, setup_of, trace_of

PERSONS = OutputSpec("persons", "vector", 1, "count", ("person",))
SCENE = OutputSpec("scene", "vector", 3, "single_label", ("a", "b", "c"))
USUAL = np.full((1, 4), 0.25)


def boxes(*scores: float, classes: object = None) -> Detections:
    found = np.zeros(len(scores), np.int32) if classes is None else np.array(classes, np.int32)
    return Detections(np.zeros((len(scores), 4), np.float32), np.array(scores, np.float32), found)


def count(*of: float) -> Value:
    return np.array(of, np.float32)


def told(own: OwnEvidence, sure: object, holds: float = 1.0) -> list[float]:
    known = own.known(USUAL, np.array([0]), 0.5, sure, holds, 0.0)  # type: ignore[arg-type]
    assert known.tells
    return [float(x) for x in known.features[1]]


@given(st.lists(st.floats(0.01, 0.99), min_size=1), st.floats(0.1, 0.9))
def test_the_surer_a_box_the_likelier_it_counts_again(scores: list[float], confidence: float) -> None:
    chance = chance_to_count(np.sort(np.array(scores)), confidence)
    assert (np.diff(chance) >= 0.0).all() and chance.min() > 0.0 and chance.max() < 1.0
    assert chance_to_count(np.array([confidence]), confidence) == pytest.approx(0.5)


def test_a_count_of_sure_boxes_stands_and_one_of_unsure_boxes_may_be_another() -> None:
    own = OwnEvidence(PERSONS)
    sure = told(own, own.read(count(2.0), boxes(0.9, 0.8)))
    assert max(range(4), key=sure.__getitem__) == 2 and sure[2] > sure[1] + 2.0
    unsure = told(own, own.read(count(2.0), boxes(0.9, 0.27, 0.24)))
    assert unsure[2] < unsure[1] + 1.0
    assert told(own, own.read(count(2.0), boxes(0.9, 0.8)), holds=0.0) == [0.0] * 4, "what is gone tells nothing"


def test_each_class_has_a_count_of_its_own() -> None:
    own = OwnEvidence(OutputSpec("vehicles", "vector", 2, "count", ("car", "bus")))
    read = own.read(count(1.0, 2.0), boxes(0.9, 0.8, 0.9, 0.2, classes=[0, 1, 1, 7]))
    assert read is not None
    np.testing.assert_allclose(read[0], [0.97, 1.93], atol=0.05)


@pytest.mark.parametrize("found", [None, boxes(0.9)])
def test_counts_without_boxes_or_with_too_few_tell_nothing(found: Detections | None) -> None:
    own = OwnEvidence(PERSONS)
    assert own.read(count(2.0), found) is None
    assert not own.known(USUAL, np.array([0]), 0.5, None, 1.0, 0.0).tells


def test_the_confidence_at_which_boxes_count_is_found_out() -> None:
    own, rng = OwnEvidence(PERSONS), np.random.default_rng(0)
    assert own.confidence == 0.25
    for _ in range(60):
        scores = rng.uniform(0.1, 0.95, 5)
        own.read(count(float((scores >= 0.6).sum())), boxes(*scores))
    assert own.confidence == pytest.approx(0.6, abs=0.03)


def test_a_label_that_won_narrowly_tells_less_than_one_that_won_clearly() -> None:
    own = OwnEvidence(SCENE)
    narrow, clear = (own.read(count(*of), None) for of in ((0.45, 0.4, 0.15), (0.9, 0.05, 0.05)))
    assert narrow is not None and clear is not None
    assert clear[0, 0] - clear[0, 1] > narrow[0, 0] - narrow[0, 1] > 0.0


def test_labels_that_are_no_chances_tell_nothing() -> None:
    assert OwnEvidence(SCENE).read(count(4.0, -1.0, 7.0), None) is None


def test_a_model_that_is_told_to_count_from_another_score_on_is_believed() -> None:
    own, rng = OwnEvidence(PERSONS), np.random.default_rng(0)
    for confidence in (0.3, 0.6):
        for _ in range(300):
            scores = rng.uniform(0.1, 0.95, 5)
            own.read(count(float((scores >= confidence).sum())), boxes(*scores))
        assert own.confidence == pytest.approx(confidence, abs=0.05)


def test_what_is_said_at_an_hour_counts_from_the_second_day_on() -> None:
    own = OwnEvidence(PERSONS)
    for hour in range(24):
        for minute in range(0, 60, 5):
            own.take(np.array([3 if 8 <= hour < 18 else 0]), 3600.0 * hour + 60.0 * minute)
    at, noon, night = (own.known(USUAL, np.array([0]), 0.5, None, 1.0, 3600.0 * hour) for hour in (23, 36, 26))
    assert not at.tells and noon.tells and night.tells
    assert noon.features[2].argmax() == 3 and night.features[2].argmax() == 0
    assert noon.features[2][3] - noon.features[2][0] > 1.0


def flickering(seed: int) -> TraceArrays:
    """Two models that see one thing surely, and another whose score wanders about the confidence."""
    rng, frames = np.random.default_rng(seed), 1200
    values, drawn = {}, {}
    for model in ("near", "far"):
        wander = np.zeros(frames)
        for i in range(1, frames):
            wander[i] = 0.99 * wander[i - 1] + rng.normal(0.0, 0.2)
        scores = 1.0 / (1.0 + np.exp(-(wander + rng.normal(0.0, 0.5, frames) - 1.0986)))
        values[model] = 1.0 + (scores >= 0.25)
        drawn[model] = detection_arrays([[[0, 0, 1, 1, 0.9, 0], [0, 0, 1, 1, score, 0]] for score in scores])
    trace = trace_of(values, {"near": 30.0, "far": 20.0})
    return replace(trace, cameras=(replace(trace.cameras[0], detections=drawn),))


def test_scores_help_to_tell_what_a_count_will_be() -> None:
    gained, off = [], []
    for seed in range(3):
        trace = flickering(seed)
        blind = replace(trace, cameras=(replace(trace.cameras[0], detections={}),))
        (agreed, error), (without, error_without) = (played(t) for t in (trace, blind))
        gained.append(agreed - without)
        off.append(error_without - error)
    assert np.mean(gained) > 0.005 and min(gained) > -0.01
    assert np.mean(off) > -0.02


def played(trace: TraceArrays) -> tuple[float, float]:
    """Return agreement and calibration error of the policy."""
    (camera,) = trace.cameras
    tally = play(camera, PerFrame, setup_of(trace, Budget(time_share=0.3)), split(camera, 1e9), name="camlink")
    error = calibration_error(np.asarray(tally.stated))
    assert error is not None
    return float(tally.agreed.sum() / tally.frames.sum() / len(trace.models)), float(error)


def test_hours_help_where_days_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, frames = np.random.default_rng(1), 24 * 6 * 12
    hours = np.arange(frames) / 6 % 24
    values = {
        m: rng.poisson(np.where((hours > 7) & (hours < 19), at, 0.2)).clip(0, 6) for m, at in (("a", 3), ("b", 1))
    }
    trace = trace_of(values, {"a": 30.0, "b": 30.0}, step_s=600.0)
    with_hours, _ = played(trace)
    monkeypatch.setattr(own_evidence, "DAY_S", inf)
    without, _ = played(trace)
    assert with_hours > without + 0.005


class Listener:
    """A policy that executes the first model on each frame, and writes down what it is shown."""

    def __init__(self, setup: PolicySetup) -> None:
        self.first = next(iter(setup.specs))
        self.shown: list[dict[str, int]] = []

    def begin(self, frame: object) -> None: ...

    def choose(self, executed: Mapping[str, Value]) -> str | None:
        return None if executed else self.first

    def answer(self, executed: Mapping[str, Value]) -> dict[str, object]:
        return {}

    def found(self, detections: Mapping[str, Detections]) -> None:
        self.shown.append({m: len(found.scores) for m, found in detections.items()})

    def learn(self, executed: Mapping[str, Value], *, chosen: bool) -> None: ...


def test_a_policy_is_shown_the_boxes_of_what_executed_and_no_others() -> None:
    trace = random_trace(0, 40, 2, with_detections=True)
    (camera,), made = trace.cameras, []

    def make(setup: PolicySetup) -> Listener:
        made.append(Listener(setup))
        return made[0]

    play(camera, make, setup_of(trace, Budget()), split(camera, 1e9), name="listener")  # type: ignore[arg-type]
    shown = made[0].shown
    assert len(shown) == 40
    assert all(set(s) == {"m0", "m1"} for s in shown[:4]) and all(set(s) == {"m0"} for s in shown[4:])
    assert [s["m0"] for s in shown] == [len(camera.detections["m0"].at(row).scores) for row in range(40)]


def test_in_the_pipeline_policies_are_shown_boxes_too() -> None:
    listener, now = Listener(setup_of(random_trace(0, 5, 1), Budget())), datetime(2026, 1, 1, tzinfo=UTC)
    gate = Gate(lambda _: listener)  # type: ignore[arg-type,return-value]
    output = ModelOutput("cam", 0, now, "persons", count(1.0), "serve", "executed", served=True)
    gate.learn("cam", [replace(output, detections=boxes(0.9, 0.2)), replace(output, model="scene")], chosen=True)
    assert listener.shown == [{"persons": 2}]
