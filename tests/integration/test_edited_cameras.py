"""`camlink worker ingest` as a process, over a broker, with RTSP cameras that come and go by edits of its file."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from camlink.pipeline.bus.base import Bus, open_bus
from camlink.pipeline.graph import topic_of
from camlink.pipeline.records import Frame
from camlink.pipeline.testbed.rtsp import RtspServer, moving_picture
from tests.integration.processes import Processes

pytest.importorskip("av", reason="no PyAV: pip install 'camlink[keyframes]'")
pytestmark = [pytest.mark.broker, pytest.mark.rtsp, pytest.mark.slow]

FPS = 4
PATIENCE_S = 120.0
SECRET = "hunter2"


class Site:
    """A running ingest worker, the file it watches, and the frames it has published."""

    def __init__(self, folder: Path, stack: ExitStack, bus: str, state: str) -> None:
        self.config = folder / "site.yaml"
        pictures = moving_picture(160, 120, count=100, fps=10, gop=10)
        self.servers = {name: stack.enter_context(RtspServer(pictures, 10)) for name in ("hall", "door", "yard")}
        self.write("hall", "door")
        self.processes = stack.enter_context(Processes(folder, self.config, bus, state))
        self.bus: Bus = open_bus(bus)
        stack.callback(self.bus.close)
        self._subscription = self.bus.subscribe(("frames",), group="test")
        stack.callback(self._subscription.close)
        self.indexes: dict[str, list[int]] = defaultdict(list)
        self.processes.start("ingest")

    def write(self, *names: str, fps: float = FPS, more: str = "") -> None:
        cameras = [
            f"  - {{id: {name}, fps: {fps}, source: '{self.servers[name].url_as('admin', SECRET)}'}}" for name in names
        ]
        self.config.write_text("\n".join(["models: building", "cameras:", *cameras, more]) + "\n")

    def log(self) -> str:
        return self.processes.log("ingest")

    def watch(self, until: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not until():
            assert time.monotonic() < deadline, f"{what}\n{self.log()[-3000:]}"
            for record in self._subscription.poll(0.2):
                assert isinstance(record, Frame) and topic_of(record) == "frames"
                self.indexes[record.camera_id].append(record.index)

    def more(self, camera: str, count: int = 4) -> Callable[[], bool]:
        wanted = len(self.indexes[camera]) + count
        return lambda: len(self.indexes[camera]) >= wanted


@pytest.fixture
def site(tmp_path: Path, broker_address: str, redis_url: str) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, stack, f"kafka://{broker_address}/edits?partitions=2", redis_url)


def test_cameras_come_go_and_change_by_edits_and_a_broken_edit_changes_nothing(site: Site) -> None:
    site.watch(lambda: all(len(site.indexes[name]) >= 4 for name in ("hall", "door")), "two cameras at the start")
    site.write("hall", "door", "yard")
    site.watch(site.more("yard"), "a third one is taken up")
    site.write("hall", more="  - {id: gate, fsp: 2, source: 'rtsp://admin:hunter2@192.0.2.7/1'}")
    site.watch(lambda: f"{site.config}:4" in site.log(), "the broken edit is reported with its line")
    site.watch(site.more("door"), "what was in force stays")
    site.write("hall", "yard", fps=2 * FPS)
    site.watch(lambda: 'camera "door" let go' in site.log(), "one is removed")
    before = len(site.indexes["door"])
    site.watch(site.more("hall", 20), "the others go on, changed")
    assert len(site.indexes["door"]) <= before + 4  # what was on its way
    site.processes.stop("ingest")
    for name in ("hall", "door", "yard"):
        seen = site.indexes[name]
        assert seen == sorted(set(seen)), f"{name}: an index came twice"
    assert site.servers["door"].connections == 1 and site.servers["hall"].connections == 2
    assert SECRET not in site.log()
