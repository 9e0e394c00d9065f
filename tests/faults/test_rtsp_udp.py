"""A real RTSP camera that sends over UDP alone, and falls silent as one does whose plug is pulled."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from camlink.pipeline.ingest import Reading, Source, SourceSpec, open_source
from camlink.pipeline.records import CameraEvent, Frame
from tests.faults.conftest import Report

SERVER = Path(__file__).with_name("gst_rtsp_server.py")
SYSTEM_PYTHON = "/usr/bin/python3"
MODULES = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst; Gst.init(None); {}"
HAS_ENCODER = MODULES.format("assert Gst.ElementFactory.find('openh264enc') and Gst.ElementFactory.find('rtph264pay')")
FPS = 2.0
PROMISED_S = 2 / FPS + 5
CROWDED_S = 5.0  # by which a busy machine may tell of it later
PATIENCE_S = 90.0

pytestmark = [pytest.mark.faults, pytest.mark.rtsp, pytest.mark.slow]


@cache
def has_gstreamer() -> bool:
    if not Path(SYSTEM_PYTHON).exists():
        return False
    return subprocess.run([SYSTEM_PYTHON, "-c", HAS_ENCODER], capture_output=True, check=False).returncode == 0


class UdpCamera:
    """The server's process. Use as a context manager."""

    def __init__(self) -> None:
        self.port = ""
        self.start()

    def __enter__(self) -> UdpCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/camera"

    def start(self) -> None:
        """Start it, on the port that it had before."""
        command = [SYSTEM_PYTHON, str(SERVER), *([self.port] if self.port else [])]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = self._process.stdout.readline().strip()
        assert self.port, "the server did not start"

    def fall_silent(self) -> None:
        """Send nothing more, and say nothing of it."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def watch(source: Source, readings: list[Reading], until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < deadline, [reading for reading in readings if isinstance(reading, CameraEvent)]
        if (reading := source.poll()) is None:  # type: ignore[attr-defined]
            time.sleep(0.01)
        else:
            readings.append(reading)


@pytest.fixture
def camera() -> Iterator[UdpCamera]:
    if not has_gstreamer():
        pytest.skip("no GStreamer RTSP server: apt-get install what scripts/test names")
    with UdpCamera() as running:
        yield running


@pytest.mark.parametrize("decode", ["all", "keyframes"])
def test_a_camera_over_udp_is_read_reported_when_silent_and_taken_up_again(
    camera: UdpCamera, report: Report, decode: str
) -> None:
    if decode == "keyframes":
        pytest.importorskip("av", reason="no PyAV: pip install 'camlink[keyframes]'")
    source = open_source(SourceSpec("yard", (camera.url,), fps=FPS, decode=decode), live=True)  # type: ignore[arg-type]
    readings: list[Reading] = []

    def frames() -> int:
        return sum(isinstance(reading, Frame) for reading in readings)

    def told(kind: str) -> bool:
        return any(isinstance(reading, CameraEvent) and reading.kind == kind for reading in readings)

    try:
        watch(source, readings, lambda: frames() >= 4)
        readings.clear()
        camera.fall_silent()
        silent_since = datetime.now(UTC)
        watch(source, readings, lambda: told("down"))
        down = next(r for r in readings if isinstance(r, CameraEvent))
        silent_s = (down.at - silent_since).total_seconds()
        promised = f"told as down within {PROMISED_S:.0f} s, taken up when it is back"
        report.add(f"RTSP camera over UDP ({decode} decoded) falls silent", promised, f"told after {silent_s:.1f} s")
        assert silent_s <= PROMISED_S + CROWDED_S
        camera.kill()
        camera.start()
        watch(source, readings, lambda: told("recovered"))
        readings.clear()
        watch(source, readings, lambda: frames() >= 4)
    finally:
        source.close()
