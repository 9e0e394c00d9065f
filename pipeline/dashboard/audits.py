"""What audit frames say of one camera and model as they come: evidence for a certificate, and baselines beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add
from typing import NamedTuple

import numpy as np

from camlink.models.base import OutputSpec
from camlink.models.scores import RULES, is_wrong
from camlink.operators.evidence import Certificate, Evidence, certify, gathered, known, observe
from camlink.pipeline.accuracy import (
    BASELINES,
    EXECUTES,
    PREDICTED,
    AuditScores,
    Differences,
    Executions,
    Lead,
    score_audit,
)
from camlink.pipeline.certificates import Answers, answers, frame_means
from camlink.pipeline.dashboard.seen_frames import SeenFrames
from camlink.pipeline.reports.html import said
from camlink.pipeline.reports.rows import ModelRows
from camlink.pipeline.results.tables import DAY_US
from camlink.pipeline.whole_answers import WholeAnswers, whole_answers

DISAGREEMENTS = 500  # latest wrong predictions kept per camera and model, to be shown
HISTORY = 500  # latest executed values that the baselines know: a page must not hold a whole run in memory
DAYS = 7  # of predictions that a target is judged by
MANY = 40  # audits at once, from which on they are taken as a stream of their own


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One audit frame on which the prediction was not what the model said."""

    frame_index: int
    at_us: int
    wrongness: float  # 1 - agreement
    predicted: str
    executed: str


@dataclass(slots=True)
class Weighted:
    """Weighted sums of agreement on audit frames (weights 1/p), camlink's and the baselines'; they add up over models
    and cameras, and so give the report's figure without its rows.

    On an audit frame every model runs, so the mean over models and frames is the mean of the models' means.
    """

    weight: float = 0.0
    own: float = 0.0
    sums: tuple[float, ...] = (0.0,) * len(BASELINES)
    ahead: tuple[Differences, ...] = (Differences(),) * len(BASELINES)  # of each baseline, frame by frame

    def __add__(self, other: Weighted) -> Weighted:
        return Weighted(
            self.weight + other.weight,
            self.own + other.own,
            tuple(map(add, self.sums, other.sums)),
            tuple(map(add, self.ahead, other.ahead)),
        )

    @classmethod
    def of(cls, scores: AuditScores, rows: np.ndarray) -> Weighted:
        """Return the sums of some rows (n,) of scores."""
        chances, own = scores.probability[rows], scores.camlink[rows]
        weights = 1.0 / chances
        others = [scores.baselines[name][rows] for name in BASELINES]
        return cls(
            float(weights.sum()),
            float(weights @ own),
            tuple(float(weights @ other) for other in others),
            tuple(Differences.of(own - other, chances) for other in others),
        )

    def mean(self) -> float | None:
        """Return camlink's agreement (Hájek's estimate, as the report has it); None without audit frames."""
        return min(1.0, self.own / self.weight) if self.weight else None

    def best(self) -> tuple[str, float] | None:
        """Return the baseline that agrees most, and its agreement; None without audit frames."""
        if not self.weight:
            return None
        place = int(np.argmax(self.sums))
        return BASELINES[place], min(1.0, self.sums[place] / self.weight)

    def weights(self) -> Weights:
        """Return the weights of these frames, for one model's rows."""
        return Weights(self.weight, self.ahead[0].squared_weight)

    def lead(self, baseline: str, *, anytime: bool) -> Lead:
        """Return by how much camlink is ahead of a baseline, for one model's rows.

        Raises `ValueError` without audit frames.
        """
        return self.ahead[BASELINES.index(baseline)].lead(anytime=anytime)


@dataclass(frozen=True, slots=True)
class Weights:
    """Sums over the weights 1/p of audit frames; they add up over cameras."""

    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Weights) -> Weights:
        return Weights(self.total + other.total, self.squares + other.squares)

    def effective_frames(self) -> float:
        """Return how many frames of equal weight say as much (Kish); `accuracy.estimate` has the same."""
        return self.total**2 / self.squares


class AuditFrames:
    """The weights of a camera's audit frames: each frame once, however many models were audited on it."""

    def __init__(self) -> None:
        self.weights = Weights()
        self._seen = SeenFrames()

    def add(self, scores: Sequence[AuditScores]) -> None:
        """Take the new scores of a camera's models."""
        if scores:
            fresh = self._seen.new(np.concatenate([each.frame_index for each in scores]))
            weights = 1.0 / np.concatenate([each.probability for each in scores])[fresh]
            self.weights += Weights(float(weights.sum()), float(np.square(weights).sum()))


class Heard(NamedTuple):
    """What new rows of a model say: of each served frame, and on its audit frames, None where there are none."""

    answers: Answers
    scores: AuditScores | None


class AuditLedger:
    """Scores audit frames once and keeps what certificates need. Pieces come in the order of capture.

    The baselines are those of `accuracy.score_audit`, over the latest `HISTORY` executed values.
    """

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._past = Executions(np.zeros(0, np.int64), np.zeros((0, spec.size), np.float32))
        self.evidence = Evidence()  # on predicted outputs, abstained ones included
        self.days: dict[int, Evidence] = {}  # on predicted outputs, by day since 1970 (UTC), the latest `DAYS`
        self._certificates: dict[int, Certificate] = {}  # of those days that got no rows since it was asked for
        # beside baselines: all outputs, predicted ones, and those of them that did not abstain
        self.everything, self.predicted, self.answered = Weighted(), Weighted(), Weighted()
        self.whole: WholeAnswers | None = None  # of predicted outputs, where an answer has several entries
        self.wrong: dict[int, Disagreement] = {}  # by frame

    def add(self, rows: ModelRows) -> Heard | None:
        """Take new rows; return what they say, None where the task has no agreement."""
        if self._spec.task not in RULES:
            return None
        executions, scores = self._with_past(rows.executions()), None
        if (rows.purpose == "audit").any():
            scores = score_audit(self._spec, rows.audit, executions)
            if scores is not None:
                self.everything += Weighted.of(scores, np.arange(len(scores.shadow)))
                self.predicted += Weighted.of(scores, np.flatnonzero(scores.shadow != EXECUTES))
                self.answered += Weighted.of(scores, np.flatnonzero(scores.shadow == PREDICTED))
                self._note_wrong(rows, scores)
                self._count_whole(scores)
        self._past = executions.newest(HISTORY)
        told = answers(rows)
        predicted = told.only(~told.executes)
        self.evidence = extended(self.evidence, predicted)
        self._add_days(predicted)
        return Heard(told, scores)

    def certificates(self) -> dict[int, Certificate]:
        """Return the certificates of the days on which something was predicted, in order."""
        for day in sorted(self.days):
            if day not in self._certificates:
                self._certificates[day] = certify(self.days[day])
        return dict(sorted(self._certificates.items()))

    def _add_days(self, predicted: Answers) -> None:
        days = predicted.times_us // DAY_US
        for day in np.unique(days).tolist():
            self.days[day] = extended(self.days.get(day, Evidence()), predicted.only(days == day))
            self._certificates.pop(day, None)
        for day in sorted(self.days)[:-DAYS]:
            del self.days[day]
            self._certificates.pop(day, None)

    def _count_whole(self, scores: AuditScores) -> None:
        new = whole_answers(self._spec, [scores])
        self.whole = self.whole + new if self.whole and new else new or self.whole

    def _note_wrong(self, rows: ModelRows, scores: AuditScores) -> None:
        audit = rows.audit
        for row in np.flatnonzero((scores.shadow == PREDICTED) & is_wrong(self._spec, scores.camlink)):
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
        known = np.concatenate((self._past.known(), new.known()))
        order = np.argsort(times, kind="stable")
        return Executions(times[order], values[order], known[order])


def of_all_models(parts: Sequence[Answers]) -> Answers:
    """Return, per frame, the mean over its models (MLink Eq. 1)."""
    return frame_means(Answers(**{name: np.concatenate([vars(p)[name] for p in parts]) for name in vars(parts[0])}))


def extended(evidence: Evidence, told: Answers) -> Evidence:
    """Return ``evidence`` with later frames of the same stream added, in the order of capture."""
    exact = told.only(~told.sampled)
    if len(exact.agreement):
        mean = float(exact.agreement.mean())
        evidence = evidence + known(mean, frames=len(exact.agreement), audits=int(exact.audited.sum()))
    sampled = told.only(told.sampled)
    audits = np.flatnonzero(~np.isnan(sampled.agreement))
    if len(audits) > MANY:
        return evidence + gathered(sampled.chance, sampled.agreement)
    start = 0
    for row in (*audits.tolist(), len(sampled.chance)):
        for chance, frames in zip(*np.unique(sampled.chance[start:row], return_counts=True), strict=True):
            evidence = observe(evidence, chance, frames=int(frames))
        if row < len(sampled.chance):
            evidence = observe(evidence, sampled.chance[row], sampled.agreement[row])
        start = row + 1
    return evidence
