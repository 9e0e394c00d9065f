"""What was asked for stands beside what came of it: budgets, targets, frames; and the reason for every difference."""

from __future__ import annotations

import html
import io
import json
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from camlink.models.pool import ModelPool
from camlink.pipeline.commands.running import facts
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.dashboard.costs import costs_of
from camlink.pipeline.dashboard.rollups import RunRollups
from camlink.pipeline.progress import Progress
from camlink.pipeline.provenance import explain
from camlink.pipeline.records import CameraEvent, FrameDropped, FrameResult, ModelOutput
from camlink.pipeline.reports import build_report, headline, print_report, write_report
from camlink.pipeline.reports.daily import daily_report, render_daily, troubles
from camlink.pipeline.reports.data import survey
from camlink.pipeline.reports.html import Page
from camlink.pipeline.reports.notes import FEW_FRAMES, LEAST_AUDITS, executed_words, missed, percent, standing
from camlink.pipeline.reports.rows import CameraRows
from camlink.pipeline.reports.spending import budget_words, over_spent, shown_adds
from camlink.pipeline.results import RunResults
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.testing import START, TinyModel, make_frames
from tests.scenes import crowd

BOOTSTRAP, FRAMES = 40, 400


def run(out: Path, dropped: int = 0, **settings: Any) -> dict[str, Any]:
    """Run one camera at one frame per second; its last ``dropped`` frames never reach a model."""
    models = [
        TinyModel.count("persons", crowd, time_ms=20.0),
        TinyModel.count("objects", crowd, time_ms=30.0),
        TinyModel.count("action", lambda f: f.index * 7919 % 5, time_ms=50.0),
    ]
    rules: dict[str, Any] = {
        "period": timedelta(minutes=2),
        "policy": "mlink-exact",
        "budgets": {"time_share": 0.4},
        "links": {"bootstrap_frames": BOOTSTRAP, "min_train_frames": BOOTSTRAP},
        "audit": {"fraction": 0.1},
        "adaptation": {"interval": timedelta(minutes=1), "frames": 5},
    }
    config = SiteConfig(**{"models": "building", **rules, **settings})
    session = Session(config, ModelPool(models), {"hall": Camera("indoor", "hall.mp4", 1.0)}, out)
    frames = make_frames("hall", FRAMES)
    lost = [FrameDropped("hall", f.index, 1, f.captured_at, "overload") for f in frames[FRAMES - dropped :]]
    session.run([*frames[: FRAMES - dropped], *lost], lambda: {"hall": FRAMES})
    return build_report(out)


def told(report: dict[str, Any]) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    print_report(report, console)
    return console.export_text()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("asked") / "run"
    return out, run(out)


def test_the_parts_of_the_cost_add_up_and_served_frames_keep_to_the_budget(plain: tuple[Path, dict[str, Any]]) -> None:
    cost = plain[1]["cost"]
    parts = cost["parts"]
    assert sum(part["model_seconds"] for part in parts.values()) == pytest.approx(cost["model_seconds"])
    assert sum(part["adds"] for part in parts.values()) == pytest.approx(cost["share"])
    assert sum(parts[kind]["frames"] for kind in parts if kind != "relabel") == FRAMES
    assert parts["bootstrap"]["frames"] == BOOTSTRAP
    assert all(parts[kind]["share"] == pytest.approx(1.0) for kind in ("bootstrap", "profile", "audit"))
    assert 0.0 < parts["relabel"]["share"] < 1.0, "only models that had been predicted run again"
    assert cost["time_budget"] == 0.4
    assert parts["serve"]["share"] <= 0.4 < cost["share"]


def test_page_and_terminal_show_the_budget_beside_what_it_came_to(plain: tuple[Path, dict[str, Any]]) -> None:
    out, report = plain
    page = re.sub(r"\s+", " ", write_report(out).read_text(encoding="utf-8"))
    served, whole = report["cost"]["parts"]["serve"]["share"], report["cost"]["share"]
    assert ">time budget 40 %</span>" in page and "<td>bootstrap</td>" in page and f"{100 * served:.1f} %" in page
    assert f"Time budget 40 %: frames served under a decision took {100 * served:.1f} %." in told(report)
    assert f"the cost is {100 * whole:.1f} %" in told(report)


def test_one_camera_has_one_plot_of_agreement(plain: tuple[Path, dict[str, Any]]) -> None:
    page = write_report(plain[0]).read_text(encoding="utf-8")
    assert page.count("Agreement per model with interval and baselines") == 1
    assert "Agreement of predicted outputs per model" not in page, "the same again, above its camera"


def test_relabelled_frames_are_named_where_there_are_any(plain: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    report = run(tmp_path / "run", adaptation={"policy": "off"})
    assert plain[1]["cost"]["parts"]["relabel"]["frames"] > 0 == report["cost"]["parts"]["relabel"]["frames"]
    assert "on which every model runs, and relabelled ones, the cost is" in told(plain[1])
    assert "on which every model runs, the cost is" in told(report)
    help_text = "served frames that are relabelled"
    assert help_text in write_report(plain[0]).read_text(encoding="utf-8")
    assert help_text not in write_report(tmp_path / "run").read_text(encoding="utf-8")
    for out, name in ((plain[0], True), (tmp_path / "run", False)):
        rollups = RunRollups(out)
        rollups.refresh()
        assert ("and relabelled ones" in costs_of(rollups.cameras.values(), rollups.info).words) == name


def test_a_camera_that_ended_within_its_bootstrap_says_why_nothing_is_measured(tmp_path: Path) -> None:
    report = run(tmp_path / "run", links={"bootstrap_frames": FRAMES + 1, "min_train_frames": BOOTSTRAP})
    words = f"still learning, within a camera's first {FRAMES + 1 + 10} frames: every model ran on all {FRAMES}"
    assert words in report["cameras"]["hall"]["learning"] and words in told(report)
    assert words in html.unescape(write_report(tmp_path / "run").read_text(encoding="utf-8"))


def test_without_a_time_budget_none_is_named(tmp_path: Path) -> None:
    report = run(tmp_path / "run", budgets={"memory_gb": 9.0})
    assert report["cost"]["time_budget"] is None
    assert "No time budget: frames served" in told(report)
    assert ">no time budget</span>" in write_report(tmp_path / "run").read_text(encoding="utf-8")


def test_page_and_terminal_state_the_latency_limit(tmp_path: Path) -> None:
    report = run(tmp_path / "run", budgets={"time_share": 0.4, "latency_ms": 60.0})
    assert report["cost"]["latency_limit_ms"] == report["cameras"]["hall"]["cost"]["latency_limit_ms"] == 60.0
    assert "Time budget 40 %, latency limit 60 ms: frames served" in told(report)
    page = re.sub(r"\s+", " ", write_report(tmp_path / "run").read_text(encoding="utf-8"))
    assert ">latency limit 60 ms</span>" in page


def test_frames_that_no_model_saw_are_in_the_headline(tmp_path: Path) -> None:
    lost = 300
    report = run(tmp_path / "run", dropped=lost)
    words = f"{lost} of {FRAMES} frames (75.0 %) were dropped before any model saw them: {lost} overload."
    assert words in headline(report)
    assert write_report(tmp_path / "run").read_text(encoding="utf-8").count(words) == 2  # and with the savings


def test_dropped_frames_are_no_savings_while_a_run_goes_on() -> None:
    model = TinyModel.count("persons", crowd)
    at = make_frames("hall", 1)[0].captured_at
    value = np.ones(1, np.float32)
    served = [
        FrameResult("hall", i, at, "serve", (ModelOutput("hall", i, at, "persons", value, "serve", how),))
        for i, how in enumerate(("executed", "linked"))
    ]
    progress = Progress({"persons": model.spec})
    progress.observe([*served, FrameDropped("hall", 2, 98, at, "overload")])
    assert (progress.frames, progress.dropped, progress.executed_share) == (100, 98, 0.5)
    assert facts(progress) == "50% executed, agreement not measured yet, 98 dropped"


def test_cameras_that_are_away_are_named_while_a_run_goes_on() -> None:
    model = TinyModel.count("persons", crowd)
    at = make_frames("hall", 1)[0].captured_at
    progress = Progress({"persons": model.spec})
    progress.observe([CameraEvent("hall", at, "down", "port closed"), CameraEvent("gate", at, "frozen", "")])
    assert facts(progress) == "no frame yet, gate frozen, hall down"
    progress.observe([CameraEvent(f"yard{i}", at, "down", "") for i in range(3)])
    assert facts(progress) == "no frame yet, gate frozen, hall down, yard0 down and 2 more"
    progress.observe([CameraEvent(c, at, "recovered", "") for c in ("hall", "yard0", "yard1", "yard2")])
    progress.observe([CameraEvent("gate", at, "thawed", ""), CameraEvent("gate", at, "resolution", "640x360")])
    assert facts(progress) == "no frame yet"


def test_a_day_tells_its_drops_and_missed_targets_at_its_top(tmp_path: Path) -> None:
    asked = {"targets": {"action": 0.9}, "audit": {"fraction": 0.4}, "budgets": {"time_share": 0.5}}
    run(tmp_path / "run", dropped=100, **asked)
    day = daily_report(RunResults(tmp_path / "run"), START.date())
    lost, missing = troubles(day)
    assert lost == "100 of 400 frames (25.0 %) were dropped before any model saw them: 100 overload."
    assert missing.startswith(f"Target missed: action on hall on {START.date()} (")
    page = html.unescape(render_daily(day))
    assert page.index(lost) < page.index(missing) < page.index('<h2 class="section"')


def test_a_headline_on_few_audits_judges_as_little_as_the_notes_do(tmp_path: Path) -> None:
    report = run(tmp_path / "run", audit={"fraction": 0.03})
    assert 0 < report["agreement"]["audit_frames"] < FEW_FRAMES
    assert "too few audit frames to judge." in headline(report)


def whole_page(run_dir: Path, *names: str) -> Page:
    """Return the page of a run of one camera, which is shown under each of ``names``."""
    page = Page(RunResults(run_dir))

    def visit(rows: CameraRows, entry: Any) -> None:
        for name in names or (rows.camera_id,):
            page.add_camera(replace(rows, camera_id=name), entry)

    survey(RunResults(run_dir), visit)
    return page


def test_a_single_audit_frame_is_no_headline(tmp_path: Path) -> None:
    report = run(tmp_path / "run", audit={"fraction": 0.03})
    few = json.loads(json.dumps(report))
    few["agreement"]["audit_frames"] = 1
    assert "Agreement was not measured: 1 audit frame is too few." in headline(few)
    assert percent(few["agreement"]["mean"]) not in headline(few)
    few["agreement"]["audit_frames"] = LEAST_AUDITS - 1
    assert f"not measured: {LEAST_AUDITS - 1} audit frames are too few." in headline(few)
    page = whole_page(tmp_path / "run")
    big = re.findall(r'<p class="big[^"]*">([^<]*)</p>', page.render(few))
    assert "not measured" in big and percent(few["agreement"]["mean"]) not in big
    day = daily_report(RunResults(tmp_path / "run"), START.date())
    day["fleet"] |= {"audits": 1, "estimate": 0.867}
    assert "Agreement was not measured: 1 audit frame is too few." in render_daily(day)


def test_parts_of_the_cost_add_up_as_shown(plain: tuple[Path, dict[str, Any]]) -> None:
    cost = plain[1]["cost"]
    shown = [float(text.removesuffix(" %")) for text in shown_adds(cost["parts"]).values()]
    assert f"{sum(shown):.1f} %" == percent(cost["share"])


def test_relabelled_frames_are_said_to_be_of_the_served(tmp_path: Path) -> None:
    report = json.loads(json.dumps(run(tmp_path / "run")))
    report["cost"]["parts"]["relabel"] |= {"frames": 36, "share": 0.5, "adds": 0.014}
    page = whole_page(tmp_path / "run")
    assert 'relabelled <span class="muted">of the served</span></td><td class="n">36</td>' in page.render(report)


@pytest.mark.parametrize("expected", [None, {"mean": 0.9}])
def test_a_column_that_is_empty_everywhere_is_left_out(tmp_path: Path, expected: dict[str, float] | None) -> None:
    report = json.loads(json.dumps(run(tmp_path / "run")))
    report["cameras"]["yard"] = json.loads(json.dumps(report["cameras"]["hall"])) | {"expected_agreement": None}
    told = expected and expected | {"text": "As expected."}
    report["cameras"]["hall"]["expected_agreement"] = told
    said = io.StringIO()
    print_report(report, Console(file=said, width=200))
    assert ("expected" in said.getvalue()) == (expected is not None)
    page = whole_page(tmp_path / "run", "hall", "yard")
    assert (">Expected</th>" in page.render(report)) == (expected is not None)


def test_a_run_of_nothing_but_dropped_frames_says_so(tmp_path: Path) -> None:
    report = run(tmp_path / "run", dropped=FRAMES)
    assert headline(report).startswith(f"{FRAMES} of {FRAMES} frames (100.0 %) were dropped")
    assert report["cost"]["share"] is None
    assert write_report(tmp_path / "run").stat().st_size > 0


def test_a_missed_target_is_in_the_headline_and_one_that_holds_is_not(tmp_path: Path) -> None:
    asked = {"targets": {"action": 0.9}, "audit": {"fraction": 0.4}, "budgets": {"time_share": 0.5}}
    report = run(tmp_path / "run", **asked)
    states = {e["model"]: e["target_state"] for e in report["cameras"]["hall"]["certificates"] if e["target"]}
    assert states["action"] == "not met", "a model of pure noise must be found out"
    assert re.search(
        r"Target missed: action on hall on \d{4}-\d\d-\d\d \(\d+\.\d % instead of 90\.0 %\)\.", headline(report)
    )
    assert "Target missed" not in headline(run(tmp_path / "easy", **(asked | {"targets": {"action": 0.01}})))


def test_a_budget_that_served_frames_break_is_in_the_headline(plain: tuple[Path, dict[str, Any]]) -> None:
    report = json.loads(json.dumps(plain[1]))
    assert missed(report) == []
    report["cost"]["parts"]["serve"]["share"] = 0.46
    assert missed(report) == ["Time budget over-spent: 46.0 % on served frames instead of 40.0 %."]
    assert "46.0 %, more than it allows" in budget_words(0.4, 0.46, 0.6)
    assert not over_spent(0.4, 0.404) and over_spent(0.4, 0.406)


def test_a_model_that_is_always_executed_has_no_unknown_target(tmp_path: Path) -> None:
    report = run(tmp_path / "run", target_agreement=0.99, policy="all", budgets={})
    entries = [e for e in report["cameras"]["hall"]["certificates"] if e["target"] is not None]
    assert entries and all(standing(entry) == "always executed" for entry in entries)
    text = told(report)
    assert "target 99.0 % always executed; nothing to prove" in text and "not known" not in text
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "99.0 % always executed" in page and "99.0 % not known" not in page


def test_a_policy_on_every_frame_is_not_said_to_execute_nothing(tmp_path: Path) -> None:
    report = run(tmp_path / "run", policy="periodic")
    decisions = report["cameras"]["hall"]["decisions"]
    assert decisions and not any(decision["execute"] for decision in decisions)
    assert {executed_words(decision) for decision in decisions} == {"Chosen frame by frame."}
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "<b>Chosen frame by frame.</b>" in page
    assert not re.search(r"<b>nothing</b>|Nothing executed", page)


def test_bootstrap_frames_are_told_from_profile_frames(plain: tuple[Path, dict[str, Any]]) -> None:
    out, report = plain
    results = RunResults(out)
    assert report["cost"]["parts"]["profile"]["frames"] > 0
    assert explain(results, "hall", BOOTSTRAP - 1, "action")["purpose"] == "bootstrap"
    assert "It was a bootstrap frame" in explain(results, "hall", 0, "action")["text"][1]
    assert explain(results, "hall", BOOTSTRAP, "action")["purpose"] == "profile"
    assert "bootstrap" in write_report(out).read_text(encoding="utf-8")
