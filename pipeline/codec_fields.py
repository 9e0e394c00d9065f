"""How the fields of records become JSON and blobs, derived once from their type hints.

A reader checks every value against its type, so that what comes off a wire is a well-formed record or is refused.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

from camlink.pipeline.clock import EPOCH
from camlink.pipeline.ingest.base import CAMERA_ID
from camlink.pipeline.jpeg import MOST_SIDE, JpegPicture, jpeg_size
from camlink.pipeline.records import FramePicture, Pixels

QUALITY = 90  # JPEG; 75 and smaller pictures only where a frame would not fit otherwise
COARSER = 75
_MICROSECOND = timedelta(microseconds=1)


class Writer:
    """Collects blobs. ``squeeze`` 0..3: as is, coarser, half the size, a quarter of the size."""

    SQUEEZES = 4

    def __init__(self, squeeze: int = 0) -> None:
        self.blobs: list[bytes] = []
        self.has_pixels = False
        self.squeeze = squeeze

    def add(self, blob: bytes) -> int:
        self.blobs.append(blob)
        return len(self.blobs) - 1


class Reader:
    """Hands out blobs by number."""

    def __init__(self, blobs: Sequence[memoryview]) -> None:
        self._blobs = blobs

    def blob(self, number: Any) -> memoryview:
        if type(number) is not int or not 0 <= number < len(self._blobs):
            raise ValueError(f"no blob {number!r}")
        return self._blobs[number]


@dataclass(frozen=True)
class Field:
    """How values of one type are put and got, and the type's shape in words, for the fingerprint."""

    shape: str
    put: Callable[[Writer, Any], Any]
    get: Callable[[Reader, Any], Any]


def field_of(hint: Any) -> Field:
    """Return how values of the type ``hint`` travel. Raises `TypeError` for a type that cannot."""
    if hint in _PLAIN:
        return _plain(hint)
    if hint in _SPECIAL:
        return _SPECIAL[hint]
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _record(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _literal(arguments)
    if origin in (typing.Union, types.UnionType) and len(arguments) == 2 and arguments[1] is type(None):
        return _optional(field_of(arguments[0]))
    if origin is tuple and arguments[1:] == (...,):
        return _sequence(field_of(arguments[0]))
    if origin is Mapping or origin is dict:
        return _mapping(field_of(arguments[1]))
    if origin is np.ndarray:
        return _array(np.dtype(get_args(arguments[1])[0]))
    raise TypeError(f"values of type {hint} cannot travel")


_PLAIN = (str, int, bool, float)


def _plain(kind: type) -> Field:
    if kind is float:
        return Field("float", lambda w, v: float(v), lambda r, v: _number(v))

    def get(reader: Reader, value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"{value!r:.40} where a {kind.__name__} belongs")
        return value

    return Field(kind.__name__, lambda w, v: kind(v), get)


def _names_a_folder(kind: type, name: str) -> bool:
    return name in ("camera_id", "federation", "site") or (kind.__name__, name) == ("LinkPromotion", "target")


def _folder_name() -> Field:
    """Text after which readers name folders and keys: what could lead elsewhere is refused where it comes in."""

    text = _plain(str)

    def get(reader: Reader, value: Any) -> Any:
        if not CAMERA_ID.fullmatch(text.get(reader, value)):
            raise ValueError(f"{value!r:.80} is not 1 to 64 letters, digits, '_', '.' or '-', which name a folder")
        return value

    return Field(text.shape, text.put, get)


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{value!r:.40} where a number belongs")
    return float(value)


def _put_time(writer: Writer, moment: datetime) -> int:
    return (moment - EPOCH) // _MICROSECOND


def _get_time(reader: Reader, value: Any) -> datetime:
    if type(value) is not int:
        raise ValueError(f"{value!r:.40} where microseconds since 1970 belong")
    return EPOCH + timedelta(microseconds=value)


_SPECIAL: dict[Any, Field] = {
    datetime: Field("time", _put_time, _get_time),
    bytes: Field("bytes", lambda w, v: w.add(bytes(v)), lambda r, v: bytes(r.blob(v))),
}


def _literal(choices: tuple[Any, ...]) -> Field:
    def get(reader: Reader, value: Any) -> Any:
        if value not in choices:
            raise ValueError(f"{value!r:.40} is none of {', '.join(map(str, choices))}")
        return value

    return Field(f"one of {choices}", lambda w, v: v, get)


def _optional(inner: Field) -> Field:
    return Field(
        f"{inner.shape}?",
        lambda w, v: None if v is None else inner.put(w, v),
        lambda r, v: None if v is None else inner.get(r, v),
    )


def _sequence(inner: Field) -> Field:
    def get(reader: Reader, value: Any) -> Any:
        if type(value) is not list:
            raise ValueError(f"{value!r:.40} where a list belongs")
        return tuple(inner.get(reader, item) for item in value)

    return Field(f"[{inner.shape}]", lambda w, v: [inner.put(w, item) for item in v], get)


def _mapping(inner: Field) -> Field:
    def get(reader: Reader, value: Any) -> Any:
        if type(value) is not dict:
            raise ValueError(f"{value!r:.40} where a mapping belongs")
        return {key: inner.get(reader, item) for key, item in value.items()}

    return Field(f"{{{inner.shape}}}", lambda w, v: {str(k): inner.put(w, item) for k, item in v.items()}, get)


def _array(dtype: np.dtype[Any]) -> Field:
    """Arrays of up to three axes as raw little-endian bytes."""
    wire = dtype.newbyteorder("<")

    def put(writer: Writer, array: NDArray[Any]) -> Any:
        return [list(array.shape), writer.add(np.ascontiguousarray(array, wire).tobytes())]

    def get(reader: Reader, value: Any) -> Any:
        shape, blob = _shape_and_blob(reader, value)
        array = np.frombuffer(blob, wire)
        if array.size != _count(shape):
            raise ValueError(f"{array.size} numbers for an array of shape {shape}")
        return array.reshape(shape).astype(dtype, copy=False)

    return Field(f"array {dtype}", put, get)


def _shape_and_blob(reader: Reader, value: Any) -> tuple[tuple[int, ...], memoryview]:
    shape, number = value
    if len(shape) > 3 or any(type(side) is not int or not 0 <= side <= 100_000_000 for side in shape):
        raise ValueError(f"{shape!r:.40} is no shape")
    return tuple(shape), reader.blob(number)


def _count(shape: Sequence[int]) -> int:
    return math.prod(shape)


def _put_picture(writer: Writer, picture: FramePicture) -> Any:
    """Encode (H, W, 3) BGR as JPEG; what came as JPEG goes on as the same bytes, as long as they fit.

    OpenCV's coder is libjpeg-turbo: none of those tried was faster (docs/distributed.md).
    """
    if 0 in picture.shape:
        return [list(picture.shape), writer.add(b"")]
    writer.has_pixels = True
    if not writer.squeeze and not isinstance(picture, np.ndarray):
        return [list(picture.shape), writer.add(picture.jpeg)]
    pixels = picture if isinstance(picture, np.ndarray) else picture.pixels
    return _put_jpeg(writer, pixels)


def _put_jpeg(writer: Writer, pixels: Pixels) -> Any:
    import cv2

    for _ in range(writer.squeeze - 1):
        pixels = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    quality = COARSER if writer.squeeze else QUALITY
    done, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"a picture of shape {pixels.shape} cannot be coded as JPEG")
    return [list(pixels.shape), writer.add(jpeg.tobytes())]


def _get_picture(reader: Reader, value: Any) -> FramePicture:
    """Return the picture behind a JPEG, which must have the announced shape; it is decoded when it is looked at."""
    shape, blob = _shape_and_blob(reader, value)
    if len(shape) == 3 and not _count(shape) and not blob:
        return np.zeros(shape, np.uint8)
    if len(shape) != 3 or shape[2] != 3 or max(shape) > MOST_SIDE or jpeg_size(blob) != shape[:2]:
        raise ValueError(f"a picture announced as {shape} that is none")
    return JpegPicture(bytes(blob), (shape[0], shape[1], 3))


_SPECIAL[FramePicture] = Field("picture", _put_picture, _get_picture)


def _record(kind: type) -> Field:
    hints = typing.get_type_hints(kind)
    parts = [
        (f.name, _folder_name() if _names_a_folder(kind, f.name) else field_of(hints[f.name]))
        for f in dataclasses.fields(kind)
    ]
    shape = f"{kind.__name__}({', '.join(f'{name}: {part.shape}' for name, part in parts)})"

    def put(writer: Writer, value: Any) -> Any:
        return [part.put(writer, getattr(value, name)) for name, part in parts]

    def get(reader: Reader, value: Any) -> Any:
        if type(value) is not list or len(value) != len(parts):
            raise ValueError(f"{value!r:.40} where the {len(parts)} fields of {kind.__name__} belong")
        return kind(*[_get(part, name, reader, item) for (name, part), item in zip(parts, value, strict=True)])

    return Field(shape, put, get)


def _get(part: Field, name: str, reader: Reader, item: Any) -> Any:
    try:
        return part.get(reader, item)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from error
