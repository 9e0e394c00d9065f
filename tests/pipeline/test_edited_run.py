"""A run whose cameras are edited while it goes on: in the header, in the rows, and never with a password."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from camlink.models.pool import ModelPool
from camlink.pipeline.bus.memory import MemoryBus
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.errors import RequestError
from camlink.pipeline.graph import GRAPH
from camlink.pipeline.records import CameraEvent, FrameDropped
from camlink.pipeline.reports import write_report
from camlink.pipeline.results import RunResults
from camlink.pipeline.results.worker import ResultsWorker
from camlink.pipeline.run_info import RunInfo
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.testing import START, TinyModel, make_frames

SECRET = "hunter2"


def site(*names: str) -> SiteConfig:
    cameras = [{"id": name, "source": f"rtsp://admin:{SECRET}@192.0.2.7/{name}", "fps": 1.0} for name in names]
    return SiteConfig.model_validate({"models": "building", "links": {"bootstrap_frames": 5}, "cameras": cameras})


def cameras_of(config: SiteConfig) -> dict[str, Camera]:
    return {camera.id: Camera(camera.domain, camera.shown_source, camera.fps) for camera in config.cameras}


def test_a_camera_that_joins_a_run_is_in_its_header_and_rows_and_no_password_is_in_the_folder(tmp_path: Path) -> None:
    first, then, out = site("hall"), site("door"), tmp_path / "run"
    pool = ModelPool([TinyModel.count(name, lambda frame: frame.index % 3) for name in ("objects", "people")])
    session = Session(first, pool, cameras_of(first), out)

    def readings() -> Iterator[object]:
        yield from make_frames("hall", 20)
        session.update_cameras(then, cameras_of(then))
        detail = f"no connection from {then.cameras[0].shown_source}; reconnecting"
        yield CameraEvent("door", START, "down", detail)
        yield from make_frames("door", 20)

    session.run(readings(), lambda: {"hall": 20, "door": 20})  # type: ignore[arg-type]
    write_report(out)
    info = RunInfo.load(out)
    assert set(info.cameras) == {"hall", "door"} and info.captured == {"hall": 20, "door": 20}
    assert set(RunResults(out).cameras()) == {"hall", "door"}
    for file in (path for path in out.rglob("*") if path.is_file()):
        assert SECRET.encode() not in file.read_bytes(), file


def test_a_folder_that_holds_a_run_is_refused_without_naming_an_option_that_run_has_not(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    pool = ModelPool([TinyModel.count("objects", lambda frame: 1)])
    with pytest.raises(RequestError, match=r"already holds a run; choose another folder$"):
        Session(site("hall"), pool, cameras_of(site("hall")), tmp_path)


def test_the_results_worker_describes_a_camera_that_joined_later(tmp_path: Path) -> None:
    bus, asked = MemoryBus(), []

    def describe() -> dict[str, dict[str, str]]:
        asked.append(1)
        return {"door": {"domain": "indoor"}}

    header = RunInfo("run", "1", 0, "all", {}, {"hall": {"domain": "road"}}, datetime.now(UTC))
    now = [0.0]
    worker = ResultsWorker(GRAPH[-1], bus, tmp_path, {}, header, describe=describe, flush_s=1.0, seconds=lambda: now[0])
    for camera_id in ("hall", "door", "stranger"):
        bus.publish("events", FrameDropped(camera_id, 0, 1, START, "overload"))
        worker.once()
        now[0] += 2
        worker.once()
    assert RunInfo.load(tmp_path).cameras == {"hall": {"domain": "road"}, "door": {"domain": "indoor"}}
    assert len(asked) == 2, "a camera that nobody can describe is asked for once"
