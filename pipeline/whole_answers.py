"""On how many audit frames a prediction was right in every entry: what a mean over mostly zero entries does not tell.

Of a detector's 80 counts most are zero on every frame and agree whatever is said of the others, so that an agreement of
94 % may stand beside a wrong count of persons on every second frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from camlink.models.base import OutputSpec
from camlink.pipeline.accuracy import BASELINES, EXECUTES, AuditScores

TASKS = ("count", "multi_label")  # whose agreement is a share of entries


@dataclass(frozen=True)
class WholeAnswers:
    """Counts of audit frames with a prediction: how many, and on how many camlink and each baseline erred nowhere."""

    frames: int
    right: int
    baselines: Mapping[str, int]

    def __add__(self, other: WholeAnswers) -> WholeAnswers:
        baselines = {name: right + other.baselines[name] for name, right in self.baselines.items()}
        return WholeAnswers(self.frames + other.frames, self.right + other.right, baselines)


def whole_answers(spec: OutputSpec, parts: Iterable[AuditScores]) -> WholeAnswers | None:
    """Count the whole answers of a model's predicted outputs; None without any, or where an answer is one entry."""
    if spec.task not in TASKS or spec.size < 2:
        return None
    total = WholeAnswers(0, 0, dict.fromkeys(BASELINES, 0))
    for scores in parts:
        predicted = scores.shadow != EXECUTES
        baselines = {name: int((scores.baselines[name][predicted] == 1.0).sum()) for name in BASELINES}
        total += WholeAnswers(int(predicted.sum()), int((scores.camlink[predicted] == 1.0).sum()), baselines)
    return total if total.frames else None
