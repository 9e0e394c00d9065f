"""H.264 pictures for the RTSP test camera: encoded from a moving pattern, or taken from a clip. Needs PyAV."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from camlink.pipeline.errors import CamlinkError

SPS, PPS = 7, 8
_START_CODE = re.compile(rb"\x00\x00\x00?\x01")


@dataclass(frozen=True)
class AccessUnit:
    """One encoded picture: its NAL units, without start codes. A key frame carries the parameter sets before it."""

    nals: tuple[bytes, ...]
    is_key: bool


@cache
def moving_picture(
    width: int = 320, height: int = 240, count: int = 50, fps: int = 25, gop: int = 25
) -> tuple[AccessUnit, ...]:
    """Return ``count`` pictures of a bright square that moves over a textured ground, a key frame every ``gop``."""
    import av

    codec: Any = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.time_base = Fraction(1, fps)
    codec.gop_size = gop
    codec.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": f"keyint={gop}:scenecut=0"}
    packets = []
    for number in range(count):
        frame: Any = av.VideoFrame.from_ndarray(_pattern(width, height, number / count), format="bgr24")
        frame.pts = number
        packets += codec.encode(frame)
    packets += codec.encode(None)
    return tuple(AccessUnit(tuple(_nals(bytes(packet))), bool(packet.is_keyframe)) for packet in packets)


def recorded(path: Path) -> tuple[AccessUnit, ...]:
    """Return the pictures of a clip as they were encoded. Raises `CamlinkError` if it is not H.264."""
    import av

    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        if stream.codec_context.name != "h264":
            raise CamlinkError(f"{path} is {stream.codec_context.name}; the RTSP test camera serves H.264")
        annex_b = av.BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = [out for packet in container.demux(stream) if packet.size for out in annex_b.filter(packet)]
        return tuple(AccessUnit(tuple(_nals(bytes(packet))), bool(packet.is_keyframe)) for packet in packets)


def parameter_sets(unit: AccessUnit) -> str:
    """Return a key frame's parameter sets as SDP's ``sprop-parameter-sets`` wants them (RFC 6184, section 8.1)."""
    return ",".join(base64.b64encode(nal).decode() for nal in unit.nals if nal[0] & 31 in (SPS, PPS))


def _nals(annex_b: bytes) -> Iterator[bytes]:
    """Yield the NAL units between the start codes of an Annex B byte stream."""
    return (nal for nal in _START_CODE.split(annex_b) if nal)


def _pattern(width: int, height: int, phase: float) -> Any:
    ground = np.random.default_rng(7).integers(40, 90, (height // 8, width // 8, 3), dtype=np.uint8)
    picture = np.ascontiguousarray(np.kron(ground, np.ones((8, 8, 1), np.uint8))[:height, :width])
    side = height // 4
    left = round(phase * (width - side))
    picture[side : 2 * side, left : left + side] = (200, 220, 240)
    return picture
