"""An ingest worker fed with made pictures, as a process of its own: prints what it published and what that cost.

python -m benchmarks.distributed.feed BUS PREFIX CAMERAS FIRST FRAMES BYTES RATE BEGAN SOURCE
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from benchmarks.distributed.load import cameras, jpeg_of, picture
from camlink.pipeline.bus.base import open_bus
from camlink.pipeline.ingest_worker import IngestWorker
from camlink.pipeline.jpeg import JpegPicture
from camlink.pipeline.records import Frame, FramePicture

CAMERA_FPS = 2.0  # a camera's rate in event time, the default of `fps`: what is done now and then is done as often
VARIANTS = 8  # different pictures, so that no cache of the processor flatters the coder


def frames(
    names: list[str], first: int, count: int, pictures: Sequence[FramePicture], rate: float, began: datetime
) -> Iterator[Frame]:
    """Yield ``count`` frames of each camera in turn.

    With a ``rate``, so many a second in all, stamped with the time. Without, at once, and stamped as cameras stamp
    them whose frame 0 was taken when it ``began``.
    """
    start, sent = time.monotonic(), 0
    for index in range(first, first + count):
        for name in names:
            if rate:
                time.sleep(max(0.0, start + sent / rate - time.monotonic()))
            at = datetime.now(UTC) if rate else began + timedelta(seconds=index / CAMERA_FPS)
            yield Frame(name, index, at, pictures[sent % len(pictures)])
            sent += 1


def main() -> None:
    bus, prefix, *numbers, source = sys.argv[1:]
    count, first, per_camera, jpeg_bytes = map(int, numbers[:4])
    pixels = [picture(jpeg_bytes, seed) for seed in range(VARIANTS)]
    pictures = [JpegPicture.of(jpeg_of(each)) for each in pixels] if source == "jpeg" else pixels
    connection = open_bus(bus)
    rate, began = float(numbers[4]), datetime.fromtimestamp(float(numbers[5]), UTC)
    worker = IngestWorker(frames(cameras(prefix, count), first, per_camera, pictures, rate, began), connection)
    print("ready", flush=True)
    sys.stdin.readline()  # until it is told to begin
    wall, cpu = time.monotonic(), time.process_time()
    worker.run(stop=lambda: False)
    told = {"frames": worker.counts["Frame"], "cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - wall}
    connection.close()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
