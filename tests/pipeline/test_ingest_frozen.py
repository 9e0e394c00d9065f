"""Frozen pictures, where connections break and clocks are set meanwhile."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from camlink.pipeline.dashboard.health import health_of
from camlink.pipeline.dashboard.rollups import CameraState
from camlink.pipeline.ingest.base import Reading, SourceSpec
from camlink.pipeline.ingest.channel import Channel
from camlink.pipeline.records import CameraEvent, Frame, Pixels
from camlink.pipeline.run_info import RunInfo
from camlink.pipeline.testing import START


def picture(shade: int) -> Pixels:
    return np.full((6, 8, 3), shade, np.uint8)


class Played:
    """A channel into which pictures go once a second."""

    def __init__(self) -> None:
        self.now, self.second = START, 0.0
        self.channel = Channel(SourceSpec("hall", ("x",)), 4.0, False, seconds=lambda: self.second)

    def show(self, shade: int) -> list[Reading]:
        self.now, self.second = self.now + timedelta(seconds=1), self.second + 1.0
        self.channel.frame(0, picture(shade), self.now)
        return list(iter(self.channel.take, None))

    def play(self, shade: int, seconds: int) -> list[str]:
        readings = [reading for _ in range(seconds) for reading in self.show(shade)]
        return [reading.kind for reading in readings if isinstance(reading, CameraEvent)]

    def frames(self, seconds: int) -> list[Frame]:
        """Play pictures that move."""
        readings = [reading for second in range(seconds) for reading in self.show(second % 2)]
        return [reading for reading in readings if isinstance(reading, Frame)]

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


def test_a_clock_that_stays_behind_the_last_frame_is_followed_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    played = Played()
    played.frames(3)
    played.now += timedelta(hours=10)
    ahead = played.frames(3)[-1].captured_at
    played.now -= timedelta(hours=10)
    waiting = played.frames(60)
    assert all(ahead < frame.captured_at < ahead + timedelta(seconds=1) for frame in waiting) and not caplog.messages
    followed = played.frames(3)
    assert [frame.captured_at for frame in followed] == [START + timedelta(seconds=s) for s in (67, 68, 69)]
    assert [frame.index for frame in followed] == [66, 67, 68]
    (told,) = caplog.messages
    assert told.startswith('camera "hall": for 60 s the clock has been behind its last frame, by 9h58min59s now')


def test_a_clock_that_is_set_back_by_less_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    played = Played()
    before = played.frames(2)
    played.now -= timedelta(seconds=30)
    times = [frame.captured_at for frame in before + played.frames(40)]
    assert times == sorted(set(times)) and times[-1] == played.now
    assert not caplog.messages
