"""Frozen pictures, where connections break and clocks are set meanwhile."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from camlink.pipeline.dashboard.health import health_of
from camlink.pipeline.dashboard.rollups import CameraState
from camlink.pipeline.ingest.base import SourceSpec
from camlink.pipeline.ingest.channel import Channel
from camlink.pipeline.records import CameraEvent, Pixels
from camlink.pipeline.run_info import RunInfo
from camlink.pipeline.testing import START


def picture(shade: int) -> Pixels:
    return np.full((6, 8, 3), shade, np.uint8)


class Played:
    """A channel into which pictures go once a second."""

    def __init__(self) -> None:
        self.now, self.second = START, 0.0
        self.channel = Channel(SourceSpec("hall", ("x",)), 4.0, False, seconds=lambda: self.second)

    def play(self, shade: int, seconds: int) -> list[str]:
        for _ in range(seconds):
            self.now, self.second = self.now + timedelta(seconds=1), self.second + 1.0
            self.channel.frame(0, picture(shade), self.now)
        readings = iter(self.channel.take, None)
        return [reading.kind for reading in readings if isinstance(reading, CameraEvent)]

    def recover(self) -> None:
        self.channel.event(0, CameraEvent("hall", self.now, "recovered", "after 1 s and 1 attempts"))


def test_a_picture_that_is_still_frozen_after_a_reconnect_is_told_again() -> None:
    """Whoever follows the events takes a camera that has recovered for one that is well."""
    played = Played()
    assert played.play(shade=1, seconds=8) == ["frozen"]
    played.recover()
    assert played.play(shade=1, seconds=3) == ["recovered", "frozen"]
    assert played.play(shade=2, seconds=3) == ["thawed"]


def test_a_picture_that_moves_again_after_a_reconnect_has_nothing_more_to_tell() -> None:
    played = Played()
    played.play(shade=1, seconds=8)
    played.recover()
    assert played.play(shade=2, seconds=3) == ["recovered"]


@pytest.mark.parametrize("step", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_clock_that_is_set_neither_hides_nor_makes_a_frozen_picture(step: timedelta) -> None:
    played = Played()
    played.play(shade=1, seconds=2)
    played.now += step
    assert played.play(shade=1, seconds=2) == []
    assert played.play(shade=1, seconds=4) == ["frozen"]


def test_a_frozen_camera_that_is_slow_as_well_stays_frozen() -> None:
    camera = CameraState("hall", {})
    camera.events.extend({"kind": kind, "detail": ""} for kind in ("frozen", "slow"))
    assert health_of(camera, RunInfo("r", "1", 0, "all", {}, {}, START), START).state == "frozen"
