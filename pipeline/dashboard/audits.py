"""The audit frames of one camera and model as they come in, scored against what the model itself said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from camlink.models.base import OutputSpec
from camlink.pipeline.accuracy import BASELINES, PREDICTED, AuditScores, Executions, score_audit
from camlink.pipeline.reports.html import said
from camlink.pipeline.reports.rows import ModelRows

DISAGREEMENTS = 500  # latest wrong predictions kept per camera and model, to be shown
HISTORY = 500  # latest executed values that the baselines know: a page must not hold a whole run in memory


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One audit frame on which the prediction was not what the model said."""

    frame_index: int
    at_us: int
    wrongness: float  # 1 - agreement
    predicted: str
    executed: str


class AuditLedger:
    """Scores audit frames once, keeps the scores, and hands them to whoever estimates from them.

    The baselines are those of `accuracy.score_audit`, over the latest `HISTORY` executed values.
    """

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._past = Executions(np.zeros(0, np.int64), np.zeros((0, spec.size), np.float32))
        self._pieces: list[AuditScores] = []
        self.wrong: dict[int, Disagreement] = {}  # by frame

    def add(self, rows: ModelRows) -> bool:
        """Take new rows; return whether audit frames were among them."""
        executions = self._with_past(rows.executions())
        audited = bool((rows.purpose == "audit").any())
        scores = score_audit(self._spec, rows.audit, executions) if audited else None
        if scores is not None and len(scores.frame_index):
            self._pieces.append(scores)
            self._note_wrong(rows, scores)
        self._past = Executions(executions.times_us[-HISTORY:], executions.values[-HISTORY:])
        return scores is not None

    def scores(self) -> AuditScores | None:
        """Return all scores by the order in which they came; None before the first."""
        if not self._pieces:
            return None
        if len(self._pieces) > 1:
            self._pieces = [_joined(self._pieces)]
        return self._pieces[0]

    def _note_wrong(self, rows: ModelRows, scores: AuditScores) -> None:
        audit = rows.audit
        for row in np.flatnonzero((scores.shadow == PREDICTED) & (scores.camlink < 1.0)):
            index = int(audit.frame_index[row])
            self.wrong[index] = Disagreement(
                index,
                int(audit.times_us[row]),
                1.0 - float(scores.camlink[row]),
                **said(self._spec, audit.predicted[row], audit.executed[row]),
            )
            if len(self.wrong) > DISAGREEMENTS:
                del self.wrong[next(iter(self.wrong))]

    def _with_past(self, new: Executions) -> Executions:
        times = np.concatenate((self._past.times_us, new.times_us))
        values = np.concatenate((self._past.values, new.values))
        order = np.argsort(times, kind="stable")
        return Executions(times[order], values[order])


def _joined(pieces: list[AuditScores]) -> AuditScores:
    baselines: Mapping[str, np.ndarray] = {n: np.concatenate([p.baselines[n] for p in pieces]) for n in BASELINES}
    return AuditScores(
        frame_index=np.concatenate([p.frame_index for p in pieces]),
        probability=np.concatenate([p.probability for p in pieces]),
        shadow=np.concatenate([p.shadow for p in pieces]),
        camlink=np.concatenate([p.camlink for p in pieces]),
        baselines=baselines,
    )
