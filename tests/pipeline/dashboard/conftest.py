"""Runs to look at: made once, by real replays of tiny models through the whole pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from camlink.models.base import Inference, OutputSpec
from camlink.models.pool import ModelPool
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.records import CameraEvent, Detections, Frame
from camlink.pipeline.results import ResultsLog
from camlink.pipeline.session import Camera, Session
from camlink.pipeline.testing import START, TinyModel, make_frames
from tests.conftest import CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HALL, YARD, NASTY = "hall", "yard", '<img src=x onerror="alert(1)">'
PASSWORD = "hunter2"
SETTINGS: dict[str, Any] = {
    "models": "building",
    "links": {"bootstrap_frames": 60, "min_train_frames": 40},
    "audit": {"fraction": 0.15},
    "budgets": {"time_share": 0.6},
    "target_agreement": 0.4,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def crowd(frame: Frame) -> int:
    return (frame.index // 37) % 5


class Detector(TinyModel):
    """Counts, and gives a box for each of what it counts."""

    def run(self, frames: Any) -> list[Inference]:
        return [replace(found, detections=boxes(int(found.value[0]))) for found in super().run(frames)]


def boxes(count: int) -> Detections:
    corners = np.array([[0.1 + 0.15 * i, 0.4, 0.2 + 0.15 * i, 0.8] for i in range(count)], np.float32).reshape(-1, 4)
    return Detections(corners, np.full(count, 0.9, np.float32), np.zeros(count, np.int32))


def models() -> list[TinyModel]:
    persons = Detector(OutputSpec("persons", "vector", 1, "count", ("person",)), crowd, time_ms=40.0)
    falls = TinyModel(
        OutputSpec("action", "vector", 2, "multi_label", ("normal", "fall")),
        lambda frame: (float(crowd(frame) > 0), float(frame.index % 50 > 44)),
        time_ms=60.0,
    )
    return [persons, falls]


def pictured(frames: list[Frame]) -> list[Frame]:
    """Give frames a plain grey picture, so that there is one to show."""
    pixels = np.full((90, 160, 3), 96, np.uint8)
    pixels[60:] = 140
    return [replace(frame, picture=pixels) for frame in frames]


def write_run(folder: Path, cameras: dict[str, list[Frame]], *, live: bool = False, **settings: Any) -> Path:
    """Replay frames through a whole session into ``folder``; ``settings`` come before `SETTINGS`."""
    from camlink.pipeline.commands.running import encode_picture

    site = SiteConfig(**{**SETTINGS, **settings})
    known = {name: Camera("indoor", f"rtsp://***@10.0.0.7/{i}", 1.0) for i, name in enumerate(cameras)}
    session = Session(site, ModelPool(models()), known, folder, encode_picture=encode_picture, tick=2, live=live)
    frames = sorted((f for each in cameras.values() for f in each), key=lambda f: (f.captured_at, f.camera_id))
    session.run(frames, lambda: {name: len(each) for name, each in cameras.items()})
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: "replayed" with links, complete, two cameras; "trouble", without, live, unfinished, with a
    camera that is down.
    """
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "replayed", {name: pictured(make_frames(name, 420)) for name in (HALL, YARD)}, policy="mlink")
    _trouble(folder / "trouble")
    return folder


def _trouble(folder: Path) -> None:
    """A run that is still going on: one camera live, one down, one silent, one that never gave a frame."""
    start = datetime.now(UTC) - timedelta(seconds=420)
    write_run(folder, {HALL: pictured(make_frames(HALL, 420, start=start)), YARD: make_frames(YARD, 120, start=start)})
    with ResultsLog(folder) as log:
        log.write([CameraEvent(HALL, START, "resolution", "from 640x480 to 1280x720")])
        log.write([CameraEvent("gate", start, "down", "no frame from rtsp://***@10.0.0.9/s1; reconnecting")])
    from camlink.pipeline.run_info import RunInfo

    info = RunInfo.load(folder)
    cameras = {**info.cameras, "gate": {"domain": "outdoor", "source": "rtsp://***@10.0.0.9/s1", "fps": 2.0}}
    cameras |= {NASTY: {"domain": "<b>bold</b>", "source": "rtsp://***@10.0.0.8/s1", "fps": 2.0}}
    replace(info, cameras=cameras, finished_at=None, complete=False, live=True).save(folder)
