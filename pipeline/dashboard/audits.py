"""The audit frames of one camera and model as they come in, scored against what the model itself said."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from camlink.models.base import OutputSpec
from camlink.pipeline.accuracy import BASELINES, PREDICTED, AuditScores, Executions, score_audit
from camlink.pipeline.reports.rows import ModelRows

HISTORY = 500  # latest executed values that the baselines know: a page must not hold a whole run in memory


class AuditLedger:
    """Scores audit frames once, keeps the scores, and hands them to whoever estimates from them.

    The baselines are those of `accuracy.score_audit`, over the latest `HISTORY` executed values.
    """

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._past = Executions(np.zeros(0, np.int64), np.zeros((0, spec.size), np.float32))
        self._pieces: list[AuditScores] = []
        self.wrong: dict[int, float] = {}  # audit frame -> how wrong its prediction was, where it was

    def add(self, rows: ModelRows) -> bool:
        """Take new rows; return whether audit frames were among them."""
        executions = self._with_past(rows.executions())
        audited = bool((rows.purpose == "audit").any())
        scores = score_audit(self._spec, rows.audit, executions) if audited else None
        if scores is not None and len(scores.frame_index):
            self._pieces.append(scores)
            wrong = np.flatnonzero((scores.shadow == PREDICTED) & (scores.camlink < 1.0))
            self.wrong |= {int(scores.frame_index[row]): 1.0 - float(scores.camlink[row]) for row in wrong}
        self._past = Executions(executions.times_us[-HISTORY:], executions.values[-HISTORY:])
        return scores is not None

    def scores(self) -> AuditScores | None:
        """Return all scores by the order in which they came; None before the first."""
        if not self._pieces:
            return None
        if len(self._pieces) > 1:
            self._pieces = [_joined(self._pieces)]
        return self._pieces[0]

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
