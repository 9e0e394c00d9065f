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

QUALITY = 90  # JPEG; 75 and smaller pictures only where a frame would not fit otherwise
COARSER = 75
MOST_SIDE = 16_384  # pixels; no camera is larger, and a forged header must not ask for the memory
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
    return name == "camera_id" or (kind.__name__, name) == ("LinkPromotion", "target")


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
    """Arrays of up to three axes as raw little-endian bytes; uint8 ones with three axes are pictures."""
    wire = dtype.newbyteorder("<")

    def put(writer: Writer, array: NDArray[Any]) -> Any:
        if dtype == np.uint8 and array.ndim == 3 and array.size:
            return put_picture(writer, array)
        return [list(array.shape), writer.add(np.ascontiguousarray(array, wire).tobytes())]

    def get(reader: Reader, value: Any) -> Any:
        shape, blob = _shape_and_blob(reader, value)
        if dtype == np.uint8 and len(shape) == 3 and _count(shape):
            return get_picture(shape, blob)
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


def put_picture(writer: Writer, pixels: NDArray[np.uint8]) -> Any:
    """Encode (H, W, 3) BGR as JPEG. OpenCV's coder is libjpeg-turbo: none of those tried was faster (benchmarks)."""
    import cv2

    writer.has_pixels = True
    for _ in range(writer.squeeze - 1):
        pixels = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    quality = COARSER if writer.squeeze else QUALITY
    done, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"a picture of shape {pixels.shape} cannot be coded as JPEG")
    return [list(pixels.shape), writer.add(jpeg.tobytes())]


def get_picture(shape: tuple[int, ...], blob: memoryview) -> NDArray[np.uint8]:
    """Return the read-only picture behind a JPEG, which must have the announced shape."""
    import cv2

    if shape[2] != 3 or max(shape) > MOST_SIDE or jpeg_size(blob) != shape[:2]:
        raise ValueError(f"a picture announced as {shape} that is none")
    try:
        pixels = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_COLOR)
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
