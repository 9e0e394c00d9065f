"""Rules fitted to short footage: something must be left to predict, and every change is said."""

from dataclasses import replace
from datetime import timedelta

import pytest

from camlink.pipeline.config import SiteConfig
from camlink.pipeline.footage import Footage, fit_rules, rate_of
from camlink.pipeline.testing import START, make_frames

LONG = Footage("hall", 100_000, 1.0)
SITE = SiteConfig(models="building", policy="mlink")


def test_long_footage_changes_nothing() -> None:
    assert fit_rules(SITE, [LONG]) == (SITE, [])


def test_a_short_clip_leaves_most_of_its_frames_to_be_predicted() -> None:
    config, notes = fit_rules(SITE, [LONG, Footage("yard", 250, 25.0)])
    assert config.links.bootstrap_frames == 37
    assert config.links.min_train_frames <= 37
    assert config.profile_frames[0] * 25 * config.period.total_seconds() <= 0.05 * 250 + 1
    assert config.audit.fraction == 0.08
    assert len(notes) == 3
    assert "37 frames" in notes[0]
    assert "8.0% of frames are audited instead of 2.0%" in notes[1]
    assert "instead of 900" in notes[2]


def test_policies_that_score_no_links_need_no_longer_period_and_shorten_no_profile() -> None:
    anew = SiteConfig(models="building")
    config, notes = fit_rules(anew, [Footage("yard", 250, 25.0)])
    assert config.profile_frames == (0.0, 1) and len(notes) == 2
    config, notes = fit_rules(anew, [Footage("2701", 74, 1 / 600)])
    assert config.period < fit_rules(SITE, [Footage("2701", 74, 1 / 600)])[0].period
    _, (note,) = fit_rules(anew, [Footage("short", 21, 1.0)])
    assert "more than 21 are needed" in note
    told = SiteConfig.model_validate({"models": "building", "profile": {"min_frames": 4}})
    assert told.profile_frames == (0.0, 4), "what is said holds"
    tight = SiteConfig.model_validate({"models": "building", "budgets": {"memory_gb": 1}})
    assert tight.profile_frames == (0.01, 10), "what is loaded is chosen by what is known of all models"


def test_a_camera_with_too_few_frames_is_named_and_sets_no_rules_for_the_others() -> None:
    alone, _ = fit_rules(SITE, [Footage("2701", 74, 1 / 7200)])
    config, notes = fit_rules(SITE, [Footage("2701", 74, 1 / 7200), Footage("4714", 10, 1 / 7200)])
    assert config == alone
    assert notes[0] == (
        'camera "4714" has only 10 frames, and more than 30 are needed to learn from before anything is predicted: '
        "every model runs on all of them, and nothing is predicted or measured there"
    )
    assert "first 20 frames" in notes[1] and "has only 74" in notes[1], "no sentence may ask for more frames than exist"
    clip = Footage("yard", 400, 5.0)
    for pace in (1 / 86400, 100.0):  # three stills a day apart, or a moment of a fast camera
        assert fit_rules(SITE, [clip, Footage("short", 3, pace)])[0] == fit_rules(SITE, [clip])[0]


def test_where_every_camera_has_too_few_frames_nothing_is_fitted_to_them() -> None:
    config, notes = fit_rules(SITE, [Footage("a", 1, None), Footage("b", 30, 1.0)])
    assert config == SITE
    (note,) = notes
    assert note.startswith('camera "a" has only 1 frame, "b" has only 30 frames, and more than 30 are needed')
    _, (note,) = fit_rules(SITE, [Footage(name, 5, 1.0) for name in "abcdef"])
    assert '"c" has only 5 frames and 3 others as few, and more than' in note and '"d"' not in note


def test_a_site_that_audits_nothing_is_left_at_that() -> None:
    silent = SITE.model_copy(update={"audit": SITE.audit.model_copy(update={"fraction": 0.0})})
    config, _ = fit_rules(silent, [Footage("yard", 250, 25.0)])
    assert config.audit.fraction == 0.0


def test_stills_hours_apart_get_a_period_that_holds_several_times_their_profile_frames() -> None:
    config, notes = fit_rules(SITE, [Footage("checkpoint", 65, 1 / 7200)])
    assert config.period >= timedelta(seconds=5 * SITE.profile_frames[1] * 7200)
    assert any("a decision holds for" in note for note in notes)


def test_stills_in_bursts_get_a_period_that_really_holds_several_times_their_profile_frames() -> None:
    days = [START + timedelta(days=day, minutes=40 * shot) for day in range(10) for shot in range(8)]
    config, notes = fit_rules(SITE, [Footage("2701", len(days), 1 / 2400, tuple(days))])
    held = len(days) / len({(at - START) // config.period for at in days})
    assert held >= 40, "the usual pace of 40 minutes would give periods of 34 hours, with 11 pictures each"
    assert any("a decision holds for" in note for note in notes)
    steady = tuple(START + timedelta(hours=2 * n) for n in range(65))
    with_times, _ = fit_rules(SITE, [Footage("checkpoint", 65, 1 / 7200, steady)])
    assert with_times.period <= timedelta(days=7)


def test_fitting_is_idempotent() -> None:
    footage = [Footage("yard", 250, 25.0), Footage("checkpoint", 65, 1 / 7200)]
    once, _ = fit_rules(SITE, footage)
    again, notes = fit_rules(once, footage)
    assert again == once
    assert notes == []


def test_a_pause_between_two_clips_does_not_slow_the_pace() -> None:
    morning = make_frames("hall", 50, fps=5.0)
    evening = [replace(f, captured_at=f.captured_at + timedelta(days=3)) for f in make_frames("hall", 50, fps=5.0)]
    assert rate_of(morning + evening)["hall"] == pytest.approx(5.0)
    assert rate_of(make_frames("yard", 1, start=START))["yard"] is None
