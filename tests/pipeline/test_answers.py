"""Answers on a pipe: every served one, once, as the results have it; a reader that goes away ends no run."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from camlink.models.base import OutputSpec
from camlink.pipeline.answers import AnswerLines
from camlink.pipeline.cli import app
from camlink.pipeline.errors import RequestError
from camlink.pipeline.records import Detections, FrameResult, ModelOutput
from camlink.pipeline.results import RunResults
from camlink.pipeline.testing import START
from tests.pipeline.test_cli import camlink, write_trace

PERSONS = OutputSpec("persons", "vector", 1, "count", ("person",))
HEAT = OutputSpec("heat", "vector", 1, "regression")


def here(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def result(*outputs: ModelOutput) -> FrameResult:
    return FrameResult("hall", 7, START, "audit", outputs)


def answer(model: str, value: float | None, **more: Any) -> ModelOutput:
    array = None if value is None else np.array([value], np.float32)
    return ModelOutput("hall", 7, START, model, array, "audit", more.pop("how", "executed"), **more)


def told(*results: FrameResult) -> list[dict[str, Any]]:
    out = io.StringIO()
    assert AnswerLines(out, "-", {"persons": PERSONS, "heat": HEAT}).observe(results) == ()
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_has_all_that_was_served_of_a_frame_and_no_shadow() -> None:
    boxes = Detections(np.float32([[0, 0, 1, 1]] * 2), np.float32([0.9, 0.2]), np.int32([0, 0]))
    shadow = answer("persons", 5.0, how="linked", served=False)
    (line,) = told(result(answer("persons", 1.0, detections=boxes), shadow, answer("heat", 21.5, how="reused")))
    assert (line["camera_id"], line["frame_index"], line["captured_at"]) == ("hall", 7, START.isoformat())
    persons, heat = line["answers"]["persons"], line["answers"]["heat"]
    assert (persons["how"], persons["value"]) == ("executed", {"person": 1.0})
    assert persons["boxes"] == [{"xyxy": [0, 0, 1, 1], "score": 0.9, "label": "person"}]
    assert (heat["how"], heat["value"]) == ("reused", [21.5]), "entries without labels stay a list"


def test_an_abstention_is_told_and_what_only_teaches_is_not() -> None:
    abstained = answer("persons", None, how="abstained", reason="not sure")
    (line,) = told(result(abstained), result(answer("persons", 1.0, served=False)))
    assert (line["answers"]["persons"]["value"], line["answers"]["persons"]["reason"]) == (None, "not sure")


def test_lines_and_rows_of_a_replay_are_the_same_and_nothing_else_is_on_standard_output(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace", frames=200)
    done = camlink("replay", str(trace), "--config", "demo", "--out", str(tmp_path / "run"), "--answers", "-")
    assert done.returncode == 0 and "camlink made" in done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = {
        (line["camera_id"], line["frame_index"], model): (each["value"], each["how"])
        for line in lines
        for model, each in line["answers"].items()
    }
    rows = RunResults(tmp_path / "run").outputs(where="served").to_pylist()
    assert len(found) == sum(len(line["answers"]) for line in lines) == 2 * 3 * 200, "none twice"
    assert found == {(r["camera_id"], r["frame_index"], r["model"]): (r["value"], r["how"]) for r in rows}


def test_lines_are_added_to_a_file(tmp_path: Path) -> None:
    trace, file = write_trace(tmp_path / "trace", frames=60, cameras=("hall",)), tmp_path / "answers.jsonl"
    for run in ("a", "b"):
        done = here("replay", str(trace), "--config", "demo", "--out", str(tmp_path / run), "--answers", str(file))
        assert done.exit_code == 0 and "camlink made" in done.stdout
    assert len(file.read_text().splitlines()) == 120


def test_a_file_that_cannot_be_opened_is_told_before_an_earlier_run_is_deleted(tmp_path: Path) -> None:
    trace, run = write_trace(tmp_path / "trace", frames=60, cameras=("hall",)), tmp_path / "run"
    options = ("replay", str(trace), "--config", "demo", "--out", str(run), "--overwrite")
    assert here(*options).exit_code == 0
    refused = here(*options, "--answers", str(tmp_path / "none" / "x"))
    assert isinstance(refused.exception, RequestError) and "--answers: " in str(refused.exception)
    assert (run / "run.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
def test_a_full_disk_ends_the_lines_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    full = Path("/dev/full").open("a")  # noqa: SIM115 (closing it fails, too)
    with caplog.at_level(logging.WARNING):
        lines = AnswerLines(full, "answers.jsonl", {"persons": PERSONS})
        for _ in range(3):
            lines.observe([result(answer("persons", 1.0))])
    assert [r.message for r in caplog.records] == [
        "answers.jsonl: no more answers are written: No space left on device; the run goes on"
    ]
    with pytest.raises(OSError, match="No space left"):
        full.close()


def test_a_reader_that_goes_away_ends_no_run(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace", frames=400)
    replay = [sys.executable, "-m", "camlink", "replay", str(trace), "--config", "demo", "--answers", "-"]
    with subprocess.Popen(
        [*replay, "--out", str(tmp_path / "run")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        assert json.loads(running.stdout.readline())["frame_index"] == 0
        running.stdout.close()
        said = running.stderr.read()
    assert running.returncode == 0 and said.count("no more answers are written: Broken pipe") == 1
    assert RunResults(tmp_path / "run").frames_seen("hall") == 400
