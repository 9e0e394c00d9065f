"""A run's pages and its report say the same of it: one agreement, one interval, one verdict."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from camlink.pipeline.dashboard.costs import costs_of
from camlink.pipeline.dashboard.fleet import FleetView
from camlink.pipeline.dashboard.rollups import RunRollups
from camlink.pipeline.dashboard.runs import compared
from camlink.pipeline.dashboard.trust import Trust, trust_of_cameras, trust_of_models
from camlink.pipeline.reports import build_report
from camlink.pipeline.reports.daily import daily_report
from camlink.pipeline.reports.notes import FEW_FRAMES
from camlink.pipeline.results import RunInfo, RunResults
from camlink.pipeline.testing import START, make_frames
from tests.pipeline.dashboard.conftest import HALL, YARD, write_run


@pytest.fixture(scope="module", params=["mlink-exact", "camlink", "periodic"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRollups, dict[str, Any]]:
    """A run under a policy per period, or on every frame, where some frames execute everything and others nothing."""
    folder = tmp_path_factory.mktemp("figures") / "run"
    frames = {name: make_frames(name, 420) for name in (HALL, YARD)}
    write_run(folder, frames, policy=request.param, budgets={"time_share": 0.5}, target_agreement=None)
    rollups = RunRollups(folder)
    rollups.refresh()
    return rollups, build_report(folder)


def test_the_fleet_page_has_the_agreement_of_the_report(run: tuple[RunRollups, dict[str, Any]]) -> None:
    rollups, report = run
    found = trust_of_cameras(rollups.cameras.values(), rollups.info)
    assert found is not None and found.high - found.low > 0.0
    assert_same(found, report["agreement"])


@pytest.mark.parametrize("complete", [True, False])
def test_every_page_has_the_interval_of_the_report(
    run: tuple[RunRollups, dict[str, Any]], complete: bool, tmp_path: Path
) -> None:
    """Of a run that came to its own end that for one look, of one that was stopped that for any time."""
    shutil.copytree(run[0].run_dir, tmp_path / "run")
    replace(run[0].info, complete=complete, stopped_by=None if complete else "the user").save(tmp_path / "run")
    rollups, report = RunRollups(tmp_path / "run"), build_report(tmp_path / "run")
    rollups.refresh()
    cameras, told = list(rollups.cameras.values()), report["cameras"]
    fleet = FleetView(rollups).fleet(START)
    assert fleet.trust is not None and fleet.trust.looks == ("95 % interval" if complete else "95 %, at any time")
    assert_same(fleet.trust, report["agreement"])
    for line in fleet.lines:
        assert_same(line.trust, told[line.camera_id]["agreement"])
    assert_same(compared("run", rollups).trust, report["agreement"])
    for name, model in report["models"].items():
        together = trust_of_models([c.models[name] for c in cameras], rollups.info)
        assert_same(together, model["agreement"]["predicted_only"])
        for camera in cameras:
            figure = told[camera.camera_id]["models"][name]["agreement"]["predicted_only"]
            assert_same(trust_of_models([camera.models[name]], rollups.info), figure)


def test_a_page_that_is_open_as_a_run_ends_has_the_interval_of_its_report(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {HALL: make_frames(HALL, 300)}, target_agreement=None)
    ended = RunInfo.load(tmp_path / "run")
    replace(ended, complete=False, finished_at=None).save(tmp_path / "run")
    rollups = RunRollups(tmp_path / "run")
    rollups.refresh()
    view = FleetView(rollups)
    before = view.fleet(START)
    ended.save(tmp_path / "run")
    rollups.refresh()
    after, report = view.fleet(START), build_report(tmp_path / "run")
    for fleet, looks in ((before, "95 %, at any time"), (after, "95 % interval")):
        assert fleet.trust is not None and fleet.lines[0].trust is not None
        assert fleet.trust.looks == fleet.lines[0].trust.looks == looks
    assert_same(after.trust, report["agreement"])
    assert_same(after.lines[0].trust, report["agreement"])


def assert_same(found: Trust | None, figure: dict[str, Any]) -> None:
    if figure["mean"] is None:
        assert found is None
        return
    assert found is not None and found.audits == figure["audit_frames"]
    told = [figure[name] for name in ("low", "mean", "high")]
    assert [found.low, found.mean, found.high] == pytest.approx(told, abs=1e-9)


def test_a_day_has_the_agreement_of_the_report_of_a_run_of_one_day(run: tuple[RunRollups, dict[str, Any]]) -> None:
    rollups, report = run
    fleet = daily_report(RunResults(rollups.run_dir), START.date())["fleet"]
    assert fleet["estimate"] == pytest.approx(report["agreement"]["mean"], abs=1e-9)
    assert fleet["low"] <= fleet["estimate"] <= fleet["high"]


def test_a_model_is_judged_in_the_words_of_the_report(run: tuple[RunRollups, dict[str, Any]]) -> None:
    rollups, report = run
    for name in report["models"]:
        found = trust_of_models([c.models[name] for c in rollups.cameras.values()], rollups.info)
        figure = report["models"][name]["agreement"]["predicted_only"]
        if figure["mean"] is None:
            assert found is None
            continue
        assert found is not None and found.mean == pytest.approx(figure["mean"], abs=1e-9)
        said = found.verdict(name)
        assert said is not None
        assert said["verdict"] == report["models"][name]["note"]["verdict"]
        assert report["models"][name]["note"]["text"].startswith(said["text"])


def test_a_model_of_several_entries_has_as_many_whole_answers_on_every_page(
    run: tuple[RunRollups, dict[str, Any]],
) -> None:
    rollups, report = run
    day = daily_report(RunResults(rollups.run_dir), START.date())["cameras"]
    assert report["models"]["persons"]["whole_answers"] is None, "it counts one thing only"
    frames = 0
    for name, camera in rollups.cameras.items():
        found, shown = camera.models["action"].audit.whole, report["cameras"][name]["models"]["action"]["whole_answers"]
        told = day[name]["models"]["action"]["whole_answers"]
        if shown is None:
            assert found is None and told is None
            continue
        assert found is not None and asdict(found) == shown
        assert told == {"frames": shown["frames"], "right": shown["right"]}
        assert (
            shown["frames"]
            == report["cameras"][name]["models"]["action"]["agreement"]["predicted_only"]["audit_frames"]
        )
        frames += shown["frames"]
    assert frames == (report["models"]["action"]["whole_answers"] or {"frames": 0})["frames"]


def test_the_fleet_page_has_the_cost_of_the_report(run: tuple[RunRollups, dict[str, Any]]) -> None:
    rollups, report = run
    found = costs_of(rollups.cameras.values(), rollups.info)
    assert found.whole == pytest.approx(report["cost"]["share"])
    assert found.served == pytest.approx(report["cost"]["parts"]["serve"]["share"])
    assert (found.asked, found.over_spent) == (0.5, False)


def test_too_few_audits_are_too_few_on_every_page(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {HALL: make_frames(HALL, 160)}, policy="mlink-exact", target_agreement=None)
    rollups, report = RunRollups(tmp_path / "run"), build_report(tmp_path / "run")
    rollups.refresh()
    judged = {n: m["note"] for n, m in report["models"].items() if m["agreement"]["predicted_only"]["mean"] is not None}
    assert judged, "something must be predicted, else nothing is judged"
    for name, note in judged.items():
        found = trust_of_models([rollups.cameras[HALL].models[name]], rollups.info)
        assert found is not None and 0 < found.audits < FEW_FRAMES
        assert found.verdict(name) == note == {"verdict": "few", "text": note["text"]}
