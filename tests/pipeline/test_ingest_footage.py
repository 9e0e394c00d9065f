"""The real recordings: counts and times known from elsewhere."""

from __future__ import annotations

import itertools
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from camlink.pipeline.ingest import Reading, discover, expected_frames, merge, open_source
from camlink.pipeline.ingest.replay import time_of
from camlink.pipeline.records import CameraEvent, Frame

FOOTAGE = Path(os.environ.get("CAMLINK_FOOTAGE", Path(__file__).parents[3] / "shared" / "footage"))

pytestmark = [
    pytest.mark.footage,
    pytest.mark.skipif(not FOOTAGE.is_dir(), reason=f"no footage at {FOOTAGE}; set CAMLINK_FOOTAGE to run these"),
]


def replay(path: str, fps: float | None, timezone: str = "UTC") -> tuple[dict[str, list[Frame]], list[Reading]]:
    specs = discover(FOOTAGE / path, fps=fps, timezone=timezone)
    readings = list(merge(open_source(spec, live=False) for spec in specs))
    frames: dict[str, list[Frame]] = {spec.camera_id: [] for spec in specs}
    for reading in readings:
        if isinstance(reading, Frame):
            frames[reading.camera_id].append(reading)
    assert {spec.camera_id: expected_frames(spec) for spec in specs} == {c: len(f) for c, f in frames.items()}
    assert [time_of(r) for r in readings] == sorted(time_of(r) for r in readings)
    assert {r.kind for r in readings if isinstance(r, CameraEvent)} == {"ended"}
    return frames, [r for r in readings if not isinstance(r, Frame)]


def test_the_campus_crossing_has_all_its_frames() -> None:
    frames, _ = replay("building/campus-crossing.avi", fps=None)
    assert len(frames["campus-crossing"]) == 795
    assert frames["campus-crossing"][-1].captured_at == datetime(2026, 1, 1, 0, 1, 19, 400000, tzinfo=UTC)


def test_the_jamcam_folder_holds_five_cameras_one_of_them_on_two_days() -> None:
    frames, _ = replay("traffic/jamcam", fps=5.0, timezone="Europe/London")
    assert list(frames) == ["00001.03601", "00001.03604", "00001.06514", "00001.07355", "00001.08926"]
    twice = frames["00001.03601"]
    assert [f.captured_at.date().isoformat() for f in (twice[0], twice[-1])] == ["2019-06-28", "2019-07-02"]
    assert twice[0].captured_at == datetime(2019, 6, 28, 12, 2, 35, 503167, tzinfo=UTC)
    assert [frame.index for frame in twice] == list(range(len(twice)))


def test_the_checkpoint_stills_have_their_true_times() -> None:
    frames, _ = replay("day-night/checkpoints", fps=None, timezone="Asia/Singapore")
    assert {camera: len(f) for camera, f in frames.items()} == {
        "2701": 74,
        "2702": 73,
        "4703": 83,
        "4713": 83,
        "4714": 10,
    }
    assert frames["4703"][0].captured_at == datetime(2026, 1, 20, 15, 20, 42, tzinfo=UTC)


def test_an_avi_whose_last_time_stamps_are_missing_runs_on_evenly() -> None:
    frames, _ = replay("traffic/highway.avi", fps=10.0)
    moments = [frame.captured_at for frame in frames["highway"]]
    steps = {round((b - a).total_seconds(), 1) for a, b in itertools.pairwise(moments)}
    assert len(moments) == 284 and steps == {0.1}
