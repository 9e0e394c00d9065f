"""Pages of a run whose policy decides on every frame: what executed on which share of frames, and no word of links."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from camlink.pipeline.dashboard import svg
from camlink.pipeline.dashboard.buckets import Buckets, Filled
from camlink.pipeline.dashboard.camera import CameraView, camera_view
from camlink.pipeline.dashboard.fleet import FleetView
from camlink.pipeline.dashboard.rollups import FIRST_LABEL, N_CHOSEN, N_DECIDED, RunRollups
from camlink.pipeline.testing import make_frames
from tests.pipeline.dashboard.conftest import HALL, write_run
from tests.pipeline.dashboard.test_app import client

SECOND = 1_000_000
LINKS = ("Link scores", "links to persons", "no links in use", "<b>Decisions</b>")


def view_of(run: Path) -> CameraView:
    rollups = RunRollups(run)
    rollups.refresh()
    found = camera_view(FleetView(rollups), rollups, HALL, "all", datetime.now(UTC))
    assert found is not None
    return found


@pytest.fixture(scope="module", params=["camlink", "mlink-exact"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    """A run, and whether its policy decides on every frame."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    write_run(folder, {HALL: make_frames(HALL, 300)}, policy=request.param, target_agreement=None)
    return folder, request.param == "camlink"


def test_the_page_of_a_camera_speaks_of_links_only_where_they_are_read(run: tuple[Path, bool]) -> None:
    folder, per_frame = run
    with client(folder) as site:
        page = site.get(f"/camera?id={HALL}").text
    assert [words in page for words in LINKS] == [not per_frame] * len(LINKS)
    assert ("on which share of served frames" in page) == per_frame
    assert ("predicted frame by frame, by its own word" in page) == per_frame


def test_the_shares_on_the_page_add_up_to_the_executions_that_were_chosen(run: tuple[Path, bool]) -> None:
    folder, per_frame = run
    rollups = RunRollups(folder)
    rollups.refresh()
    chart = str(view_of(folder).strip)
    for name, model in rollups.cameras[HALL].models.items():
        told = re.findall(rf"{name}: executed on (\d+) of (\d+) served frames", chart)
        executed, frames = (sum(int(pair[i]) for pair in told) for i in (0, 1))
        chosen = (model.executed_when_served, model.frames_served) if per_frame else (0, 0)
        assert (executed, frames) == chosen


def filled(chosen: np.ndarray, apart_s: float = 1.0) -> Filled:
    """Buckets of one served frame each, on which the model executed where ``chosen`` (n,)."""
    buckets = Buckets(FIRST_LABEL, SECOND)
    sums = np.zeros((len(chosen), FIRST_LABEL))
    sums[:, N_DECIDED], sums[:, N_CHOSEN] = 1.0, chosen
    buckets.add((np.arange(len(chosen)) * apart_s * SECOND).astype(np.int64), sums, np.full(len(chosen), np.nan))
    return buckets.read()


def test_a_bar_is_as_high_as_the_share_of_frames_that_executed_and_missing_where_none_was_served() -> None:
    shown = filled(np.arange(100) % 4 == 0)
    chart = str(svg.shares({"persons": shown}, (0, 200 * SECOND)))
    told = re.findall(r"executed on (\d+) of (\d+) served", chart)
    rest, bars = (
        [
            (float(x), float(h))
            for x, h in re.findall(rf'"{kind}" x="([\d.]+)" width="[\d.]+" y="[\d.]+" height="([\d.]+)"', chart)
        ]
        for kind in ("rest", "executed")
    )
    assert len(told) == len(rest) == len(bars) == 5 and sum(int(frames) for _, frames in told) == 100
    assert all(0.2 <= bar / whole <= 0.3 for (_, bar), (_, whole) in zip(bars, rest, strict=True))
    assert max(x for x, _ in rest) < svg.LEFT + (svg.WIDTH - svg.LEFT) / 2, "nothing came in the later half"


def test_a_page_of_few_frames_makes_no_shares_of_single_ones() -> None:
    chart = str(svg.shares({"persons": filled(np.array([True, False, True, False]))}, (0, 4 * SECOND)))
    assert re.findall(r"executed on (\d+ of \d+) served", chart) == ["2 of 4"]


def test_a_page_from_the_middle_on_counts_no_frames_before() -> None:
    chart = str(svg.shares({"persons": filled(np.arange(100) < 50)}, (50 * SECOND, 100 * SECOND)))
    assert {executed for executed, _ in re.findall(r"executed on (\d+) of (\d+) served", chart)} == {"0"}
