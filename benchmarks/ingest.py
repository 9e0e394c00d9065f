"""What a live camera costs the machine that ingests it: memory and start of its decoding process, frames, processor.

    python benchmarks/ingest.py --cameras 20 --fps 1 --seconds 20 [--clip H264.mp4]

All cameras are played by in-repo RTSP servers, one process beside this one. Memory is Pss and private pages of the
decoding processes (/proc/PID/smaps_rollup), so pages that processes share count once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from camlink.pipeline.ingest import SourceSpec, open_source
from camlink.pipeline.ingest.live import LiveSource, close_together
from camlink.pipeline.records import CameraEvent, Frame, FrameDropped
from camlink.pipeline.testbed.rtsp import RtspServer, moving_picture, recorded


def memory_mib(pid: int) -> tuple[float, float]:
    """Return Pss and private MiB of a process; memory that two processes map counts half in each one's Pss."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:] if ":" in line
    )
    kib = {name: int(value.split()[0]) for name, value in fields.items()}
    return kib["Pss"] / 1024, (kib["Private_Dirty"] + kib["Private_Clean"]) / 1024


def serve(pipe: Connection, clip: Path | None, size: tuple[int, int], stream_fps: float) -> None:
    """Play one camera until told to end; all clients get the same pictures."""
    units = recorded(clip) if clip else moving_picture(*size, count=100)
    with RtspServer(units, stream_fps) as server:
        pipe.send(server.url)
        pipe.recv()


def fresh_process() -> tuple[float, float]:
    """Return seconds and private MiB of a process that imports what a decoder needs, rather than being forked."""
    program = "import camlink.pipeline.ingest.opencv, camlink.pipeline.ingest.decoder; print(flush=True); input()"
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert process.stdout is not None
    process.stdout.readline()
    seconds = time.perf_counter() - began
    _, private = memory_mib(process.pid)
    process.communicate(b"\n")
    return seconds, private


def decoders() -> list[psutil.Process]:
    """Return the decoding processes of this one."""
    nurseries = [child for child in psutil.Process().children() if "nursery" in " ".join(child.cmdline())]
    return [decoder for nursery in nurseries for decoder in nursery.children()]


def measure(url: str, cameras: int, fps: float, seconds: float) -> None:
    specs = [SourceSpec(f"camera-{n:03}", (url,), fps=fps) for n in range(cameras)]
    began = time.perf_counter()
    sources = [source for source in (open_source(spec, live=True) for spec in specs) if isinstance(source, LiveSource)]
    first: dict[str, float] = {}
    frames, dropped, events, own = 0, 0, 0, time.process_time()
    counting_since = None
    while counting_since is None or time.perf_counter() - counting_since < seconds:
        for source in sources:
            while (reading := source.poll()) is not None:
                first.setdefault(reading.camera_id, time.perf_counter() - began)
                frames += isinstance(reading, Frame)
                dropped += reading.count if isinstance(reading, FrameDropped) else 0
                events += isinstance(reading, CameraEvent)
        if counting_since is None and len(first) == cameras:
            counting_since, frames, dropped, own = time.perf_counter(), 0, 0, time.process_time()
            busy = sum(sum(p.cpu_times()[:2]) for p in decoders())
        time.sleep(0.005)
    own = time.process_time() - own
    working = decoders()
    busy = sum(sum(p.cpu_times()[:2]) for p in working) - busy
    pss, private = zip(*(memory_mib(process.pid) for process in working), strict=True)
    close_together(sources)
    fresh_s, fresh_mib = fresh_process()
    print(f"cameras {cameras}, {fps:g} frames/s of each looked at, {seconds:g} s")
    waits = list(first.values())
    print(f"first reading of all cameras after {max(waits):.2f} s, median {statistics.median(waits):.2f} s")
    print(f"frames {frames} of {cameras * fps * seconds:.0f} due, {dropped} dropped, {events} events")
    print(f"decoding process: {statistics.mean(private):.1f} MiB private, {statistics.mean(pss):.1f} MiB Pss")
    print(f"processor: {busy / seconds / cameras:.3f} cores a camera to decode, {own / seconds:.3f} in camlink for all")
    print(f"a process that is not forked: {fresh_mib:.1f} MiB private, {fresh_s:.2f} s to start, before it opens any")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=20)
    parser.add_argument("--fps", type=float, default=1.0, help="frames per second that are looked at")
    parser.add_argument("--stream-fps", type=float, default=10.0)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 360), help="width and height, without --clip")
    parser.add_argument("--clip", type=Path, help="H.264 clip to play instead of a moving pattern")
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs, arguments.clip, tuple(arguments.size), arguments.stream_fps)
    )
    server.start()
    measure(ours.recv(), arguments.cameras, arguments.fps, arguments.seconds)
    ours.send("end")
    server.join()


if __name__ == "__main__":
    main()
