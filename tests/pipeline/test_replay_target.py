"""`replay --target`: the least cost at which a target is met, on footage or a trace, without a file of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from camlink.pipeline.cli import app
from camlink.pipeline.commands.settings import load_settings
from tests.pipeline.test_cli import write_trace


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({}, 0.4),
        ({"target_agreement": 0.9}, None),
        ({"target_agreement": 0.9, "budgets.time_share": 0.3}, 0.3),
        ({"target_agreement": 0.9, "policy": "mlink"}, 0.4),
        ({"policy": "all"}, None),
    ],
    ids=[
        "no target",
        "in place of the file's",
        "beside one that is given",
        "links need one all the same",
        "all knows none",
    ],
)
def test_a_target_takes_the_place_of_the_files_time_budget(changes: dict[str, Any], share: float | None) -> None:
    settings = load_settings("building", changes)
    assert settings.budgets.time_share == share
    assert settings.target_agreement == changes.get("target_agreement")
    assert settings.budgets.memory_gb == load_settings("building", {}).budgets.memory_gb


def replay(trace: Path, out: Path, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["replay", str(trace), "--out", str(out), *arguments])


def test_a_higher_target_costs_more_and_the_last_lines_say_how_targets_stand(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace", frames=600, cameras=("hall",))
    cost = {}
    for target in ("0.5", "0.99"):
        done = replay(trace, tmp_path / target, "--target", target)
        assert done.exit_code == 0
        assert (
            "No time budget: frames served" in done.stdout and "Targets, one for each camera and model: " in done.stdout
        )
        cost[target] = json.loads((tmp_path / target / "report.json").read_text())["cost"]["parts"]["serve"]["share"]
    assert cost["0.5"] < cost["0.99"]
    plain = replay(trace, tmp_path / "plain")
    assert "Targets" not in plain.stdout


def test_what_is_no_share_is_refused_by_the_options_name(tmp_path: Path) -> None:
    refused = replay(write_trace(tmp_path / "trace", frames=10), tmp_path / "run", "--target", "95")
    assert refused.exit_code == 2 and "--target: 95 is above 1" in refused.stderr
