"""Charts of a camera whose frames come in clips far apart: nothing is drawn across, and something is seen."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from camlink.models.base import OutputSpec
from camlink.pipeline.dashboard import svg
from camlink.pipeline.dashboard.buckets import Buckets, Filled
from camlink.pipeline.dashboard.camera import camera_view
from camlink.pipeline.dashboard.fleet import FleetView
from camlink.pipeline.dashboard.parts import days_of
from camlink.pipeline.dashboard.rollups import FIRST_LABEL, N_ABSTAINED, N_EXECUTED, SUM_EXECUTED, RunRollups
from camlink.pipeline.reports.daily import daily_report, render_daily
from camlink.pipeline.results import RunResults
from camlink.pipeline.testing import START, make_frames
from tests.pipeline.dashboard.conftest import HALL, YARD, write_run

SPEC = OutputSpec("persons", "vector", 1, "count", ("person",))
SECOND = 1_000_000
FRAMES = 120
APART = timedelta(days=4)


def filled(seconds: np.ndarray, width_s: float, grows: bool = False) -> Filled:
    """Buckets of frames executed at ``seconds`` (n,), each with the value of its place modulo 5."""
    buckets = Buckets(FIRST_LABEL, int(width_s * SECOND), grows=grows)
    sums = np.zeros((len(seconds), FIRST_LABEL))
    values = np.arange(len(seconds)) % 5.0
    sums[:, N_EXECUTED], sums[:, SUM_EXECUTED] = 1.0, values
    buckets.add((seconds * SECOND).astype(np.int64), sums, values)
    return buckets.read()


def drawn(chart: str, kind: str) -> list[list[float]]:
    """Return the x of each path of a class, one list per stretch."""
    paths = "".join(re.findall(rf'<path class="{kind}" d="([^"]*)"', chart))
    return [[float(x) for x in re.findall(r"(?:^|L)([\d.]+) ", part)] for part in paths.split("M")[1:]]


def window(shown: Filled) -> tuple[int, int]:
    return int(shown.starts_us[0]), int(shown.starts_us[-1]) + shown.width_us


def test_neither_line_nor_band_crosses_four_days_without_a_frame() -> None:
    clip = np.arange(250) / 25
    shown = filled(np.concatenate((clip, clip + 4 * 86_400)), 0.1, grows=True)
    assert len(shown.starts_us) == 2, "each clip has become one mark"
    chart = str(svg.over_time(SPEC, shown, window(shown)))
    assert not drawn(chart, "line")
    assert not drawn(chart, "band")
    assert len(re.findall(r"a2\.2 2\.2", chart)) == 4, "a circle of two arcs for each clip"


def test_a_line_breaks_at_a_gap_and_at_no_slow_camera() -> None:
    clip = np.arange(600) / 5
    shown = filled(np.concatenate((clip, clip + 200)), 1)
    lines = drawn(str(svg.over_time(SPEC, shown, window(shown))), "line")
    assert [len(line) for line in lines] == [120, 120]
    slow = filled(np.cumsum([0, 60, 70, 60, 180, 60, 50, 60]), 1)
    assert len(drawn(str(svg.over_time(SPEC, slow, window(slow))), "line")) == 1


def test_no_line_is_drawn_where_all_abstained() -> None:
    shown = filled(np.arange(40.0), 1)
    sums = shown.sums.copy()
    sums[20:, N_ABSTAINED], sums[20:, N_EXECUTED], sums[20:, SUM_EXECUTED] = 1.0, 0.0, 0.0
    (line,) = drawn(str(svg.over_time(SPEC, replace(shown, sums=sums), window(shown))), "line")
    assert len(line) == 20


def test_a_sparkline_breaks_at_a_gap_and_places_by_time() -> None:
    clip = np.arange(20.0)
    lines = drawn(str(svg.sparkline(filled(np.concatenate((clip, clip + 80)), 1))), "stroke")
    assert [len(line) for line in lines] == [20, 20]
    assert lines[0][-1] < 30 and lines[1][0] > 90


@pytest.fixture(scope="module")
def two_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One camera with two clips of 24 s, four days apart, another with frames on the day between."""
    out = tmp_path_factory.mktemp("runs") / "clips"
    first = make_frames(HALL, 2 * FRAMES, fps=5.0)
    hall = [replace(f, captured_at=f.captured_at + APART) if f.index >= FRAMES else f for f in first]
    write_run(out, {HALL: hall, YARD: make_frames(YARD, FRAMES, start=START + timedelta(days=1))})
    return out


def test_a_page_opens_at_a_span_that_shows_the_last_frames(two_clips: Path) -> None:
    rollups = RunRollups(two_clips)
    rollups.refresh()
    view = FleetView(rollups)
    found, every = (camera_view(view, rollups, HALL, span, datetime.now(UTC)) for span in ("", "all"))
    assert found is not None and every is not None
    assert (found.span, every.span) == ("1m", "all")
    marks = [len(re.findall("m-2.2 0a|m0-3l3", str(page.models[0].chart))) for page in (found, every)]
    assert marks[0] > 50 and marks[1] < 10
    other = camera_view(view, rollups, YARD, "", datetime.now(UTC))
    assert other is not None and other.span == "all"


def test_only_days_on_which_a_camera_has_something_are_linked(two_clips: Path) -> None:
    first, between, last = (START.date() + timedelta(days=days) for days in (0, 1, 4))
    assert days_of(two_clips) == [last, between, first]
    assert days_of(two_clips, HALL) == [last, first]
    assert days_of(two_clips, YARD) == [between]


def test_a_day_names_cameras_without_frames_instead_of_rows_of_zeros(two_clips: Path) -> None:
    day = daily_report(RunResults(two_clips), START.date() + timedelta(days=1))
    assert list(day["cameras"]) == [YARD]
    assert day["without_frames"] == [HALL]
    assert f"No frames on this day: {HALL}." in render_daily(day)
    alone = daily_report(RunResults(two_clips), START.date() + timedelta(days=1), [HALL])
    page = render_daily(alone, linked=True, back="/camera")
    assert f"No frames on this day: {HALL}." in page and "the day has no audit frames" in page
