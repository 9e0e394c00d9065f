"""Records to bytes and back, for every record that crosses a process: versioned, checked, and never pickle.

Layout of an envelope (integers big-endian)::

    b"CL"  version:u8  kind:u8  fingerprint:u32  sender_len:u8  sender
    blobs:u16  body_len:u32  blob_len:u32 ...  body (JSON list, one entry per field)  blob ...

Arrays, JPEG pictures and raw bytes are blobs, which the body points at by number. ``fingerprint`` hashes the fields and
types of the record, so that two versions of camlink that disagree about a record say so instead of guessing. The sender
stands in front of all that may be damaged, so that a refusal can name it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from camlink.operators.base import Outputs
from camlink.pipeline import records
from camlink.pipeline.codec_fields import Field, Reader, Writer, field_of
from camlink.pipeline.errors import CodecError
from camlink.pipeline.records import Record

VERSION = 1
MOST_BYTES = 1_000_000  # a Kafka broker's usual limit is 1,048,588 bytes with its own headers
MAGIC = b"CL"
# The order is part of the format: add at the end, never remove.
KINDS: tuple[type, ...] = (
    records.Frame,
    records.FrameDropped,
    records.CameraEvent,
    records.OutputReady,
    records.FrameResult,
    records.Decision,
    records.RelabelRequest,
    records.LinkPromotion,
    records.AdaptationEvent,
    records.Picture,
    records.ModelCard,
    records.Settled,
    records.FederationRound,
    records.FederationUpdate,
    records.CalibratedOutput,
)
_FIELDS: tuple[Field, ...] = tuple(field_of(kind) for kind in KINDS)
_OUTPUTS = field_of(tuple[records.ModelOutput, ...])
_OUTPUTS_KIND = 255
_KIND_OF = {kind: number for number, kind in enumerate(KINDS)}
_PRINTS = {number: crc32(field.shape.encode()) for number, field in enumerate(_FIELDS)} | {
    _OUTPUTS_KIND: crc32(_OUTPUTS.shape.encode())
}
_HEAD = struct.Struct(">2sBBIB")
_SIZES = struct.Struct(">HI")


def encode(record: Record, sender: str = "", limit: int = MOST_BYTES) -> bytes:
    """Return ``record`` as bytes, at most ``limit`` of them. A picture that is too large is made coarser, then smaller.

    Raises `CodecError` for what is no record, or cannot be brought under the limit.
    """
    kind = _KIND_OF.get(type(record))
    if kind is None:
        raise CodecError(f"{type(record).__name__} is not a record that travels")
    field = _FIELDS[kind]
    return _pack(kind, field, record, sender, limit)


def encode_outputs(outputs: Outputs, sender: str = "") -> bytes:
    """Return one frame's executed outputs as bytes, for the state store."""
    return _pack(_OUTPUTS_KIND, _OUTPUTS, outputs, sender, MOST_BYTES)


def decode(data: bytes) -> Record:
    """Return the record in ``data``. Raises `CodecError` naming the sender for anything but a whole, known record."""
    kind, sender, body, blobs = _open(data)
    if kind >= len(KINDS):
        raise CodecError(f"{_from(sender)}: kind {kind} is not known to this camlink; bring both to one version")
    record: Record = _read(_FIELDS[kind], body, blobs, sender, KINDS[kind].__name__)
    return record


def decode_outputs(data: bytes) -> Outputs:
    """Return the outputs in ``data``. Raises `CodecError` like `decode`."""
    kind, sender, body, blobs = _open(data)
    if kind != _OUTPUTS_KIND:
        raise CodecError(f"{_from(sender)}: a record where outputs of a frame were expected")
    outputs: Outputs = _read(_OUTPUTS, body, blobs, sender, "outputs")
    return outputs


def sender_of(data: bytes) -> str:
    """Return who sent ``data``, as far as that can be read, for reports of refused records."""
    if len(data) < _HEAD.size or data[:2] != MAGIC:
        return "unknown"
    end = _HEAD.size + data[_HEAD.size - 1]
    return data[_HEAD.size : end].decode("utf-8", "replace") or "unknown"


def _pack(kind: int, field: Field, value: Any, sender: str, limit: int) -> bytes:
    name = sender.encode()[:255]
    for squeeze in range(Writer.SQUEEZES):
        writer = Writer(squeeze)
        try:
            body = json.dumps(field.put(writer, value), separators=(",", ":"), allow_nan=True).encode()
        except (TypeError, ValueError, AttributeError) as error:
            raise CodecError(f"{_what(kind)} cannot be encoded: {error}") from error
        sizes = struct.pack(f">{len(writer.blobs)}I", *map(len, writer.blobs))
        data = b"".join(
            (
                _HEAD.pack(MAGIC, VERSION, kind, _PRINTS[kind], len(name)),
                name,
                _SIZES.pack(len(writer.blobs), len(body)),
                sizes,
                body,
                *writer.blobs,
            )
        )
        if len(data) <= limit:
            return data
        if not writer.has_pixels:
            break
    raise CodecError(
        f"{_what(kind)} of {len(data):,} bytes exceeds the limit of {limit:,}"
        + (" even at a quarter of its size; crop the camera's picture" if writer.has_pixels else "; send less at once")
    )


def _open(data: bytes) -> tuple[int, str, bytes, Sequence[memoryview]]:
    sender = sender_of(data)
    if len(data) < _HEAD.size or data[:2] != MAGIC:
        raise CodecError(f"{len(data)} bytes that are no camlink record (they begin with {data[:8]!r})")
    _, version, kind, fingerprint, name_length = _HEAD.unpack_from(data)
    if version != VERSION:
        raise CodecError(f"{_from(sender)}: schema version {version}, this camlink reads {VERSION}")
    if kind in _PRINTS and _PRINTS[kind] != fingerprint:
        raise CodecError(f"{_from(sender)}: its {_what(kind)} has other fields; bring both to one camlink version")
    try:
        return kind, sender, *_parts(data, _HEAD.size + name_length)
    except struct.error as error:
        raise CodecError(f"{_from(sender)}: truncated within its header ({len(data)} bytes)") from error
    except _WrongLengthError as error:
        raise CodecError(f"{_from(sender)}: {error}") from error


class _WrongLengthError(Exception):
    pass


def _parts(data: bytes, start: int) -> tuple[bytes, list[memoryview]]:
    count, body_length = _SIZES.unpack_from(data, start)
    start += _SIZES.size
    lengths = struct.unpack_from(f">{count}I", data, start)
    start += 4 * count
    expected = start + body_length + sum(lengths)
    if expected != len(data):
        raise _WrongLengthError(
            f"{'truncated' if len(data) < expected else 'too long'}: {len(data)} of {expected} bytes"
        )
    view = memoryview(data)
    body, start = data[start : start + body_length], start + body_length
    blobs = []
    for length in lengths:
        blobs.append(view[start : start + length])
        start += length
    return body, blobs


def _read(field: Field, body: bytes, blobs: Sequence[memoryview], sender: str, what: str) -> Any:
    try:
        return field.get(Reader(blobs), json.loads(body))
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError) as error:
        raise CodecError(f"{_from(sender)}: its {what} is malformed: {error}") from error


def _what(kind: int) -> str:
    return KINDS[kind].__name__ if kind < len(KINDS) else "outputs"


def _from(sender: str) -> str:
    return f'record from "{sender}" refused'
