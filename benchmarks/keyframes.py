"""What it costs to look at few frames of a clip, decoding all of them (OpenCV) or key frames only (PyAV).

    python benchmarks/keyframes.py CLIP... --fps 1 [--height 1080 --seconds 40]

``--height`` first encodes the clip anew in that height, H.264 with a key frame a second, as many cameras send.
Times are processor seconds of this process, with scanning for key frames, conversion and frame statistics in them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2

from camlink.pipeline.ingest import SourceSpec, open_source
from camlink.pipeline.ingest.keyframes import key_frames_of
from camlink.pipeline.ingest.order import Decode
from camlink.pipeline.records import Frame


def cost(clip: Path, fps: float, decode: Decode) -> tuple[float, float, int]:
    """Return processor seconds, wall seconds and frames of one pass over a clip."""
    cpu, wall = time.process_time(), time.perf_counter()
    source = open_source(SourceSpec("clip", (str(clip),), fps=fps, decode=decode), live=False)
    frames = sum(isinstance(reading, Frame) for reading in source)
    return time.process_time() - cpu, time.perf_counter() - wall, frames


def reencoded(clip: Path, folder: Path, height: int, seconds: float) -> Path:
    """Write the clip's first seconds anew, scaled, with a key frame a second."""
    import av

    target = folder / f"{clip.stem}-{height}.mp4"
    with av.open(str(clip)) as source, av.open(str(target), "w") as container:
        rate = source.streams.video[0].average_rate or 25
        width = round(source.streams.video[0].width * height / source.streams.video[0].height / 2) * 2
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "x264-params": f"keyint={round(rate)}:scenecut=0"}
        for frame in source.decode(video=0):
            if frame.time is not None and frame.time > seconds:
                break
            container.mux(stream.encode(frame.reformat(width, height, format="yuv420p")))
        container.mux(stream.encode(None))
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--fps", type=float, default=1.0, help="frames per second that are looked at")
    parser.add_argument("--height", type=int, help="encode the clip anew in this height first")
    parser.add_argument("--seconds", type=float, default=40.0, help="of the clip, with --height")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{'clip':40} {'key frames':>16} {'all':>16} {'key frames only':>16} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for given in arguments.clips:
            clip = reencoded(given, Path(folder), arguments.height, arguments.seconds) if arguments.height else given
            keys = key_frames_of(clip)
            cost(clip, arguments.fps, "all")  # the file into the cache, the libraries into memory
            (every, _, one), (few, _, other) = (cost(clip, arguments.fps, decode) for decode in ("all", "keyframes"))
            told = f"{keys.count} / {keys.span_s:.0f} s"
            print(
                f"{clip.name[:40]:40} {told:>16} {every:6.2f} s {one:5} f {few:7.2f} s {other:4} f {every / few:6.1f}"
            )


if __name__ == "__main__":
    main()
