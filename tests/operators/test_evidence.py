"""The confidence sequence: it covers at every moment, under drift and changing audit rates, and is never too sure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camlink.operators.evidence import Certificate, Evidence, bounds, certify, combined, gathered, known, mean, observe

NOT_AUDITED = math.nan


def stream(probability, agreement) -> Evidence:
    evidence = Evidence()
    for chance, agreed in zip(probability, agreement, strict=True):
        evidence = observe(evidence, chance, agreed)
    return evidence


def ever_missed(disagreement, chances, rng, every=1):
    """Audit many days (days, frames) at once; return, per day, whether the interval ever lost the running mean."""
    days, frames = disagreement.shape
    evidence, total, missed = Evidence(), np.zeros(days), np.zeros(days, bool)
    for i in range(frames):
        chance = chances(i, evidence)
        audited = rng.random(days) < chance
        evidence = observe(evidence, chance, np.where(audited, 1.0 - disagreement[:, i], NOT_AUDITED))
        total += disagreement[:, i]
        if i % every == 0 or i == frames - 1:
            low, high = bounds(evidence)
            truth = 1.0 - total / (i + 1)
            missed |= (truth < low - 1e-9) | (truth > high + 1e-9)
    return missed


def test_no_audit_is_not_measured_rather_than_a_number():
    found = certify(observe(Evidence(), 0.02))
    assert (found.state, found.estimate, found.low, found.high) == ("not measured", None, None, None)
    assert found.frames == 1
    assert found.against(0.9) == "not known"
    assert certify(Evidence()).state == "not measured"


@pytest.mark.parametrize("agreed", [0.0, 1.0])
def test_a_single_audit_proves_next_to_nothing(agreed):
    found = certify(stream([0.02] * 50, [NOT_AUDITED] * 49 + [agreed]))
    assert found.audits == 1
    assert found.high - found.low > 0.95
    assert found.low <= found.estimate <= found.high


def test_abstaining_on_an_audit_says_nothing_of_what_was_predicted():
    found = certify(observe(known(0.0, audits=1), 0.1))
    assert (found.state, found.audits, found.frames) == ("not measured", 1, 2)


def test_the_interval_narrows_with_audits_and_never_reaches_certainty():
    rng = np.random.default_rng(0)
    width = []
    for frames in (500, 2000, 8000):
        chance = np.full(frames, 0.05)
        agreed = np.where(rng.random(frames) < chance, 1.0, NOT_AUDITED)
        low, high = bounds(gathered(chance, agreed))
        width.append(high - low)
        assert high > 0.9995
    assert width[0] > width[1] > width[2] > 0.0


def test_where_every_frame_is_audited_nothing_is_left_to_doubt():
    found = certify(stream([1.0] * 40, [1.0, 0.5] * 20))
    assert (found.estimate, found.low, found.high) == pytest.approx((0.75, 0.75, 0.75))


def test_frames_that_could_not_be_audited_may_be_anything():
    seen = gathered(np.full(4000, 0.1), np.where(np.arange(4000) % 10 == 0, 1.0, NOT_AUDITED))
    blind = seen
    for _ in range(1000):
        blind = observe(blind, 0.0)
    low, high = bounds(seen)
    low_blind, high_blind = bounds(blind)
    assert low_blind <= 0.8 * low + 1e-9
    assert high_blind >= 0.2 + 0.8 * high - 1e-9


def test_frames_of_known_agreement_move_the_mean_and_add_no_doubt():
    sampled = gathered(np.full(2000, 0.1), np.where(np.arange(2000) % 10 == 0, 0.9, NOT_AUDITED))
    silent = sampled + known(0.0, frames=2000)
    assert mean(silent) == pytest.approx(mean(sampled) / 2)
    low, high = bounds(sampled)
    low_silent, high_silent = bounds(silent)
    assert (low_silent, high_silent) == pytest.approx((low / 2, high / 2))


def test_the_estimate_weighs_frames_by_the_inverse_of_their_chance():
    assert mean(stream([0.5, 0.1], [1.0, 0.0])) == pytest.approx(2 / 12)


@pytest.mark.parametrize(
    ("chance", "agreed", "words"), [(1.5, NOT_AUDITED, "probabilities"), (0.0, 1.0, "chance"), (0.5, 1.5, "outside")]
)
def test_what_cannot_be_is_refused(chance, agreed, words):
    with pytest.raises(ValueError, match=words):
        observe(Evidence(), chance, agreed)


frames_of_a_day = st.lists(
    st.tuples(st.sampled_from([0.0, 0.01, 0.1, 1.0]), st.sampled_from([None, 0.0, 0.5, 1.0])), min_size=1, max_size=60
)


@given(frames_of_a_day)
@settings(max_examples=60)
def test_all_at_once_equals_frame_by_frame(frames):
    chances = np.array([p for p, _ in frames])
    agreed = np.array([NOT_AUDITED if a is None or p == 0 else a for p, a in frames])
    one, other = stream(chances, agreed), gathered(chances, agreed)
    np.testing.assert_allclose(bounds(one), bounds(other), atol=1e-9)
    for name in ("frames", "audits", "weight", "weighted", "unit", "more", "less", "more_guessed", "less_guessed"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-12)


@given(frames_of_a_day, st.integers(0, 60))
@settings(max_examples=60)
def test_the_interval_holds_the_estimate_and_stays_within_zero_and_one(frames, cut):
    chances = np.array([p for p, _ in frames])
    agreed = np.array([NOT_AUDITED if a is None or p == 0 else a for p, a in frames])
    found = certify(combined([stream(chances[:cut], agreed[:cut]), stream(chances[cut:], agreed[cut:])]))
    assert found.frames == len(frames)
    assert found.audits == np.isfinite(agreed).sum()
    if found.state == "measured":
        assert 0.0 <= found.low <= found.estimate <= found.high <= 1.0


@given(frames_of_a_day)
@settings(max_examples=40)
def test_bounds_are_where_the_capital_reaches_its_limit(frames):
    """Newton's root, against a bisection that shares nothing with it but the definition."""
    from camlink.operators.evidence import LADDER, LOG_SHARES, RUNGS

    chances = np.array([p for p, _ in frames])
    agreed = np.array([NOT_AUDITED if a is None or p == 0 else a for p, a in frames])
    evidence = stream(chances, agreed)
    first = int(np.argmax(evidence.unit >= LADDER))
    chosen = slice(first, first + RUNGS)

    def capital(total: float) -> float:
        grown = evidence.more[chosen] - LADDER[chosen] * (total - evidence.more_guessed[chosen])
        return float(np.exp(LOG_SHARES) @ np.exp(np.minimum(grown, 700.0)))

    low, high = 0.0, float(len(frames))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if capital(middle) >= 40.0 else (low, middle)
    least = max(low, float(evidence.wrong))
    assert bounds(evidence)[1] == pytest.approx(1.0 - least / len(frames), abs=1e-6)


def test_it_covers_at_every_moment_of_days_that_drift():
    """200 days whose agreement falls from 99 to 60 %; at 95 % of confidence, missing 10 of 200 is to be expected."""
    rng = np.random.default_rng(1)
    rates = np.linspace(0.01, 0.4, 600)
    disagreement = (rng.random((200, 600)) < rates).astype(float)
    missed = ever_missed(disagreement, lambda i, evidence: np.full(200, 0.1), rng, every=5)
    assert missed.mean() <= 0.05


def test_it_covers_where_audits_follow_what_audits_have_shown():
    """The audit chance is four times as high after disagreements: weights make up for it."""
    rng = np.random.default_rng(2)
    disagreement = (rng.random((200, 600)) < np.repeat([0.02, 0.5], 300)).astype(float)

    def chances(i: int, evidence: Evidence):
        checked = np.broadcast_to(evidence.checked, (200,))
        suspicious = np.broadcast_to(evidence.wrong, (200,)) > 0.05 * checked
        return np.where(suspicious, 0.2, 0.05)

    assert ever_missed(disagreement, chances, rng, every=5).mean() <= 0.05


def test_a_fixed_sample_interval_would_be_caught_out_by_looking_all_day():
    """What the confidence sequence is for: Wilson's interval, looked at after every audit, misses far too often."""
    from camlink.pipeline.accuracy import wilson

    rng = np.random.default_rng(3)
    disagreement = (rng.random((200, 600)) < 0.2).astype(float)
    caught = np.zeros(200, bool)
    for day in range(200):
        audits = np.flatnonzero(rng.random(600) < 0.2)
        agreed = np.cumsum(1.0 - disagreement[day, audits]) / np.arange(1, len(audits) + 1)
        truth = 1.0 - np.cumsum(disagreement[day])[audits] / (audits + 1)
        intervals = [wilson(float(a), float(n)) for n, a in enumerate(agreed, start=1)]
        caught[day] = any(not low <= t <= high for (low, high), t in zip(intervals, truth, strict=True))
    assert caught.mean() > 0.1


def test_periods_and_cameras_add_up_whatever_their_audit_shares():
    rng = np.random.default_rng(4)
    parts, total = [], 0.0
    for share, rate in ((0.02, 0.05), (0.1, 0.3), (0.5, 0.0)):
        disagreement = (rng.random(3000) < rate).astype(float)
        agreed = np.where(rng.random(3000) < share, 1.0 - disagreement, NOT_AUDITED)
        parts.append(gathered(np.full(3000, share), agreed))
        total += disagreement.sum()
    found = certify(combined(parts))
    assert found.frames == 9000
    assert found.low < 1.0 - total / 9000 < found.high
    assert found.high - found.low < 0.2


def test_the_state_of_a_target_is_decided_by_the_whole_interval():
    proven = Certificate(0.97, 0.96, 0.98, 500, 9000)
    assert [proven.against(t) for t in (0.95, 0.97, 0.99, None)] == ["met", "not known", "not met", None]


def test_evidence_goes_on_from_its_numbers_as_if_nothing_had_been():
    whole = part = Evidence()
    for frame in range(60):
        told = (0.1, 0.8 if frame % 7 == 0 else math.nan)
        whole, part = observe(whole, *told), observe(Evidence.from_numbers(part.numbers()), *told)
    assert np.array_equal(whole.numbers(), part.numbers())
    assert certify(whole) == certify(part) and certify(part).audits == 9


def test_numbers_that_are_no_evidence_are_refused():
    with pytest.raises(ValueError, match="evidence has 233 numbers"):
        Evidence.from_numbers(np.zeros(7))
