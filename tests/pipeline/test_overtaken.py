"""Frames that a live camera's next frame has overtaken: how they come about, and where they are shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from camlink.models.pool import ModelPool
from camlink.pipeline.clock import ManualClock
from camlink.pipeline.commands.running import facts
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.dashboard.fleet import FleetView
from camlink.pipeline.dashboard.rollups import RunRollups
from camlink.pipeline.ingest.base import SourceSpec
from camlink.pipeline.ingest.channel import Channel
from camlink.pipeline.ingest.live import LiveSource
from camlink.pipeline.provenance import explain
from camlink.pipeline.records import Frame, FrameDropped
from camlink.pipeline.reports import build_report, headline, write_report
from camlink.pipeline.reports.rows import ModelRows, read_camera
from camlink.pipeline.results import RunResults
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.testing import START, TinyModel, make_frames
from tests.live_bench import HandRunner


def channel(waiting: int) -> Channel:
    made = Channel(SourceSpec("hall", ("x",)), 60.0, False, waiting=waiting)
    for second in range(5):
        made.frame(0, np.full((6, 8, 3), second, np.uint8), START + timedelta(seconds=second))
    return made


def test_of_the_frames_that_wait_all_but_the_newest_are_overtaken_and_the_oldest_go_first() -> None:
    readings = list(iter(channel(3).take, None))
    assert readings[0] == FrameDropped("hall", 0, 2, START, "overload")
    frames = [reading for reading in readings[1:] if isinstance(reading, Frame)]
    assert [(frame.index, frame.overtaken) for frame in frames] == [(2, True), (3, True), (4, False)]
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [2, 3, 4]


def test_where_one_frame_waits_none_is_overtaken() -> None:
    (dropped, frame) = iter(channel(1).take, None)
    assert dropped == FrameDropped("hall", 0, 4, START, "overload")
    assert isinstance(frame, Frame) and frame.index == 4 and not frame.overtaken


def run(out: Path, frames: int = 400) -> Session:
    """Run one camera on a machine that has time for every third frame."""
    models = [TinyModel.count(name, lambda f: f.index // 20 % 4, time_ms=20.0) for name in ("persons", "objects")]
    rules = {"bootstrap_frames": 40, "min_train_frames": 40}
    config = SiteConfig(models="building", policy="camlink", links=rules, budgets={"time_share": 0.5})
    session = Session(config, ModelPool(models), {"hall": Camera("indoor", "hall.mp4", 1.0)}, out)
    readings = [replace(frame, overtaken=frame.index % 3 != 0) for frame in make_frames("hall", frames)]
    session.run(readings, lambda: {"hall": frames})
    return session


def test_reports_pages_and_the_progress_line_say_how_many_there_were(tmp_path: Path) -> None:
    session = run(tmp_path / "run")
    report = build_report(tmp_path / "run")
    parts = report["cost"]["parts"]
    overtaken = parts["overtaken"]["frames"]
    assert 240 <= overtaken <= 266 and parts["overtaken"]["model_seconds"] == 0.0
    assert parts["bootstrap"]["frames"] == 40, "frames to learn from are counted among those that every model ran on"
    assert parts["profile"]["frames"] + parts["bootstrap"]["frames"] + parts["serve"]["frames"] <= 134
    words = f"{overtaken} of 400 frames ({overtaken / 4:.1f} %) were overtaken"
    assert words in headline(report) and words in write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert report["frames"]["violations"] == []
    assert f", {overtaken} overtaken" in facts(session.progress)
    rollups = RunRollups(tmp_path / "run")
    rollups.refresh()
    (told, *_) = FleetView(rollups).fleet(datetime.now(UTC)).troubles
    assert told.startswith(words)


def test_why_says_that_no_model_ran(tmp_path: Path) -> None:
    run(tmp_path / "run")
    results = RunResults(tmp_path / "run")
    first, later = (explain(results, "hall", frame, "persons") for frame in (1, 100))
    assert first["purpose"] == later["purpose"] == "overtaken" and later["answer"]["how"] == "reused"
    assert any("the machine was behind" in line for line in later["text"])
    assert "No decision was in force." in first["text"], "before the first one, not every model runs on these"
    learnt = [explain(results, "hall", frame, "persons")["purpose"] for frame in (0, 117, 120)]
    assert learnt == ["bootstrap", "bootstrap", "profile"]


def test_a_camera_that_still_learns_is_told_to_be_learning_though_some_frames_were_overtaken(tmp_path: Path) -> None:
    session = run(tmp_path / "run", frames=90)
    report = build_report(tmp_path / "run")
    assert "still learning: every model ran on 30 frames, to learn from. 60 of 90 frames" in headline(report)
    assert "every model ran on 30, and the others were overtaken" in report["cameras"]["hall"]["learning"]
    assert facts(session.progress).startswith("learning: 30 of 41 frames, 60 overtaken")
    rollups = RunRollups(tmp_path / "run")
    rollups.refresh()
    (line,) = FleetView(rollups).fleet(datetime.now(UTC)).lines
    assert line.learning == "learning: 30 of 41 frames"


def test_profile_frames_of_a_camera_that_goes_on_are_none_of_its_first(tmp_path: Path) -> None:
    """A results folder may begin when a camera has long learnt."""
    run(tmp_path / "run", frames=400)
    rows = read_camera(RunResults(tmp_path / "run"), "hall")
    assert rows.bootstrap_until_us == rows.models["persons"].times_us[120]
    for model in rows.models.values():
        late = model.times_us > rows.bootstrap_until_us
        model.purpose[late] = np.where(model.frame_index[late] % 50, "serve", "profile")
    later = replace(rows, models={n: _from(m, rows.bootstrap_until_us) for n, m in rows.models.items()})
    full = later.models["persons"].times_us[later.models["persons"].purpose == "profile"]
    assert (full < later.bootstrap_until_us).sum() == 0 < len(full)


def _from(model: ModelRows, since_us: int) -> ModelRows:
    kept = model.times_us > since_us
    columns = ("frame_index", "times_us", "values", "how", "purpose", "served", "probability")
    return replace(model, **{name: getattr(model, name)[kept] for name in columns})


def test_frames_that_may_wait_are_not_stale_before_the_last_of_them_has_come() -> None:
    clock = ManualClock(START)
    spec = SourceSpec("hall", ("rtsp://192.0.2.1/1",), fps=1.0)
    source = LiveSource(spec, "x", clock=clock, waiting=8, run=HandRunner)
    for second in range(8):
        source._channel.frame(source._channel._token, np.full((6, 8, 3), second, np.uint8), clock.now())
        clock.advance(1.0)
    readings = list(iter(source.poll, None))
    assert [reading.overtaken for reading in readings if isinstance(reading, Frame)] == 7 * [True] + [False]
