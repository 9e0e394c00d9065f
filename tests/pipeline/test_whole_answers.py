"""How often a whole answer was right, beside an agreement that is a mean over entries."""

from __future__ import annotations

import numpy as np
import pytest

from camlink.models.base import OutputSpec
from camlink.pipeline.accuracy import ABSTAINED, EXECUTES, PREDICTED, AuditRows, AuditScores, Executions, score_audit
from camlink.pipeline.reports.notes import whole_words
from camlink.pipeline.whole_answers import WholeAnswers, whole_answers

COUNTS = OutputSpec("objects", "vector", 10, "count", tuple(f"class {i}" for i in range(10)))


def scored(spec: OutputSpec, persons: list[int], shadow: list[int]) -> AuditScores:
    """Score predictions of no person at all, by a model that saw ``persons`` and nothing else."""
    frames = len(persons)
    executed = np.zeros((frames, spec.size), np.float32)
    executed[:, 0] = persons
    times = np.arange(frames, dtype=np.int64) * 1_000_000
    audit = AuditRows(
        np.arange(frames), times, executed, np.zeros_like(executed), np.array(shadow, np.int8), np.full(frames, 0.1)
    )
    found = score_audit(spec, audit, Executions(times, executed))
    assert found is not None
    return found


def test_one_wrong_entry_of_ten_makes_a_wrong_answer() -> None:
    scores = scored(COUNTS, [0, 2, 0, 2], [PREDICTED] * 4)
    assert scores.camlink.mean() == pytest.approx(0.95), "the mean over entries hides that every second frame is wrong"
    # The first frame finds baselines that know nothing; then constant says 0, persistence what was before.
    assert whole_answers(COUNTS, [scores]) == WholeAnswers(4, 2, {"constant": 1, "hourly_mode": 1, "persistence": 0})


def test_executed_outputs_do_not_count_and_abstained_ones_are_wrong() -> None:
    found = whole_answers(COUNTS, [scored(COUNTS, [0, 0, 0], [EXECUTES, ABSTAINED, PREDICTED])])
    assert found is not None and (found.frames, found.right) == (2, 1)
    assert whole_answers(COUNTS, [scored(COUNTS, [0], [EXECUTES])]) is None


@pytest.mark.parametrize(("task", "size"), [("count", 1), ("single_label", 3), ("regression", 2)])
def test_an_answer_of_one_entry_has_no_second_figure(task: str, size: int) -> None:
    spec = OutputSpec("other", "vector", size, task, tuple(f"entry {i}" for i in range(size)))
    assert whole_answers(spec, [scored(spec, [0, 1], [PREDICTED] * 2)]) is None
    assert whole_words(None) == ""
