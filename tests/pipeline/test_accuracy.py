"""Accuracy: the estimator, its interval, the two figures, and baselines that never see the future."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camlink.models.base import OutputSpec
from camlink.pipeline import accuracy
from camlink.pipeline.accuracy import ABSTAINED, EXECUTES, PREDICTED, AuditRows, Executions, compare, estimate

COUNTS = OutputSpec("objects", "vector", 2, "count", ("person", "chair"))
LABELS = OutputSpec("action", "vector", 3, "single_label", ("stand", "walk", "fall"))


def audit_rows(executed, predicted, shadow, probability=0.1, times_us=None):
    executed = np.asarray(executed, np.float32)
    count = len(executed)
    return AuditRows(
        frame_index=np.arange(count),
        times_us=np.arange(count) * 1_000_000 if times_us is None else np.asarray(times_us),
        executed=executed,
        predicted=np.asarray(predicted, np.float32),
        shadow=np.asarray(shadow, np.int8),
        probability=np.full(count, probability),
    )


def executions_of(rows: AuditRows) -> Executions:
    return Executions(rows.times_us, rows.executed)


def test_no_audit_frames_is_not_measured_rather_than_a_number():
    assert estimate(np.zeros(0), np.zeros(0)) is None
    assert compare([]) is None
    assert compare([[]]) is None


def test_frames_are_weighted_by_the_inverse_of_their_audit_probability():
    found = estimate(np.array([1.0, 0.0]), np.array([0.5, 0.1]))
    assert found is not None
    assert found.mean == pytest.approx(2 / 12)
    assert found.frames == 2


def test_interval_at_full_agreement_still_leaves_room_for_doubt():
    found = estimate(np.ones(20), np.full(20, 0.05))
    assert found is not None
    assert (found.mean, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.8389, abs=1e-3)  # 1 / (1 + z^2/n)


def test_unequal_weights_widen_the_interval():
    scores = np.tile([1.0, 0.0], 50)
    even = estimate(scores, np.full(100, 0.1))
    uneven = estimate(scores, np.tile([0.01, 0.01, 0.5, 0.5], 25))
    assert even is not None
    assert uneven is not None
    assert uneven.high - uneven.low > even.high - even.low


def test_interval_covers_the_true_mean_of_random_audits_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth = rng.choice([0.0, 0.5, 1.0], p=[0.1, 0.2, 0.7], size=5000)
    probability = rng.choice([0.02, 0.08], size=5000)
    covered = 0
    for _ in range(400):
        chosen = rng.random(5000) < probability
        found = estimate(truth[chosen], probability[chosen])
        covered += found is not None and found.low <= truth.mean() <= found.high
    assert covered / 400 >= 0.94


def test_impossible_audit_probability_is_refused():
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        estimate(np.ones(2), np.array([0.5, 0.0]))


def test_executed_models_count_one_in_all_outputs_and_not_at_all_in_predicted_only():
    objects = audit_rows([[1, 0]] * 4, [[0, 0]] * 4, [EXECUTES] * 4)
    action = audit_rows([[1, 0, 0]] * 4, [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]], [PREDICTED] * 4)
    scores = [
        accuracy.score_audit(COUNTS, objects, executions_of(objects)),
        accuracy.score_audit(LABELS, action, executions_of(action)),
    ]
    everything, predicted = compare([scores]), compare([scores], counted="predicted")
    assert everything.camlink.mean == pytest.approx(0.75)
    assert predicted.camlink.mean == pytest.approx(0.5)
    assert everything.camlink.frames == predicted.camlink.frames == 4


def test_abstaining_counts_as_disagreement_and_is_counted():
    rows = audit_rows([[1, 0]] * 2, [[1, 0]] * 2, [PREDICTED, ABSTAINED])
    found = compare([[accuracy.score_audit(COUNTS, rows, executions_of(rows))]])
    assert found.camlink.mean == pytest.approx(0.5)
    assert found.abstained == 1


def test_answers_only_leaves_out_what_abstained_and_what_executed_for_baselines_too():
    rows = audit_rows([[1, 0]] * 4, [[1, 0], [0, 0], [1, 0], [0, 0]], [PREDICTED, PREDICTED, ABSTAINED, EXECUTES])
    scores = accuracy.score_audit(COUNTS, rows, executions_of(rows))
    found, predicted = compare([[scores]], counted="answered"), compare([[scores]], counted="predicted")
    assert (found.camlink.frames, found.abstained, predicted.camlink.frames) == (2, 1, 3)
    assert found.camlink.mean == pytest.approx(np.mean(scores.camlink[:2]))
    assert found.baselines["constant"].mean == pytest.approx(np.mean(scores.baselines["constant"][:2]))
    silent = accuracy.score_audit(COUNTS, audit_rows([[1, 0]], [[1, 0]], [ABSTAINED]), executions_of(rows))
    assert compare([[silent]], counted="answered") is None


def test_frames_of_different_cameras_with_the_same_index_stay_apart():
    good = audit_rows([[1, 0]] * 3, [[1, 0]] * 3, [PREDICTED] * 3)
    bad = audit_rows([[1, 0]] * 3, [[9, 9]] * 3, [PREDICTED] * 3)
    scores = [[accuracy.score_audit(COUNTS, rows, executions_of(rows))] for rows in (good, bad)]
    found = compare(scores)
    assert found.camlink.frames == 6
    assert found.camlink.mean == pytest.approx(0.5)


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_the_interval_holds_the_mean_even_at_its_ends(mean):
    for trials in np.linspace(1.0, 60.0, 400):
        low, high = accuracy.wilson(mean, float(trials))
        assert low <= mean <= high


def test_task_without_agreement_is_not_scored():
    tokens = OutputSpec("boxes", "set", 2, "detections")
    rows = audit_rows([[1, 0]], [[1, 0]], [PREDICTED])
    assert accuracy.score_audit(tokens, rows, executions_of(rows)) is None


def test_baselines_know_nothing_at_the_first_frame_and_score_zero_there():
    rows = audit_rows([[5, 0], [5, 0]], [[5, 0]] * 2, [PREDICTED] * 2)
    scores = accuracy.score_audit(COUNTS, rows, executions_of(rows))
    for name in accuracy.BASELINES:
        assert scores.baselines[name].tolist() == [0.0, 1.0]


def test_hourly_mode_differs_from_constant_only_where_the_hour_has_a_past():
    hour = accuracy.HOUR_US
    times = np.array([8 * hour, 8 * hour + 1, 20 * hour, 32 * hour, 44 * hour])  # 8h, 8h, 20h, then the next day
    executed = [[1, 0], [1, 0], [7, 0], [1, 0], [7, 0]]
    rows = audit_rows(executed, executed, [PREDICTED] * 5, times_us=times)
    scores = accuracy.score_audit(COUNTS, rows, executions_of(rows))
    assert scores.baselines["constant"].tolist() == [0.0, 1.0, 0.5, 1.0, 0.5]
    assert scores.baselines["hourly_mode"].tolist() == [0.0, 1.0, 0.5, 1.0, 1.0]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=40))
def test_count_mode_equals_counting_by_hand_at_every_point(pairs):
    values = np.array(pairs, np.float32)
    past = np.arange(1, len(pairs) + 1)
    found = accuracy.usual_so_far(COUNTS, values, past)
    for i, seen in enumerate(past):
        for entry in range(2):
            counts = Counter(values[:seen, entry].tolist())
            assert counts[found[i, entry]] == max(counts.values())


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(0, 2**31))
def test_label_mode_is_the_mean_value_of_the_commonest_label_so_far(labels, seed):
    values = np.random.default_rng(seed).random((len(labels), 3), np.float32) * 0.3
    values[np.arange(len(labels)), labels] += 1.0
    found = accuracy.usual_so_far(LABELS, values, np.arange(1, len(labels) + 1))
    for i in range(len(labels)):
        counts = Counter(labels[: i + 1])
        mode = int(found[i].argmax())
        assert counts[mode] == max(counts.values())
        same = np.array(labels[: i + 1]) == mode
        np.testing.assert_allclose(found[i], values[: i + 1][same].mean(axis=0), rtol=1e-5)


@given(st.integers(1, 30), st.integers(0, 2**31))
def test_no_baseline_changes_when_the_future_does(cut, seed):
    rng = np.random.default_rng(seed)
    past, future = rng.integers(0, 3, (cut, 2)), rng.integers(0, 3, (10, 2))
    scores = []
    for after in (future, future + 1):
        rows = audit_rows(np.concatenate((past, after)), np.zeros((cut + 10, 2)), [PREDICTED] * (cut + 10))
        scores.append(accuracy.score_audit(COUNTS, rows, executions_of(rows)))
    for name in accuracy.BASELINES:
        assert scores[0].baselines[name][:cut].tolist() == scores[1].baselines[name][:cut].tolist()


def test_mean_so_far_serves_regression():
    spec = OutputSpec("speed", "vector", 1, "regression", scale=10.0)
    found = accuracy.usual_so_far(spec, np.array([[2.0], [4.0], [9.0]], np.float32), np.array([0, 1, 3]))
    assert np.isnan(found[0, 0])
    assert found[1:, 0].tolist() == [2.0, 5.0]


def test_baselines_of_a_hundred_thousand_frames_take_linear_time():
    """Counts of a day at one frame a second; quadratic code would not come back."""
    rng = np.random.default_rng(0)
    values = rng.poisson(2.0, (100_000, 2)).astype(np.float32)
    found = accuracy.usual_so_far(COUNTS, values, np.arange(1, 100_001))
    assert found[-1].tolist() in ([1.0, 1.0], [1.0, 2.0], [2.0, 1.0], [2.0, 2.0])


def test_a_lead_is_told_from_chance_frame_by_frame_where_separate_intervals_overlap():
    """Both are right on most frames, and camlink on some more: each interval holds the other's mean."""
    ours = np.ones(200)
    ours[:20] = 0.0
    theirs = ours.copy()
    theirs[20:32] = 0.0
    both = [estimate(scores, np.full(200, 0.1)) for scores in (ours, theirs)]
    assert both[0].low < both[1].high
    won = accuracy.lead(ours - theirs, np.full(200, 0.1))
    assert won.mean == pytest.approx(0.06)
    assert won.low > 0.0


def test_no_difference_on_few_frames_is_not_called_certain():
    tied = accuracy.lead(np.zeros(10), np.full(10, 0.1))
    assert tied.low < -0.1 and tied.high > 0.1


def test_a_lead_is_as_sure_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        differences = rng.choice([-1.0, 0.0, 1.0], p=[0.03, 0.87, 0.1], size=120)
        found = accuracy.lead(differences, np.full(120, 0.1))
        covered += found.low <= 0.07 <= found.high
    assert covered / 500 >= 0.93


def test_a_lead_that_is_looked_at_all_day_keeps_its_word():
    rng = np.random.default_rng(1)
    ever = {True: 0, False: 0}
    for _ in range(100):
        differences = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.8, 0.1], size=600)
        for anytime in ever:
            looks = (accuracy.lead(differences[:n], np.full(n, 0.1), anytime=anytime) for n in range(30, 600, 10))
            ever[anytime] += any(not look.low <= 0.0 <= look.high for look in looks)
    assert ever[True] <= 7
    assert ever[False] > 15


def test_the_comparison_holds_the_lead_over_each_baseline():
    rows = audit_rows([[1, 0]] * 40, [[1, 0]] * 40, [PREDICTED] * 40)
    found = compare([[accuracy.score_audit(COUNTS, rows, executions_of(rows))]])
    for name in accuracy.BASELINES:
        assert found.leads[name].mean == pytest.approx(found.camlink.mean - found.baselines[name].mean)


def test_the_noise_floor_is_measured_on_neighbouring_frames_that_hardly_differ():
    index = np.array([0, 1, 2, 3, 5, 6])
    values = np.array([[1, 0], [1, 1], [1, 1], [4, 4], [9, 9], [9, 9]], np.float32)
    change = np.array([np.nan, 0.001, 0.0, 0.3, 0.0, np.nan])
    found = accuracy.noise_floor(COUNTS, index, values, change)  # pairs 0-1 and 1-2; 5 has a gap before it
    assert found == accuracy.NoiseFloor(0.25, 2)
    assert accuracy.noise_floor(COUNTS, index, values, np.full(6, np.nan)) is None
    assert accuracy.noise_floor(COUNTS, index[:1], values[:1], change[:1]) is None


def test_baselines_know_an_output_that_came_late_only_from_when_it_was_there():
    values = np.array([[1, 0], [2, 0], [2, 0], [4, 0]], np.float32)  # captured in seconds 0, 1, 2 and 3
    seconds = np.arange(4) * 1_000_000
    audit = audit_rows([[2, 0]] * 3, [[0, 0]] * 3, [PREDICTED] * 3, times_us=[1_500_000, 2_500_000, 5_000_000])

    def persistence(known_s):
        executions = Executions(seconds, values, np.array(known_s) * 1_000_000)
        return accuracy.score_audit(COUNTS, audit, executions).baselines["persistence"].tolist()

    assert persistence([0, 1, 2, 3]) == [1.0, 1.0, 0.5]
    assert persistence([0, 4, 4, 3]) == [0.5, 0.5, 0.5], "of what is known then the last one captured counts"
    assert persistence([0, 1, 9, 9]) == [1.0, 1.0, 1.0]


def test_the_usual_value_does_not_know_late_outputs_at_once_either():
    executions = Executions(np.arange(3), np.array([[1, 0], [2, 0], [2, 0]], np.float32), np.array([0, 7, 7]))
    audit = audit_rows([[2, 0]] * 2, [[0, 0]] * 2, [PREDICTED] * 2, times_us=[5, 9])
    scores = accuracy.score_audit(COUNTS, audit, executions)
    assert scores.baselines["constant"].tolist() == scores.baselines["hourly_mode"].tolist() == [0.5, 1.0]
