"""Key frames only: the same pictures, at a fraction of the work, wherever they come often enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from camlink.pipeline.ingest import Reading, SourceSpec, expected_frames, open_source
from camlink.pipeline.ingest.keyframes import key_frames_of, open_key_frames
from camlink.pipeline.records import CameraEvent, Frame, FrameDropped
from camlink.pipeline.testbed.rtsp import Credentials, RtspServer, moving_picture

av = pytest.importorskip("av", reason="no PyAV: pip install 'camlink[keyframes]'")

STREAM_FPS = 10
GOP = 10  # a key frame a second
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of H.264, a key frame a second; each picture is of a shade of its own."""
    file: Path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=STREAM_FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"x264-params": f"keyint={GOP}:scenecut=0"}
        stream.codec_context.time_base = Fraction(1, STREAM_FPS)
        for shade in range(100):
            picture = np.full((48, 64, 3), 20 + 2 * shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    return file


def frames(spec: SourceSpec) -> list[Frame]:
    readings = list(open_source(spec, live=False))
    assert not [reading for reading in readings if isinstance(reading, FrameDropped)]
    assert [reading.kind for reading in readings if isinstance(reading, CameraEvent)] == ["ended"]
    return [reading for reading in readings if isinstance(reading, Frame)]


def seconds(readings: list[Frame]) -> list[float]:
    return [(frame.captured_at - readings[0].captured_at).total_seconds() for frame in readings]


def test_key_frames_are_counted_without_decoding(clip: Path) -> None:
    keys = key_frames_of(clip)
    assert keys.count == 10 and keys.interval_s == pytest.approx(1.0)
    assert keys.suffice(1.0) and keys.suffice(0.2)
    assert not keys.suffice(2.0) and not keys.suffice(None)


@pytest.mark.parametrize("fps", [1.0, 0.5, 0.25])
def test_key_frames_give_the_very_frames_that_decoding_all_gives(clip: Path, fps: float) -> None:
    spec = SourceSpec("hall", (str(clip),), fps=fps)
    everything, keys = frames(spec), frames(replace(spec, decode="auto"))
    assert seconds(keys) == pytest.approx(seconds(everything))
    for one, other in zip(everything, keys, strict=True):
        assert np.abs(one.pixels.astype(int) - other.pixels.astype(int)).max() <= 2
    assert expected_frames(replace(spec, decode="auto")) == len(keys)


def test_auto_decodes_all_where_frames_are_looked_at_more_often_than_key_frames_come(clip: Path) -> None:
    spec = SourceSpec("hall", (str(clip),), fps=5.0)
    assert len(frames(replace(spec, decode="auto"))) == len(frames(spec)) == 50


def test_keyframes_gives_what_there_is_where_more_is_asked_for(clip: Path) -> None:
    assert seconds(frames(SourceSpec("hall", (str(clip),), fps=5.0, decode="keyframes"))) == pytest.approx(range(10))


def test_only_key_frames_are_decoded(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = open_key_frames(str(clip))
    decoded = []
    original = capture._decoded
    monkeypatch.setattr(capture, "_decoded", lambda packet: decoded.append(packet.is_keyframe) or original(packet))
    while capture.grab():
        pass
    capture.release()
    assert decoded == [True] * 10


def test_what_is_no_video_says_so_and_not_its_password() -> None:
    capture = open_key_frames("http://admin:hunter2@127.0.0.1:9/x", 1.0, 1.0)
    assert not capture.isOpened() and not capture.grab() and capture.retrieve() == (False, None)


def collect(spec: SourceSpec, enough: Callable[[list[Reading]], bool]) -> list[Reading]:
    source = open_source(spec, live=True)
    readings: list[Reading] = []
    deadline = time.monotonic() + PATIENCE_S
    while not enough(readings):
        assert time.monotonic() < deadline, readings
        reading = source.poll()  # type: ignore[attr-defined]
        if reading is None:
            time.sleep(0.01)
        else:
            readings.append(reading)
    source.close()
    return readings


def taken(readings: list[Reading]) -> list[Frame]:
    return [reading for reading in readings if isinstance(reading, Frame)]


@pytest.mark.rtsp
def test_a_live_camera_is_read_by_its_key_frames() -> None:
    with RtspServer(moving_picture(160, 120, count=30, fps=STREAM_FPS, gop=5), STREAM_FPS) as server:
        spec = SourceSpec("hall", (server.url,), fps=1.0, decode="keyframes")
        readings = collect(spec, lambda readings: len(taken(readings)) >= 3)
    assert {frame.pixels.shape for frame in taken(readings)} == {(120, 160, 3)}


@pytest.mark.rtsp
def test_a_change_of_resolution_in_mid_stream_is_reported_where_key_frames_are_read() -> None:
    small, large = (moving_picture(*size, count=30, fps=STREAM_FPS, gop=5) for size in ((160, 120), (320, 240)))
    with RtspServer(small, STREAM_FPS) as server:

        def enough(readings: list[Reading]) -> bool:
            if len(taken(readings)) == 2:
                server.play(large)
            return bool(taken(readings)) and taken(readings)[-1].pixels.shape == (240, 320, 3)

        readings = collect(SourceSpec("hall", (server.url,), fps=1.0, decode="keyframes"), enough)
    (event,) = [r for r in readings if isinstance(r, CameraEvent) and r.kind == "resolution"]
    assert event.detail == "from 160x120 to 320x240"


@pytest.mark.rtsp
def test_auto_turns_to_all_frames_where_a_live_camera_sends_key_frames_too_seldom() -> None:
    """Key frames come every 4 s; one frame a second is asked for, and got once that has shown."""
    with RtspServer(moving_picture(160, 120, count=120, fps=STREAM_FPS, gop=40), STREAM_FPS) as server:
        spec = SourceSpec("hall", (server.url,), fps=1.0, decode="auto")
        readings = collect(spec, lambda readings: len(taken(readings)) >= 6)
    gaps = np.diff([frame.captured_at.timestamp() for frame in taken(readings)])
    assert np.median(gaps) == pytest.approx(1.0, abs=0.5)


@pytest.mark.rtsp
def test_a_camera_read_by_its_key_frames_that_hangs_or_refuses_is_reported_with_the_cause() -> None:
    pictures = moving_picture(160, 120, count=130, fps=STREAM_FPS, gop=5)
    with RtspServer(pictures, STREAM_FPS) as server:

        def is_down(readings: list[Reading]) -> bool:
            if len(taken(readings)) == 2:
                server.behave("hang")
            return any(isinstance(reading, CameraEvent) and reading.kind == "down" for reading in readings)

        readings = collect(SourceSpec("hall", (server.url,), fps=2.0, decode="keyframes"), is_down)
    assert len(taken(readings)) >= 2
    with RtspServer(pictures, STREAM_FPS, Credentials("admin", "hunter2")) as server:
        spec = SourceSpec("hall", (server.url_as("admin", "swordfish"),), fps=2.0, decode="keyframes")
        (event,) = collect(spec, bool)
    assert isinstance(event, CameraEvent) and "refuses the user name or password" in event.detail
    assert "swordfish" not in event.detail
