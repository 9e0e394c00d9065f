"""On a trace it is known how far answers agree on every frame, and that is what a replay says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from camlink.models.recorded import open_trace
from camlink.pipeline.cli import app
from camlink.pipeline.every_frame import EveryFrame
from camlink.pipeline.records import FrameResult, How, ModelOutput, Purpose
from camlink.pipeline.results import RunResults
from camlink.pipeline.testing import START
from tests.pipeline.test_cli import write_trace


def result(index: int, value: float | None, how: How, purpose: Purpose = "serve", served: bool = True) -> FrameResult:
    array = None if value is None else np.array([value], np.float32)
    output = ModelOutput("hall", index, START, "persons", array, purpose, how, served)
    return FrameResult("hall", index, START, purpose, (output,))


def test_executed_outputs_agree_and_abstained_ones_do_not(tmp_path: Path) -> None:
    trace = open_trace(write_trace(tmp_path / "trace", frames=20, cameras=("hall",)))
    every = EveryFrame(trace.models)
    said = float(trace.model("persons").answer("hall", 7).value[0])
    every.observe([result(7, said, "executed"), result(8, 99.0, "executed")])
    assert every.words == "", "nothing was predicted"
    every.observe([result(7, said, "reused"), result(7, said + 1.0, "linked"), result(9, None, "abstained")])
    every.observe(
        [result(7, 99.0, "linked", "audit"), result(7, 99.0, "linked", served=False), result(77, 9.0, "reused")]
    )
    assert "all 5 outputs agree to 60.0 %, the 3 predicted ones alone to 33.3 %" in every.words


def test_a_replay_of_a_trace_ends_with_what_its_rows_come_to(tmp_path: Path) -> None:
    folder = write_trace(tmp_path / "trace", frames=300)
    options = ["--config", "demo", "--out", str(tmp_path / "run"), "--time-share", "0.3"]
    done = CliRunner().invoke(app, ["replay", str(folder), *options])
    trace, right = open_trace(folder), []
    for row in RunResults(tmp_path / "run").outputs(where="served AND purpose = 'serve'").to_pylist():
        said = trace.model(row["model"]).answer(row["camera_id"], row["frame_index"]).value
        right.append(float(np.mean(np.abs(np.array(row["value"]) - said) < 0.5)))
    assert f"all {len(right):,} outputs agree to {100 * np.mean(right):.1f} %" in re.sub(r"\s+", " ", done.stdout)
