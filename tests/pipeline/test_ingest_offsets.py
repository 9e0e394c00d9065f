"""Clips cut out of a longer recording, whose time stamps go on where the clip before them ended."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from camlink.pipeline.ingest import SourceSpec, expected_frames, open_source
from camlink.pipeline.records import Frame

av = pytest.importorskip("av", reason="no PyAV: pip install 'camlink[keyframes]'")

FRAMES, FPS = 30, 10


def cut(path: Path, start_s: int) -> SourceSpec:
    """Write three seconds of video whose first time stamp is ``start_s``."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        for number in range(FRAMES):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 8 * number, np.uint8), format="bgr24")
            picture.pts, picture.time_base = start_s * FPS + number, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return SourceSpec("hall", (str(path),))


@pytest.mark.parametrize("start_s", [0, 1, 3600])
@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4"])
def test_what_came_before_a_clip_is_no_loss(tmp_path: Path, suffix: str, start_s: int) -> None:
    """Matroska tells its duration from 0, as `ffmpeg -f segment` leaves it without -reset_timestamps."""
    spec = cut(tmp_path / f"clip.{suffix}", start_s)
    assert expected_frames(spec) == FRAMES
    readings = list(open_source(spec, live=False))
    assert [type(reading) for reading in readings[:-1]] == [Frame] * FRAMES
