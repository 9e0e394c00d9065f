"""A camera on its first frames, on which every model runs, is learning: that is no failure to save anything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from camlink.pipeline.testing import make_frames
from tests.pipeline.dashboard.conftest import HALL, YARD, write_run
from tests.pipeline.dashboard.test_app import client

BOOTSTRAP, PROFILE = 60, 36  # 1 % of an hour at one frame per second
FAILURE = ("100 %", "always executed", "not measured", "no links in use")


@pytest.fixture(scope="module", params=["camlink", "mlink-exact"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Three runs: no camera has learnt yet, one of two has, both have."""
    folder = tmp_path_factory.mktemp("learning")
    for name, hall, yard in (("early", 40, 90), ("later", 40, 140), ("learnt", 140, 140)):
        cameras = {HALL: make_frames(HALL, hall), YARD: make_frames(YARD, yard)}
        write_run(folder / name, cameras, policy=request.param, target_agreement=None, profile={"fraction": 0.01})
    with client(folder) as opened:
        yield opened


def test_the_fleet_says_how_far_each_camera_is(site: TestClient) -> None:
    early, later, learnt = (site.get(f"/?run={run}").text for run in ("early", "later", "learnt"))
    assert "learning: 40 of 96 frames" in early and "learning: 90 of 96 frames" in early
    assert '<p class="big muted">learning</p>' in early
    row = early[early.index(f">{HALL}</a>") :].split("</tr>")[0]
    assert not [words for words in FAILURE if words in row]
    assert later.count("learning: 40 of 96 frames") == 1 and "1 camera is still learning" in later
    assert '<p class="big muted">learning</p>' not in later
    assert "learning" not in learnt


def test_the_page_of_a_camera_says_how_far_it_is(site: TestClient) -> None:
    early, learnt = (site.get(f"/camera?run={run}&id={HALL}").text for run in ("early", "learnt"))
    assert "The run ended while this camera was still learning: 40 of 96 frames." in early
    table = early[early.index('<table class="trust">') :].split("</table>")[0].split("<tbody>")[1]
    assert not [words for words in FAILURE if words in table]
    assert table.count("nothing predicted yet") == 2
    assert "still learning" not in learnt and "nothing predicted yet" not in learnt


def test_the_models_page_calls_no_model_always_executed_before_anything_could_be_predicted(site: TestClient) -> None:
    assert site.get("/models?run=early").text.count("nothing predicted yet") == 2
    assert "nothing predicted yet" not in site.get("/models?run=later").text
