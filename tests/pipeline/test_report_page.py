"""The page as a stranger meets it: links that lead somewhere, figures as they were asked for, rows read once."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camlink.models.pool import ModelPool
from camlink.pipeline.cli import app
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.lab.page import render
from camlink.pipeline.reports import build_report, write_report
from camlink.pipeline.reports.daily import daily_report, render_daily
from camlink.pipeline.reports.data import survey
from camlink.pipeline.reports.html import LISTED_CAMERAS, Page
from camlink.pipeline.reports.notes import LEAST_AUDITS
from camlink.pipeline.reports.rows import CameraRows
from camlink.pipeline.results import RunResults
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.testing import START, TinyModel, make_frames


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model on one camera, an eighth of its time, and a target that is no whole per cent."""
    config = SiteConfig(
        models="building",
        period=timedelta(minutes=2),
        budgets={"time_share": 0.125},
        links={"bootstrap_frames": 40, "min_train_frames": 40},
        audit={"fraction": 0.1},
        targets={"persons": 0.975},
    )
    out = tmp_path_factory.mktemp("page") / "run"
    pool = ModelPool([TinyModel.count("persons", lambda f: f.index // 40 % 3, time_ms=20.0)])
    session = Session(config, pool, {"hall": Camera("indoor", "hall.mp4", 1.0)}, out)
    session.run(make_frames("hall", 300), lambda: {"hall": 300})
    return out


def of_cameras(run: Path, report: dict[str, Any], count: int) -> str:
    """Return the page of a run of one camera as if it had ``count`` of them."""
    page = Page(RunResults(run))
    names = [f"hall {number}" for number in range(count)]

    def visit(rows: CameraRows, entry: Any) -> None:
        for name in names:
            page.add_camera(replace(rows, camera_id=name), entry)

    survey(RunResults(run), visit)
    return page.render(report | {"cameras": dict.fromkeys(names, report["cameras"]["hall"])})


def dangling(page: str) -> set[str]:
    """Return what is linked to within a page and is not there."""
    return set(re.findall(r'href="#([^"]+)"', page)) - set(re.findall(r' id="([^"]+)"', page))


@pytest.mark.parametrize("cameras", [1, 2, LISTED_CAMERAS + 1])
def test_the_contents_lead_to_every_part_and_name_cameras_while_they_are_few(run: Path, cameras: int) -> None:
    page = of_cameras(run, build_report(run), cameras)
    assert not dangling(page)
    contents = page[page.index('id="contents"') : page.index("</nav>")]
    assert "#models" in contents and "#configuration" in contents
    assert ("#camera-1-outputs" in contents) == (cameras == 1), "of one camera, its parts stand there at once"
    assert ('"#camera-2"' in contents) == (1 < cameras <= LISTED_CAMERAS)
    assert page.count("#camera-1-wrong") == 1


def test_a_comparison_of_several_traces_and_a_day_of_several_cameras_have_contents(run: Path, tmp_path: Path) -> None:
    row = {
        "policy": "camlink", "budget_gb": None, "budget_time": 0.25, "agreement": 0.9, "cost": 0.2, "seed": 0,
        "agreement_per_model": {"persons": 0.9}, "per_period": [0.9], "per_camera": {"hall": 0.9}, "frames": 100,
    }  # fmt: skip
    page = render([row | {"trace": "hall"}, row | {"trace": "yard"}])
    assert not dangling(page) and '<a href="#trace-2">yard</a>' in page
    day = daily_report(RunResults(run), START.date())
    page = render_daily(day | {"cameras": {"a": day["cameras"]["hall"], "b": day["cameras"]["hall"]}})
    assert not dangling(page) and '<a href="#camera-2">b</a>' in page


def test_budgets_and_targets_are_shown_as_they_were_asked_for(run: Path) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    assert "time budget 12.5 %" in page
    assert "<span>1 model</span>" in page
    assert "97.5 %" in render_daily(daily_report(RunResults(run), START.date()))


def test_a_camera_with_too_few_audits_has_no_figure_in_the_list_of_cameras(run: Path) -> None:
    report = json.loads(json.dumps(build_report(run)))
    agreement = report["cameras"]["hall"]["agreement"] | {"mean": 0.7654, "audit_frames": LEAST_AUDITS}
    report["cameras"]["hall"]["agreement"] = agreement
    assert '<td class="n">76.5 %</td>' in of_cameras(run, report, 2)
    agreement["audit_frames"] -= 1
    assert "76.5 %" not in of_cameras(run, report, 2)


def test_one_pair_is_no_pairs(run: Path) -> None:
    report = json.loads(json.dumps(build_report(run)))
    for pairs, said in ((1, "(1 pair)"), (1200, "(1,200 pairs)")):
        report["cameras"]["hall"]["models"]["persons"]["noise_floor"] = {"disagreement": 0.0, "pairs": pairs}
        assert said in of_cameras(run, report, 1)


def test_pictures_are_there_when_the_whole_page_is_printed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {"index": 7, "at": "2026-03-02 08:00:00", "wrong": [], "jpeg": "AAAA"}
    monkeypatch.setattr("camlink.pipeline.reports.html._gallery", lambda *_: {"frames": 1, "shown": [shown]})
    page = write_report(run).read_text(encoding="utf-8")
    assert re.findall(r'<img [^>]*alt="Frame 7"[^>]*>', page) and 'loading="lazy"' not in page


def test_the_command_reads_the_rows_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str | None] = []
    outputs = RunResults.outputs

    def counted(self: RunResults, camera: str | None = None, *asked: Any, **more: Any) -> Any:
        read.append(camera)
        return outputs(self, camera, *asked, **more)

    monkeypatch.setattr(RunResults, "outputs", counted)
    said = CliRunner().invoke(app, ["report", str(run)])
    assert said.exit_code == 0, said.output
    assert read == ["hall"]
