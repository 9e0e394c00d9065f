"""What is counted while a policy plays a camera's trace, and what follows from the counts.

Sums only, per period and model, and per stretch of frames, so that memory does not grow with the trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from camlink.models.average_precision import binned_average_precision
from camlink.models.base import OutputSpec
from camlink.models.scores import agreement

Array = NDArray[np.float32]
Sums = NDArray[np.float64]
Places = NDArray[np.intp]
HOWS = ("executed", "linked", "reused", "abstained")
BINS = 200  # of stated confidence, for its calibration and for abstaining on the least sure
STRETCHES = (
    24  # of one camera, at most: runs of frames, to tell differences from chance (`camlink.pipeline.lab.chance`)
)
LEAST_CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # below which answers might be left out (`abstain_below`)


@dataclass(eq=False)
class Tally:
    """Sums over the N frames that count, of one camera and one policy. All are (periods, models) unless said."""

    models: tuple[str, ...]
    period: Places  # (N,): of each frame
    agreed: Sums  # agreement, executions included at 1
    hows: Sums  # (periods, models, 4): how many of HOWS
    within_one: Sums  # counts: share of entries off by one at most
    error: Sums  # counts: absolute error, summed over entries
    total: Sums  # counts: what the models said, summed over entries
    frames: Sums  # (periods,)
    spent_ms: Sums  # (periods,)
    stretches: Sums  # (stretches,): agreement, summed over models and the frames of each of up to `STRETCHES` runs
    stated: Sums  # (BINS, 3): answers with a confidence, its sum, their agreement
    ranked: dict[str, Sums] = field(default_factory=dict)  # several labels: model -> (labels, BINS, 2), see `_rank`
    loads: int = 0

    @classmethod
    def empty(cls, models: tuple[str, ...], period: Places) -> Tally:
        """Return all zeros, for frames that belong to these periods (N,)."""
        periods = int(period[-1]) + 1
        agreed, within_one, error, total = (np.zeros((periods, len(models))) for _ in range(4))
        hows, stated = np.zeros((periods, len(models), len(HOWS))), np.zeros((BINS, 3))
        frames, stretches = np.bincount(period).astype(np.float64), np.zeros(min(len(period), STRETCHES))
        spent = np.zeros(periods)
        return cls(models, period, agreed, hows, within_one, error, total, frames, spent, stretches, stated)

    def spend(self, frames: Places, ms: float) -> None:
        """Count ``ms`` on each of ``frames`` (n,), of the N that count."""
        self.spent_ms += self._per_period(frames) * ms

    def add_executed(self, model: int, frames: Places, spec: OutputSpec, recorded: Array) -> None:
        """Count executions on ``frames`` (n,), of the N that count; ``recorded`` (n, size)."""
        self._agree(model, frames, np.ones(len(frames)))
        self.hows[:, model, HOWS.index("executed")] += self._per_period(frames)
        if spec.task == "count":
            self.within_one[:, model] += self._per_period(frames)
            self.total[:, model] += self._per_period(frames, recorded.sum(axis=1))
        self._rank(model, spec, recorded, recorded)

    def add_answered(
        self, model: int, frames: Places, spec: OutputSpec, how: Places, served: Array, recorded: Array, stated: Sums
    ) -> None:
        """Count answers: ``frames``, ``how`` (position in HOWS), ``stated`` (confidence; nan: none) are (n,)."""
        agreed = agreement(spec, served, recorded).astype(np.float64)
        self._agree(model, frames, agreed)
        for place in range(len(HOWS)):
            self.hows[:, model, place] += self._per_period(frames[how == place])
        if spec.task == "count":
            off = np.abs(served - recorded)
            self.within_one[:, model] += self._per_period(frames, (off < 1.5).mean(axis=1))
            self.error[:, model] += self._per_period(frames, off.sum(axis=1))
            self.total[:, model] += self._per_period(frames, recorded.sum(axis=1))
        self._rank(model, spec, served, recorded)
        sure = np.isfinite(stated)
        bins = np.clip((stated[sure] * BINS).astype(int), 0, BINS - 1)
        for column, weights in enumerate((np.ones(len(bins)), stated[sure], agreed[sure])):
            self.stated[:, column] += np.bincount(bins, weights, BINS)

    def add_abstained(self, model: int, frames: Places) -> None:
        """Count frames without an answer: they agree with nothing."""
        self.hows[:, model, HOWS.index("abstained")] += self._per_period(frames)

    def _agree(self, model: int, frames: Places, agreed: Sums) -> None:
        self.agreed[:, model] += self._per_period(frames, agreed)
        self.stretches += np.bincount(frames * len(self.stretches) // len(self.period), agreed, len(self.stretches))

    def _rank(self, model: int, spec: OutputSpec, served: Array, recorded: Array) -> None:
        """Count, by label and served chance, where the model itself saw the label (0) and where not (1)."""
        if spec.task != "multi_label":
            return
        counts = self.ranked.setdefault(self.models[model], np.zeros((spec.size, BINS, 2)))
        bins = np.clip((served * BINS).astype(int), 0, BINS - 1)
        for label in range(spec.size):
            true = recorded[:, label] >= 0.5
            for column, mine in enumerate((true, ~true)):
                counts[label, :, column] += np.bincount(bins[mine, label], minlength=BINS)

    def _per_period(self, frames: Places, weights: NDArray[np.floating] | None = None) -> Sums:
        return np.bincount(self.period[frames], weights, len(self.frames)).astype(np.float64)


def mean_average_precision(tallies: Iterable[Tally]) -> dict[str, float]:
    """Return, for models with several labels, the mean over labels of the average precision of what was served.

    Truth is what the models themselves say from 0.5 on; a label that they never saw has none.
    """
    ranked: dict[str, Sums] = {}
    for tally in tallies:
        for model, counts in tally.ranked.items():
            ranked[model] = ranked.get(model, np.zeros_like(counts)) + counts
    found = {
        m: [binned_average_precision(label[:, 0], label[:, 1]) for label in counts] for m, counts in ranked.items()
    }
    known = {m: [value for value in values if value is not None] for m, values in found.items()}
    return {m: float(np.mean(values)) for m, values in known.items() if values}


def calibration_error(stated: Sums) -> float | None:
    """Return the expected calibration error over ten bins of confidence: (BINS, 3) -> 0..1, None where none stated."""
    bins = stated.reshape(10, -1, 3).sum(axis=1)
    total = bins[:, 0].sum()
    return None if total == 0 else float(np.abs(bins[:, 1] - bins[:, 2]).sum() / total)


def calibration_error_by_chance(stated: Sums) -> float | None:
    """Return the error that is to be expected where each answer is right with exactly the confidence that was stated.

    So few answers may fall into a bin that their mean is off by chance: (BINS, 3) -> 0..1, None where none stated. For
    answers that are right or wrong independently of each other; those of a still scene are not, and are off by more.
    """
    bins = stated.reshape(10, -1, 3).sum(axis=1)
    bins = bins[bins[:, 0] > 0.0]
    if not len(bins):
        return None
    confidence = bins[:, 1] / bins[:, 0]
    off = np.sqrt(2.0 / np.pi * confidence * (1.0 - confidence) * bins[:, 0])
    return float(off.sum() / bins[:, 0].sum())


def surest_agreement(stated: Sums, share: float = 0.9) -> float | None:
    """Return the mean agreement of the ``share`` of answers that are most sure, None where no confidence was stated."""
    total = stated[:, 0].sum()
    if total == 0:
        return None
    left, agreed = share * total, 0.0
    for count, _, sum_agreed in stated[::-1]:
        taken = min(left, count)
        agreed += sum_agreed * taken / count if count else 0.0
        left -= taken
    return float(agreed / (share * total))


def answers_by_confidence(stated: Sums) -> dict[str, dict[str, float | None]] | None:
    """Return which share of answers stays, and how far these agree, where less sure ones than each level abstain.

    By `LEAST_CONFIDENCES`: the curve of selective prediction, its coverage and one minus its risk. None where no
    confidence was stated.
    """
    total = stated[:, 0].sum()
    if total == 0:
        return None
    found = {}
    for least in LEAST_CONFIDENCES:
        count, _, agreed = stated[round(least * BINS) :].sum(axis=0)
        found[f"{least:g}"] = {"share": float(count / total), "agreement": float(agreed / count) if count else None}
    return found


def count_scores(tally: Tally, specs: Mapping[str, OutputSpec]) -> tuple[float | None, float | None]:
    """Return the share of count entries within one, and the error relative to what was there; None without counts."""
    counts = [i for i, m in enumerate(tally.models) if specs[m].task == "count"]
    frames = tally.frames.sum()
    if not counts or not frames:
        return None, None
    within = float(tally.within_one[:, counts].sum() / (frames * len(counts)))
    there = tally.total[:, counts].sum()
    return within, float(tally.error[:, counts].sum() / there) if there else None
