"""An execution that failed took its time and gave nothing: wherever executions are counted, it saved none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from camlink.models.pool import ModelPool
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.dashboard.costs import costs_of
from camlink.pipeline.dashboard.fleet import troubles
from camlink.pipeline.dashboard.models import models_view
from camlink.pipeline.dashboard.rollups import RunRollups
from camlink.pipeline.provenance import explain
from camlink.pipeline.reports import build_report, headline, write_report
from camlink.pipeline.reports.daily import daily_report
from camlink.pipeline.reports.daily import troubles as troubles_of_day
from camlink.pipeline.results import RunResults
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.telemetry import Telemetry
from camlink.pipeline.testing import START, TinyModel, make_frames

FRAMES = 240


def run(out: Path, fails_on: range, objects: TinyModel | None = None, **settings: Any) -> tuple[Session, Telemetry]:
    """Run one camera; of its two models, persons fails on some frames."""
    models = [
        TinyModel.count("persons", lambda f: f.index // 20 % 4, time_ms=20.0, fails_on=frozenset(fails_on)),
        objects or TinyModel.count("objects", lambda f: f.index // 20 % 4, time_ms=30.0),
    ]
    config = SiteConfig(**{"models": "building", "audit": {"fraction": 0.1}, **settings})
    telemetry = Telemetry({m.spec.model: m.spec for m in models})
    cameras = {"hall": Camera("indoor", "hall.mp4", 1.0)}
    session = Session(config, ModelPool(models), cameras, out, listeners=[telemetry.observe])
    session.run(make_frames("hall", FRAMES), lambda: {"hall": FRAMES})
    return session, telemetry


def test_where_everything_is_executed_a_model_that_fails_saves_nothing(tmp_path: Path) -> None:
    session, telemetry = run(tmp_path / "run", range(60, 90), policy="all")
    report = build_report(tmp_path / "run")
    made = {name: model["executions"] for name, model in report["models"].items()}
    assert {name: (e["made"], e["failed"], e["saved_share"]) for name, e in made.items()} == {
        "persons": (FRAMES, 30, 0.0),
        "objects": (FRAMES, 0, 0.0),
    }
    assert report["cost"]["share"] == pytest.approx(1.0) == report["cost"]["parts"]["serve"]["share"]
    assert report["frames"]["per_model"]["persons"]["abstained"] == 30 and not report["frames"]["violations"]
    told = "30 executions failed and gave no answer: persons 30 of 240."
    assert f"480 of 480 possible model executions (0.0 % saved). {told}" in headline(report)
    assert told in write_report(tmp_path / "run").read_text(encoding="utf-8").partition("<details")[0]
    assert session.progress.executed_share == 1.0
    found: Counter[tuple[str, str]] = Counter()
    for sample in (sample for family in telemetry.registry.collect() for sample in family.samples):
        found[sample.name, sample.labels.get("model", "")] += sample.value
    assert found["camlink_executions_total", "persons"] == FRAMES
    assert found["camlink_failed_executions_total", "persons"] == 30.0


def test_what_was_spent_on_failures_is_held_against_the_budget_on_every_page(tmp_path: Path) -> None:
    rules: dict[str, Any] = {"budgets": {"time_share": 0.5}, "links": {"bootstrap_frames": 60, "min_train_frames": 40}}
    run(tmp_path / "run", range(FRAMES), **rules, policy="camlink")
    report, rollups = build_report(tmp_path / "run"), RunRollups(tmp_path / "run")
    rollups.refresh()
    failed = report["models"]["persons"]["executions"]
    assert failed["made"] == failed["failed"] >= 60, "on each of the first frames at least"
    served = report["frames"]["per_model"]["persons"]
    assert served["abstained"] == FRAMES, "a model that never answered leaves nothing to answer from"
    costs = costs_of(rollups.cameras.values(), rollups.info)
    assert costs.whole == pytest.approx(report["cost"]["share"])
    assert costs.served == pytest.approx(report["cost"]["parts"]["serve"]["share"])
    told = f"{failed['failed']} executions failed and gave no answer: persons all {failed['failed']}."
    assert told in troubles(rollups.info, list(rollups.cameras.values()), costs)
    (line, _) = models_view(rollups).lines
    assert (line.executions, line.failed) == (failed["made"], failed["failed"])
    day = daily_report(RunResults(tmp_path / "run"), START.date())
    assert told in troubles_of_day(day)
    counts = day["cameras"]["hall"]["models"]["persons"]
    assert (counts["executions"], counts["failed"]) == (failed["made"], failed["failed"])


def test_why_tells_of_a_failure_also_where_something_was_answered_in_its_place(tmp_path: Path) -> None:
    rules: dict[str, Any] = {"budgets": {"time_share": 0.9}, "links": {"bootstrap_frames": 60, "min_train_frames": 40}}
    run(tmp_path / "run", range(120, FRAMES), **rules, policy="camlink")
    results = RunResults(tmp_path / "run")
    rows = results.outputs("hall", "how = 'failed' AND purpose = 'serve'").to_pylist()
    found = explain(results, "hall", rows[0]["frame_index"], "persons")
    assert found["answer"]["how"] in ("linked", "reused")
    assert f"It was executed on this frame, and failed: {rows[0]['reason']}" in found["text"]


def test_a_model_that_nothing_answers_for_as_all_failed_is_not_said_to_be_beyond_the_budget(tmp_path: Path) -> None:
    rules: dict[str, Any] = {"budgets": {"time_share": 0.6}, "links": {"bootstrap_frames": 40, "min_train_frames": 40}}
    dead = TinyModel.count("objects", lambda f: 1, time_ms=30.0, fails_on=frozenset(range(FRAMES)))
    run(tmp_path / "run", range(FRAMES), dead, **rules, policy="mlink")
    for model in build_report(tmp_path / "run")["models"].values():
        assert model["note"]["verdict"] == "abstained" and not model["outputs"]["nothing_fits"]
