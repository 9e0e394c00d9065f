"""Recorded clips: what is sampled, when it happened, and what is said of damage. Clips are written by the tests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camlink.pipeline.commands.replay import find_cameras
from camlink.pipeline.errors import SourceError
from camlink.pipeline.ingest import Reading, SourceSpec, expected_frames, open_source
from camlink.pipeline.ingest.clips import ClipInfo, FrameTimes, lost_frames
from camlink.pipeline.ingest.framing import SampleGrid
from camlink.pipeline.records import CameraEvent, Frame, FrameDropped

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
WriteClip = Callable[..., Path]


@pytest.fixture
def write_clip(tmp_path: Path) -> WriteClip:
    def write(name: str = "clip.avi", frames: int = 50, fps: float = 10.0, size: tuple[int, int] = (64, 48)) -> Path:
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
        assert writer.isOpened()
        for number in range(frames):
            writer.write(np.full((size[1], size[0], 3), number * 5 % 256, dtype=np.uint8))
        writer.release()
        return path

    return write


def spec(*paths: Path, fps: float | None = None, **more: object) -> SourceSpec:
    return SourceSpec("hall", tuple(str(path) for path in paths), fps=fps, **{"start": START, **more})  # type: ignore[arg-type]


def read(one: SourceSpec) -> list[Reading]:
    source, readings, accounted = open_source(one, live=False), [], 0
    for reading in source:
        readings.append(reading)
        accounted += isinstance(reading, Frame) or (reading.count if isinstance(reading, FrameDropped) else 0)
        assert accounted == source.captured  # design ruling 6: at any time
    source.close()
    return readings


def frames_of(readings: Sequence[Reading]) -> list[Frame]:
    return [reading for reading in readings if isinstance(reading, Frame)]


def events_of(readings: Sequence[Reading]) -> list[CameraEvent]:
    return [reading for reading in readings if isinstance(reading, CameraEvent)]


def seconds_of(readings: Sequence[Reading]) -> list[float]:
    return [round((frame.captured_at - START).total_seconds(), 3) for frame in frames_of(readings)]


def test_every_frame_is_read_when_no_rate_is_asked(write_clip: WriteClip) -> None:
    readings = read(spec(write_clip()))
    assert [frame.index for frame in frames_of(readings)] == list(range(50))
    assert seconds_of(readings) == [n / 10 for n in range(50)]
    assert [event.kind for event in events_of(readings)] == ["ended"]
    assert events_of(readings)[0].at == START + timedelta(seconds=5)


def test_sampling_takes_the_frames_at_the_sampling_instants(write_clip: WriteClip) -> None:
    readings = read(spec(write_clip(), fps=2))
    assert seconds_of(readings) == [n / 2 for n in range(10)]
    assert [frame.index for frame in frames_of(readings)] == list(range(10))
    shades = [frame.pixels.mean() for frame in frames_of(readings)]
    assert shades == pytest.approx([n * 25 for n in range(10)], abs=2)  # frame 5n is the one at n/2 s


def test_a_rate_that_does_not_divide_the_clips_takes_the_next_frame(write_clip: WriteClip) -> None:
    assert seconds_of(read(spec(write_clip(frames=11), fps=4))) == [0.0, 0.3, 0.5, 0.8, 1.0]


def test_a_rate_above_the_clips_reads_every_frame(write_clip: WriteClip) -> None:
    assert len(frames_of(read(spec(write_clip(), fps=30)))) == 50


@pytest.mark.parametrize("fps", [None, 0.3, 1.0, 3.0, 7.0, 9.99, 10.0, 25.0])
def test_the_expected_number_of_frames_is_the_number_read(write_clip: WriteClip, fps: float | None) -> None:
    one = spec(write_clip(), fps=fps)
    assert expected_frames(one) == len(frames_of(read(one)))


def test_two_replays_are_equal(write_clip: WriteClip) -> None:
    one = spec(write_clip(), fps=3)
    first, second = read(one), read(one)
    assert [(f.index, f.captured_at, f.stats) for f in frames_of(first)] == [
        (f.index, f.captured_at, f.stats) for f in frames_of(second)
    ]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(frames_of(first), frames_of(second), strict=True))


def test_pixels_are_cropped_contiguous_and_read_only(write_clip: WriteClip) -> None:
    frame = frames_of(read(spec(write_clip(), crop=(0.25, 0.5, 0.5, 0.25))))[0]
    assert frame.pixels.shape == (12, 32, 3)
    assert frame.pixels.flags.c_contiguous and frame.pixels.base is None
    with pytest.raises(ValueError, match="read-only"):
        frame.pixels[0, 0, 0] = 1


def test_statistics_can_be_left_out(write_clip: WriteClip) -> None:
    source = open_source(spec(write_clip()), live=False, with_stats=False)
    assert all(reading.stats is None for reading in source if isinstance(reading, Frame))


def test_a_clip_without_any_time_starts_at_a_fixed_one_and_says_so(
    write_clip: WriteClip, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "camlink.pipeline.ingest"):
        readings = read(spec(write_clip(), start=None))
    assert frames_of(readings)[0].captured_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert "event times start at 2026-01-01T00:00:00+00:00" in caplog.text


def test_a_time_in_the_name_is_read_in_the_cameras_timezone(write_clip: WriteClip) -> None:
    clip = write_clip("2019-06-28_13-02-35.500000_00001.03601.avi")
    readings = read(spec(clip, start=None, timezone="Europe/London"))
    assert frames_of(readings)[0].captured_at == datetime(2019, 6, 28, 12, 2, 35, 500000, tzinfo=UTC)


def test_clips_with_times_are_put_in_order_and_keep_their_distance(write_clip: WriteClip) -> None:
    later, earlier = write_clip("20260102T100000.avi", frames=3), write_clip("20260101T100000.avi", frames=3)
    readings = read(spec(later, earlier, start=None))
    assert [frame.captured_at.day for frame in frames_of(readings)] == [1, 1, 1, 2, 2, 2]
    assert [frame.index for frame in frames_of(readings)] == list(range(6))
    assert seconds_of(read(spec(later, earlier))) == [0.0, 0.1, 0.2, 86400.0, 86400.1, 86400.2]


def test_clips_without_times_follow_one_another(write_clip: WriteClip) -> None:
    readings = read(spec(write_clip("a.avi", frames=3), write_clip("b.avi", frames=3)))
    assert seconds_of(readings) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]


def test_a_clip_that_starts_before_the_last_one_ends_is_moved_so_that_time_never_runs_back(
    write_clip: WriteClip, caplog: pytest.LogCaptureFixture
) -> None:
    clips = [write_clip(f"2026030112000{second}.avi", frames=30) for second in (0, 1)]
    readings = read(spec(*clips, start=None))
    assert seconds_of(readings) == [round(n / 10, 3) for n in range(60)]
    assert "2.0 s before the clip ahead of it ends" in caplog.text


def test_a_change_of_resolution_is_reported_and_survived(write_clip: WriteClip) -> None:
    readings = read(spec(write_clip("a.avi", frames=2), write_clip("b.avi", frames=2, size=(80, 60))))
    assert [frame.pixels.shape for frame in frames_of(readings)] == [(48, 64, 3)] * 2 + [(60, 80, 3)] * 2
    assert next((event.kind, event.detail) for event in events_of(readings)) == ("resolution", "from 64x48 to 80x60")


def test_a_missing_file_is_an_error_that_names_camera_and_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r'camera "hall": there is no file .*missing\.avi'):
        open_source(spec(tmp_path / "missing.avi"), live=False)


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 50])
def test_a_file_that_is_no_video_is_an_error_at_open(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "junk.mp4").write_bytes(content)
    with pytest.raises(SourceError, match=r'camera "hall": .*junk\.mp4 cannot be decoded'):
        open_source(spec(tmp_path / "junk.mp4"), live=False)


def test_a_clip_cut_off_in_the_middle_gives_its_frames_and_reports_the_rest_as_lost(write_clip: WriteClip) -> None:
    clip = write_clip()
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    readings = read(spec(clip, fps=5))
    got = len(frames_of(readings))
    assert 5 < got < 25
    assert [event.kind for event in events_of(readings)] == ["corrupt", "ended"]
    assert clip.name in events_of(readings)[0].detail
    (dropped,) = (reading for reading in readings if isinstance(reading, FrameDropped))
    assert (dropped.reason, dropped.first_index, dropped.count) == ("corrupt", got, 25 - got)


def test_a_clip_with_garbled_bytes_is_survived_and_its_lost_frames_are_counted(write_clip: WriteClip) -> None:
    clip = write_clip()
    content = bytearray(clip.read_bytes())
    middle, spread = len(content) // 2, len(content) // 8
    content[middle - spread : middle + spread] = np.random.default_rng(0).bytes(2 * spread)
    clip.write_bytes(content)
    readings = read(spec(clip))
    kinds = [event.kind for event in events_of(readings)]
    assert kinds in (
        ["corrupt", "ended"],
        ["corrupt", "corrupt", "ended"],
    )  # the second sums up
    dropped = sum(reading.count for reading in readings if isinstance(reading, FrameDropped))
    assert dropped > 0 and len(frames_of(readings)) + dropped == 50
    times = seconds_of(readings)
    assert times == sorted(set(times))


def test_frames_lost_to_damage_leave_their_gap_in_the_index_where_they_were(write_clip: WriteClip) -> None:
    clip = write_clip("clip.mp4", frames=60)
    content = bytearray(clip.read_bytes())
    start, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    third = (end - start) // 3
    content[start + third : end - third] = bytes(end - start - 2 * third)
    clip.write_bytes(content)
    readings = read(spec(clip, fps=5))
    (dropped,) = (reading for reading in readings if isinstance(reading, FrameDropped))
    assert dropped.count == pytest.approx(10, abs=1)
    assert [event.kind for event in events_of(readings)] == ["corrupt", "ended"]
    # what comes after the damage has the index and the time it would have had without
    assert seconds_of(readings) == [frame.index / 5 for frame in frames_of(readings)]
    assert frames_of(readings)[-1].index == 29


def test_a_later_clip_that_cannot_be_opened_is_reported_and_the_next_is_read(
    write_clip: WriteClip, tmp_path: Path
) -> None:
    (tmp_path / "b.avi").write_bytes(b"broken")
    readings = read(spec(write_clip("a.avi", frames=3), tmp_path / "b.avi", write_clip("c.avi", frames=3)))
    assert len(frames_of(readings)) == 6
    assert [event.kind for event in events_of(readings)] == ["corrupt", "ended"]


def test_closing_ends_an_iteration_in_progress(write_clip: WriteClip) -> None:
    source = open_source(spec(write_clip()), live=False)
    readings = iter(source)
    next(readings)
    source.close()
    source.close()
    assert list(readings) == []
    assert source.captured == 1


def test_variable_frame_rates_keep_their_times() -> None:
    times = FrameTimes(ClipInfo(fps=24.0, frames=6, is_counted=True))
    assert [times.next(s) for s in (5.0, 5.042, 5.125, 5.166)] == pytest.approx([0.0, 0.042, 0.125, 0.166])


@pytest.mark.parametrize("stamp", [0.0, -3.0, float("nan"), 1e9])
def test_a_time_stamp_that_cannot_be_is_replaced_by_the_nominal_step(stamp: float) -> None:
    times = FrameTimes(ClipInfo(fps=10.0, frames=100, is_counted=True))
    assert [times.next(s) for s in (0.0, 0.1, stamp)] == pytest.approx([0.0, 0.1, 0.2])


def test_a_variable_frame_rate_in_a_container_without_a_frame_count_is_no_loss() -> None:
    info = ClipInfo(fps=10.0, frames=100, is_counted=False)  # 100 is its duration times a nominal rate
    times = FrameTimes(info)
    for number in range(50):
        times.next(number * 0.2)
    assert lost_frames(info, times) == 0


def test_clips_and_stills_cannot_be_mixed(write_clip: WriteClip, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(SourceError, match="clips and stills are mixed"):
        open_source(spec(write_clip(), tmp_path / "a.jpg"), live=False)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"camera_id": "hall 3"}, "an id has 1 to 64"),
        ({"sources": ()}, "no sources"),
        ({"fps": 0.0}, "fps must be above 0"),
        ({"fps": float("nan")}, "fps must be above 0"),
        ({"crop": (0.5, 0.0, 0.6, 1.0)}, "crop must be"),
        ({"timezone": "Mars/Olympus"}, 'timezone "Mars/Olympus" is not known'),
    ],
)
def test_a_specification_that_makes_no_sense_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        SourceSpec(**{"camera_id": "hall", "sources": ("a.avi",), **wrong})  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 0.5), max_size=80), st.floats(0.1, 40))
def test_sampling_never_takes_two_frames_for_one_instant_nor_misses_one_that_has_a_frame(
    steps: list[float], fps: float
) -> None:
    grid, moments = SampleGrid(fps), np.cumsum([0.0, *steps])
    taken = [float(moment) for moment in moments if grid.is_due(float(moment))]
    slots = [int(np.floor(moment * fps + 1e-6)) for moment in taken]
    assert slots == sorted({int(np.floor(moment * fps + 1e-6)) for moment in moments})


def test_clips_of_a_folder_that_cannot_be_read_are_left_out_by_name(
    tmp_path: Path, write_clip: WriteClip, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_clip("hall_20260301-120000.avi")
    (tmp_path / "hall_20260301-110000.avi").write_bytes(b"no video")
    (tmp_path / "yard.mp4").touch()
    (only,) = find_cameras([tmp_path], None, "UTC", None)
    assert only.sources == (str(good),)
    told = capsys.readouterr().err
    assert "hall_20260301-110000.avi" in told and "yard.mp4" in told
    good.unlink()
    with pytest.raises(SourceError, match="none of its 2 clips can be read"):
        find_cameras([tmp_path], None, "UTC", None)
    with pytest.raises(SourceError, match="yard"):  # a clip that was named is meant
        read(find_cameras([tmp_path / "yard.mp4"], None, "UTC", None)[0])
