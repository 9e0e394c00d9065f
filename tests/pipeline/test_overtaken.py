"""Frames that a live camera's next frame has overtaken: how they come about, and where they are shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from camlink.models.pool import ModelPool
from camlink.pipeline.commands.running import facts
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.dashboard.fleet import FleetView
from camlink.pipeline.dashboard.rollups import RunRollups
from camlink.pipeline.ingest.base import SourceSpec
from camlink.pipeline.ingest.channel import Channel
from camlink.pipeline.provenance import explain
from camlink.pipeline.records import Frame, FrameDropped
from camlink.pipeline.reports import build_report, headline, write_report
from camlink.pipeline.results import RunResults
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.testing import START, TinyModel, make_frames


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
