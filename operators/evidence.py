"""What audit frames prove about the frames that were not audited: an interval that holds whenever one looks.

What is estimated. Frames ``i = 1 .. N`` were answered by prediction. ``D_i`` in [0, 1] is how far the answer to frame i
disagreed with what the model would have said; it exists whether or not anybody looks. A coin of known chance ``p_i``,
thrown after ``D_i`` is settled, decides whether the frame is audited. The target is the plain mean of these very
numbers, ``(D_1 + .. + D_N) / N``, however the scene drifts: no frame is assumed to be like another. ``p_i`` may follow
from anything seen before frame i.

How. Let ``d_i`` in [0, 1] be a guess of ``D_i`` made from earlier frames, and ``x_i = (D_i - d_i) / p_i`` on an audit
frame, 0 elsewhere, so that ``E[x_i] = D_i - d_i``. For each bet ``b`` on a fixed ladder, with ``1 + b x_i > 0``,

    L(b) = prod (1 + b x_i) exp(-b (D_i - d_i))    is a supermartingale, since 1 + b E[x_i] <= exp(b E[x_i]),

and so is a mixture of them. By Ville's inequality it ever reaches ``2 / alpha`` with a chance of at most ``alpha / 2``;
the sums ``D_1 + .. + D_N`` for which it has not are the confidence sequence's one side. ``-x_i`` gives the other.

Sources: the bets are those of Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting"
(JRSS-B 2024), with constant instead of predictable stakes and exponential instead of exact compensation, because their
hedged capital is for a mean that never changes, and their PrPl-EB weighs frames by its stakes, so that under drift both
are about another mean. Compensating by the running sum is Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform,
nonparametric, nonasymptotic confidence sequences" (Annals of Statistics 2021), Theorem 4. Inverse-probability weights
with a guess to take variance out are the doubly robust weights of Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro,
"Anytime-valid off-policy inference for contextual bandits" (2022). docs/accuracy.md has the argument in full.

All functions broadcast: the numbers of one stream of frames are scalars, those of many are arrays ``(...)``, with the
ladder as one more axis ``(..., K)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Number = Any  # a float, or an array of them
TargetState = Literal["met", "not met", "not known"]

CONFIDENCE = 0.95
LADDER: Floats = 2.0 ** (-np.arange(56) / 2.0)  # bets, from 1 down to 5e-9: audit chances down to 1 in a million
RUNGS = 18  # how many of them share the mixture, from the audit chance down: enough for 1,000,000 audits
LOG_SHARES: Floats = -1.5 * np.log(np.arange(RUNGS) + 2.0)  # larger bets weigh more: most certificates have few audits
LOG_SHARES -= np.log(np.exp(LOG_SHARES).sum())
NEWTON_STEPS = 40  # more than it ever took; each one is exact enough to stop at
STAKE = 0.95  # the largest share of its capital that a bet may lose on one frame
FIRST_GUESS = 0.1  # of disagreement, before any audit; worth one audit


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the audits of streams of frames have shown; `+` is exact where the streams' coins are independent.

    ``known_sum`` is the disagreement of the ``known`` frames that need no audit, such as abstained ones;
    ``weight`` and ``weighted`` sum 1/p and D/p over the sampled audit frames, ``wrong`` and ``checked`` sum D and 1.
    """

    frames: Number = 0
    known: Number = 0
    known_sum: Number = 0.0
    audits: Number = 0
    checked: Number = 0
    wrong: Number = 0.0
    weight: Number = 0.0
    weighted: Number = 0.0
    unit: Number = math.inf  # the first audit chance above 0: where the mixture begins
    more: Number = 0.0  # log capital of bets on more disagreement than guessed (..., K), and the sum of guesses
    more_guessed: Number = 0.0
    less: Number = 0.0  # the same for bets on less
    less_guessed: Number = 0.0

    def __add__(self, other: Evidence) -> Evidence:
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self) if f.name != "unit"}
        return Evidence(**sums, unit=np.minimum(self.unit, other.unit))

    def numbers(self) -> Floats:
        """Return one stream's evidence as float64 numbers (9 + 4 K,), from which `from_numbers` makes the very same."""
        return np.concatenate([np.broadcast_to(getattr(self, f.name), _length(f.name)) for f in fields(self)]).astype(
            np.float64
        )

    @classmethod
    def from_numbers(cls, numbers: Floats) -> Evidence:
        """Read what `numbers` wrote. Raises `ValueError` where the count of numbers is another."""
        lengths = [_length(f.name) for f in fields(cls)]
        if numbers.shape != (sum(lengths),):
            raise ValueError(f"evidence has {sum(lengths)} numbers, got {numbers.shape}")
        each = np.split(numbers, np.cumsum(lengths)[:-1])
        return cls(**{f.name: one if len(one) > 1 else float(one[0]) for f, one in zip(fields(cls), each, strict=True)})


def _length(name: str) -> int:
    return len(LADDER) if name.startswith(("more", "less")) else 1


@dataclass(frozen=True)
class Certificate:
    """The mean agreement over ``frames`` as it is estimated, and an interval that is valid at any time.

    Without an audit frame the three figures are None and ``state`` is "not measured".
    """

    estimate: float | None
    low: float | None
    high: float | None
    audits: int
    frames: int
    confidence: float = CONFIDENCE

    @property
    def state(self) -> Literal["not measured", "measured"]:
        return "not measured" if self.estimate is None else "measured"

    def against(self, target: float | None) -> TargetState | None:
        """Say whether a target is met: only the interval as a whole decides; None without a target."""
        if target is None:
            return None
        if self.low is None or self.high is None:
            return "not known"
        return "met" if self.low >= target else "not met" if self.high < target else "not known"


def observe(evidence: Evidence, probability: Number, agreement: Number = math.nan, *, frames: int = 1) -> Evidence:
    """Add one frame that could be audited with chance ``probability``; ``agreement`` is NaN where it was not.

    ``frames`` unaudited ones of the same chance may be added at once. A frame that could not be audited (chance 0) may
    be anything: it widens the interval. Raises `ValueError` for an agreement or a probability outside [0, 1], and for
    an audit that had no chance to happen.
    """
    chance, disagreement = np.asarray(probability, np.float64), 1.0 - np.asarray(agreement, np.float64)
    audited = ~np.isnan(disagreement)
    _check(chance, disagreement, audited)
    guess = np.asarray((evidence.wrong + FIRST_GUESS) / (evidence.checked + 1.0))
    unit = np.where(np.isinf(evidence.unit) & (chance > 0.0), chance, evidence.unit)
    return evidence + replace(_of_frames(chance, disagreement, audited, guess, frames), unit=unit)


def gathered(probability: Floats, agreement: Floats) -> Evidence:
    """Return what `observe` makes of all frames of one stream, in order: (n,) chances, (n,) agreements or NaN."""
    chance, disagreement = np.asarray(probability, np.float64), 1.0 - np.asarray(agreement, np.float64)
    audited = ~np.isnan(disagreement)
    _check(chance, disagreement, audited)
    before = np.concatenate((np.zeros(1), np.cumsum(np.where(audited, disagreement, 0.0))))[:-1]
    checked = np.cumsum(audited) - audited
    starts = np.flatnonzero(audited | (np.diff(chance, prepend=-1.0) != 0.0) | (np.diff(checked, prepend=-1) != 0))
    runs = np.diff(starts, append=len(chance))  # unaudited frames of one chance and one guess are one run
    guess = (before[starts] + FIRST_GUESS) / (checked[starts] + 1.0)
    each = _of_frames(chance[starts], disagreement[starts], audited[starts], guess, runs)
    total = Evidence(**{f.name: np.sum(getattr(each, f.name), axis=0) for f in fields(each) if f.name != "unit"})
    return replace(total, unit=next(iter(chance[chance > 0.0]), math.inf))


def _of_frames(chance: Floats, disagreement: Floats, audited: Any, guess: Floats, frames: Any) -> Evidence:
    """Return what ``frames`` frames add that share a chance, a guess and, if audited, are one."""
    wrong = np.where(audited, disagreement, 0.0)
    weight = np.where(audited, 1.0 / np.where(audited, chance, 1.0), 0.0)
    reach = STAKE * chance[..., None] / LADDER  # how far below (above) the guess a bet bears
    low, high = np.minimum(guess[..., None], reach), np.maximum(guess[..., None], 1.0 - reach)
    stakes, count = LADDER * weight[..., None], np.asarray(frames)[..., None]
    return Evidence(
        frames=np.asarray(frames) * np.ones_like(audited, np.int64),
        audits=audited * 1,
        checked=audited * 1,
        wrong=wrong,
        weight=weight,
        weighted=weight * wrong,
        more=np.log1p(stakes * (wrong[..., None] - low)),
        more_guessed=count * low,
        less=np.log1p(stakes * (high - wrong[..., None])),
        less_guessed=count * high,
    )


def known(agreement: Number, *, frames: int = 1, audits: int = 0) -> Evidence:
    """Return frames whose agreement needs no audit: 0 where no answer was given, 1 where nothing was guessed."""
    return Evidence(frames=frames, known=frames, known_sum=frames * (1.0 - agreement), audits=audits)


def combined(parts: Any) -> Evidence:
    """Return the evidence of streams that are audited independently of each other: periods, cameras.

    Models of one camera are not: they share their audit frames, so their mean has to be observed frame by frame.
    """
    return reduce(lambda one, other: one + other, parts, Evidence())


def certify(evidence: Evidence, confidence: float = CONFIDENCE) -> Certificate:
    """Return the certificate of one stream (scalars), or of streams added up."""
    frames, audits = int(evidence.frames), int(evidence.audits)
    if audits == 0 or (frames > evidence.known and evidence.checked == 0):
        return Certificate(None, None, None, audits, frames, confidence)
    estimate = float(mean(evidence))
    low, high = (float(bound) for bound in bounds(evidence, confidence))
    return Certificate(estimate, min(low, estimate), max(high, estimate), audits, frames, confidence)


def mean(evidence: Evidence) -> Number:
    """Return the estimated mean agreement (Hájek's: weights 1/p divided by their sum); NaN where nothing is known."""
    sampled = evidence.frames - evidence.known
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.where(sampled > 0, np.asarray(evidence.weighted) / np.asarray(evidence.weight), 0.0)
        return np.clip(1.0 - (evidence.known_sum + sampled * rate) / np.asarray(evidence.frames, np.float64), 0.0, 1.0)


def bounds(evidence: Evidence, confidence: float = CONFIDENCE) -> tuple[Number, Number]:
    """Return the interval (low, high) of the mean agreement; (0, 1) where no frame could be audited yet.

    With probability ``confidence`` it holds the true mean after every frame, all frames at once.
    """
    sampled = np.asarray(evidence.frames - evidence.known, np.float64)
    limit = math.log(2.0 / (1.0 - confidence))
    rungs = np.searchsorted(-LADDER, -np.asarray(evidence.unit, np.float64))[..., None] + np.arange(RUNGS)
    rungs = np.minimum(rungs, len(LADDER) - RUNGS + np.arange(RUNGS))
    bets = LADDER[rungs]
    least = _root(LOG_SHARES + _at(evidence.more, rungs) + bets * _at(evidence.more_guessed, rungs), bets, limit)
    most = -_root(LOG_SHARES + _at(evidence.less, rungs) - bets * _at(evidence.less_guessed, rungs), bets, limit)
    least = np.maximum(least, evidence.wrong)  # what was seen is certain
    most = np.minimum(most, sampled - evidence.checked + evidence.wrong)
    with np.errstate(invalid="ignore", divide="ignore"):
        low = 1.0 - (evidence.known_sum + most) / evidence.frames
        high = 1.0 - (evidence.known_sum + least) / evidence.frames
    nothing = np.asarray(evidence.frames) == 0
    return np.where(nothing, 0.0, np.clip(low, 0.0, 1.0)), np.where(nothing, 1.0, np.clip(high, 0.0, 1.0))


def _check(chance: Floats, disagreement: Floats, audited: NDArray[np.bool_]) -> None:
    if not np.all((chance >= 0.0) & (chance <= 1.0)):
        raise ValueError(f"audit probabilities must lie in [0, 1], got {chance.min()} to {chance.max()}")
    if np.any(audited & (chance == 0.0)):
        raise ValueError("a frame was audited that had no chance to be: its recorded audit probability is 0")
    if np.any(audited & ((disagreement < 0.0) | (disagreement > 1.0))):
        raise ValueError("an agreement outside [0, 1]")


def _at(ladder: Number, rungs: NDArray[np.int64]) -> Floats:
    """Return the rungs (..., RUNGS) of a ladder (..., K), or of 0.0 where nothing was ever bet."""
    whole = np.broadcast_to(ladder, (*rungs.shape[:-1], len(LADDER)))
    return np.asarray(np.take_along_axis(whole, rungs, axis=-1), dtype=np.float64)


def _root(heights: Floats, bets: Floats, limit: float) -> Floats:
    """Return s with logsumexp(heights - bets s) = limit: (..., RUNGS) -> (...).

    The left side falls and is convex, so Newton's method from a point on its left never oversteps.
    """
    s = np.max((heights - limit) / bets, axis=-1)
    for _ in range(NEWTON_STEPS):
        terms = heights - bets * s[..., None]
        top = np.max(terms, axis=-1)
        shares = np.exp(terms - top[..., None])
        total = shares.sum(axis=-1)
        step = (np.log(total) + top - limit) * total / (shares * bets).sum(axis=-1)
        s = s + step
        if np.all(step <= 1e-9 * (1.0 + np.abs(s))):
            break
    return np.asarray(s, dtype=np.float64)
