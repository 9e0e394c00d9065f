"""Simulated days of audits: does the interval hold the truth at every moment, also the most unfavourable one?

A day is ``frames`` served predictions. Each disagrees or not (or by a share) as its scenario says; a coin decides about
its audit. After every audit, and just before the next, when the truth has drifted furthest since, the interval is
compared with the mean over all frames so far. A day on which it ever loses the truth counts as missed: whoever stops at
the worst moment stops there. All days run at once: the arrays are (days,) per audit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camlink.operators.evidence import CONFIDENCE, Evidence, bounds, mean, observe
from camlink.pipeline.accuracy import wilson

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Scenario = Callable[[np.random.Generator, int, int], Floats]  # rng, days, frames -> disagreement (days, frames)
Chances = Callable[[Evidence, Floats], Floats]  # evidence so far, interval width -> the chance from here on, (days,)


def steady(rng: np.random.Generator, days: int, frames: int) -> Floats:
    """Every day has a rate of its own, from almost never wrong to often."""
    rates = 10.0 ** rng.uniform(-3.0, -0.3, (days, 1))
    return (rng.random((days, frames)) < rates).astype(float)


def drifting(rng: np.random.Generator, days: int, frames: int) -> Floats:
    """The rate of disagreement goes from one level to another."""
    start, end = rng.uniform(0.0, 0.5, (2, days, 1))
    return (rng.random((days, frames)) < np.linspace(start, end, frames, axis=1)[..., 0]).astype(float)


def breaking(rng: np.random.Generator, days: int, frames: int) -> Floats:
    """All is well until a moment (a lens gets wet, night falls), and bad from there on."""
    moment = rng.integers(frames // 10, frames, (days, 1))
    bad = rng.uniform(0.1, 0.9, (days, 1))
    return (rng.random((days, frames)) < np.where(np.arange(frames) < moment, 0.01, bad)).astype(float)


def bursting(rng: np.random.Generator, days: int, frames: int) -> Floats:
    """Disagreements come in stretches of some hundred frames: neighbours are alike, audits far apart are not."""
    wrong, state = np.empty((days, frames)), rng.random(days) < 0.1
    for i in range(frames):
        state = np.where(state, rng.random(days) > 1 / 200, rng.random(days) < 1 / 1800)
        wrong[:, i] = state
    return wrong


def graded(rng: np.random.Generator, days: int, frames: int) -> Floats:
    """Disagreement is a share, as for a vector of counts, and follows the time of day."""
    level = 0.15 + 0.1 * np.sin(np.linspace(0.0, 2 * np.pi, frames) + rng.uniform(0, 6, (days, 1)))
    return rng.beta(4 * level, 4 * (1 - level))


SCENARIOS: dict[str, Scenario] = {
    "steady": steady, "drifting": drifting, "breaking": breaking, "bursting": bursting, "graded": graded,
}  # fmt: skip


def fixed(share: float) -> Chances:
    """Return the rule: the same chance all day."""
    return lambda evidence, width: np.full(width.shape, share)


def adaptive(share: float) -> Chances:
    """Return a rule that follows what audits found: more where the interval is wide and disagreement was seen, up to
    four times the share; down to a quarter where all is clear."""

    def chances(evidence: Evidence, width: Floats) -> Floats:
        seen = np.asarray(evidence.wrong) / np.maximum(np.asarray(evidence.checked), 1)
        chance: Floats = np.clip(share * (0.25 + 8.0 * width * (seen + 0.1)), share / 4, 4 * share)
        return chance

    return chances


@dataclass(frozen=True)
class Outcome:
    """What came of the days: shares that were ever missed, and mean widths of the interval at the end."""

    days: int
    audits: float  # per day
    missed: float  # the certificate lost the truth at some moment
    missed_at_end: float
    wilson_missed: float  # the fixed-sample interval lost it at some audit
    width: float
    wilson_width: float


def simulate(rng: np.random.Generator, disagreement: Floats, chances: Chances) -> Outcome:
    """Audit all days (days, frames) and compare with the truth throughout."""
    days, frames = disagreement.shape
    totals = np.concatenate((np.zeros((days, 1)), np.cumsum(disagreement, axis=1)), axis=1)
    rows, evidence, at = np.arange(days), Evidence(), np.zeros(days, np.int64)
    missed, wilson_missed, audits = np.zeros(days, bool), np.zeros(days, bool), np.zeros(days)
    width = np.ones(days)
    while np.any(at < frames):
        chance = np.where(at < frames, chances(evidence, width), 0.5)
        gap = np.minimum(rng.geometric(chance) - 1, frames - at)  # unaudited frames before the next audit
        evidence = observe(evidence, chance, np.full(days, np.nan), frames=gap)
        at = at + gap
        missed |= _misses(evidence, totals[rows, at] / np.maximum(at, 1), at)[0]
        audited = at < frames
        agreement = np.where(audited, 1.0 - disagreement[rows, np.minimum(at, frames - 1)], np.nan)
        evidence = observe(evidence, chance, agreement, frames=audited.astype(np.int64))
        at, audits = at + audited, audits + audited
        lost, width = _misses(evidence, totals[rows, at] / np.maximum(at, 1), at)
        missed |= lost
        wilson_missed |= audited & _wilson(evidence, audits, totals[rows, at] / np.maximum(at, 1))[0]
    truth = totals[:, -1] / frames
    return Outcome(
        days,
        float(audits.mean()),
        float(missed.mean()),
        float(_misses(evidence, truth, at)[0].mean()),
        float(wilson_missed.mean()),
        float(width.mean()),
        float(_wilson(evidence, audits, truth)[1].mean()),
    )


def _misses(evidence: Evidence, disagreement: Floats, frames: NDArray[np.int64]) -> tuple[Flags, Floats]:
    low, high = bounds(evidence, CONFIDENCE)
    truth = 1.0 - disagreement
    return (frames > 0) & ((truth < low - 1e-9) | (truth > high + 1e-9)), high - low


def _wilson(evidence: Evidence, audits: Floats, disagreement: Floats) -> tuple[Flags, Floats]:
    """The interval of finished runs: Wilson's (audits stand for Kish's effective size, which is at most as large)."""
    estimate = mean(evidence)
    found = [wilson(float(m), float(max(n, 1.0))) for m, n in zip(np.nan_to_num(estimate), audits, strict=True)]
    low, high = np.array(found).T
    truth = 1.0 - disagreement
    return (truth < low - 1e-9) | (truth > high + 1e-9), high - low
