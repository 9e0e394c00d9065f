"""The report of a run whose policy decides on every frame: shares of frames in place of decisions, no links' scores."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from camlink.models.pool import ModelPool
from camlink.pipeline.commands.running import facts
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.progress import Progress
from camlink.pipeline.records import Decision, FrameResult, ModelOutput
from camlink.pipeline.reports import build_report, headline, write_report
from camlink.pipeline.reports.daily import daily_report, render_daily
from camlink.pipeline.results import RunResults
from camlink.pipeline.run_info import RunInfo
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.testing import START, TinyModel, make_frames

LINKS = ("Link scores", "links to persons", "the first links")  # what a page says of links


def run(out: Path, frames: int = 240, **settings: Any) -> Path:
    """Run one camera at one frame per second."""
    models = [
        TinyModel.count("persons", lambda f: f.index // 20 % 4, time_ms=20.0),
        TinyModel.count("objects", lambda f: f.index // 20 % 4, time_ms=30.0),
    ]
    rules: dict[str, Any] = {"budgets": {"time_share": 0.5}, "links": {"bootstrap_frames": 60, "min_train_frames": 40}}
    config = SiteConfig(**{"models": "building", **rules, **settings})
    session = Session(config, ModelPool(models), {"hall": Camera("indoor", "hall.mp4", 1.0)}, out)
    session.run(make_frames("hall", frames), lambda: {"hall": frames})
    return out


def outside_folds(page: str) -> str:
    """Return what of a page is seen without unfolding anything."""
    seen, *parts = page.split('<details class="fold">')
    return seen + "".join(part.partition("</details>")[2] for part in parts)


@pytest.mark.parametrize(
    ("policy", "per_frame", "memory_gb", "trained"),
    [
        ("camlink", True, None, False),
        ("camlink", True, 2.0, False),  # both models fit
        ("camlink", True, 1.5, False),  # what is loaded follows from what the policy expects
        ("periodic", True, None, False),
        ("mlink-exact", False, None, True),
    ],
)
def test_links_that_nobody_reads_are_not_trained_and_those_a_policy_does_not_read_are_out_of_the_way(
    tmp_path: Path, policy: str, per_frame: bool, memory_gb: float | None, trained: bool
) -> None:
    out = run(tmp_path / "run", policy=policy, budgets={"time_share": 0.5, "memory_gb": memory_gb})
    page = write_report(out).read_text(encoding="utf-8")
    camera = build_report(out)["cameras"]["hall"]
    assert any(event["kind"] == "promoted" for event in camera["adaptation"]) == trained
    assert (out / "links").is_dir() == trained
    assert [words in outside_folds(page) for words in LINKS] == [not per_frame] * len(LINKS)
    assert ("executed on a share of frames" in page) == per_frame
    day = render_daily(daily_report(RunResults(out), START.date()))
    assert ("links to persons" in day) == (not per_frame)


@pytest.mark.parametrize("policy", ["standalone", "all"])
def test_policies_that_predict_nothing_train_no_links_and_run_no_frames_for_them(tmp_path: Path, policy: str) -> None:
    out = run(tmp_path / "run", policy=policy, budgets={"time_share": 0.5} if policy == "standalone" else {})
    assert not (out / "links").is_dir()
    report = build_report(out)
    assert not report["cameras"]["hall"]["adaptation"] and not report["cost"]["parts"]["relabel"]["frames"]


@pytest.mark.parametrize(
    ("targets", "told"),
    [
        ({"target_agreement": 0.9}, "decides on every frame, to meet the targets (0.9) at the least cost"),
        ({"targets": {"persons": 0.8}}, "decides on every frame, to meet the target (0.8) at the least cost"),
        (
            {"targets": {"persons": 0.8, "objects": 0.9}},
            "decides on every frame, to meet the targets (persons 0.8, objects 0.9) at the least cost",
        ),
        ({"target_agreement": 0.9, "budgets": {"time_share": 0.5}}, "decides on every frame within 50% of the time"),
    ],
)
def test_decisions_say_what_a_policy_that_decides_on_every_frame_aims_at(
    tmp_path: Path, targets: dict[str, Any], told: str
) -> None:
    out = run(tmp_path / "run", **{"budgets": {}, **targets})
    assert build_report(out)["cameras"]["hall"]["decisions"][0]["reason"].startswith(told)


def profiled(camera: str, frames: int) -> list[FrameResult]:
    """Frames on which every model, the only one, runs."""
    made = [ModelOutput(camera, i, START, "persons", None, "profile", "executed") for i in range(frames)]
    return [FrameResult(camera, output.frame_index, START, "profile", (output,)) for output in made]


def decision(camera: str) -> Decision:
    return Decision(camera, START, START + timedelta(hours=1), (), ("persons",), ("persons",), {}, {}, {}, None, "")


def test_cameras_that_learn_say_how_far_they_are_in_place_of_what_they_execute() -> None:
    specs = {"persons": TinyModel.count("persons", lambda f: 0).spec}
    progress = Progress(specs, learning_frames={"hall": 172, "yard": 100})
    progress.observe(profiled("hall", 40))
    assert facts(progress) == "learning: 40 of 172 frames"
    progress.observe(profiled("yard", 10))
    assert facts(progress) == "learning: 50 of 272 frames"
    progress.observe([decision("yard")])
    assert facts(progress) == "100% executed, agreement not measured yet, 1 camera still learning: 40 of 172 frames"
    progress.observe([decision("hall"), *profiled("hall", 3)])
    assert facts(progress) == "100% executed, agreement not measured yet", "profile frames of later periods are usual"


def test_a_run_knows_how_many_frames_its_cameras_learn_from(tmp_path: Path) -> None:
    out = run(tmp_path / "run", frames=140, period=timedelta(hours=1), profile={"fraction": 0.01, "min_frames": 5})
    info = RunInfo.load(out)
    assert info.learning_frames("hall") == 60 + 36, "bootstrap, and 1 % of an hour at one frame per second"
    start = build_report(out)["cameras"]["hall"]["decisions"][0]["start"]
    assert datetime.fromisoformat(start) == START + timedelta(seconds=95)


def test_a_run_that_ended_while_it_learnt_says_so_and_gives_no_share_saved(tmp_path: Path) -> None:
    out = run(tmp_path / "run", frames=70, profile={"min_frames": 20})
    report = build_report(out)
    assert report["cost"]["parts"]["profile"]["frames"] == 10
    assert headline(report).startswith("The run ended while cameras were still learning: all 70 frames were bootstrap")
    assert "saved)" not in headline(report) and "Agreement" not in headline(report)
    page = write_report(out).read_text(encoding="utf-8")
    assert '<p class="big muted">still learning</p>' in page and "0.0 % saved" not in page
    going_on = report | {"run": report["run"] | {"finished_at": None}}
    assert headline(going_on).startswith("The cameras are still learning: all 70 frames so far are bootstrap")


def test_a_run_that_learnt_and_then_saved_nothing_is_not_excused(tmp_path: Path) -> None:
    report = build_report(run(tmp_path / "run", frames=240, policy="all"))
    assert "still learning" not in headline(report) and "(0.0 % saved)" in headline(report)
    assert "Every output was a model's own, so that there was nothing to compare." in headline(report)
