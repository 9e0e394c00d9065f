"""Cameras that are too slow for their period are told of."""

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


@pytest.mark.parametrize(("fps", "more"), [("20/h", ""), ("4/h", "period: 13h\n"), ("4/h", "policy: all\n")])
def test_of_others_there_is_nothing_to_tell(tmp_path: Path, fps: str, more: str) -> None:
    assert told(tmp_path, fps, more) == []
