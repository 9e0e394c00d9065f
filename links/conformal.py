"""Prediction sets that hold the truth as often as asked: split conformal prediction, beside calibrated confidence.

A confidence says how sure one answer is; a set says which answers cannot be ruled out. The threshold comes from frames
that taught no link: least ambiguous sets (Sadinle, Lei and Wasserman, JASA 2019), with the finite-sample quantile of
Vovk et al. (2005). If new frames are exchangeable with those, a set holds the truth with at least ``coverage``; where
the scene has drifted, nothing holds, and the benchmark shows by how much (`benchmarks/links/accuracy.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Self

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array
from camlink.links.ensemble import Ensemble
from camlink.links.memory import Recall
from camlink.pipeline.errors import LinkError

ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class ConformalSets:
    """Sets of the counts, or of the labels, that an ensemble cannot rule out. ``least`` (entries,): chances kept."""

    ensemble: Ensemble
    coverage: float
    least: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        ensemble: Ensemble,
        values: Mapping[str, Array],
        executed: Array,
        coverage: float = 0.9,
        recall: Recall | None = None,
    ) -> Self:
        """Find the threshold from frames that the ensemble has not learnt from.

        ``values``: source -> (n, size); ``executed`` (n, target.size); each entry of a count is covered by itself.
        Raises `LinkError` for a regression, and for too few frames to promise ``coverage`` at all.
        """
        count = len(executed)
        if not 0.0 < coverage < 1.0 or ceil((count + 1) * coverage) > count:
            raise LinkError(f"{count} frames cannot promise a coverage of {coverage}; it takes more, or a lower one")
        of_truth = [
            _chance_of(truth, chances)
            for chances, truth in zip(_chances(ensemble, values, recall), _answers(ensemble, executed), strict=True)
        ]
        rank = count - ceil((count + 1) * coverage)  # of the ascending chances, from 0
        return cls(ensemble, coverage, np.array([np.sort(chance)[rank] for chance in of_truth]))

    def sets(self, values: Mapping[str, Array], recall: Recall | None = None) -> list[NDArray[np.bool_]]:
        """Return per entry which answers 0, 1, 2, ... (labels, for a single label) are in the set: (n, answers).

        The most probable answer always is: a set that rules out everything would help nobody.
        """
        found = _chances(self.ensemble, values, recall)
        return [_kept(chances, float(least)) for chances, least in zip(found, self.least, strict=True)]

    def covered(self, values: Mapping[str, Array], executed: Array, recall: Recall | None = None) -> NDArray[np.bool_]:
        """Say of each frame and entry whether the truth is in its set: (n, entries)."""
        rows = np.arange(len(executed))
        pairs = zip(self.sets(values, recall), _answers(self.ensemble, executed), strict=True)
        return np.stack(
            [(truth < s.shape[1]) & s[rows, np.minimum(truth, s.shape[1] - 1)] for s, truth in pairs], axis=1
        )


def _kept(chances: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """Keep answers (n, answers) as probable as ``least``; rounding differs between batches, and many frames tie."""
    return np.asarray((chances >= least - ROUNDING) | (chances >= chances.max(axis=1, keepdims=True)))


def _chance_of(truth: NDArray[np.intp], chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the chance of each frame's true answer; a count that was never seen in training had none."""
    seen = truth < chances.shape[1]
    return np.where(seen, chances[np.arange(len(truth)), np.where(seen, truth, 0)], 0.0)


def _answers(ensemble: Ensemble, executed: Array) -> list[NDArray[np.intp]]:
    """Return the true answer of each frame, per entry."""
    if ensemble.target.task == "single_label":
        return [executed.argmax(axis=1)]
    return [np.rint(column).astype(np.intp) for column in executed.T]


def _chances(ensemble: Ensemble, values: Mapping[str, Array], recall: Recall | None) -> list[NDArray[np.float64]]:
    """Return per entry how probable each answer is: (n, answers)."""
    pre = {s: ensemble.links[s].predict(v) for s, v in values.items() if s in ensemble.links}
    activated = ensemble.combine(pre, recall).astype(np.float64)
    if ensemble.code is not None:
        code = ensemble.code
        return [_of_counts(activated[:, code.entry == entry]) for entry in range(len(code.levels))]
    if ensemble.target.task == "single_label":
        return [activated]
    if ensemble.target.task == "multi_label":
        return [np.stack([1.0 - column, column], axis=1) for column in activated.T]
    raise LinkError(f"links to {ensemble.target.model} predict no distribution: there are no sets to be had")


def _of_counts(more_than: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn P(count > k) (n, levels) into P(count = k) (n, levels + 1)."""
    falling = np.minimum.accumulate(more_than, axis=1)
    ends = np.ones((len(falling), 1))
    return -np.diff(np.concatenate([ends, falling, 0.0 * ends], axis=1), axis=1)
