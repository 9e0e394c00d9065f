"""Pictures that are still JPEG: decoded when somebody looks at them, and sent on as the bytes they came as."""

from __future__ import annotations

import numpy as np

from camlink.pipeline.records import FramePicture, Pixels

QUALITY = 90  # as sent; `COARSER` and smaller pictures only where a frame would not fit otherwise
COARSER = 75
SQUEEZES = 4  # as is, coarser, half the size, a quarter of the size
MOST_SIDE = 16_384  # pixels; no camera is larger, and a forged header must not ask for the memory


Jpeg = bytes | memoryview  # a view lies within the message that the picture came with: it is not copied out


class JpegPicture:
    """One picture as JPEG. ``pixels`` decodes on first use and keeps what it decoded; `undecoded` drops that."""

    __slots__ = ("_pixels", "jpeg", "shape")

    def __init__(self, jpeg: Jpeg, shape: tuple[int, int, int]) -> None:
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

    def at_least(self, width: int) -> Pixels:
        """Return the picture, decoded at 1/2, 1/4 or 1/8 of its size where it is still ``width`` wide then.

        libjpeg does so by leaving out frequencies, in three quarters of the time. What is decoded already is given as
        it is. Raises `ValueError` for a damaged JPEG.
        """
        factor = next((factor for factor in (8, 4, 2) if self.shape[1] >= factor * width), 1)
        if self._pixels is not None or factor == 1:
            return self.pixels
        return _decoded(self.jpeg, self.shape, factor)

    def undecoded(self) -> JpegPicture:
        """Return the same picture without the decoded pixels, which take 10 to 50 times the memory."""
        return JpegPicture(self.jpeg, self.shape)


def coded(picture: FramePicture, squeeze: int = 0) -> tuple[tuple[int, int, int], Jpeg]:
    """Return shape and JPEG of a picture as it is sent: what came as JPEG goes on as the same bytes, if not squeezed.

    OpenCV's coder is libjpeg-turbo: none of those tried was faster (docs/distributed.md). No bytes stand for a picture
    of no pixels. Raises `ValueError` for a damaged JPEG and for what is no picture.
    """
    if 0 in picture.shape:
        return _three(picture.shape), b""
    if not squeeze and not isinstance(picture, np.ndarray):
        return picture.shape, picture.jpeg
    pixels = picture if isinstance(picture, np.ndarray) else picture.pixels
    return _coded(pixels, squeeze)


def arrived(shape: tuple[int, int, int], jpeg: memoryview) -> FramePicture:
    """Return the picture that `coded` made these of, to be decoded when somebody looks at it.

    Raises `ValueError` where the JPEG's own header tells another size.
    """
    if not jpeg and 0 in shape and min(shape) >= 0:
        return np.zeros(shape, np.uint8)
    if shape[2] != 3 or not 0 < min(shape) <= max(shape) <= MOST_SIDE or jpeg_size(jpeg) != shape[:2]:
        raise ValueError(f"a picture announced as {shape} that is none")
    return JpegPicture(jpeg, shape)


def _coded(pixels: Pixels, squeeze: int) -> tuple[tuple[int, int, int], bytes]:
    import cv2

    for _ in range(squeeze - 1):
        pixels = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    done, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, COARSER if squeeze else QUALITY])
    if not done:
        raise ValueError(f"a picture of shape {pixels.shape} cannot be coded as JPEG")
    return _three(pixels.shape), jpeg.tobytes()


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (height, width, channels). Raises `ValueError`."""
    if len(shape) != 3:
        raise ValueError(f"an array of shape {shape} is no picture")
    return shape[0], shape[1], shape[2]


def _decoded(jpeg: Jpeg, shape: tuple[int, int, int], factor: int = 1) -> Pixels:
    """Return the picture, read-only, each side divided by ``factor`` (1, 2, 4 or 8) and rounded up."""
    import cv2

    how = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
    try:
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), how.get(factor, cv2.IMREAD_REDUCED_COLOR_8))
    except cv2.error as error:
        raise ValueError(f"a damaged JPEG: {error.err}") from error
    if pixels is None or pixels.shape != (-(-shape[0] // factor), -(-shape[1] // factor), shape[2]):
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
