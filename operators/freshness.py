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

from dataclasses import dataclass
from math import exp, expm1, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camlink.operators.policy_state import State, array

Array = NDArray[np.float64]

#                 logit steady, log h_age, log h_move, edge, luma
PRIOR = np.array([2.5, -3.0, -3.0, 0.2, 0.2])
SPREAD = np.array([1.5, 1.5, 1.5, 0.4, 0.4])
KEPT = 600  # samples; older ones say little about now
HALF_LIFE = 500.0  # samples
LEAST_ODDS = 0.01  # of being wrong when gone: no long-run frequency is taken to be certain
_TINY = 1e-9
_FAR = 30.0  # exponents beyond tell nothing more
_NEAR_ENOUGH = 1e-3  # gain in log probability by a step, below which a fit has arrived
_FADING = 0.5 ** (np.arange(KEPT - 1, -1, -1) / HALF_LIFE)
_FIRM = np.diag(1.0 / SPREAD**2)
Prior = tuple[Array, Array]  # most probable parameters (5,) before anything was seen, information on them (5, 5)


class Passed(NamedTuple):
    """What has passed since a model executed: steps of time, activity in steps of its mean, how the frame differs."""

    age: float
    activity: float
    edge: float = 0.0  # |change of edge density| and
    luma: float = 0.0  # |change of mean luma|, in standard deviations, at most 3


class Freshness:
    """One model's parameters on one camera, learnt from pairs of executed outputs."""

    def __init__(self) -> None:
        self._theta = PRIOR.copy()
        self._prior: Prior = PRIOR, _FIRM
        self._samples = np.empty((2 * KEPT, 7))  # rows up to `_end`, of which the last `KEPT` count
        self._end = 0
        self._heard: list[tuple[float, ...]] = []  # samples that are not in rows yet
        self.new = 0  # samples since the last fit
        self._read()

    def _read(self) -> None:
        _, age, move, self._edge, self._luma = self._theta.tolist()
        self.steady = steadiness(self._theta)
        self._h_age, self._h_move = exp(age), exp(move)

    def state(self) -> State:
        """Return what was learnt, for a snapshot."""
        return {"theta": self._theta, "samples": self._kept(), "new": self.new, "prior": list(self._prior)}

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        samples = array(state["samples"], self._samples[:KEPT], free=(0,))[-KEPT:]
        self._theta = array(state["theta"], self._theta)
        mean, firm = state["prior"]
        self._prior = array(mean, PRIOR), array(firm, _FIRM)
        self._end, self._heard, self.new = len(samples), [], int(state["new"])
        self._samples[: self._end] = samples
        self._read()

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
        self._heard.append((*passed, max(odds, LEAST_ODDS), disagreed, weight))
        self.new += 1

    def _kept(self) -> Array:
        """Return the last `KEPT` samples, as rows."""
        new = self._heard[-KEPT:]
        if new:
            if self._end + len(new) > len(self._samples):
                kept = self._samples[max(0, self._end - KEPT) : self._end].copy()
                self._samples[: len(kept)], self._end = kept, len(kept)
            self._samples[self._end : self._end + len(new)] = new
            self._end, self._heard = self._end + len(new), []
        return self._samples[max(0, self._end - KEPT) : self._end]

    @property
    def samples(self) -> int:
        """How many samples count."""
        return min(self._end + len(self._heard), KEPT)

    def start_from(self, mean: Array, firm: Array) -> None:
        """Take other parameters (5,) to be the most probable ones before anything was seen, ``firm`` (5, 5) as sure."""
        self._prior = mean, firm
        if not self.samples:
            self._theta = mean.copy()
            self._read()

    def told(self) -> tuple[Array, Array, Array]:
        """Return what the samples alone say around the present parameters: these (5,), slope (5,), curvature (5, 5).

        Of the log likelihood, without the prior.
        """
        return told(self._theta, self._faded())

    def _faded(self) -> Array:
        data = self._kept().T.copy()
        data[6] *= _FADING[KEPT - data.shape[1] :]
        return data

    def fit(self, steps: int) -> None:
        """Take ``steps`` of damped Gauss-Newton towards the most probable parameters; 0.1 ms each."""
        if not self.samples:
            return
        self._theta, self.new = _fit(self._theta, self._faded(), steps, self._prior), 0
        self._read()


def steadiness(theta: Array) -> float:
    """Return the share of frames, 0..1, on which a model says the same again, as far as nothing has changed."""
    return 1.0 / (1.0 + exp(-theta.item(0)))


def half_life(theta: Array) -> float:
    """Return the steps of mean movement until half of what held at once has changed."""
    return log(2.0) / (exp(theta.item(1)) + exp(theta.item(2)))


def most_probable(data: Array, steps: int) -> Array:
    """Return the parameters (5,) that are the most probable ones given samples (7, n), from the constant prior."""
    return _fit(PRIOR, data, steps, (PRIOR, _FIRM))


def told(theta: Array, data: Array) -> tuple[Array, Array, Array]:
    """Return ``theta`` (5,), and slope (5,) and curvature (5, 5) of the log likelihood of samples (7, n) there."""
    nothing = PRIOR, np.zeros_like(_FIRM)
    return theta, *_slopes(theta, data, _fitted(theta, data, nothing), nothing)


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """What parameters make of samples (n,): the chances of no freshness left, of change and of disagreement."""

    steady: float
    changed: Array
    gone: Array
    wrong: Array
    surprise: float  # the negative log posterior


def _fitted(theta: Array, data: Array, prior: Prior) -> _Fitted:
    """Hold ``theta`` (5,) against ``data`` (7, n): age, activity, edge, luma, odds, disagreed, weight."""
    logit, age, move, edge, luma = theta.tolist()
    steady = 1.0 / (1.0 + exp(min(max(-logit, -_FAR), _FAR)))
    hazard = np.minimum(exp(age) * data[0] + exp(move) * data[1], _FAR)
    changed = -np.expm1(-hazard)
    odds = np.log(changed + _TINY) + hazard + edge * data[2] + luma * data[3]
    gone = 1.0 / (1.0 + np.exp(np.minimum(np.maximum(-odds, -_FAR), _FAR)))
    wrong = np.minimum(np.maximum((1.0 - steady * (1.0 - gone)) * data[4], 1e-4), 1.0 - 1e-4)
    likely = np.log1p(-wrong)
    likely += data[5] * (np.log(wrong) - likely)
    off = theta - prior[0]
    return _Fitted(steady, changed, gone, wrong, float(0.5 * (off @ prior[1] @ off) - data[6] @ likely))


def _fit(theta: Array, data: Array, steps: int, prior: Prior) -> Array:
    best, damping = _fitted(theta, data, prior), 0.01
    for _ in range(steps):
        slope, curvature = _slopes(theta, data, best, prior)
        diagonal, before = np.diag(curvature.diagonal()), best.surprise
        while damping < 1e4:
            step = np.linalg.solve(curvature + damping * diagonal, slope)
            trial = theta + np.minimum(np.maximum(step, -1.0), 1.0)
            found = _fitted(trial, data, prior)
            if found.surprise < best.surprise:
                theta, best, damping = trial, found, max(damping / 5.0, 1e-4)
                break
            damping *= 10.0
        if before - best.surprise < _NEAR_ENOUGH:
            break
    return theta


def _slopes(theta: Array, data: Array, at: _Fitted, prior: Prior) -> tuple[Array, Array]:
    """Return the gradient (5,) and Gauss-Newton curvature (5, 5) of the log posterior at ``theta``."""
    rates = np.exp(theta[1:3])
    stays = at.steady * (1.0 - at.gone)
    by_odds = data[4] * stays * at.gone
    by_hazard = by_odds / np.maximum(at.changed, _TINY)
    jacobian = np.empty((5, data.shape[1]))
    jacobian[0] = -(1.0 - at.steady) * stays * data[4]
    jacobian[1:3] = by_hazard * data[:2] * rates[:, None]
    jacobian[3:] = by_odds * data[2:4]
    pull = data[6] / (at.wrong * (1.0 - at.wrong))
    slope = jacobian @ ((data[5] - at.wrong) * pull) - prior[1] @ (theta - prior[0])
    return slope, (jacobian * pull) @ jacobian.T + prior[1]
