"""`camlink zoo`, and a site and a comparison that start from one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from camlink.models import catalogue
from camlink.models.trace_arrays import CameraTrace
from camlink.models.trace_files import RecordedEntry
from camlink.models.trace_writing import write_arrays
from camlink.operators.per_frame import PerFrame
from camlink.pipeline.config import check_config
from camlink.pipeline.errors import TraceError, ZooError
from camlink.pipeline.lab.zoo import build_zoo
from camlink.pipeline.zoo_file import open_zoo, save_zoo
from tests.lab_traces import random_trace
from tests.pipeline.test_compare_command import camlink

SPECS = {name: catalogue.output_spec(catalogue.definition(name)) for name in catalogue.sets()["building"]}
HEAD = "models: building\ncameras: [{id: hall, source: 0}]\npolicy: camlink\n"


def building(seed: int, frames: int = 60) -> CameraTrace:
    """A camera of the building's models, whose outputs change now and then."""
    rng = np.random.default_rng(seed)
    scene = np.cumsum(rng.random(frames) < 0.2) % 4
    values = {}
    for name, spec in SPECS.items():
        values[name] = np.zeros((frames, spec.size), np.float32)
        values[name][np.arange(frames), scene % spec.size] = 1.0
    return CameraTrace(f"hall-{seed}", SPECS, np.arange(frames), 1e9 + np.arange(frames) / 5, {}, values)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = {name: RecordedEntry(spec, 30.0, 0.5) for name, spec in SPECS.items()}
    return write_arrays(tmp_path_factory.mktemp("traces") / "halls", models, [building(1), building(2)])


@pytest.fixture(scope="module")
def zoo(trace: Path) -> Path:
    file = trace.parent / "halls.zoo"
    done = camlink("zoo", "build", str(trace), "--out", str(file))
    assert done.exit_code == 0 and "2 cameras, 120 frames, models objects, persons, action" in done.output
    return file


def test_a_zoo_is_built_from_traces_and_says_what_is_in_it(trace: Path, zoo: Path) -> None:
    shown = camlink("zoo", "show", str(zoo))
    assert shown.exit_code == 0
    rows = [line for line in shown.output.splitlines() if "halls/hall-" in line]
    assert len(rows) == 2 * len(SPECS) and all(f" {60} " in row and "%" in row for row in rows)
    assert [camera.frames for camera in build_zoo([trace], print, most=40).cameras] == [40, 40]


def test_traces_in_folders_of_one_name_are_told_apart_and_one_given_twice_is_taken_once(
    trace: Path, tmp_path: Path
) -> None:
    models = {name: RecordedEntry(spec, 30.0, 0.5) for name, spec in SPECS.items()}
    other = write_arrays(tmp_path / "tuesday" / "halls", models, [building(1)])
    told: list[str] = []
    zoo = build_zoo([trace, other, trace], told.append)
    above = trace.parent.name
    assert [camera.camera_id for camera in zoo.cameras] == [
        f"{above}/halls/hall-1",
        f"{above}/halls/hall-2",
        "tuesday/halls/hall-1",
    ]
    assert told[-1].startswith("trace tuesday/halls: no pixel_change")


def test_what_cannot_be_one_zoo_is_refused(trace: Path, tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="nowhere: no such trace folder"):
        build_zoo([trace, tmp_path / "nowhere"], lambda _: pytest.fail("played before all were looked at"))
    made = random_trace(1, 40, 2)
    other = write_arrays(tmp_path / "other", made.models, made.cameras)
    with pytest.raises(TraceError, match=r"other/cam has other models \(m0, m1\)"):
        build_zoo([trace, other], print)


def test_a_file_that_is_no_zoo_says_so_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no zoo")
    with pytest.raises(ZooError, match=r"text: not a snapshot: .*; `camlink zoo build` writes a zoo"):
        open_zoo(tmp_path / "text")
    with pytest.raises(ZooError, match="gone: cannot be read: No such file"):
        open_zoo(tmp_path / "gone")


def test_a_zoo_that_could_not_be_read_is_not_written(zoo: Path, tmp_path: Path) -> None:
    sound = open_zoo(zoo)
    camera = sound.cameras[0]
    (name, model), *_ = camera.models.items()
    broken = replace(model, freshness=np.full_like(model.freshness, np.nan))
    wrong = replace(sound, cameras=(replace(camera, models={**camera.models, name: broken}),))
    with pytest.raises(ZooError, match=r"new\.zoo: not written, .* not finite"):
        save_zoo(wrong, tmp_path / "new.zoo")
    assert not (tmp_path / "new.zoo").exists()


def test_a_comparison_starts_from_a_zoo_and_refuses_one_of_other_models(trace: Path, zoo: Path, tmp_path: Path) -> None:
    told = []
    for more in ([], ["--zoo", str(zoo)]):
        done = camlink(
            "compare", str(trace), "--policy", "camlink", "periodic", "--budget-time", "0.4", "--json", *more
        )
        told.append({row["policy"]: row for row in json.loads(done.stdout)})
    for rows in told:
        del rows["periodic"]["chance_to_be_best"]  # which is beside the others
    assert told[0]["camlink"] != told[1]["camlink"] and told[0]["periodic"] == told[1]["periodic"]
    made = random_trace(1, 40, 2)
    other = write_arrays(tmp_path / "other", made.models, made.cameras)
    refused = camlink("compare", str(other), "--zoo", str(zoo))
    assert isinstance(refused.exception, ZooError)
    assert 'camera "cam" cannot start from this zoo: model "m0" is not in it' in str(refused.exception)


def one(folder: Path, text: str) -> str:
    """Return the only thing that is wrong, as ``LINE: MESSAGE``."""
    (folder / "site.yaml").write_text(text)
    (problem,) = check_config(folder / "site.yaml")
    return f"{problem.line}: {problem.message}"


def test_a_site_names_its_zoo_and_is_told_with_the_line_what_is_wrong_with_it(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "fine.zoo").write_bytes(zoo.read_bytes())
    (tmp_path / "text").write_text("no zoo")
    (tmp_path / "site.yaml").write_text(HEAD + "policy_zoo: fine.zoo\n")
    assert check_config(tmp_path / "site.yaml") == []
    assert one(tmp_path, HEAD + "policy_zoo: fine.zo\n").startswith("4: policy_zoo: ")
    assert "not a snapshot" in one(tmp_path, HEAD + "policy_zoo: text\n")
    wrong = one(tmp_path, HEAD.replace("building", "traffic") + "policy_zoo: fine.zoo\n")
    assert wrong.startswith("4: policy_zoo: ") and 'model "vehicles" is not in it' in wrong
    other = one(tmp_path, HEAD.replace("camlink", "mlink") + "policy_zoo: fine.zoo\n")
    assert other == "4: policy_zoo: policy mlink does not start from a zoo; leave it out, or choose policy camlink"


def test_policies_of_a_site_start_from_its_zoo(zoo: Path) -> None:
    from camlink.models.pool import ModelPool
    from camlink.pipeline.assembly import gate_of
    from camlink.pipeline.config import SiteConfig
    from camlink.pipeline.testing import TinyModel

    tiny = [TinyModel(spec, lambda f, size=spec.size: np.zeros(size)) for spec in SPECS.values()]  # type: ignore[misc]
    config = SiteConfig(models="building", policy="camlink", policy_zoo=str(zoo))
    gate = gate_of(config, ModelPool(tiny))
    assert gate is not None
    policy = gate._policy("hall")
    assert isinstance(policy, PerFrame) and policy._newcomer is not None
    misnamed = [replace(spec, size=spec.size + 1, labels=()) for spec in SPECS.values()]
    with pytest.raises(Exception, match="build a zoo from traces of these models"):
        gate_of(config, ModelPool([TinyModel(spec, lambda f: np.zeros(1)) for spec in misnamed]))
