"""`camlink federate` as a person runs it: a rehearsal in one process, and processes over a broker."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from camlink.links.ensemble import Ensemble
from camlink.models.base import OutputSpec
from camlink.pipeline.cli import app
from camlink.pipeline.errors import LinkError, RequestError
from camlink.pipeline.federation import baselines, frames_of, frames_of_run
from camlink.pipeline.records import FrameResult, ModelOutput
from camlink.pipeline.results import ResultsLog, RunInfo
from camlink.pipeline.testing import START
from tests.pipeline.test_cli import camlink

PATIENCE_S = 120.0


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Two cameras, 80 frames each: "persons" is one more than "objects" says, but on one camera there are many more."""
    folder = tmp_path / "trace"
    folder.mkdir()
    model = "  {name}: {{kind: vector, size: 1, task: count, time_ms: 10, memory_gb: 1}}\n"
    (folder / "trace.yaml").write_text("models:\n" + model.format(name="objects") + model.format(name="persons"))
    rng = np.random.default_rng(0)
    frames, outputs = ["camera_id,frame_index,captured_at"], ["camera_id,frame_index,model,value"]
    for camera, low in (("hall", 0), ("yard", 4)):
        for index, count in enumerate(rng.integers(low, low + 4, 80)):
            frames.append(f"{camera},{index},{(START + timedelta(seconds=index)).isoformat()}")
            outputs += [f'{camera},{index},objects,"[{count}]"', f'{camera},{index},persons,"[{count + 1}]"']
    (folder / "frames.csv").write_text("\n".join([*frames, ""]))
    (folder / "outputs.csv").write_text("\n".join([*outputs, ""]))
    return folder


def test_a_rehearsal_leaves_links_that_can_be_begun_with(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "links"
    run = CliRunner().invoke(app, ["federate", "rehearse", str(trace), "--out", str(out), "--rounds", "150"])
    assert run.exit_code == 0, run.output
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.npz")) == [
        f"{folder}/{target}.npz" for folder in ("global", "hall", "yard") for target in ("objects", "persons")
    ]
    shared = Ensemble.from_bytes((out / "global" / "persons.npz").read_bytes())
    for count in (1, 6):
        value, confidence = shared.predict({"objects": np.array([count], np.float32)})
        assert value.tolist() == [count + 1]
        assert 0.0 < confidence <= 1.0
    assert "152 rounds" not in run.output and "153 rounds" in run.output
    assert "bytes out" in run.output


def test_only_the_models_and_targets_that_were_named_take_part(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "links"
    args = ["federate", "rehearse", str(trace), "--out", str(out), "--rounds", "1", "--targets", "persons"]
    assert CliRunner().invoke(app, args).exit_code == 0
    assert [p.name for p in (out / "global").iterdir()] == ["persons.npz"]
    again = CliRunner().invoke(app, args)
    assert isinstance(again.exception, RequestError) and "--overwrite" in str(again.exception)
    assert CliRunner().invoke(app, [*args[:-1], "objects", "--overwrite"]).exit_code == 0
    assert [p.name for p in (out / "global").iterdir()] == ["objects.npz"], "links of before must not stay among them"
    twice = [*args[:-1], "persons,persons", "--models", "objects, persons,objects", "--overwrite"]
    assert CliRunner().invoke(app, twice).exit_code == 0
    wrong = CliRunner().invoke(app, [*args[:-1], "people", "--overwrite"])
    assert wrong.exit_code == 2


def test_a_federation_of_one_is_refused(trace: Path, tmp_path: Path) -> None:
    for table in ("frames", "outputs"):
        rows = (trace / f"{table}.csv").read_text().splitlines(keepends=True)
        (trace / f"{table}.csv").write_text("".join(row for row in rows if not row.startswith("yard")))
    done = camlink("federate", "rehearse", str(trace), "--out", str(tmp_path / "links"))
    assert done.returncode == 2 and '"hall" is the only camera' in done.stderr
    assert not (tmp_path / "links").exists()


def test_a_camera_of_two_traces_is_one_site_at_most(trace: Path, tmp_path: Path) -> None:
    done = camlink("federate", "rehearse", str(trace), str(trace), "--out", str(tmp_path / "links"))
    assert done.returncode == 2 and 'camera "hall" is in' in done.stderr


@pytest.mark.parametrize(("name", "folder"), [("../hall", "%2E%2E%2Fhall"), ("hall nord", "hall%20nord")])
def test_links_stay_in_the_folder_whatever_cameras_are_called(
    trace: Path, tmp_path: Path, name: str, folder: str
) -> None:
    for table in ("frames", "outputs"):
        text = (trace / f"{table}.csv").read_text()
        (trace / f"{table}.csv").write_text(text.replace("hall,", f"{name},"))
    out = tmp_path / "links"
    run = CliRunner().invoke(app, ["federate", "rehearse", str(trace), "--out", str(out), "--rounds", "1"])
    assert run.exit_code == 0, run.output
    assert sorted(path.name for path in out.iterdir()) == sorted([folder, "global", "yard"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["links", "trace"]


def test_a_camera_called_as_the_global_links_is_refused(trace: Path, tmp_path: Path) -> None:
    for table in ("frames", "outputs"):
        text = (trace / f"{table}.csv").read_text()
        (trace / f"{table}.csv").write_text(text.replace("hall,", "global,"))
    done = camlink("federate", "rehearse", str(trace), "--out", str(tmp_path / "links"))
    assert done.returncode == 2 and 'a camera is called "global"' in done.stderr


def test_a_rehearsal_states_baselines_beside_its_figures(trace: Path, tmp_path: Path) -> None:
    """On counts drawn anew for each frame, one of four, no guess without a link is right much more than by chance."""
    done = camlink("federate", "rehearse", str(trace), "--out", str(tmp_path / "links"), "--rounds", "150")
    rows = [line.split() for line in done.stdout.splitlines() if line.strip().startswith(("hall ", "yard "))]
    assert len(rows) == 4, done.stdout
    for _, _, *figures in rows:
        constant, persistence, alone, federated, fused, frames = map(float, figures)
        assert max(constant, persistence) < 0.6 < min(alone, federated, fused)
        assert frames == 20
    assert "favours them" in done.stderr
    (last,) = [line for line in done.stdout.splitlines() if line.startswith("Fused against local only: ")]
    gains = [float(row[6]) - float(row[4]) for row in rows]
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    assert f"better {better}, equal {4 - better - worse}, worse {worse} of 4." in last
    assert done.stdout.rstrip().endswith("fused 0, federated 0, local only 0 of 4.")


def test_baselines_are_judged_on_a_frame_before_they_learn_it() -> None:
    spec = OutputSpec("a", "vector", 1, "count")
    values = np.array([[1], [1], [2], [2], [2], [3]], np.float32)
    held = np.array([True, False, True, True, False, True])
    found = baselines(spec, values, held)
    assert found == {"constant": 0.0, "persistence": pytest.approx(1 / 3)}


def test_of_a_run_only_frames_on_which_every_model_ran_are_used(tmp_path: Path) -> None:
    def output(index: int, model: str, how: str) -> ModelOutput:
        value = np.array([index], np.float32)
        return ModelOutput("hall", index, START, model, value, "serve", how)  # type: ignore[arg-type]

    log = ResultsLog(tmp_path)
    for index in range(6):
        hows = {"a": "executed", "b": "linked" if index % 2 else "executed"}
        rows = tuple(output(index, model, how) for model, how in hows.items())
        log.write([FrameResult("hall", index, START + timedelta(seconds=index), "serve", rows)])
    log.close()
    spec = {"task": "count", "kind": "vector", "size": 1, "labels": [], "scale": 1.0, "max_steps": 1}
    RunInfo(
        name="run", camlink_version="0", seed=0, policy="all", cameras={}, started_at=START, config={}, captured={},
        models={name: {**spec, "time_ms": 1.0, "memory_gb": 1.0} for name in "ab"},
    ).save(tmp_path)  # fmt: skip
    found = frames_of(tmp_path)["hall"]
    assert found.specs["b"] == OutputSpec("b", "vector", 1, "count")
    assert {m: v[:, 0].tolist() for m, v in found.samples.items()} == {"a": [0, 2, 4], "b": [0, 2, 4]}
    with pytest.raises(LinkError, match="no model c; the run has a, b"):
        frames_of_run(tmp_path, ["c"])


@pytest.mark.broker
def test_processes_over_a_broker_end_with_links_at_every_site(trace: Path, tmp_path: Path, broker_address: str) -> None:
    bus = f"kafka://{broker_address}/federate?partitions=2&wait_ms=5"
    command = [sys.executable, "-m", "camlink.pipeline.cli", "federate"]
    parties = {
        name: [*command, "site", str(trace), "--site", name, "--out", str(tmp_path / name), "--bus", bus]
        for name in ("north", "south")
    }
    head = ["coordinate", str(trace), "--out", str(tmp_path / "global"), "--bus", bus, "--sites", "north,south"]
    parties["global"] = [*command, *head, "--rounds", "3", "--deadline-s", "60", "--min-sites", "2"]
    running = {name: subprocess.Popen(args, stderr=subprocess.PIPE, text=True) for name, args in parties.items()}
    try:
        for name, process in running.items():
            _, errors = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, f"{name}: {errors}"
    finally:
        for process in running.values():
            process.kill()
    for name in parties:
        links = sorted(p.name for p in (tmp_path / name).glob("*.npz") if p.stem != "federation")
        assert links == ["objects.npz", "persons.npz"], name
