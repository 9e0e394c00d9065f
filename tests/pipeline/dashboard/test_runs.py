"""The list of runs says what each came to, by its own report, and nothing of what has none."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from camlink.pipeline.dashboard.app import build_app
from camlink.pipeline.dashboard.auth import Door
from camlink.pipeline.dashboard.library import Library
from camlink.pipeline.dashboard.runs import find_runs, outcomes, run_lines
from camlink.pipeline.reports import write_report
from camlink.pipeline.reports.notes import best_baseline, interval, percent
from camlink.pipeline.testing import make_frames
from tests.pipeline.dashboard.conftest import write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_run(tmp_path / "told", {"hall": make_frames("hall", 300)})
    write_run(tmp_path / "untold", {"hall": make_frames("hall", 60)})
    write_report(tmp_path / "told")
    return tmp_path


def page(folder: Path) -> str:
    app = build_app(Library([folder]), Door(None), clock=lambda: datetime.now(UTC))
    with TestClient(app, base_url="http://127.0.0.1:8765") as site:
        return site.get("/runs").text


def test_a_run_that_has_ended_is_listed_with_cost_and_agreement_of_its_report(folder: Path) -> None:
    report = json.loads((folder / "told" / "report.json").read_text())
    found = outcomes(run_lines(find_runs([folder])))
    assert list(found) == ["told"]
    assert (found["told"].cost, found["told"].agreement["mean"]) == (
        report["cost"]["share"],
        report["agreement"]["mean"],
    )
    text = page(folder)
    assert f">{percent(report['cost']['share'])}</td>" in text and interval(report["agreement"]) in text
    best = percent(best_baseline(report["agreement"])[1])
    assert f"best baseline {best}, {report['agreement']['audit_frames']} audits" in text


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cost": {"share": 0.5}, "agreement": {}}', "\xff"])
def test_what_is_no_report_takes_no_page_away(folder: Path, content: str) -> None:
    (folder / "told" / "report.json").write_text(content, encoding="latin-1")
    assert outcomes(run_lines(find_runs([folder]))) == {}
    assert ">told</a>" in page(folder)


def test_a_report_of_a_run_that_goes_on_is_out_of_date(folder: Path) -> None:
    header = folder / "told" / "run.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"finished_at": None}))
    assert outcomes(run_lines(find_runs([folder]))) == {}
