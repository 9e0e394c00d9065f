"""What a report says of each model in plain words, by its figures."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from camlink.pipeline.reports.notes import _agreement_sentence, note
from camlink.pipeline.reports.rows import CameraRows

NOTHING_PREDICTED: dict[str, Any] = {
    "mean": 1.0,
    "abstained": 0,
    "predicted_only": {"mean": None},
    "answers_only": None,
}


def figure(mean: float, low: float, high: float, constant: float, frames: int = 100) -> dict[str, Any]:
    baselines = {"constant": constant, "hourly_mode": constant, "persistence": 0.1}
    figures: Mapping[str, Any] = {
        "abstained": 0,
        "mean": mean,
        "low": low,
        "high": high,
        "audit_frames": frames,
        "baselines": baselines,
        "leads": {name: {"low": mean - b - 0.05, "high": mean - b + 0.05} for name, b in baselines.items()},
    }
    return {**figures, "predicted_only": figures, "answers_only": None}


def outputs(served: int = 100, predicted: int = 60, abstained: int = 0, nothing_fits: int = 0) -> dict[str, Any]:
    counts = {"served": served, "predicted": predicted, "abstained": abstained, "nothing_fits": nothing_fits}
    return {**counts, "usual_reason": "because"}


@pytest.mark.parametrize(
    ("agreement", "verdict", "words"),
    [
        (figure(0.9, 0.85, 0.95, 0.5), "better", "Predictions beat"),
        (figure(0.9, 0.85, 0.95, 0.88), "similar", "may be chance"),
        (figure(0.9, 0.85, 0.95, 0.9), "similar", "No better than"),
        (figure(0.9, 0.85, 0.95, 0.93), "similar", "predicting persons shows no gain"),
        (figure(0.9, 0.85, 0.95, 0.99), "worse", "predictions of persons are not worth using"),
        (figure(0.9, 0.85, 0.95, 0.5, frames=5), "few", "too few to judge"),
    ],
)
def test_each_model_is_judged_in_plain_words(agreement: dict[str, Any], verdict: str, words: str) -> None:
    judged = note("persons", agreement, outputs())
    assert judged["verdict"] == verdict
    assert words in judged["text"]
    assert "links" not in judged["text"].lower(), "a policy that decides on every frame predicts without them"


def test_a_model_that_abstained_is_never_called_executed_throughout() -> None:
    text = note("persons", NOTHING_PREDICTED, outputs(predicted=0, abstained=30))["text"]
    assert "Executed throughout" not in text
    assert "Abstained on 30 of 100 outputs (30.0 %)." in text
    assert "Executed throughout" in note("persons", NOTHING_PREDICTED, outputs(predicted=0))["text"]


def test_predictions_that_no_audit_frame_met_are_not_called_executed() -> None:
    judged = note("persons", NOTHING_PREDICTED, outputs(predicted=60))
    assert judged == {"verdict": "unmeasured", "text": "Not measured: predicted, but on no audit frame."}


@pytest.mark.parametrize(("frames", "judged"), [(7, ": too few audit frames to judge."), (60, ".")])
def test_a_headline_holds_few_answers_against_no_baseline(frames: int, judged: str) -> None:
    agreement = figure(0.8, 0.4, 0.9, 0.9, frames=frames)
    agreement["answers_only"] = figure(1.0, 0.7, 1.0, 0.9, frames=frames)
    said = _agreement_sentence(agreement, "95 % interval")
    assert "no answer counting as wrong. Where it answered without executing, 100.0 % agreed" in said
    assert said.endswith(f"the best baseline, gives 90.0 % there{judged}")


def test_a_model_that_mostly_abstains_says_why() -> None:
    judged = note("persons", figure(0.0, 0.0, 0.1, 0.5) | {"abstained": 12}, outputs(predicted=0, abstained=90))
    assert judged["verdict"] == "abstained"
    assert "abstained on 12 audit frames" in judged["text"]
    assert "because" in judged["text"]


def test_a_budget_that_no_model_fits_is_blamed_on_the_budget_and_not_on_links() -> None:
    judged = note(
        "persons",
        figure(0.0, 0.0, 0.1, 0.5) | {"abstained": 12},
        outputs(predicted=0, abstained=90, nothing_fits=80),
    )
    assert judged["verdict"] == "budget"
    assert judged["text"].startswith("Budget too small")
    assert "not worth" not in judged["text"]


def test_only_a_decision_that_executes_nothing_means_that_nothing_fits() -> None:
    start = datetime(2026, 3, 2, tzinfo=UTC)
    decisions = [
        {"start": start + timedelta(minutes=a), "end": start + timedelta(minutes=b), "execute": execute, "reason": ""}
        for a, b, execute in ((1, 2, []), (3, 4, ["persons"]))
    ]
    camera = CameraRows("hall", {}, 0, decisions, [], [], [])
    minutes = np.array([0.5, 1.0, 1.5, 2.5, 3.5, 5.0])
    times_us = int(start.timestamp()) * 1_000_000 + (minutes * 60e6).astype(np.int64)
    assert camera.without_executions(times_us).tolist() == [False, True, True, False, False, False]
    anew = replace(camera, decisions=[decision | {"per_frame": True} for decision in decisions])
    assert not anew.without_executions(times_us).any(), "what is chosen on every frame is in no decision"
