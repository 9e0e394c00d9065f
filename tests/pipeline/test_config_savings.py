"""What saves nothing, budget or not, is told of: cameras too slow for their period, links with nothing to link."""

import importlib.metadata
from pathlib import Path

import pytest

from camlink.models import building, catalogue
from camlink.models.profile import CostProfile, store
from camlink.models.weights import REGISTRY
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.config import config_warnings
from tests.pipeline.test_cli import camlink, write_trace

HEAD = "site: test\nmodels: building\nbudgets: {time_share: 0.4}\n"
YARD = "  - {id: yard, source: 'rtsp://127.0.0.1/1', fps: 2}\n"


def told(folder: Path, fps: str, more: str = "") -> list[str]:
    path = folder / "site.yaml"
    path.write_text(f"{HEAD}{more}cameras:\n{YARD}  - {{id: hall, source: 'rtsp://127.0.0.1/2', fps: {fps}}}\n")
    return [f"{warning.line}: {warning.message}" for warning in config_warnings(path)]


def test_a_camera_of_which_a_period_holds_hardly_more_than_profile_frames_is_warned_of(tmp_path: Path) -> None:
    (warning,) = told(tmp_path, "4/h", "profile: {min_frames: 10}\n")
    assert warning.startswith('7: camera "hall": fps: 4 frames come in a period of 1h, and every model executes on')
    assert warning.endswith("set period: 13h")


def test_a_budget_that_policy_all_knows_nothing_of_is_all_that_it_is_told_of(tmp_path: Path) -> None:
    (warning,) = told(tmp_path, "4/h", "policy: all\n")
    assert warning.startswith("3: budgets.time_share: policy all executes every model on every frame")


@pytest.mark.parametrize(
    ("fps", "more"), [("20/h", ""), ("4/h", ""), ("4/h", "period: 13h\nprofile: {min_frames: 10}\n")]
)
def test_of_others_there_is_nothing_to_tell(tmp_path: Path, fps: str, more: str) -> None:
    assert told(tmp_path, fps, more) == []


@pytest.mark.parametrize("policy", ["mlink", "mlink-exact", "standalone", "camlink", "all"])
def test_one_model_that_nothing_can_be_linked_to_is_warned_of(tmp_path: Path, policy: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(HEAD.replace("building", "[persons]") + f"policy: {policy}\n")
    found = [f"{warning.line}: {warning.message}" for warning in config_warnings(path)]
    if policy == "all":
        assert found == [
            "3: budgets.time_share: policy all executes every model on every frame, whatever this is; leave it out"
        ]
    elif policy == "camlink":
        assert found == []
    else:
        assert len(found) == 1 and found[0].startswith(f"2: models: policy {policy} has one model, and no other")


ROOM = "site: test\nmodels: building\nbudgets: {memory_gb: 2}\n"


def memory_told(folder: Path, text: str) -> list[str]:
    (folder / "site.yaml").write_text(text)
    return [f"{warning.line}: {warning.message}" for warning in config_warnings(folder / "site.yaml")]


def measured(cache: Path, memory_gb: float) -> None:
    """Leave costs of the models of the set "building" as if they had been measured on this machine."""
    for definition in map(catalogue.definition, catalogue.sets()["building"]):
        backend = building.backends(definition, "cpu")[0]
        key = building._key(definition, REGISTRY[definition.weights].sha256, "cpu", backend)
        versions = {name: importlib.metadata.version(name) for name in (backend, "numpy")}
        store(CostProfile(definition.name, key, {1: 10.0}, memory_gb, EPOCH, versions), cache)


def test_a_memory_budget_that_all_models_fit_into_saves_nothing_alone_and_is_warned_of_once_costs_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMLINK_CACHE", str(tmp_path))
    cpu = ROOM + "device: cpu\n"
    assert memory_told(tmp_path, cpu) == [], "what the models take is not known yet"
    measured(tmp_path, 0.5)
    (warning,) = memory_told(tmp_path, cpu)
    assert warning.startswith("3: budgets.memory_gb: all models fit, 1.50 GB together, and there is no other budget")
    assert warning.endswith("set budgets.time_share, such as 0.4, or target_agreement")
    for more in ("target_agreement: 0.9\n", "policy: all\n"):
        assert memory_told(tmp_path, cpu + more) == []
    for budget in ("memory_gb: 2, time_share: 0.9", "memory_gb: 2, latency_ms: 50", "memory_gb: 1.4"):
        assert memory_told(tmp_path, cpu.replace("memory_gb: 2", budget)) == []


def test_a_replay_knows_what_its_models_take(tmp_path: Path) -> None:
    write_trace(tmp_path / "trace", frames=40, cameras=("hall",))
    (tmp_path / "site.yaml").write_text(ROOM)
    for memory, told in (("3", True), ("2.9", False)):
        out = ("--memory-gb", memory, "--out", str(tmp_path / memory))
        done = camlink("replay", str(tmp_path / "trace"), "-c", str(tmp_path / "site.yaml"), *out)
        assert done.returncode == 0, done.stderr
        warned = "warning: --memory-gb: all models fit, 3.00 GB together" in done.stderr
        assert warned is told, done.stderr
