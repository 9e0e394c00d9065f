"""Stills with true times, names that tell times, and what a user points at turned into cameras."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
import pytest

from camlink.pipeline.errors import SourceError
from camlink.pipeline.ingest import Reading, SourceSpec, discover, expected_frames, open_source
from camlink.pipeline.ingest.names import camera_id_from, parse_name
from camlink.pipeline.records import CameraEvent, Frame, FrameDropped


def write_image(path: Path, shade: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((20, 30, 3), shade, dtype=np.uint8))
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def read(spec: SourceSpec) -> list[Reading]:
    return list(open_source(spec, live=False))


def frames_of(readings: list[Reading]) -> list[Frame]:
    return [reading for reading in readings if isinstance(reading, Frame)]


@pytest.mark.parametrize(
    ("stem", "at", "camera"),
    [
        ("2019-06-28_13-02-35.503167_00001.03601", "2019-06-28T13:02:35.503167", "00001.03601"),
        ("1561726955_2019-06-28_13-02-35.503167123", "2019-06-28T13:02:35.503167", "1561726955"),
        ("2019-06-28_13-02-35.503167123", "2019-06-28T13:02:35.503167", None),  # nanoseconds
        ("2701_20260122T082046_sgt", "2026-01-22T08:20:46", "2701"),
        ("1702-2022_10_28_11_57-98c25a26", "2022-10-28T11:57:00", "1702"),
        ("20260122082046", "2026-01-22T08:20:46", None),
        ("hall_20260122T082046+0800", "2026-01-22T00:20:46", "hall"),
        ("yard 2026-01-22 08.20.46Z", "2026-01-22T08:20:46", "yard"),
        ("IMG_20260122_082046", "2026-01-22T08:20:46", None),
    ],
)
def test_times_and_cameras_are_read_out_of_names(stem: str, at: str, camera: str | None) -> None:
    named = parse_name(stem, "UTC")
    assert named is not None
    assert (named.at, named.camera_id) == (datetime.fromisoformat(at).replace(tzinfo=UTC), camera)


@pytest.mark.parametrize("stem", ["campus-crossing", "20261322T082046", "video_20190628", "cam-12345678901234567", ""])
def test_names_without_a_complete_time_tell_none(stem: str) -> None:
    assert parse_name(stem, "UTC") is None


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    rows = ["camera,file,capture_time_sgt,weekday,mean_luma"]
    for camera, hours in (("4703", (9, 8, 20)), ("2701", (8, 7))):
        for hour in hours:
            write_image(tmp_path / camera / f"{hour}.png", shade=hour * 10)
            rows.append(f"{camera},{camera}/{hour}.png,2026-01-22T{hour:02}:00:00,Thu,1.0")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_a_manifest_gives_cameras_and_true_times(checkpoints: Path) -> None:
    specs = discover(checkpoints, fps=None, timezone="Asia/Singapore")
    assert [spec.camera_id for spec in specs] == ["2701", "4703"]
    assert [expected_frames(spec) for spec in specs] == [2, 3]
    frames = frames_of(read(specs[1]))
    assert [frame.captured_at for frame in frames] == [datetime(2026, 1, 22, h, tzinfo=UTC) for h in (0, 1, 12)]
    assert [int(frame.pixels.mean()) for frame in frames] == [80, 90, 200]
    assert [frame.index for frame in frames] == [0, 1, 2]


def test_stills_are_sampled_by_their_times(checkpoints: Path) -> None:
    (spec,) = [s for s in discover(checkpoints, fps=1 / 7200, timezone="UTC") if s.camera_id == "4703"]
    assert [frame.captured_at.hour for frame in frames_of(read(spec))] == [8, 20]
    assert expected_frames(spec) == 2


def test_a_camera_that_the_manifest_does_not_know_is_an_error_with_those_it_knows(checkpoints: Path) -> None:
    with pytest.raises(SourceError, match=r'camera "9999": .* 2701, 4703 and none of that name'):
        open_source(SourceSpec("9999", (str(checkpoints),)), live=False)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("camera,file\n", r"manifest\.csv:1: no column for the capture time"),
        ("camera,captured_at\n", r"manifest\.csv:1: no column for the file"),
        ("file,time\na.png,yesterday\n", r'manifest\.csv:2: capture time "yesterday" is not ISO 8601'),
        ("file,time\na.png,2026-01-01T00:00\nb.png,2026-01-01T00:00\n", r'manifest\.csv:3: there is no file "b\.png"'),
        ("file,time\na.png\n", r'manifest\.csv:2: capture time "None"'),
    ],
)
def test_a_wrong_manifest_is_an_error_with_its_line(tmp_path: Path, manifest: str, message: str) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "manifest.csv").write_text(manifest)
    with pytest.raises(SourceError, match=message):
        open_source(SourceSpec("hall", (str(tmp_path),)), live=False)


def test_a_still_that_cannot_be_decoded_is_a_counted_gap(tmp_path: Path) -> None:
    for second in range(3):
        write_image(tmp_path / f"2026010100000{second}.png")
    (tmp_path / "20260101000001.png").write_bytes(b"\x89PNG broken")
    readings = read(SourceSpec("hall", (str(tmp_path),)))
    assert [frame.index for frame in frames_of(readings)] == [0, 2]
    (dropped,) = (reading for reading in readings if isinstance(reading, FrameDropped))
    assert (dropped.first_index, dropped.count, dropped.reason) == (1, 1, "corrupt")
    assert [reading.kind for reading in readings if isinstance(reading, CameraEvent)] == ["corrupt", "ended"]


def test_a_still_of_more_pixels_than_opencv_takes_is_a_counted_gap(tmp_path: Path) -> None:
    """A damaged header may announce any size; OpenCV raises then, where it else returns nothing."""
    write_image(tmp_path / "20260101000000.png")
    broken = bytearray((tmp_path / "20260101000000.png").read_bytes())
    broken[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height
    broken[29:33] = crc32(broken[12:29]).to_bytes(4, "big")
    (tmp_path / "20260101000001.png").write_bytes(broken)
    readings = read(SourceSpec("hall", (str(tmp_path),)))
    assert [type(reading).__name__ for reading in readings] == ["Frame", "CameraEvent", "FrameDropped", "CameraEvent"]


def test_a_manifest_may_name_cameras_as_people_do(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    rows = "file,time,camera\na.png,2026-01-01T00:00,Eingang Süd\na.png,2026-01-01T00:01,Hall (north)\n"
    (tmp_path / "manifest.csv").write_text(rows + "a.png,2026-01-01T00:02\n", encoding="utf-8")
    assert set(found(tmp_path)) == {"Eingang-Sud-a1bd9b", "Hall-north", camera_id_from(tmp_path.name)}
    for minute, camera in ((1, "Hall-north"), (2, camera_id_from(tmp_path.name))):
        (frame,) = frames_of(read(SourceSpec(camera, (str(tmp_path),))))
        assert frame.captured_at.minute == minute


def test_a_manifest_in_another_encoding_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "manifest.csv").write_bytes("file,time,camera\na.png,2026-01-01T00:00,Süd\n".encode("latin-1"))
    with pytest.raises(SourceError, match=r"manifest\.csv: is not UTF-8"):
        discover(tmp_path, fps=1.0, timezone="UTC")


def test_stills_without_times_are_spaced_by_the_rate(tmp_path: Path) -> None:
    for name in "abc":
        write_image(tmp_path / f"{name}.png")
    spec = SourceSpec("hall", (str(tmp_path),), fps=0.5, start=datetime(2026, 1, 1, 8))
    assert [frame.captured_at.second for frame in frames_of(read(spec))] == [0, 2, 4]


def test_an_image_among_timed_ones_without_a_time_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "20260101000001.png")
    write_image(tmp_path / "logo.png")
    assert len(frames_of(read(SourceSpec("hall", (str(tmp_path),))))) == 1
    assert "left out" in caplog.text and "logo.png" in caplog.text


def found(path: Path, camera_id: str | None = None) -> dict[str, list[str]]:
    specs = discover(path, fps=1.0, timezone="UTC", camera_id=camera_id)
    return {spec.camera_id: [Path(str(source)).name for source in spec.sources] for spec in specs}


def test_clips_of_one_camera_are_joined_in_time_order_and_others_named_after_their_file(tmp_path: Path) -> None:
    touch(tmp_path, "2019-07-02_09-01-45.1_c1.mp4", "2019-06-28_13-02-35.5_c1.mp4", "gate (north).avi", "notes.txt")
    assert found(tmp_path) == {
        "c1": ["2019-06-28_13-02-35.5_c1.mp4", "2019-07-02_09-01-45.1_c1.mp4"],
        "gate-north": ["gate (north).avi"],
    }


def test_subfolders_are_searched_and_namesakes_told_apart(tmp_path: Path) -> None:
    touch(tmp_path, "hall/clip.mp4", "yard/clip.mp4", "door/20260101_100000.mp4", "door/20260101_090000.mp4")
    assert found(tmp_path) == {
        "door": ["20260101_090000.mp4", "20260101_100000.mp4"],
        "hall-clip": ["clip.mp4"],
        "yard-clip": ["clip.mp4"],
    }


def test_a_folder_that_may_not_be_read_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as lost+found on a disk of one's own."""
    touch(tmp_path, "hall/clip.mp4", "lost+found/clip.mp4")
    monkeypatch.setattr("os.access", lambda path, mode: "lost+found" not in str(path))
    assert found(tmp_path) == {"clip": ["clip.mp4"]}
    assert "lost+found" in caplog.text and "left out" in caplog.text


def test_a_name_made_of_folder_and_file_never_takes_that_of_another_camera(tmp_path: Path) -> None:
    touch(tmp_path, "hall/clip.mp4", "yard/clip.mp4", "zoo/hall-clip.mp4")
    assert found(tmp_path) == {"hall-clip": ["hall-clip.mp4"], "hall-clip-2": ["clip.mp4"], "yard-clip": ["clip.mp4"]}


def test_stills_of_several_cameras_in_one_folder_are_told_apart_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "c1_20260101T090500.jpg", "c2_20260101T090000.jpg", "c1_20260101T090000.jpg")
    assert found(tmp_path) == {
        "c1": ["c1_20260101T090000.jpg", "c1_20260101T090500.jpg"],
        "c2": ["c2_20260101T090000.jpg"],
    }


def test_a_camera_id_renames_the_only_camera_or_picks_one_of_several(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    assert found(tmp_path, "lobby") == {"lobby": ["a.mp4"]}
    touch(tmp_path, "b.mp4")
    assert found(tmp_path, "b") == {"b": ["b.mp4"]}
    with pytest.raises(SourceError, match=r'holds 2 cameras \(a, b\) and none is "lobby"'):
        found(tmp_path, "lobby")


@pytest.mark.parametrize("name", ["nothing-here", "empty", "notes.txt"])
def test_a_path_with_nothing_to_see_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "notes.txt")
    with pytest.raises(SourceError, match=name):
        discover(tmp_path / name, fps=None, timezone="UTC")
