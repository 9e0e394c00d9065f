"""What is said of stated confidence: how far it is off, how far by chance, and what a threshold would leave."""

from __future__ import annotations

import re

import numpy as np
import pytest

from camlink.operators.selection import Budget
from camlink.pipeline.lab.page import render
from camlink.pipeline.lab.tally import BINS, answers_by_confidence, calibration_error, calibration_error_by_chance
from tests.lab_traces import random_trace
from tests.pipeline.test_lab import rows_of


@pytest.mark.parametrize("answers", [60, 600, 6000])
def test_the_calibration_error_by_chance_is_what_perfect_answers_show_on_average(answers: int) -> None:
    rng, shown, expected = np.random.default_rng(answers), [], []
    for _ in range(200):
        confidence = rng.beta(6.0, 2.0, answers)
        place = (confidence * BINS).astype(int)
        right = rng.random(answers) < confidence
        stated = np.stack([np.bincount(place, w, BINS) for w in (np.ones(answers), confidence, right)], axis=1)
        shown.append(calibration_error(stated))
        expected.append(calibration_error_by_chance(stated))
    assert np.mean(expected) == pytest.approx(np.mean(shown), rel=0.1)
    assert calibration_error_by_chance(np.zeros((BINS, 3))) is None


def test_what_is_left_when_unsure_answers_abstain_is_their_share_and_agreement() -> None:
    stated = np.zeros((BINS, 3))
    for confidence, agreed in ((0.45, 0.0), (0.6, 1.0), (0.6, 0.0), (0.9, 1.0)):
        stated[int(confidence * BINS)] += (1.0, confidence, agreed)
    found = answers_by_confidence(stated)
    assert found is not None
    assert found["0.5"] == {"share": 0.75, "agreement": pytest.approx(2 / 3)}
    assert found["0.6"] == found["0.5"], "an answer that is just sure enough stays"
    assert found["0.9"] == {"share": 0.25, "agreement": 1.0}
    assert found["0.95"] == {"share": 0.0, "agreement": None}
    assert answers_by_confidence(np.zeros((BINS, 3))) is None


def test_a_page_shows_it_for_those_that_state_confidence_and_only_for_these() -> None:
    trace = random_trace(3, 120, 3)
    rows = [rows_of(trace, policy, Budget(time_share=0.25)) for policy in ("camlink", "periodic")]
    (table,) = re.findall(r"less sure ones abstain.*?</table>", render(rows), re.DOTALL)
    assert re.findall(r"<tr><td>(.*?)</td>", table) == ["camlink"]
    left = rows[0]["answers_by_least_confidence"]["0.5"]
    assert f"{100 * left['agreement']:.1f} / {100 * left['share']:.0f}" in table
    assert rows[1]["answers_by_least_confidence"] is None
