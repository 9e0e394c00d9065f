"""Records to bytes and back, for every record that crosses a process: versioned, checked, and never pickle.

Layout of an envelope (integers big-endian)::

    b"CL"  version:u8  kind:u8  fingerprint:u32  sender_len:u8  sender  body_len:u32  body (msgpack)

``fingerprint`` hashes the fields and types of the record, so that two versions of camlink that disagree about a record
say so instead of guessing. The sender stands in front of all that may be damaged, so that a refusal can name it. Arrays
are raw bytes within the body, pictures JPEG. msgspec writes and reads the body straight from and to the records.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zlib import crc32

import msgspec

from camlink.operators.base import Outputs
from camlink.pipeline import jpeg, records
from camlink.pipeline.codec_fields import check_of, each, get_other, put_other, shape_of
from camlink.pipeline.errors import CodecError
from camlink.pipeline.records import Frame, FrameStats, Record

VERSION = 2
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


@dataclass(frozen=True, slots=True)
class FrameOnTheWay:
    """A `Frame` with its picture's shape and JPEG in place of the picture; no bytes where a trace stands in for it."""

    camera_id: str
    index: int
    captured_at: datetime
    shape: tuple[int, int, int]
    jpeg: memoryview
    stats: FrameStats | None
    decode_s: float | None
    overtaken: bool


_OUTPUTS_KIND = 255
_KIND_OF = {kind: number for number, kind in enumerate(KINDS)}
_PRINTS = {number: crc32(shape_of(kind).encode()) for number, kind in enumerate(KINDS)}
_PRINTS[_OUTPUTS_KIND] = crc32(shape_of(tuple[records.ModelOutput, ...]).encode())
_HEAD = struct.Struct(">2sBBIB")
_LENGTH = struct.Struct(">I")
_encode_body = msgspec.msgpack.Encoder(enc_hook=put_other).encode


def _reader(hint: Any) -> Any:
    return msgspec.msgpack.Decoder(hint, dec_hook=get_other).decode


_WIRE = tuple(FrameOnTheWay if kind is Frame else kind for kind in KINDS)
_READ = tuple(_reader(kind) for kind in _WIRE)
_CHECK = tuple(check_of(kind) for kind in _WIRE)
_read_outputs = _reader(tuple[records.ModelOutput, ...])
_check_outputs = each(check_of(records.ModelOutput))


def encode(record: Record, sender: str = "", limit: int = MOST_BYTES) -> bytes:
    """Return ``record`` as bytes, at most ``limit`` of them. A picture that is too large is made coarser, then smaller.

    Raises `CodecError` for what is no record, or cannot be brought under the limit.
    """
    kind = _KIND_OF.get(type(record))
    if kind is None:
        raise CodecError(f"{type(record).__name__} is not a record that travels")
    if not isinstance(record, Frame):
        return _within(_pack(kind, record, sender), kind, limit, "; send less at once")
    for squeeze in range(jpeg.SQUEEZES):
        data = _pack(kind, record, sender, squeeze)
        if len(data) <= limit or 0 in record.picture.shape:
            break
    return _within(data, kind, limit, " even at a quarter of its size; crop the camera's picture")


def encode_outputs(outputs: Outputs, sender: str = "") -> bytes:
    """Return one frame's executed outputs as bytes, for the state store."""
    return _within(_pack(_OUTPUTS_KIND, outputs, sender), _OUTPUTS_KIND, MOST_BYTES, "; send less at once")


def decode(data: bytes) -> Record:
    """Return the record in ``data``. Raises `CodecError` naming the sender for anything but a whole, known record."""
    kind, body = _open(data)
    if kind >= len(KINDS):
        raise CodecError(f"{_from(data)}: kind {kind} is not known to this camlink; bring both to one version")
    try:
        found = _READ[kind](body)
        _CHECK[kind](found)
        record: Record = _arrived(found) if kind == 0 else found
    except (ValueError, TypeError, RecursionError) as error:  # msgspec's own are ValueErrors
        raise CodecError(f"{_from(data)}: its {_what(kind)} is malformed: {error}") from error
    return record


def decode_outputs(data: bytes) -> Outputs:
    """Return the outputs in ``data``. Raises `CodecError` like `decode`."""
    kind, body = _open(data)
    if kind != _OUTPUTS_KIND:
        raise CodecError(f"{_from(data)}: a record where outputs of a frame were expected")
    try:
        outputs: Outputs = _read_outputs(body)
        _check_outputs(outputs)
    except (ValueError, TypeError, RecursionError) as error:
        raise CodecError(f"{_from(data)}: its outputs are malformed: {error}") from error
    return outputs


def sender_of(data: bytes) -> str:
    """Return who sent ``data``, as far as that can be read, for reports of refused records."""
    if len(data) < _HEAD.size or data[:2] != MAGIC:
        return "unknown"
    end = _HEAD.size + data[_HEAD.size - 1]
    return data[_HEAD.size : end].decode("utf-8", "replace") or "unknown"


@functools.lru_cache(maxsize=1000)
def _head(kind: int, sender: str) -> bytes:
    name = sender.encode()[:255]
    return _HEAD.pack(MAGIC, VERSION, kind, _PRINTS[kind], len(name)) + name


def _pack(kind: int, value: Any, sender: str, squeeze: int = 0) -> bytes:
    """Return the envelope around ``value``; ``squeeze`` 0..3 says how a frame's picture is coded."""
    try:
        body = _encode_body(_on_the_way(value, squeeze) if kind == 0 else value)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CodecError(f"{_what(kind)} cannot be encoded: {error}") from error
    return b"".join((_head(kind, sender), _LENGTH.pack(len(body)), body))


def _within(data: bytes, kind: int, limit: int, advice: str) -> bytes:
    if len(data) > limit:
        raise CodecError(f"{_what(kind)} of {len(data):,} bytes exceeds the limit of {limit:,}{advice}")
    return data


def _on_the_way(frame: Frame, squeeze: int) -> FrameOnTheWay:
    shape, coded = jpeg.coded(frame.picture, squeeze)
    return FrameOnTheWay(
        *(frame.camera_id, frame.index, frame.captured_at, shape, memoryview(coded)),
        *(frame.stats, frame.decode_s, frame.overtaken),
    )


def _arrived(sent: FrameOnTheWay) -> Frame:
    picture = jpeg.arrived(sent.shape, sent.jpeg)
    return Frame(sent.camera_id, sent.index, sent.captured_at, picture, sent.stats, sent.decode_s, sent.overtaken)


def _open(data: bytes) -> tuple[int, memoryview]:
    """Return the kind and the body of an envelope that is whole, of this version, and of records as they are here."""
    if len(data) < _HEAD.size or data[:2] != MAGIC:
        raise CodecError(f"{len(data)} bytes that are no camlink record (they begin with {data[:8]!r})")
    _, version, kind, fingerprint, name_length = _HEAD.unpack_from(data)
    if version != VERSION:
        raise CodecError(f"{_from(data)}: schema version {version}, this camlink reads {VERSION}")
    if _PRINTS.get(kind, fingerprint) != fingerprint:
        raise CodecError(f"{_from(data)}: its {_what(kind)} has other fields; bring both to one camlink version")
    start = _HEAD.size + name_length + _LENGTH.size
    if len(data) < start:
        raise CodecError(f"{_from(data)}: truncated within its header ({len(data)} bytes)")
    expected = start + _LENGTH.unpack_from(data, start - _LENGTH.size)[0]
    if expected != len(data):
        wrong = "truncated" if len(data) < expected else "too long"
        raise CodecError(f"{_from(data)}: {wrong}: {len(data)} of {expected} bytes")
    return kind, memoryview(data)[start:]


def _what(kind: int) -> str:
    return KINDS[kind].__name__ if kind < len(KINDS) else "outputs"


def _from(data: bytes) -> str:
    return f'record from "{sender_of(data)}" refused'
