"""Certificates and targets in reports, one day's report, and results as tables for other programs."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from camlink.models.pool import ModelPool
from camlink.operators.certificates import ALL, Ledger
from camlink.operators.evidence import certify
from camlink.operators.targets import MIN_AUDITS
from camlink.pipeline.cli import app
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.dashboard.costs import Costs
from camlink.pipeline.dashboard.fleet import troubles
from camlink.pipeline.dashboard.rollups import RunRollups
from camlink.pipeline.dashboard.targets import targets
from camlink.pipeline.errors import ResultsError
from camlink.pipeline.exports import export_results
from camlink.pipeline.records import CameraEvent, FrameDropped, FrameStats
from camlink.pipeline.reports import build_report, headline, write_report
from camlink.pipeline.reports.certificates import camera_proof, deciding
from camlink.pipeline.reports.daily import daily_report, render_daily
from camlink.pipeline.reports.notes import missed_targets
from camlink.pipeline.reports.rows import read_camera
from camlink.pipeline.reports.terminal import target_lines
from camlink.pipeline.results import RunInfo, RunResults
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.testing import TinyModel, make_frames
from tests.scenes import crowd

START = datetime(2026, 1, 5, 23, 50, tzinfo=UTC)  # ten minutes before midnight
BOUNDS = ("estimate", "low", "high")
MONDAY, TUESDAY = date(2026, 1, 5), date(2026, 1, 6)
STILL, MOVING = FrameStats(0.0, 0.1, 100.0), FrameStats(0.2, 0.1, 100.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen minutes about midnight on two cameras; actions cannot be told from frame 150 on."""
    models = [
        TinyModel.count("objects", lambda f: [crowd(f), crowd(f) % 2], size=2),
        TinyModel.count("persons", crowd),
        TinyModel.count("action", lambda f: crowd(f) // 2 if f.index < 150 else f.index * 7919 % 11 + 3),
    ]
    config = SiteConfig(
        models="building",
        period=timedelta(minutes=3),
        policy="mlink-exact",
        budgets={"time_share": 0.34},
        links={"bootstrap_frames": 60, "min_train_frames": 60},
        audit={"fraction": 0.2},
        adaptation={"policy": "off"},
        targets={"action": 0.9},
    )
    out = tmp_path_factory.mktemp("runs") / "night"
    cameras = {c: Camera(domain, f"{c}.mp4", 1.0) for c, domain in (("hall", "indoor"), ("road", "traffic"))}
    session = Session(config, ModelPool(models), cameras, out)
    readings: list[Any] = [
        replace(f, stats=STILL if f.index % 2 else MOVING) for c in cameras for f in make_frames(c, 900, start=START)
    ]
    at = 600
    readings[at] = FrameDropped("hall", at, 1, readings[at].captured_at, "queue full")
    readings.append(CameraEvent("hall", START + timedelta(seconds=200), "down", "no frame for 10.0 s"))
    readings.sort(key=lambda r: (r.at if isinstance(r, CameraEvent) else r.captured_at, r.camera_id))
    session.run(readings, lambda: dict.fromkeys(cameras, 900))
    return out


@pytest.fixture(scope="module")
def report(run: Path) -> dict[str, Any]:
    return build_report(run)


def test_a_camera_shows_certificates_by_day_with_the_state_of_its_targets(report: dict[str, Any]) -> None:
    entries = report["cameras"]["hall"]["certificates"]
    assert {(e["day"], e["model"]) for e in entries} == {
        (d, m) for d in ("2026-01-05", "2026-01-06") for m in ("objects", "persons", "action")
    }
    action = {e["day"]: e for e in entries if e["model"] == "action"}
    assert action["2026-01-05"]["target_state"] == "not met"
    assert action["2026-01-05"]["high"] < action["2026-01-05"]["target"] == 0.9
    assert all(e["target_state"] is None for e in entries if e["model"] != "action")
    for entry in entries:
        assert (entry["state"] == "measured") == (entry["estimate"] is not None)


def test_a_missed_target_has_one_state_one_figure_and_one_day_everywhere(run: Path, report: dict[str, Any]) -> None:
    """Missed on Monday; on Tuesday the model was executed, so that nothing was predicted of it."""
    monday, tuesday = (e for e in report["cameras"]["hall"]["certificates"] if e["model"] == "action")
    assert (monday["target_state"], tuesday["frames"]) == ("not met", 0)
    figure = f"{100 * monday['estimate']:.1f} %"
    assert f"action on hall on 2026-01-05 ({figure} instead of 90.0 %)" in headline(report)
    said = next(line for line, _ in target_lines(report) if line.startswith("  hall, action"))
    bounds = f"{100 * monday['low']:.1f} – {100 * monday['high']:.1f} %"
    assert said == f"  hall, action: target 90.0 % not met on 2026-01-05: {figure} (95 %, at any time: {bounds})"
    day = daily_report(RunResults(run), MONDAY)["cameras"]["hall"]["models"]["action"]["certificate"]
    rollups = RunRollups(run)
    rollups.refresh()
    hall, unspent = rollups.cameras["hall"], Costs(None, None, None)
    page = targets(rollups.info, hall)["action"]
    for told in (day, page):
        assert (told["day"], told["target_state"]) == ("2026-01-05", "not met")
        assert [told[n] for n in BOUNDS] == pytest.approx([monday[n] for n in BOUNDS], abs=1e-6)
    assert missed_targets([("hall", page)]) in troubles(rollups.info, [hall], unspent)


def test_a_day_without_a_decision_has_the_target_of_the_one_before(run: Path) -> None:
    rows = read_camera(RunResults(run), "hall")
    first = replace(rows, decisions=rows.decisions[:1])
    assert first.decisions[0]["start"].date() == MONDAY
    entries = camera_proof(first, RunInfo.load(run)).entries
    assert [e["target"] for e in entries if e["model"] == "action"] == [0.9, 0.9]


@pytest.mark.parametrize(
    ("later", "decides"),
    [
        ({"frames": 0, "target_state": "not known", "audits": 0}, False),
        ({"frames": 90, "target_state": "not known", "audits": MIN_AUDITS - 1}, False),
        ({"frames": 90, "target_state": "not known", "audits": MIN_AUDITS}, True),
        ({"frames": 90, "target_state": "met", "audits": 9}, True),
    ],
)
def test_a_missed_day_decides_until_a_later_one_can(later: dict[str, Any], decides: bool) -> None:
    missed = {"frames": 50, "target_state": "not met", "audits": 12}
    assert deciding([missed, later]) is (later if decides else missed)


def test_days_roll_up_over_domains_and_the_fleet(report: dict[str, Any]) -> None:
    rolled = report["certificates"]
    assert set(rolled["domains"]) == {"indoor", "traffic"}
    for place, day in enumerate(("2026-01-05", "2026-01-06")):
        whole, parts = rolled["fleet"][place], [rolled["domains"][d][place] for d in ("indoor", "traffic")]
        assert whole["day"] == day
        assert whole["frames"] == sum(p["frames"] for p in parts)
        assert whole["high"] - whole["low"] < max(p["high"] - p["low"] for p in parts)


def test_a_run_that_ended_by_itself_carries_the_interval_for_one_look_and_others_the_one_for_many(
    run: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    assert report["run"]["interval"] == "fixed-sample"
    info = RunInfo.load(run)
    try:
        replace(info, complete=False, stopped_by="the user").save(run)
        stopped = build_report(run)
    finally:
        info.save(run)
    assert stopped["run"]["interval"] == "anytime-valid"
    assert "(95 % interval: " in headline(report) and "(95 %, at any time: " in headline(stopped)
    for figures in (report, *report["cameras"].values(), *report["models"].values()):
        assert figures["agreement"]["mean"] is not None
    for name, camera in stopped["cameras"].items():
        early, late = camera["agreement"], report["cameras"][name]["agreement"]
        assert early["mean"] == late["mean"]
        assert (early["low"], early["high"]) != (late["low"], late["high"])
        assert early["low"] <= early["mean"] <= early["high"]


def test_the_page_and_the_terminal_show_certificates_and_targets(run: Path) -> None:
    page = write_report(run).read_text()
    assert "Certificates by day, with targets" in page
    assert "90.0 % not met" in page
    said = CliRunner().invoke(app, ["report", str(run), "--no-write"], env={"COLUMNS": "200"})
    assert "hall, action: target 90.0 % not met" in said.stdout


def test_the_noise_floor_is_that_of_the_still_pairs(report: dict[str, Any]) -> None:
    floor = report["cameras"]["hall"]["models"]["persons"]["noise_floor"]
    assert floor["pairs"] > 20
    assert 0.0 < floor["disagreement"] < 0.5  # persons change every third frame or so, still or not


def test_one_day_is_reported_camera_by_camera(run: Path) -> None:
    monday, tuesday = (daily_report(RunResults(run), day) for day in (MONDAY, TUESDAY))
    for camera in ("hall", "road"):
        counts = [day["cameras"][camera]["models"]["persons"] for day in (monday, tuesday)]
        served = [c["executed"] + c["linked"] + c["reused"] + c["abstained"] for c in counts]
        assert served == ([600, 299] if camera == "hall" else [600, 300])
    assert monday["cameras"]["hall"]["dropped"] == {}
    assert tuesday["cameras"]["hall"]["dropped"] == {"queue full": 1}
    assert monday["cameras"]["hall"]["models"]["action"]["certificate"]["target_state"] == "not met"
    assert monday["fleet"]["day"] == "2026-01-05"


def test_a_day_is_read_without_the_others(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "night"
    shutil.copytree(run, copied)
    for part in (copied / "outputs" / f"day={TUESDAY}").rglob("*.parquet"):
        part.write_bytes(b"of a run of months")
    results = RunResults(copied)
    assert daily_report(results, MONDAY, ["hall"])["cameras"].keys() == {"hall"}
    assert results.outputs("road", day=MONDAY).num_rows > 0
    assert results.days() == [MONDAY, TUESDAY]


def test_a_day_without_results_says_which_there_are(run: Path) -> None:
    with pytest.raises(
        ResultsError, match=r"nothing was captured on 2025-12-24; its days are 2026-01-05 to 2026-01-06"
    ):
        daily_report(RunResults(run), date(2025, 12, 24))


def test_results_are_exported_whole_or_by_day(run: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    results = RunResults(run)
    rows = export_results(results, tmp_path / "all.parquet", "parquet")
    table = pq.read_table(tmp_path / "all.parquet")
    assert table.num_rows == rows == results.outputs().num_rows
    assert table.schema.equals(results.outputs().schema)
    by_day = [export_results(results, tmp_path / f"{day}.csv", "csv", day) for day in (MONDAY, TUESDAY)]
    assert sum(by_day) == rows
    with (tmp_path / f"{MONDAY}.csv").open(newline="") as file:
        told = list(csv.DictReader(file))
    assert len(told) == by_day[0]
    linked = next(row for row in told if row["how"] == "linked" and row["served"] == "true")
    assert json.loads(linked["value"])
    assert linked["sources"] in ("objects", "persons", "action")


def test_an_unknown_format_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are csv and parquet"):
        export_results(RunResults(run), tmp_path / "x", "xlsx")


def test_the_command_exports_and_prints_one_day(run: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(
        app,
        ["report", str(run), "--day", "2026-01-05", "--csv", str(tmp_path / "monday.csv")],
        env={"COLUMNS": "200"},
    )
    assert said.exit_code == 0, said.output
    assert "night, 2026-01-05 (UTC)" in said.stdout
    assert "rows" in said.stdout
    assert (tmp_path / "monday.csv").stat().st_size > 1000
    told = json.loads(CliRunner().invoke(app, ["report", str(run), "--day", "2026-01-06", "--json"]).stdout)
    assert told["day"] == "2026-01-06"


def test_the_ledger_of_a_dashboard_and_the_report_tell_the_same_day(run: Path, report: dict[str, Any]) -> None:
    """Rows of the log, made into results again, through the ledger that a live page would keep."""
    from camlink.pipeline.records import FrameResult, ModelOutput

    results = RunResults(run)
    frames: dict[int, list[dict[str, Any]]] = {}
    for row in results.outputs("hall").to_pylist():
        frames.setdefault(row["frame_index"], []).append(row)
    ledger = Ledger(results.info.specs(), timedelta(days=1))
    import numpy as np

    for index, rows in sorted(frames.items()):
        made = tuple(
            ModelOutput(
                "hall", index, r["captured_at"], r["model"],
                None if r["value"] is None else np.array(r["value"], np.float32),
                r["purpose"], r["how"], r["served"], reason=r["reason"],
            )
            for r in rows
        )  # fmt: skip
        first = rows[0]
        ledger.observe(
            FrameResult("hall", index, first["captured_at"], first["purpose"], made, first["audit_probability"])
        )
    for model in ("persons", "action"):
        for start, evidence in ledger.spans("hall", model).items():
            live = certify(evidence)
            entry = next(
                e
                for e in report["cameras"]["hall"]["certificates"]
                if (e["day"], e["model"]) == (start.date().isoformat(), model)
            )
            assert (live.frames, live.audits) == (entry["frames"], entry["audits"])
            assert (live.low, live.high) == pytest.approx((entry["low"], entry["high"]))
    assert certify(ledger.evidence(["hall"], ALL)).audits > 0


def test_a_day_is_written_as_json_and_as_a_page_that_is_whole_by_itself(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "night"
    shutil.copytree(run, copied)
    done = CliRunner().invoke(app, ["report", str(copied), "--day", "2026-01-05"])
    assert done.exit_code == 0, done.output
    told = json.loads((copied / "days" / "2026-01-05.json").read_text())
    assert told == daily_report(RunResults(run), MONDAY)
    page = (copied / "days" / "2026-01-05.html").read_text()
    assert "camera down" in page and "links to action v1 promoted" in page
    assert "Monday, 05 January 2026" in page and "http:" not in page and "https:" not in page and "not met" in page
    found = told["cameras"]["hall"]["models"]["action"]["certificate"]
    assert f"{100 * found['estimate']:.1f} %" in page and f"{found['audits']:,}" in page


def test_one_camera_of_a_day_is_that_part_of_the_whole(run: Path) -> None:
    whole, part = (daily_report(RunResults(run), TUESDAY, cameras) for cameras in (None, ["road"]))
    assert part["cameras"] == {"road": whole["cameras"]["road"]}


def test_names_in_a_day_are_escaped(run: Path) -> None:
    report = daily_report(RunResults(run), MONDAY)
    nasty = {**report, "run": "<i>", "cameras": {"<script>alert(1)</script>": report["cameras"]["hall"]}}
    assert "<script>" not in render_daily(nasty) and "<i>" not in render_daily(nasty)
