"""Starts a worker under a fault that cannot be brought about from outside; for the fault suite alone.

    python -m tests.faults.launcher worker STEP ...        as `camlink worker STEP ...`, with, by environment:

FAULT_FRAMES    FIRST:LAST      ingest publishes this part of its trace: frame indexes from FIRST to before LAST
FAULT_FPS       frames/s        at this rate per camera, not at full speed
FAULT_LIVE      1               and stamped with the time of publishing, as a live camera's frames are
FAULT_CLOCK     file            every clock of camlink is off by the seconds that the file says at the moment
FAULT_MODEL_MS  milliseconds    recorded models take so long per frame
FAULT_FILE_MB   megabytes       no file may grow larger: what a full disk is without a file system of one's own
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from camlink.models.recorded import RecordedModel
from camlink.pipeline import cli
from camlink.pipeline.clock import WallClock
from camlink.pipeline.commands import worker
from camlink.pipeline.records import Frame


def main() -> None:
    """Bring about the faults that the environment names, then be the camlink command."""
    told = os.environ.get
    if part := told("FAULT_FRAMES"):
        first, _, last = part.partition(":")
        publish_part(int(first), int(last), float(told("FAULT_FPS", "0")), told("FAULT_LIVE") == "1")
    if clock := told("FAULT_CLOCK"):
        set_clocks_by(Path(clock))
    if pause_ms := told("FAULT_MODEL_MS"):
        slow_models_down(float(pause_ms) / 1000.0)
    if megabytes := told("FAULT_FILE_MB"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write past the limit then fails, as on a full disk
        most = round(float(megabytes) * 1e6)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    cli.main()


def publish_part(first: int, last: int, fps: float, live: bool) -> None:
    """Let ingest read only frames ``first`` to before ``last`` of each camera, ``fps`` a second if that is not 0."""
    readings = worker._readings

    def part(*arguments: Any) -> Iterator[Any]:
        chosen = (r for r in readings(*arguments) if isinstance(r, Frame) and first <= r.index < last)
        return paced(chosen, fps, live) if fps else chosen

    worker._readings = part


def paced(frames: Iterable[Frame], fps: float, live: bool) -> Iterator[Frame]:
    """Yield ``frames``, ordered by index, ``fps`` indexes a second; ``live``: stamped as they are yielded."""
    started, first = time.monotonic(), None
    for frame in frames:
        first = frame.index if first is None else first
        time.sleep(max(0.0, started + (frame.index - first) / fps - time.monotonic()))
        yield replace(frame, captured_at=WallClock().now()) if live else frame


def set_clocks_by(file: Path) -> None:
    """Let the wall clock, by which live frames are stamped, be off by as many seconds as ``file`` says."""
    true = WallClock.now

    def now(self: WallClock) -> datetime:
        return true(self) + timedelta(seconds=float(file.read_text()))

    WallClock.now = now  # type: ignore[method-assign]


def slow_models_down(pause_s: float) -> None:
    """Let every recorded model take ``pause_s`` per frame."""
    answer = RecordedModel.run

    def run(self: RecordedModel, frames: Any) -> Any:
        time.sleep(pause_s * len(frames))
        return answer(self, frames)

    RecordedModel.run = run  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
