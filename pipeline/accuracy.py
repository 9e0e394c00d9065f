"""How far camlink's outputs equal what the models would have said, with an honest interval and baselines beside it.

Estimated from audit frames only (design ruling 5). They are a random sample of the frames a camera serves, with known
probabilities, so the weighted mean (Hájek's estimator: weights 1/p, divided by their sum) estimates the mean over the
frames of the serving regime, however alike neighbouring frames are. Bootstrap and profile frames do not belong to it:
every model executes on them, so they are never audited, and over all frames together agreement is higher.

The interval is Wilson's for a proportion, at the effective sample size (sum w)^2 / sum w^2 of Kish. Agreement lies in
[0, 1], where nothing varies more than a coin with the same mean, so for graded agreement the interval is wider than
needed rather than too narrow. It is valid for one look at the end, not for stopping a run as soon as it looks good;
`camlink.operators.evidence` has the interval for looking all day.

camlink and a baseline are compared frame by frame: they meet on the same audit frames, and their difference varies far
less than either. The interval of its mean is that of Agresti and Min, "Simple improved confidence intervals for
comparing matched proportions" (Statistics in Medicine 2005): two frames are added, of which one speaks half for either
side. While a run goes on, its half-width is that of the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha,
Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences" (Annals of Statistics 2024,
Theorem 2.2).

Two figures, always both:

* *all outputs*: per audit frame the mean over models, where a model that the decision executes counts 1 (MLink Eq. 1);
* *predicted outputs only*: per audit frame the mean over the models that were predicted.

A prediction that abstained counts 0 in both: no answer is not an answer. Where some did, a third figure leaves them
out, *answers only*: how far what was said is right, with the share of predictions that were answered beside it (its
coverage). The baselines stand on the same frames under the same conventions and know only executed values of frames
captured earlier, from when they were there: where models are loaded in turn some come late.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.scores import RULES, agreement

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Values = NDArray[np.float32]

BASELINES = ("constant", "hourly_mode", "persistence")
HOUR_US = 3_600_000_000
Z_95 = 1.959964
STILL = 0.002  # share of pixels: fewer than 30 of a 160x90 picture
TIGHTEST_FRAMES = 200.0  # at which the interval for looking all day is tightest

EXECUTES, PREDICTED, ABSTAINED = 0, 1, 2  # what the decision would have done with a model on an audit frame
Counted = Literal["all", "predicted", "answered"]  # outputs: all, those that were not executed, of these the answers


@dataclass(frozen=True)
class Estimate:
    """A mean in [0, 1], its 95 % interval, and the number of audit frames behind it."""

    mean: float
    low: float
    high: float
    frames: int


@dataclass(frozen=True)
class Executions:
    """All executed values of one camera and model by capture time: (h,) microseconds, (h, size).

    ``known_us`` (h,): captures up to then were answered before the value was known, since its model had to be loaded
    first; None where all were known at once.
    """

    times_us: Ints
    values: Values
    known_us: Ints | None = None

    def known(self) -> Ints:
        """Return ``known_us``, or the capture times."""
        return self.times_us if self.known_us is None else self.known_us

    def newest(self, count: int) -> Executions:
        """Return the last ``count``."""
        return Executions(self.times_us[-count:], self.values[-count:], self.known()[-count:])

    def as_known(self) -> Executions:
        """Return the same in the order in which they became known."""
        order = np.argsort(self.known(), kind="stable")
        return Executions(self.times_us[order], self.values[order], self.known()[order])


@dataclass(frozen=True)
class NoiseFloor:
    """A model's mean disagreement with itself on ``pairs`` of neighbouring frames that hardly differ."""

    disagreement: float
    pairs: int


@dataclass(frozen=True)
class AuditRows:
    """One camera and model on its audit frames, by capture time.

    ``shadow`` (n,) holds `EXECUTES`, `PREDICTED` or `ABSTAINED`; rows of ``predicted`` (n, size) count only where it
    is `PREDICTED`. ``probability`` (n,): the chance in (0, 1] with which each frame was chosen.
    """

    frame_index: Ints
    times_us: Ints
    executed: Values
    predicted: Values
    shadow: NDArray[np.int8]
    probability: Floats


@dataclass(frozen=True)
class AuditScores:
    """Agreement per audit frame (n,) of one camera and model: camlink's and each baseline's."""

    frame_index: Ints
    probability: Floats
    shadow: NDArray[np.int8]
    camlink: Floats
    baselines: Mapping[str, Floats]


@dataclass(frozen=True)
class Lead:
    """By how much camlink agrees more than a baseline on the same frames (-1..1), with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Differences:
    """Sums over paired differences in [-1, 1] on audit frames, weighted by 1/p; they add up over frames and cameras."""

    weight: float = 0.0
    squared_weight: float = 0.0
    total: float = 0.0  # of weight x difference
    squares: float = 0.0  # of weight x difference squared

    @classmethod
    def of(cls, differences: Floats, probability: Floats) -> Differences:
        """Return the sums of (n,) differences on frames that were audited with ``probability`` (n,)."""
        weights = 1.0 / probability
        sums = (weights, np.square(weights), weights * differences, weights * np.square(differences))
        return cls(*(float(each.sum()) for each in sums))

    def __add__(self, other: Differences) -> Differences:
        return Differences(
            self.weight + other.weight,
            self.squared_weight + other.squared_weight,
            self.total + other.total,
            self.squares + other.squares,
        )

    def lead(self, *, anytime: bool = False) -> Lead:
        """Return the mean difference and its interval; ``anytime``: for looking while more frames come.

        Raises `ValueError` where there is no frame.
        """
        if not self.weight:
            raise ValueError("a lead needs an audit frame, got none")
        frames = self.weight**2 / self.squared_weight + 2.0
        mean = self.total / self.weight
        centre = mean * (frames - 2.0) / frames
        square = (self.squares / self.weight * (frames - 2.0) + 1.0) / frames
        scale = _all_day(frames) if anytime else Z_95 / math.sqrt(frames)
        half = math.sqrt(max(square - centre * centre, 0.0)) * scale
        return Lead(mean, max(-1.0, min(centre - half, mean)), min(1.0, max(centre + half, mean)))


@dataclass(frozen=True)
class Comparison:
    """camlink beside its baselines on the same audit frames; ``abstained`` counts shadow outputs that gave nothing."""

    camlink: Estimate
    baselines: Mapping[str, Estimate]
    leads: Mapping[str, Lead]
    abstained: int


def wilson(mean: float, trials: float, z: float = Z_95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion; ``trials`` may be fractional (an effective sample size).

    >>> [round(bound, 3) for bound in wilson(1.0, 20)]
    [0.839, 1.0]
    """
    spread = z * math.sqrt(mean * (1.0 - mean) / trials + (z / (2.0 * trials)) ** 2)
    centre, scale = mean + z * z / (2.0 * trials), 1.0 + z * z / trials
    low, high = max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
    return min(low, mean), max(high, mean)  # at a mean of 0 or 1 rounding can leave the mean just outside


def estimate(scores: Floats, probability: Floats) -> Estimate | None:
    """Estimate the mean over the frames of the serving regime; None without audited ones ("not measured").

    Raises `ValueError` for a probability outside (0, 1].
    """
    if scores.size == 0:
        return None
    if not np.all((probability > 0.0) & (probability <= 1.0)):
        raise ValueError(f"audit probabilities must lie in (0, 1], got {probability.min()} to {probability.max()}")
    weights = 1.0 / probability
    mean = float(np.clip(np.average(scores, weights=weights), 0.0, 1.0))
    low, high = wilson(mean, float(weights.sum() ** 2 / np.square(weights).sum()))
    return Estimate(mean, low, high, int(scores.size))


def lead(differences: Floats, probability: Floats, *, anytime: bool = False) -> Lead:
    """Estimate the mean of paired differences (n,) in [-1, 1]; ``anytime``: for looking while more of them come.

    >>> won = lead(np.array([0.0] * 80 + [1.0] * 20), np.full(100, 0.1))
    >>> round(won.mean, 2), round(won.low, 2), round(won.high, 2)
    (0.2, 0.12, 0.28)
    """
    return Differences.of(differences, probability).lead(anytime=anytime)


def _all_day(frames: float) -> float:
    """Return the half-width, in standard deviations, of the asymptotic confidence sequence after ``frames`` frames."""
    alpha = 0.05
    rho2 = (-2.0 * math.log(alpha) + math.log(-2.0 * math.log(alpha)) + 1.0) / TIGHTEST_FRAMES
    grown = frames * rho2 + 1.0
    return math.sqrt(grown * 2.0 * math.log(math.sqrt(grown) / alpha) / (frames * frames * rho2))


def noise_floor(spec: OutputSpec, frame_index: Ints, values: Values, pixel_change: Floats) -> NoiseFloor | None:
    """Measure a model against itself: (n,) frames on which it executed, their values (n, size), their change (n,).

    Pairs are frames next to each other (index + 1) of which the later changed at most `STILL` of its pixels; NaN, where
    the change was not measured, is no pair. None without pairs, or for a task without agreement. No prediction can be
    expected to agree better than the model does with itself.
    """
    if spec.task not in RULES or len(frame_index) < 2:
        return None
    order = np.argsort(frame_index, kind="stable")
    index, said, change = frame_index[order], values[order], pixel_change[order]
    pairs = np.flatnonzero((np.diff(index) == 1) & (change[1:] <= STILL))
    if not pairs.size:
        return None
    return NoiseFloor(1.0 - float(np.mean(agreement(spec, said[pairs + 1], said[pairs]))), int(pairs.size))


def score_audit(spec: OutputSpec, audit: AuditRows, executions: Executions) -> AuditScores | None:
    """Score one camera and model on its audit frames; None when its task has no agreement (tokens, detections)."""
    if spec.task not in RULES:
        return None
    ours = np.where(audit.shadow == ABSTAINED, 0.0, 1.0)
    chosen = audit.shadow == PREDICTED
    ours[chosen] = agreement(spec, audit.predicted[chosen], audit.executed[chosen])
    guessed = audit.shadow != EXECUTES
    baselines = {name: np.ones(len(ours)) for name in BASELINES}
    for name, guesses in _baseline_guesses(spec, audit.times_us[guessed], executions).items():
        known = ~np.isnan(guesses).any(axis=1)  # nothing executed yet: no answer, which counts 0
        scores = np.zeros(len(guesses))
        scores[known] = agreement(spec, guesses[known], audit.executed[guessed][known])
        baselines[name][guessed] = scores
    return AuditScores(audit.frame_index, audit.probability, audit.shadow, ours, baselines)


def compare(
    cameras: Iterable[Sequence[AuditScores]], *, counted: Counted = "all", anytime: bool = False
) -> Comparison | None:
    """Pool the audit frames of ``cameras`` (each: the scores of its models); None when no frame counts.

    Models that do not count, as ``counted`` says, are left out, and so are frames on which none does. ``anytime``
    widens the leads' intervals to those that hold while frames are still coming.
    """
    names = ("camlink", *BASELINES)
    pooled: dict[str, list[Floats]] = {name: [] for name in names}
    probability: list[Floats] = []
    abstained = 0
    for models in cameras:
        frames = _frames(models, counted)
        if frames is None:
            continue
        per_frame, chances = frames
        probability.append(chances)
        for name in names:
            pooled[name].append(per_frame[name])
        abstained += sum(int((scores.shadow == ABSTAINED).sum()) for scores in models)
    if not probability:
        return None
    chances = np.concatenate(probability)
    scores = {name: np.concatenate(pooled[name]) for name in names}
    estimates = {name: estimate(scores[name], chances) for name in names}
    present = {name: found for name, found in estimates.items() if found is not None}
    leads = {name: lead(scores["camlink"] - scores[name], chances, anytime=anytime) for name in BASELINES}
    return Comparison(present.pop("camlink"), present, leads, abstained)


def _frames(models: Sequence[AuditScores], counted: Counted) -> tuple[dict[str, Floats], Floats] | None:
    """Return one camera's mean agreement per audit frame, for camlink and baselines, and the frames' probabilities."""
    states = {"all": (EXECUTES, PREDICTED, ABSTAINED), "predicted": (PREDICTED, ABSTAINED), "answered": (PREDICTED,)}
    keep = [np.isin(scores.shadow, states[counted]) for scores in models]
    index = np.concatenate([s.frame_index[k] for s, k in zip(models, keep, strict=True)] or [np.zeros(0, np.int64)])
    if index.size == 0:
        return None
    _, first, inverse = np.unique(index, return_index=True, return_inverse=True)
    counts = np.bincount(inverse)
    chances = np.concatenate([s.probability[k] for s, k in zip(models, keep, strict=True)])[first]
    per_frame = {}
    for name in ("camlink", *BASELINES):
        scores = [(s.camlink if name == "camlink" else s.baselines[name])[k] for s, k in zip(models, keep, strict=True)]
        per_frame[name] = np.bincount(inverse, weights=np.concatenate(scores)) / counts
    return per_frame, chances


def _baseline_guesses(spec: OutputSpec, times_us: Ints, executions: Executions) -> dict[str, Values]:
    """Return each baseline's guess (q, size) for frames captured at ``times_us``; NaN where it knows nothing yet."""
    executions = executions.as_known()
    known_us = executions.known()
    past = np.searchsorted(known_us, times_us, side="left")  # executions known of strictly before
    constant = usual_so_far(spec, executions.values, past)
    hourly = constant.copy()
    hours, history_hours = (times_us // HOUR_US) % 24, (executions.times_us // HOUR_US) % 24
    for hour in np.unique(hours):
        asked, known = np.flatnonzero(hours == hour), history_hours == hour
        before = np.searchsorted(known_us[known], times_us[asked], side="left")
        has_past = before > 0
        hourly[asked[has_past]] = usual_so_far(spec, executions.values[known], before[has_past])
    last = np.full((len(times_us), spec.size), np.nan, np.float32)
    last[past > 0] = executions.values[_latest(executions.times_us)[past[past > 0] - 1]]
    return {"constant": constant, "hourly_mode": hourly, "persistence": last}


def _latest(times_us: Ints) -> Ints:
    """Return, for each row (h,), the position of the row captured last up to there; late ones are older than others."""
    leads = np.where(times_us == np.maximum.accumulate(times_us), np.arange(len(times_us)), 0)
    return np.asarray(np.maximum.accumulate(leads), dtype=np.int64)


def usual_so_far(spec: OutputSpec, values: Values, past: Ints) -> Values:
    """Return the usual value among the first ``past[i]`` of ``values`` (h, size), for each i; NaN where that is none.

    Count: the commonest count of each entry. Single label: the mean value of the commonest top label. Multi label:
    each label's commoner side of 0.5. Regression and box, where values hardly repeat: the mean.
    """
    usual = np.full((len(past), values.shape[1]), np.nan, np.float32)
    asked = np.flatnonzero(past > 0)
    if asked.size == 0:
        return usual
    if spec.task == "count":
        usual[asked] = _entry_modes(np.floor(values + 0.5), past[asked])
    elif spec.task == "multi_label":
        usual[asked] = _entry_modes((values >= 0.5).astype(np.float32), past[asked])
    elif spec.task == "single_label":
        labels = values.argmax(axis=1)
        commonest = labels[_mode_positions(labels)[past[asked] - 1]]
        for label in np.unique(commonest):
            rows, places = asked[commonest == label], np.flatnonzero(labels == label)
            usual[rows] = _means_so_far(values[places], np.searchsorted(places, past[rows], side="left"))
    else:
        usual[asked] = _means_so_far(values, past[asked])
    return usual


def _entry_modes(values: Values, past: Ints) -> Values:
    """Return each entry's commonest value among the first ``past`` (all > 0) rows; entries that never vary are free."""
    modes = np.repeat(values[:1], len(past), axis=0)
    for entry in np.flatnonzero((values != values[0]).any(axis=0)):
        column = values[:, entry]
        modes[:, entry] = column[_mode_positions(column)[past - 1]]
    return modes


def _mode_positions(codes: NDArray[np.generic]) -> Ints:
    """Return, for each row, the position of a row holding the commonest code up to there; the first to lead stays.

    A code takes the lead exactly when its count exceeds every count before, so one running maximum finds all modes.
    """
    order = np.argsort(codes, kind="stable")
    _, starts, sizes = np.unique(codes[order], return_index=True, return_counts=True)
    count = np.empty(len(codes), np.int64)
    count[order] = np.arange(len(codes)) - np.repeat(starts, sizes) + 1  # how often each code has come so far
    best_before = np.concatenate((np.zeros(1, np.int64), np.maximum.accumulate(count)[:-1]))
    leads = np.where(count > best_before, np.arange(len(codes)), 0)
    return np.asarray(np.maximum.accumulate(leads), dtype=np.int64)


def _means_so_far(values: Values, past: Ints) -> Values:
    """Return the mean of the first ``past[i]`` rows, for ``past`` > 0 that never falls."""
    means = np.empty((len(past), values.shape[1]), np.float32)
    total, done = np.zeros(values.shape[1]), 0
    for i, count in enumerate(past):
        total += values[done:count].sum(axis=0, dtype=np.float64)
        done = int(count)
        means[i] = total / done
    return means
