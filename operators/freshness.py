"""How long an executed output stays right: its freshness, and how that decays with age and with what moves in view.

After ``age`` steps in which ``activity`` has added up, an output is taken to be, with probability ``fresh``, what the
model would say now, and otherwise to say no more than the model's long-run frequencies do:

    fresh = steady * (1 - gone)
    logit(gone) = logit(1 - exp(-(h_age * age + h_move * activity))) + b . signs

``steady`` is what is left of the model's noise (two runs on near-identical frames), the exponential is the chance of no
change under a hazard that grows with movement, ``signs`` are what distinguishes this very frame. Six numbers per model,
found as the most probable ones given weak priors, so that the first minutes of a camera are enough to start from.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import exp, expm1, log

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#                 logit steady, log h_age, log h_move, edge, luma
PRIOR = np.array([2.5, -3.0, -3.0, 0.2, 0.2])
SPREAD = np.array([1.5, 1.5, 1.5, 0.4, 0.4])
KEPT = 600  # samples; older ones say little about now
HALF_LIFE = 500.0  # samples
LEAST_ODDS = 0.01  # of being wrong when gone: no long-run frequency is taken to be certain
_TINY = 1e-9
_FAR = 30.0  # exponents beyond tell nothing more


@dataclass(frozen=True, slots=True)
class Passed:
    """What has passed since a model executed: steps of time, activity in steps of its mean, how the frame differs."""

    age: float
    activity: float
    edge: float = 0.0  # |change of edge density| and
    luma: float = 0.0  # |change of mean luma|, in standard deviations, at most 3


class Freshness:
    """One model's parameters on one camera, learnt from pairs of executed outputs."""

    def __init__(self) -> None:
        self._theta = PRIOR.copy()
        self._samples: deque[tuple[float, float, float, float, float, float, float]] = deque(maxlen=KEPT)
        self.new = 0  # samples since the last fit
        self._read()

    def _read(self) -> None:
        steady, age, move, self._edge, self._luma = self._theta.tolist()
        self.steady = 1.0 / (1.0 + exp(-steady))
        self._h_age, self._h_move = exp(age), exp(move)

    def hazard(self, activity: float) -> float:
        """Return the hazard per step while ``activity`` is added per step."""
        return min(max(self._h_age + self._h_move * activity, 1e-4), 3.0)

    def gone(self, passed: Passed) -> float:
        """Return the chance that what was executed then has changed since, 0..1."""
        hazard = min(self._h_age * passed.age + self._h_move * passed.activity, _FAR)
        odds = log(-expm1(-hazard) + _TINY) + hazard + self._edge * passed.edge + self._luma * passed.luma
        return 1.0 / (1.0 + exp(-odds)) if odds > -_FAR else 0.0

    def observe(self, passed: Passed, odds: float, disagreed: float, weight: float = 1.0) -> None:
        """Learn that after ``passed`` the old output disagreed (0..1), where ``odds`` was its chance to if gone."""
        row = (passed.age, passed.activity, passed.edge, passed.luma, max(odds, LEAST_ODDS), disagreed, weight)
        self._samples.append(row)
        self.new += 1

    def fit(self, steps: int) -> None:
        """Take ``steps`` of damped Gauss-Newton towards the most probable parameters; 0.1 ms each."""
        if not self._samples:
            return
        data = np.array(self._samples)
        data[:, 6] *= 0.5 ** (np.arange(len(data) - 1, -1, -1) / HALF_LIFE)
        self._theta, self.new = _fit(self._theta, data, steps), 0
        self._read()


def _sigmoid(z: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(-z, -_FAR, _FAR))))


def _wrong(theta: Array, data: Array) -> tuple[float, Array, Array, Array]:
    """Return steady, the chances of no change (n,), of change (n,) and of disagreement (n,)."""
    steady = float(_sigmoid(theta[:1])[0])
    hazard = np.minimum(data[:, :2] @ np.exp(theta[1:3]), _FAR)
    changed = -np.expm1(-hazard)
    gone = _sigmoid(np.log(changed + _TINY) + hazard + data[:, 2:4] @ theta[3:])
    return steady, changed, gone, np.clip((1.0 - steady * (1.0 - gone)) * data[:, 4], 1e-4, 1.0 - 1e-4)


def _surprise(theta: Array, data: Array) -> float:
    p, y = _wrong(theta, data)[3], data[:, 5]
    loss = -(data[:, 6] * (y * np.log(p) + (1.0 - y) * np.log1p(-p))).sum()
    return float(loss + 0.5 * (((theta - PRIOR) / SPREAD) ** 2).sum())


def _fit(theta: Array, data: Array, steps: int) -> Array:
    least, damping = _surprise(theta, data), 0.01
    for _ in range(steps):
        slope, curvature = _slopes(theta, data)
        diagonal = np.diag(np.diag(curvature))
        while damping < 1e4:
            trial = theta + np.clip(np.linalg.solve(curvature + damping * diagonal, slope), -1.0, 1.0)
            surprise = _surprise(trial, data)
            if surprise < least:
                theta, least, damping = trial, surprise, max(damping / 5.0, 1e-4)
                break
            damping *= 10.0
    return theta


def _slopes(theta: Array, data: Array) -> tuple[Array, Array]:
    """Return the gradient (5,) and Gauss-Newton curvature (5, 5) of the log posterior."""
    steady, changed, gone, p = _wrong(theta, data)
    y, weight = data[:, 5], data[:, 6]
    by_odds = data[:, 4] * steady * gone * (1.0 - gone)
    by_hazard = by_odds / np.maximum(changed, _TINY)
    jacobian = np.column_stack(
        (
            -steady * (1.0 - steady) * (1.0 - gone) * data[:, 4],
            by_hazard[:, None] * data[:, :2] * np.exp(theta[1:3]),
            by_odds[:, None] * data[:, 2:4],
        )
    )
    pull = weight / (p * (1.0 - p))
    slope = jacobian.T @ ((y - p) * pull) - (theta - PRIOR) / SPREAD**2
    curvature = (jacobian * pull[:, None]).T @ jacobian + np.diag(1.0 / SPREAD**2)
    return np.asarray(slope), np.asarray(curvature)
