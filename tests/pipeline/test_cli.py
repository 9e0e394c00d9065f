"""The command line as a user meets it: exit codes, messages, and a replay of a trace from start to report."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import cv2
import numpy as np
import pytest

from camlink.models import catalogue
from camlink.models.pool import ModelPool
from camlink.models.recorded import open_trace
from camlink.pipeline.commands import running
from camlink.pipeline.commands.console import FAILED
from camlink.pipeline.commands.record import record
from camlink.pipeline.commands.running import run_and_report
from camlink.pipeline.config import Budgets, SiteConfig, load_config
from camlink.pipeline.errors import ModelError, TraceError
from camlink.pipeline.progress import Progress
from camlink.pipeline.recording import TraceWriter, record_trace
from camlink.pipeline.records import Frame
from camlink.pipeline.results import RunResults
from camlink.pipeline.run_info import RunInfo
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.testing import TinyModel, make_frames

REPOSITORY = Path(__file__).resolve().parents[2]  # what runs in another folder shall be this camlink, too


def camlink(
    *arguments: str, env: Mapping[str, str] = MappingProxyType({}), **more: object
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "camlink", *arguments]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONPATH": str(REPOSITORY)} | env
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment, **more)  # type: ignore[call-overload, no-any-return]


def write_trace(folder: Path, frames: int = 400, cameras: tuple[str, ...] = ("hall", "yard")) -> Path:
    """A trace of three counters that know of each other."""

    def people(index: int) -> int:
        return (index * 7 // 20) % 6

    pool = ModelPool(
        [
            TinyModel.count("objects", lambda f: [people(f.index), f.index % 2], size=2, time_ms=30.0),
            TinyModel.count("persons", lambda f: people(f.index), time_ms=30.0),
            TinyModel.count("bags", lambda f: people(f.index) // 2, time_ms=60.0),
        ]
    )
    readings = sorted(
        (f for camera in cameras for f in make_frames(camera, frames)), key=lambda f: (f.captured_at, f.camera_id)
    )
    with TraceWriter(folder, pool) as trace:
        record_trace(readings, pool, trace, Progress(pool.specs))
    return folder


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("replay")
    trace = write_trace(folder / "trace")
    options = ("--config", "demo", "--period", "60s", "--out", str(folder / "run"))
    return folder, camlink("replay", str(trace), *options)


def test_a_replay_ends_with_the_headline_and_the_path_of_the_page(
    replayed: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, result = replayed
    assert result.returncode == 0, result.stderr
    assert "executions" in result.stdout
    assert "Time budget 30 %: frames served under a decision took " in result.stdout, "whose budget, nobody has asked"
    assert f"Report: {folder / 'run' / 'report.html'}" in result.stdout
    assert (folder / "run" / "report.html").stat().st_size > 10_000


def test_the_json_report_obeys_the_conservation_law(replayed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = replayed
    report = json.loads((folder / "run" / "report.json").read_text())
    assert {"cameras", "models", "executions", "agreement", "frames"} <= set(report)
    assert report["frames"]["captured"] == 800
    for counts in report["frames"]["per_model"].values():
        known = counts["executed"] + counts["linked"] + counts["reused"] + counts["abstained"]
        assert known + sum(counts["dropped"].values()) == counts["captured"] == 800
    assert report["executions"]["possible"] == 2400
    assert 0 < report["executions"]["made"] < 2400
    assert report["agreement"]["low"] <= report["agreement"]["mean"] <= report["agreement"]["high"]
    assert set(report["agreement"]["baselines"]) == {"constant", "hourly_mode", "persistence"}


def test_two_replays_with_one_seed_leave_identical_rows(
    replayed: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = replayed
    options = ("--config", "demo", "--period", "60s", "--out", str(folder / "again"))
    assert camlink("replay", str(folder / "trace"), *options).returncode == 0
    assert rows(folder / "again") == rows(folder / "run")


@pytest.mark.parametrize(("models", "site"), [("traffic", "traffic"), ("persons,vehicles", "building")])
def test_a_set_of_models_is_replayed_under_the_budget_of_its_built_in_site(
    tmp_path: Path, models: str, site: str
) -> None:
    pool = ModelPool([TinyModel.count(name, lambda f: f.index % 3) for name in catalogue.sets()["traffic"]])
    with TraceWriter(tmp_path / "trace", pool) as trace:
        record_trace(make_frames("road", 60), pool, trace, Progress(pool.specs))
    done = camlink("replay", str(tmp_path / "trace"), "--models", models, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    config = RunInfo.load(tmp_path / "run").config
    assert (config["site"], config["budgets"]["time_share"]) == (site, load_config(site).budgets.time_share)


def rows(run: Path) -> list[tuple[object, ...]]:
    """All rows of a run, in the order of their keys."""
    table = RunResults(run).outputs()
    columns = sorted(table.column_names)
    return sorted(zip(*(map(str, table.column(c).to_pylist()) for c in columns), strict=True))


def test_report_prints_json_and_nothing_else(replayed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = replayed
    result = camlink("report", str(folder / "run"), "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["executions"]["possible"] == 2400


def test_a_run_is_never_overwritten_unasked(replayed: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = replayed
    result = camlink("replay", str(folder / "trace"), "--out", str(folder / "run"))
    assert result.returncode == 2
    assert "already holds a run" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("replay", "nowhere.mp4"), "there is no file or folder nowhere.mp4"),
        (("replay", ".", "--config", "buildin"), 'did you mean "building"'),
        (("replay", ".", "--fps", "fast"), "--fps"),
        (("replay", ".", "--fps", "nan"), "--fps"),
        (("replay", ".", "--fps", "0"), "--fps"),
        (("replay", ".", "--timezone", "Mars/X"), "not a known time zone"),
        (("record", ".", "--out", "trace", "--timezone", "Mars/X"), "not a known time zone"),
        (("replay", ".", "--policy", "best"), "policy"),
        (("replay", ".", "--policy", "camlnk"), 'did you mean "camlink"?'),
        (("replay", ".", "--models", "trafic"), 'did you mean "traffic"?'),
        (("record", ".", "--out", "trace", "--models", "persons,object"), 'did you mean "objects"?'),
        (("config", "check", "nowhere.yaml"), "nowhere.yaml"),
        (("run", "demo"), "no cameras"),
    ],
)
def test_wrong_use_ends_with_2_and_a_message(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = camlink(*arguments, cwd=None)
    assert result.returncode == 2, result.stdout + result.stderr
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fps", "5"), "--fps"),
        (("--start", "2026-03-01"), "--start"),
        (("--real-time",), "--real-time"),
        (("--timezone", "UTC"), "--timezone"),
        (("--models", "persons,bag"), 'did you mean "bags"'),
        (("--models", ","), "no model is named"),
    ],
)
def test_what_a_trace_cannot_follow_is_refused(
    replayed: tuple[Path, subprocess.CompletedProcess[str]], options: tuple[str, ...], message: str
) -> None:
    folder, _ = replayed
    result = camlink("replay", str(folder / "trace"), "--config", "demo", *options, "--out", str(folder / "no"))
    assert result.returncode == 2, result.stdout + result.stderr
    assert message in result.stderr
    assert not (folder / "no").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--policy", "mlink", "--time-share", "0.05"), "--time-share: 0.05 allows 6.0 ms a frame, but the cheapest"),
        (("--latency-ms", "5"), "--latency-ms: 5 ms leaves no model time: the cheapest, objects, takes 30.0 ms"),
        (("--memory-gb", "1e-6"), "--memory-gb: the largest model, objects, takes"),
        (("--audit", "2"), "--audit: "),
    ],
)
def test_what_an_option_overrides_is_not_blamed_on_a_line_of_the_file(
    replayed: tuple[Path, subprocess.CompletedProcess[str]], options: tuple[str, ...], message: str
) -> None:
    folder, _ = replayed
    result = camlink("replay", str(folder / "trace"), *options, "--out", str(folder / "refused"))
    assert result.returncode == 2, result.stdout + result.stderr
    assert message in result.stderr and ".yaml" not in result.stderr and "together" not in result.stderr


def test_a_limit_on_each_frame_is_an_option_as_budgets_are(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace", frames=150, cameras=("hall",))
    done = camlink("replay", str(trace), "--config", "demo", "--latency-ms", "70", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "report.json").read_text())["cost"]["latency_limit_ms"] == 70.0
    served = [row for row in RunResults(tmp_path / "run").outputs().to_pylist() if row["purpose"] == "serve"]
    each = {"objects": 30.0, "persons": 30.0, "bags": 60.0}
    taken: dict[int, float] = {}
    for row in served:
        taken[row["frame_index"]] = taken.get(row["frame_index"], 0.0) + each[row["model"]] * (row["how"] == "executed")
    assert 0.0 < max(taken.values()) <= 70.0


def test_reports_of_a_simulated_trace_say_so_and_others_do_not(
    tmp_path: Path, replayed: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    city, run = tmp_path / "city", tmp_path / "run"
    assert camlink("simulate", str(city), "--cameras", "1", "--days", "0.2", "--every", "1min").returncode == 0
    done = camlink("replay", str(city), "--out", str(run))
    assert done.returncode == 0, done.stderr
    said = "SYNTHETIC: a simulated trace, no camera has seen this."
    assert said in done.stdout
    for folder, synthetic in ((run, True), (replayed[0] / "run", False)):
        assert json.loads(camlink("report", str(folder), "--json").stdout)["run"]["synthetic"] is synthetic
        shown = camlink("report", str(folder)).stdout
        assert (said in shown) == (f"{folder.name} (SYNTHETIC)" in shown) == synthetic
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert (said in page) == (f"<h1>{folder.name} (SYNTHETIC)</h1>" in page) == synthetic
    day = min(RunResults(run).outputs().column("captured_at").to_pylist()).date()
    assert said in camlink("report", str(run), "--day", str(day), "--no-write").stdout


def test_models_of_a_trace_can_be_chosen_and_rules_left_as_they_are(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace", frames=150, cameras=("hall",))
    options = ("--config", "demo", "--models", "bags,persons", "--time-share", "0.9", "--out", str(tmp_path / "run"))
    fitted = camlink("replay", str(trace), *options)
    assert fitted.returncode == 0, fitted.stderr
    assert fitted.stderr.count("short footage") == 1, "one paragraph, however much was changed"
    assert "; " in fitted.stderr
    assert set(json.loads((tmp_path / "run" / "report.json").read_text())["models"]) == {"bags", "persons"}
    asked = camlink("replay", str(trace), *options, "--overwrite", "--no-fit")
    assert asked.returncode == 0, asked.stderr
    assert "short footage" not in asked.stderr
    asked = camlink("replay", str(trace), *options, "--overwrite", "--bootstrap", "50")
    assert "short footage" not in asked.stderr


@pytest.mark.parametrize("wrong", [("nowhere.mp4",), ("TRACE", "--models", "cars"), ("TRACE", "--memory-gb", "1e-6")])
def test_an_earlier_run_outlives_a_replay_that_cannot_start(tmp_path: Path, wrong: tuple[str, ...]) -> None:
    trace, run = write_trace(tmp_path / "trace", frames=20), tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    arguments = (str(trace) if word == "TRACE" else word for word in wrong)
    result = camlink("replay", *arguments, "--config", "demo", "--out", str(run), "--overwrite")
    assert result.returncode in (1, 2)
    assert (run / "run.json").read_text() == "{}"


def test_overwriting_never_deletes_what_is_to_be_replayed(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "run" / "trace", frames=20)
    (tmp_path / "run" / "run.json").write_text("{}")
    result = camlink("replay", str(trace), "--config", "demo", "--out", str(tmp_path / "run"), "--overwrite")
    assert result.returncode == 2
    assert "deleted" in result.stderr
    assert (trace / "trace.yaml").exists()


def test_a_run_that_an_error_ends_reports_what_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = make_frames("hall", 60)

    def breaking() -> Iterator[Frame]:
        yield from frames[:40]
        raise ModelError('model "persons": the driver is gone')

    pool = ModelPool(
        [TinyModel.count("persons", lambda f: f.index % 3), TinyModel.count("bags", lambda f: f.index % 2)]
    )
    session = Session(SiteConfig(models="building"), pool, {"hall": Camera("trace", "made", 1.0)}, tmp_path / "run")
    assert run_and_report(session, breaking(), lambda: {"hall": 40}, None, tmp_path / "run") == FAILED
    out, err = capsys.readouterr()
    assert "the driver is gone" in err and "Report:" in out
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["run"]["stopped_by"] == "an error"
    assert report["executions"]["made"] > 50


def test_a_second_ctrl_c_is_the_users_doing_and_what_was_done_is_kept(tmp_path: Path) -> None:
    frames = make_frames("hall", 60)

    def broken_off() -> Iterator[Frame]:
        yield from frames[:40]
        raise KeyboardInterrupt

    pool = ModelPool([TinyModel.count("persons", lambda f: f.index % 3)])
    session = Session(SiteConfig(models="building"), pool, {"hall": Camera("trace", "made", 1.0)}, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        session.run(broken_off(), lambda: {"hall": 40})
    assert (session.info.complete, session.info.stopped_by) == (False, "the user")
    assert RunResults(tmp_path / "run").outputs().num_rows >= 39  # the frame it was at may be lost


def test_a_recording_heeds_no_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SiteConfig] = []

    def build_pool(config: SiteConfig) -> NoReturn:
        asked.append(config)
        raise ModelError("far enough")

    monkeypatch.setattr(running, "build_pool", build_pool)
    (tmp_path / "site.yaml").write_text("models: building\nbudgets: {memory_gb: 0.1, time_share: 0.4}\n")
    cv2.imwrite(str(tmp_path / "hall_20260301-120000.png"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ModelError, match="far enough"):
        record([tmp_path], tmp_path / "trace", str(tmp_path / "site.yaml"))
    assert asked[0].budgets == Budgets()


def test_a_report_of_no_run_says_so(tmp_path: Path) -> None:
    result = camlink("report", str(tmp_path))
    assert result.returncode == 2
    assert "is this the folder of a camlink run?" in result.stderr


def test_a_malformed_trace_names_file_and_line(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace", frames=20)
    outputs = (trace / "outputs.csv").read_text().splitlines()
    outputs[4] = outputs[4].replace("[", "{")
    (trace / "outputs.csv").write_text("\n".join(outputs) + "\n")
    result = camlink("replay", str(trace))
    assert result.returncode == 2
    assert "outputs.csv:5" in result.stderr


def test_a_recorded_trace_gives_back_what_the_models_said(tmp_path: Path) -> None:
    trace = open_trace(write_trace(tmp_path / "trace", frames=30, cameras=("hall",)))
    assert set(trace.specs) == {"objects", "persons", "bags"}
    assert [f.index for f in trace.frames] == list(range(30))
    objects = trace.model("objects").run(trace.frames)
    assert [tuple(o.value) for o in objects] == [((i * 7 // 20) % 6, i % 2) for i in range(30)]
    with pytest.raises(TraceError, match="already holds a trace"):
        TraceWriter(tmp_path / "trace", ModelPool([]))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_cleanly_with_a_report_of_what_was_done(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace", frames=30_000, cameras=("hall",))
    command = [sys.executable, "-m", "camlink.pipeline.cli", "-v", "replay", str(trace), "--config", "demo"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "run")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "decides on every frame" in line:  # the first decision: the run is under way
            process.send_signal(signal.SIGINT)
            break
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Report:" in out
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["run"]["complete"] is False
    assert 0 < report["frames"]["captured"] < 30_000
    assert report["frames"]["violations"] == []


def test_help_and_version_are_quick_to_say() -> None:
    assert "replay" in camlink("--help").stdout
    assert camlink("version").stdout.strip()


def test_the_list_of_models_says_what_each_is_and_under_which_licence() -> None:
    told = camlink("models", "list").stdout
    for word in ("objects", "persons", "action", "vehicles", "condition", "AGPL-3.0", "third party", "ImageNet"):
        assert word in told
