"""Pictures that are still JPEG: decoded when somebody looks at them, and sent on as the bytes they came as."""

from __future__ import annotations

import numpy as np

from camlink.pipeline.records import Pixels

MOST_SIDE = 16_384  # pixels; no camera is larger, and a forged header must not ask for the memory


class JpegPicture:
    """One picture as JPEG. ``pixels`` decodes on first use and keeps what it decoded; `undecoded` drops that."""

    __slots__ = ("_pixels", "jpeg", "shape")

    def __init__(self, jpeg: bytes, shape: tuple[int, int, int]) -> None:
        self.jpeg, self.shape = jpeg, shape
        self._pixels: Pixels | None = None

    @classmethod
    def of(cls, jpeg: bytes) -> JpegPicture:
        """Return the picture in ``jpeg``, whose size its own header tells. Raises `ValueError` if it tells none."""
        size = jpeg_size(memoryview(jpeg))
        if size is None or not 0 < min(size) <= max(size) <= MOST_SIDE:
            raise ValueError(f"{len(jpeg)} bytes that are no JPEG of at most {MOST_SIDE} pixels a side")
        return cls(jpeg, (*size, 3))

    @property
    def pixels(self) -> Pixels:
        """The read-only picture, (H, W, 3) BGR. Raises `ValueError` for a damaged JPEG."""
        if self._pixels is None:
            self._pixels = _decoded(self.jpeg, self.shape)
        return self._pixels

    def undecoded(self) -> JpegPicture:
        """Return the same picture without the decoded pixels, which take 10 to 50 times the memory."""
        return JpegPicture(self.jpeg, self.shape)


def _decoded(jpeg: bytes, shape: tuple[int, int, int]) -> Pixels:
    import cv2

    try:
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ValueError(f"a damaged JPEG: {error.err}") from error
    if pixels is None or pixels.shape != shape:
        raise ValueError("a damaged JPEG")
    pixels.flags.writeable = False
    return np.asarray(pixels, dtype=np.uint8)


def jpeg_size(jpeg: memoryview) -> tuple[int, int] | None:
    """Return (height, width) as the JPEG's own header says, before any memory is given to its pixels."""
    at = 2
    if bytes(jpeg[:2]) != b"\xff\xd8":
        return None
    while at + 9 <= len(jpeg) and jpeg[at] == 0xFF:
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(jpeg[at + 5 : at + 7], "big"), int.from_bytes(jpeg[at + 7 : at + 9], "big")
        at += 2 + length
    return None
