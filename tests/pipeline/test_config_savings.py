"""What saves nothing, budget or not, is told of: cameras too slow for their period, links with nothing to link."""

from pathlib import Path

import pytest

from camlink.pipeline.config import config_warnings

HEAD = "site: test\nmodels: building\nbudgets: {time_share: 0.4}\n"
YARD = "  - {id: yard, source: 'rtsp://127.0.0.1/1', fps: 2}\n"


def told(folder: Path, fps: str, more: str = "") -> list[str]:
    path = folder / "site.yaml"
    path.write_text(f"{HEAD}{more}cameras:\n{YARD}  - {{id: hall, source: 'rtsp://127.0.0.1/2', fps: {fps}}}\n")
    return [f"{warning.line}: {warning.message}" for warning in config_warnings(path)]


def test_a_camera_of_which_a_period_holds_hardly_more_than_profile_frames_is_warned_of(tmp_path: Path) -> None:
    (warning,) = told(tmp_path, "4/h")
    assert warning.startswith('6: camera "hall": fps: 4 frames come in a period of 1h, and every model executes on')
    assert warning.endswith("set period: 13h")


def test_a_budget_that_policy_all_knows_nothing_of_is_all_that_it_is_told_of(tmp_path: Path) -> None:
    (warning,) = told(tmp_path, "4/h", "policy: all\n")
    assert warning.startswith("3: budgets.time_share: policy all executes every model on every frame")


@pytest.mark.parametrize(("fps", "more"), [("20/h", ""), ("4/h", "period: 13h\n")])
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
