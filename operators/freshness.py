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

from math import exp, expm1, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camlink.operators.compiled import compiled
from camlink.operators.policy_state import State, array

Array = NDArray[np.float64]

#                 logit steady, log h_age, log h_move, edge, luma
PRIOR = np.array([2.5, -3.0, -3.0, 0.2, 0.2])
SPREAD = np.array([1.5, 1.5, 1.5, 0.4, 0.4])
SMALL = 0.1  # step of parameters
KEPT = 600  # samples; older ones say little about now
HALF_LIFE = 500.0  # samples
LEAST_ODDS = 0.01  # of being wrong when gone: no long-run frequency is taken to be certain
_TINY, _LEAST = 1e-9, 1e-4
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
        self._end, self.new = len(samples), int(state["new"])
        self._samples[: self._end] = samples
        self._read()

    def hazard(self, activity: float) -> float:
        """Return the hazard per step while ``activity`` is added per step."""
        return min(max(self._h_age + self._h_move * activity, 1e-4), 3.0)

    def gone(self, passed: Passed) -> float:
        """Return the chance that what was executed then has changed since, 0..1."""
        hazard = self._h_age * passed.age + self._h_move * passed.activity
        return _gone(hazard, self._edge * passed.edge + self._luma * passed.luma)

    def observe(self, passed: Passed, odds: float, disagreed: float, weight: float = 1.0) -> None:
        """Learn that after ``passed`` the old output disagreed (0..1), where ``odds`` was its chance to if gone."""
        if self._end == len(self._samples):
            self._samples[:KEPT], self._end = self._samples[KEPT:], KEPT
        _note(self._samples, self._end, *passed, odds, disagreed, weight)
        self._end += 1
        self.new += 1

    def _kept(self) -> Array:
        """Return the last `KEPT` samples, as rows."""
        return self._samples[max(0, self._end - KEPT) : self._end]

    @property
    def samples(self) -> int:
        """How many samples count."""
        return min(self._end, KEPT)

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
        return told(self._theta, *self._faded())

    def _faded(self) -> tuple[Array, Array]:
        """Return samples (n, 7) and how much each of them counts (n,)."""
        samples = self._kept()
        return samples, samples[:, 6] * _FADING[KEPT - len(samples) :]

    def fit(self, steps: int) -> None:
        """Take up to ``steps`` of damped Gauss-Newton towards the most probable parameters; 0.05 ms each."""
        if not self.samples:
            return
        self._theta, self.new = _fit(self._theta, *self._faded(), steps, *self._prior), 0
        self._read()


def steadiness(theta: Array) -> float:
    """Return the share of frames, 0..1, on which a model says the same again, as far as nothing has changed."""
    return 1.0 / (1.0 + exp(-theta.item(0)))


def half_life(theta: Array) -> float:
    """Return the steps of mean movement until half of what held at once has changed."""
    return log(2.0) / (exp(theta.item(1)) + exp(theta.item(2)))


def most_probable(samples: Array, weights: Array, steps: int) -> Array:
    """Return the parameters (5,) that are the most probable ones given samples (n, 7), from the constant prior.

    A sample: age, activity, edge, luma, odds, disagreed (`Freshness.observe`), and its weight, which is not read:
    ``weights`` (n,) are.
    """
    return _fit(PRIOR, samples, weights, steps, PRIOR, _FIRM)


def told(theta: Array, samples: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Return ``theta`` (5,), and slope (5,) and curvature (5, 5) of the log likelihood of samples (n, 7) there."""
    return theta, *_slopes(theta, samples, weights, PRIOR, np.zeros_like(_FIRM))[1:]


@compiled
def _note(
    samples: Array,
    row: int,
    age: float,
    activity: float,
    edge: float,
    luma: float,
    odds: float,
    disagreed: float,
    weight: float,
) -> None:
    """Write a sample into a row of ``samples`` (n, 7)."""
    samples[row, 0], samples[row, 1], samples[row, 2], samples[row, 3] = age, activity, edge, luma
    samples[row, 4], samples[row, 5], samples[row, 6] = max(odds, LEAST_ODDS), disagreed, weight


@compiled
def _gone(hazard: float, signs: float) -> float:
    """Return the chance that an output has changed, of the hazard that has added up and the weighted signs."""
    odds = expm1(min(hazard, _FAR)) * exp(min(signs, _FAR))
    return odds / (1.0 + odds)


@compiled
def _chance_wrong(steady: float, gone: float, sample: Array) -> float:
    wrong: float = (1.0 - steady * (1.0 - gone)) * sample[4]
    return min(max(wrong, _LEAST), 1.0 - _LEAST)


@compiled
def _unlikely(theta: Array, mean: Array, firm: Array) -> float:
    """Return the negative log prior of parameters (5,)."""
    surprise = 0.0
    for i in range(5):
        for j in range(5):
            surprise += 0.5 * (theta[i] - mean[i]) * firm[i, j] * (theta[j] - mean[j])
    return surprise


@compiled
def _surprise(theta: Array, samples: Array, weights: Array, mean: Array, firm: Array) -> float:
    """Return the negative log posterior of parameters (5,), of which the prior has this mean and information."""
    steady, age, move = 1.0 / (1.0 + np.exp(-theta[0])), np.exp(theta[1]), np.exp(theta[2])
    surprise = _unlikely(theta, mean, firm)
    for n in range(len(samples)):
        sample = samples[n]
        gone = _gone(age * sample[0] + move * sample[1], theta[3] * sample[2] + theta[4] * sample[3])
        wrong, disagreed = _chance_wrong(steady, gone, sample), sample[5]
        surprise -= weights[n] * (disagreed * np.log(wrong) + (1.0 - disagreed) * np.log1p(-wrong))
    return surprise


@compiled
def _slopes(theta: Array, samples: Array, weights: Array, mean: Array, firm: Array) -> tuple[float, Array, Array]:
    """Return `_surprise`, and the gradient (5,) and Gauss-Newton curvature (5, 5) of the log posterior."""
    steady, age, move = 1.0 / (1.0 + np.exp(-theta[0])), np.exp(theta[1]), np.exp(theta[2])
    surprise, slope, curvature, by = _unlikely(theta, mean, firm), np.zeros(5), np.zeros((5, 5)), np.empty(5)
    for i in range(5):
        for j in range(5):
            slope[i] -= firm[i, j] * (theta[j] - mean[j])
            curvature[i, j] = firm[i, j]
    for n in range(len(samples)):
        sample = samples[n]
        hazard = min(age * sample[0] + move * sample[1], _FAR)
        gone = _gone(hazard, theta[3] * sample[2] + theta[4] * sample[3])
        wrong, disagreed, stays = _chance_wrong(steady, gone, sample), sample[5], steady * (1.0 - gone)
        surprise -= weights[n] * (disagreed * np.log(wrong) + (1.0 - disagreed) * np.log1p(-wrong))
        by_odds = sample[4] * stays * gone
        by_hazard = by_odds / max(-np.expm1(-hazard), _TINY)
        by[0] = -(1.0 - steady) * stays * sample[4]
        by[1], by[2] = by_hazard * sample[0] * age, by_hazard * sample[1] * move
        by[3], by[4] = by_odds * sample[2], by_odds * sample[3]
        pull = weights[n] / (wrong * (1.0 - wrong))
        for i in range(5):
            slope[i] += by[i] * pull * (disagreed - wrong)
            for j in range(i + 1):
                curvature[i, j] += by[i] * pull * by[j]
    for i in range(5):
        for j in range(i):
            curvature[j, i] = curvature[i, j]
    return surprise, slope, curvature


@compiled
def _fit(theta: Array, samples: Array, weights: Array, steps: int, mean: Array, firm: Array) -> Array:
    """Return parameters (5,) after up to ``steps`` of damped Gauss-Newton from ``theta`` (5,)."""
    damping = 0.01
    for _ in range(steps):
        before, slope, curvature = _slopes(theta, samples, weights, mean, firm)
        best = before
        while damping < 1e4:
            damped = curvature.copy()
            for i in range(5):
                damped[i, i] *= 1.0 + damping
            step = _solve(damped, slope)
            expected, longest = 0.0, 0.0
            for i in range(5):
                step[i] = min(max(step[i], -1.0), 1.0)
                expected += 0.5 * slope[i] * step[i]
                longest = max(longest, abs(step[i]))
            trial = theta + step
            if longest < SMALL:  # what is nearly a parabola needs no second look
                theta, best = trial, before - expected
                break
            best = _surprise(trial, samples, weights, mean, firm)
            if best < before:
                theta, damping = trial, max(damping / 5.0, 1e-4)
                break
            damping *= 10.0
        if before - best < _NEAR_ENOUGH:
            break
    return theta


@compiled
def _solve(matrix: Array, right: Array) -> Array:
    """Solve a positive definite system (n, n), which is used up, by elimination."""
    size, solved = len(right), right.copy()
    for i in range(size):
        for j in range(i + 1, size):
            factor = matrix[j, i] / matrix[i, i]
            solved[j] -= factor * solved[i]
            for k in range(i, size):
                matrix[j, k] -= factor * matrix[i, k]
    for i in range(size - 1, -1, -1):
        for k in range(i + 1, size):
            solved[i] -= matrix[i, k] * solved[k]
        solved[i] /= matrix[i, i]
    return solved
