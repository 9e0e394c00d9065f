"""The report of a real session: true figures, the law of conservation, plain words, and a page that is safe to open."""

import io
import json
import re
from collections.abc import Callable
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from camlink.models.pool import ModelPool
from camlink.pipeline.accuracy import ABSTAINED, EXECUTES
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.records import FrameDropped
from camlink.pipeline.reports import build_report, headline, print_report, write_report
from camlink.pipeline.reports.notes import ONE_LOOK, ending, pace, promise
from camlink.pipeline.reports.rows import ModelRows
from camlink.pipeline.run_info import RunInfo
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.testing import TinyModel, make_frames
from tests.scenes import crowd

EVIL = '<img src=x onerror="alert(1)">'


def run_session(out: Path, audit: float = 0.1, frames: int = 400) -> dict[str, Any]:
    """Run two cameras, one with dropped frames; a model description tries to be HTML."""
    models = [
        TinyModel.count("objects", lambda f: [crowd(f), f.index % 2], size=2, time_ms=30.0),
        TinyModel.count("persons", crowd, time_ms=30.0),
        TinyModel.count("noise", lambda f: f.index * 7919 % 5, time_ms=40.0),
    ]
    config = SiteConfig(
        models="building",
        period=timedelta(minutes=2),
        policy="mlink-exact",
        budgets={"time_share": 0.4},
        links={"bootstrap_frames": 40},
        audit={"fraction": audit},
        adaptation={"policy": "off"},
    )
    cameras = {c: Camera("indoor", f"{c}.mp4", 1.0) for c in ("hall", "yard")}
    notes = {"noise": {"description": EVIL, "licence": "MIT"}}
    session = Session(config, ModelPool(models), cameras, out, model_notes=notes)
    hall = make_frames("hall", frames)
    yard = [
        FrameDropped("yard", f.index, 1, f.captured_at, "corrupt") if 50 <= f.index < 60 else f
        for f in make_frames("yard", frames)
    ]
    readings = sorted([*hall, *yard], key=lambda r: (r.captured_at, r.camera_id))
    session.run(readings, lambda: {"hall": frames, "yard": frames})
    return build_report(out)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("runs") / "site"
    return out, run_session(out)


def test_frames_are_conserved_and_drops_keep_their_reason(finished: tuple[Path, dict[str, Any]]) -> None:
    _, report = finished
    frames = report["frames"]
    assert frames["captured"] == 800
    assert frames["violations"] == []
    assert frames["dropped"] == {"corrupt": 10}
    for counts in frames["per_model"].values():
        served = counts["executed"] + counts["linked"] + counts["reused"] + counts["abstained"]
        assert served + sum(counts["dropped"].values()) == 800


def test_executions_and_cost_add_up(finished: tuple[Path, dict[str, Any]]) -> None:
    _, report = finished
    made = sum(model["executions"]["made"] for model in report["models"].values())
    assert report["executions"]["made"] == made
    assert report["executions"]["possible"] == 2400
    seconds = {"objects": 0.03, "persons": 0.03, "noise": 0.04}
    used = sum(report["models"][m]["executions"]["made"] * s for m, s in seconds.items())
    assert report["cost"]["model_seconds"] == pytest.approx(used)


def test_agreement_is_that_of_the_audit_frames(finished: tuple[Path, dict[str, Any]]) -> None:
    """Recomputed from the rows by a few lines that share nothing with the report's own code."""
    import duckdb

    out, report = finished
    rows = duckdb.sql(
        f"select camera_id, frame_index, model, how, served, value from '{out}/outputs/**/*.parquet' "
        "where purpose = 'audit'"
    ).fetchall()
    executed = {r[:3]: r[5] for r in rows if r[3] == "executed"}
    shadow = {r[:3]: r[5] for r in rows if not r[4]}
    frames = sorted({key[:2] for key in executed})
    scores = []
    for frame in frames:
        each = []
        for model in ("objects", "persons", "noise"):
            guess, truth = shadow.get((*frame, model)), executed[(*frame, model)]
            each.append(
                1.0 if guess is None else np.mean([abs(g - t) < 0.5 for g, t in zip(guess, truth, strict=True)])
            )
        scores.append(np.mean(each))
    assert report["agreement"]["audit_frames"] == len(frames)
    assert report["agreement"]["mean"] == pytest.approx(np.mean(scores), abs=1e-6)
    assert report["agreement"]["low"] < report["agreement"]["mean"] < report["agreement"]["high"]


def test_without_audit_frames_there_is_no_number(tmp_path: Path) -> None:
    report = run_session(tmp_path / "run", audit=0.0, frames=150)
    assert report["agreement"]["mean"] is None
    assert report["agreement"]["audit_frames"] == 0
    assert "not measured" in headline(report)
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "not measured" in page.lower()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith(("data:", "#"))]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]


def test_the_page_is_one_file_that_loads_nothing_and_escapes_everything(finished: tuple[Path, dict[str, Any]]) -> None:
    out, _ = finished
    page = write_report(out).read_text(encoding="utf-8")
    tags = _Tags()
    tags.feed(page)
    assert tags.addresses == []
    assert tags.handlers == []
    assert EVIL not in page
    assert "&lt;img src=x" in page
    assert "hall" in page
    assert "prefers-color-scheme" in page


def test_the_terminal_shows_models_cameras_and_baselines(finished: tuple[Path, dict[str, Any]]) -> None:
    _, report = finished
    console = Console(width=140, record=True, file=io.StringIO())
    print_report(report, console)
    text = console.export_text()
    for word in ("hall", "yard", "objects", "noise", "constant", "95 % interval"):
        assert word in text


def test_the_json_file_is_plain_and_complete(finished: tuple[Path, dict[str, Any]]) -> None:
    out, report = finished
    write_report(out)
    text = (out / "report.json").read_text(encoding="utf-8")
    assert not re.search(r"\bNaN\b|\bInfinity\b", text)
    assert json.loads(text)["executions"] == report["executions"]
    assert set(report["cameras"]) == {"hall", "yard"}
    assert RunInfo.load(out).complete


def edit_header(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    info = json.loads((run / "run.json").read_text())
    change(info)
    (run / "run.json").write_text(json.dumps(info))


def test_conservation_violations_are_shouted(tmp_path: Path) -> None:
    run_session(tmp_path / "run", frames=120)
    edit_header(tmp_path / "run", lambda info: info["captured"].update(hall=130))  # ten that nobody accounts for
    report = build_report(tmp_path / "run")
    assert report["frames"]["violations"]
    assert "hall" in str(report["frames"]["violations"])


@pytest.mark.parametrize("stopped_by", [None, "the user", "an error"])
def test_a_finished_run_must_account_for_every_frame_whatever_ended_it(tmp_path: Path, stopped_by: str | None) -> None:
    run_session(tmp_path / "run", frames=60)
    edit_header(tmp_path / "run", lambda info: info["captured"].update(hall=61))
    edit_header(tmp_path / "run", lambda info: info.update(stopped_by=stopped_by, complete=stopped_by is None))
    frames = build_report(tmp_path / "run")["frames"]
    assert len(frames["violations"]) == 3  # one a model
    assert frames["in_flight"] == 0


def test_only_a_run_that_is_still_going_on_may_have_frames_on_their_way(tmp_path: Path) -> None:
    run_session(tmp_path / "run", frames=60)
    going_on = {"finished_at": None, "complete": False}
    edit_header(tmp_path / "run", lambda info: info.update(going_on, captured={"hall": 64, "yard": 60}))
    frames = build_report(tmp_path / "run")["frames"]
    assert (frames["violations"], frames["in_flight"]) == ([], 4)
    executions = build_report(tmp_path / "run")["executions"]
    assert executions["possible"] == 3 * 120, "what became of the four is not known: they are no savings"
    edit_header(tmp_path / "run", lambda info: info.update(captured={"hall": 40, "yard": 40}))  # written a while ago
    frames = build_report(tmp_path / "run")["frames"]
    assert (frames["violations"], frames["in_flight"], frames["captured"]) == ([], 0, 120)


@pytest.mark.parametrize(
    ("run", "kind", "text"),
    [
        ({"stopped_by": "the user"}, "stopped", "Stopped by the user after 1,500 frames."),
        ({"stopped_by": "an error"}, "failed", "Ended early by an error after 1,500 frames"),
        (
            {"finished_at": None, "stopped_by": "the user"},
            "stopped",
            "Its results were stopped by the user after 1,500",
        ),
        ({"finished_at": None}, "going_on", "1,500 frames read so far, up to 2 of a camera still on their way."),
    ],
)
def test_how_a_run_ended_is_said_and_stopping_is_no_warning(run: dict[str, Any], kind: str, text: str) -> None:
    header = {"finished_at": "2026-03-02T08:00:00+00:00", "complete": False, "stopped_by": None}
    said = ending({"run": header | run, "frames": {"captured": 1500, "in_flight": 2}})
    assert said is not None
    assert said["kind"] == kind
    assert text in said["text"]


def test_a_run_that_came_to_its_own_end_needs_no_word(finished: tuple[Path, dict[str, Any]]) -> None:
    assert ending(finished[1]) is None


@pytest.mark.parametrize(
    ("took_s", "ratio", "words"),
    [(90.0, 2.0, "was busy"), (90.0, 1.05, "took 90 s."), (90.0, 1.4, "to itself"), (90.0, 0.5, "2.0 times as fast")],
)
def test_a_run_that_was_slower_or_faster_than_profiled_says_so(took_s: float, ratio: float, words: str) -> None:
    assert words in str(pace({"measured_busy_s": took_s, "measured_ratio": ratio}))


def test_measured_time_is_compared_with_that_of_the_same_executions(tmp_path: Path) -> None:
    report = run_session(tmp_path / "run", frames=60)
    edit_header(tmp_path / "run", lambda info: info.update(busy_ms={"objects": 3000 * report["cost"]["model_seconds"]}))
    assert build_report(tmp_path / "run")["cost"]["measured_ratio"] == pytest.approx(3.0)


def test_what_decisions_expected_stands_beside_what_was_measured(finished: tuple[Path, dict[str, Any]]) -> None:
    out, report = finished
    page = write_report(out).read_text(encoding="utf-8")
    for camera in report["cameras"].values():
        expected = camera["expected_agreement"]
        each = [decision["expected_agreement"] for decision in camera["decisions"]]
        assert min(each) <= expected["lowest"] <= expected["mean"] <= expected["highest"] <= max(each)
        assert expected["measured"] == camera["agreement"]["mean"]
        assert expected["text"] in page


@pytest.mark.parametrize(
    ("expected", "words"), [(0.99, "promised too much"), (0.9, "within the interval"), (0.5, "better than promised")]
)
def test_promising_too_much_is_said(expected: float, words: str) -> None:
    assert words in promise(expected, {"mean": 0.85, "low": 0.8, "high": 0.95}, ONE_LOOK)
    assert "not measured" in promise(expected, {"mean": None}, ONE_LOOK)


def test_the_headline_says_which_share_was_never_answered(finished: tuple[Path, dict[str, Any]]) -> None:
    _, report = finished
    assert "no answer" not in headline(report | {"abstentions": {"served": 0, "share": 0.0}})
    assert "no answer to 12.5 % of outputs" in headline(report | {"abstentions": {"served": 9, "share": 0.125}})
    assert "less than 0.1 % of outputs" in headline(report | {"abstentions": {"served": 1, "share": 1e-6}})


def test_an_abstained_shadow_counts_as_no_agreement_at_all() -> None:
    """As under a policy that neither executes nor predicts a model: on audit frames it runs, but would not have."""
    spec = TinyModel.count("persons", crowd).spec
    rows = ModelRows(
        spec=spec,
        frame_index=np.array([7, 7, 9]),
        times_us=np.array([7_000_000, 7_000_000, 9_000_000]),
        values=np.array([[2], [np.nan], [2]], np.float32),
        how=np.array(["executed", "abstained", "executed"]),
        purpose=np.array(["audit", "audit", "audit"]),
        served=np.array([True, False, True]),
        probability=np.array([0.1, 0.1, 0.1]),
    )
    assert rows.audit.shadow.tolist() == [ABSTAINED, EXECUTES]
    assert rows.scores is not None
    assert rows.scores.camlink.tolist() == [0.0, 1.0]
    assert rows.served_count("abstained") == 0  # the frame itself was answered


def test_under_standalone_the_models_left_out_count_as_wrong(tmp_path: Path) -> None:
    models = [
        TinyModel.count("cheap", lambda f: f.index % 3, time_ms=30.0),
        TinyModel.count("dear", crowd, time_ms=60.0),
    ]
    config = SiteConfig(
        models="building",
        period=timedelta(minutes=2),
        policy="standalone",
        budgets={"time_share": 0.4},
        links={"bootstrap_frames": 40},
        audit={"fraction": 0.2},
        adaptation={"policy": "off"},
    )
    session = Session(config, ModelPool(models), {"hall": Camera("indoor", "hall.mp4", 1.0)}, tmp_path / "run")
    session.run(make_frames("hall", 200), lambda: {"hall": 200})
    report = build_report(tmp_path / "run")
    audits = report["agreement"]["audit_frames"]
    assert report["agreement"]["mean"] == pytest.approx(0.5)
    assert report["agreement"]["abstained"] == audits > 0
    assert f"abstained on {audits} audit frames" in report["models"]["dear"]["note"]["text"]
    assert "Executed throughout" in report["models"]["cheap"]["note"]["text"]
    assert report["cameras"]["hall"]["expected_agreement"]["mean"] == pytest.approx(0.5)
