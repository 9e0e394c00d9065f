"""What travels arrives: round trips of every record, and refusals that name the sender."""

from __future__ import annotations

import dataclasses
import pickle
import struct
import types
import typing
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, get_args, get_origin

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from camlink.pipeline import codec
from camlink.pipeline.codec import decode, encode
from camlink.pipeline.errors import CodecError
from camlink.pipeline.ingest.base import CAMERA_ID
from camlink.pipeline.jpeg import JpegPicture
from camlink.pipeline.records import (
    Frame,
    FramePicture,
    FrameResult,
    LinkPromotion,
    ModelOutput,
    RelabelRequest,
    Settled,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTLED = Settled("hall", 7, NOW)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value that a field of this type may hold; pictures have tests of their own, for JPEG does not keep pixels."""
    if hint == FramePicture:
        return st.just(np.zeros((0, 0, 3), np.uint8))
    if hint is datetime:
        return st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1))
    plain = {
        str: st.text(),
        int: st.integers(-(2**60), 2**60),
        bool: st.booleans(),
        float: st.floats(allow_nan=False),
        bytes: st.binary(max_size=100),
    }
    if hint in plain:
        return plain[hint]
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        fields = {f.name: values_of(hints[f.name]) for f in dataclasses.fields(hint)}
        names = {
            name: st.from_regex(CAMERA_ID, fullmatch=True)
            for name in ("camera_id", "target", "federation", "site")
            if name in fields
        }
        return st.builds(hint, **fields | names)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.none() | values_of(arguments[0])
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(st.text(), values_of(arguments[1]), max_size=3)
    dtype = np.dtype(get_args(arguments[1])[0])
    return npst.arrays(dtype, npst.array_shapes(max_dims=2, min_side=0, max_side=5))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("kind", codec.KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=30)
@given(data=st.data())
def test_every_record_survives_the_journey(kind: type, data: st.DataObject) -> None:
    record = data.draw(values_of(kind))
    assert same(record, decode(encode(record, "a-sender")))


@settings(max_examples=30)
@given(values_of(tuple[ModelOutput, ...]))
def test_outputs_survive_the_state_store(outputs: tuple[ModelOutput, ...]) -> None:
    assert same(outputs, codec.decode_outputs(codec.encode_outputs(outputs)))


def test_every_record_of_the_graph_can_travel() -> None:
    from camlink.pipeline.graph import TOPIC_OF

    assert set(TOPIC_OF) == set(codec.KINDS)


def frame(height: int, width: int, noise: bool = False) -> Frame:
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(height), np.arange(width))[:, :, None] // 8 + np.array([0, 40, 80])
    pixels = rng.integers(0, 256, (height, width, 3)) if noise else smooth % 256
    return Frame("hall", 3, NOW, pixels.astype(np.uint8))


def test_a_picture_arrives_nearly_as_it_was_and_read_only() -> None:
    sent = frame(96, 128)
    got = decode(encode(sent))
    assert isinstance(got, Frame)
    assert got.pixels.shape == (96, 128, 3)
    assert not got.pixels.flags.writeable
    assert np.abs(got.pixels.astype(int) - sent.pixels.astype(int)).mean() < 4


def test_a_picture_is_decoded_when_it_is_looked_at_and_goes_on_as_the_bytes_it_came_as() -> None:
    data = encode(frame(96, 128), "camera-side")
    got = decode(data)
    assert isinstance(got, Frame) and isinstance(got.picture, JpegPicture)
    assert got.pixels is got.pixels, "decoded once"
    assert encode(got, "camera-side") == data
    rest = got.at_rest()
    assert isinstance(rest.picture, JpegPicture) and rest.picture.jpeg is got.picture.jpeg
    assert rest.picture._pixels is None, "what is kept for later is kept small"
    assert np.array_equal(rest.pixels, got.pixels)


def test_a_picture_that_came_as_jpeg_is_made_smaller_where_its_bytes_do_not_fit() -> None:
    whole = decode(encode(frame(400, 400, noise=True)))
    data = encode(whole, limit=30_000)
    again = decode(data)
    assert isinstance(again, Frame)
    assert len(data) <= 30_000 and again.pixels.shape in ((200, 200, 3), (100, 100, 3))


def test_a_damaged_picture_says_so_to_who_looks_at_it() -> None:
    jpeg = JpegPicture.of(_jpeg(frame(96, 128))).jpeg
    with pytest.raises(ValueError, match="no JPEG"):
        JpegPicture.of(b"no picture")
    with pytest.raises(ValueError, match="damaged"):
        JpegPicture(jpeg[:200], (96, 128, 3)).pixels  # noqa: B018


def _jpeg(sent: Frame) -> bytes:
    travelled = decode(encode(sent))
    assert isinstance(travelled, Frame) and isinstance(travelled.picture, JpegPicture)
    return travelled.picture.jpeg


def test_a_picture_over_the_limit_is_made_smaller_and_says_so_by_its_shape() -> None:
    data = encode(frame(400, 400, noise=True), limit=30_000)
    assert len(data) <= 30_000
    got = decode(data)
    assert isinstance(got, Frame)
    assert got.pixels.shape in ((200, 200, 3), (100, 100, 3))


def test_a_record_that_cannot_be_brought_under_the_limit_is_refused_with_what_to_do() -> None:
    with pytest.raises(CodecError, match=r"Frame of [\d,]+ bytes exceeds the limit of 500 .*crop"):
        encode(frame(400, 400, noise=True), limit=500)
    with pytest.raises(CodecError, match=r"LinkPromotion of .* exceeds the limit of 1,000,000"):
        encode(LinkPromotion("hall", "persons", 1, NOW, bytes(1_000_001)))


@pytest.mark.parametrize("value", [np.array(["x"], object), np.ones((1, 1, 1, 1), np.float32), object()])
def test_what_cannot_travel_is_refused_before_it_does(value: Any) -> None:
    output = ModelOutput("a", 1, NOW, "persons", value, "serve", "executed")
    with pytest.raises(CodecError, match=r"outputs cannot be encoded: .* cannot travel"):
        codec.encode_outputs((output,))


def test_numbers_of_numpy_travel_as_numbers() -> None:
    output = ModelOutput(
        "a", np.int64(1), NOW, "m", None, "serve", "linked", np.bool_(True), confidence=np.float32(0.5)
    )
    (got,) = codec.decode_outputs(codec.encode_outputs((output,)))
    assert (got.frame_index, got.served, got.confidence) == (1, True, 0.5)
    assert type(got.frame_index) is int and type(got.served) is bool and type(got.confidence) is float


@pytest.mark.parametrize("cut", range(0, len(encode(SETTLED, "worker-7")), 3))
def test_a_truncated_record_is_refused(cut: int) -> None:
    with pytest.raises(CodecError):
        decode(encode(SETTLED, "worker-7")[:cut])


def test_a_refusal_names_the_sender() -> None:
    with pytest.raises(CodecError, match='record from "worker-7" refused: truncated: '):
        decode(encode(SETTLED, "worker-7")[:-1])
    with pytest.raises(CodecError, match='from "worker-7" refused: too long'):
        decode(encode(SETTLED, "worker-7") + b"x")
    assert codec.sender_of(encode(SETTLED, "worker-7")[:20]) == "worker-7"
    assert codec.sender_of(b"GET / HTTP/1.1") == "unknown"


def test_another_schema_is_refused() -> None:
    data = bytearray(encode(SETTLED, "old"))
    newer = bytes(data[:2]) + bytes([codec.VERSION + 1]) + bytes(data[3:])
    with pytest.raises(CodecError, match='from "old" refused: schema version 3, this camlink reads 2'):
        decode(newer)
    data[4] ^= 1  # the fingerprint of the fields
    with pytest.raises(CodecError, match='from "old" refused: its Settled has other fields'):
        decode(bytes(data))
    data[3] = 200
    with pytest.raises(CodecError, match="kind 200 is not known"):
        decode(bytes(data))


def with_body(record: Any, change: Any) -> bytes:
    """Return an encoded record whose body was tampered with, its length put right."""
    data = encode(record, "rogue")
    start = 9 + len("rogue")
    body = msgspec.msgpack.encode(change(msgspec.msgpack.decode(data[start + 4 :])))
    return data[:start] + struct.pack(">I", len(body)) + body


OUTPUT = ModelOutput("a", 1, NOW, "persons", np.ones(2, np.float32), "serve", "executed")
RESULT = FrameResult("a", 1, NOW, "serve", (OUTPUT,))


def with_value(*array: Any) -> Any:
    return lambda b: b | {"outputs": [b["outputs"][0] | {"value": list(array)}]}


@pytest.mark.parametrize(
    ("record", "change", "complaint"),
    [
        (SETTLED, lambda b: b | {"camera_id": 7}, "Expected `str`, got `int` - at `$.camera_id`"),
        (SETTLED, lambda b: b | {"frame_index": True}, "Expected `int`, got `bool` - at `$.frame_index`"),
        (SETTLED, lambda b: b | {"captured_at": 5}, "at `$.captured_at`"),
        (SETTLED, lambda b: b | {"captured_at": "2026-03-01T12:00:00"}, "where a time in UTC belongs"),
        (SETTLED, lambda b: b | {"quiet_until": "2026-03-01T12:00:00+02:00"}, "where a time in UTC belongs"),
        (SETTLED, lambda b: {"camera_id": "x"}, "missing required field `frame_index`"),
        (SETTLED, lambda b: list(b.values()), "Expected `object`, got `array`"),
        (RelabelRequest("a", 1, NOW, ("m",), ""), lambda b: b | {"models": "all"}, "`$.models`"),
        (LinkPromotion("a", "m", 1, NOW, b"x"), lambda b: b | {"payload": 1}, "`$.payload`"),
        (RESULT, lambda b: b | {"purpose": "fun"}, "Invalid enum value 'fun'"),
        (RESULT, lambda b: b | {"outputs": [b["outputs"][0] | {"camera_id": "../x"}]}, "which name a folder"),
        (RESULT, lambda b: b | {"outputs": [b["outputs"][0] | {"captured_at": "2026-03-01"}]}, "captured_at"),
        (RESULT, with_value("<f4", [3], bytes(8)), "8 bytes for an array of float32 of shape [3]"),
        (RESULT, with_value("<f4", [-2], bytes(8)), "is no shape"),
        (RESULT, with_value("<f4", [1, 1, 1, 2], bytes(8)), "is no shape"),
        (RESULT, with_value("O", [1], bytes(8)), "where an array belongs"),
        (RESULT, with_value("<f4", 2, bytes(8)), "where an array belongs"),
        (RESULT, with_value("<f4", [2]), "where an array belongs"),
        (frame(16, 16), lambda b: b | {"shape": [16, 17, 3]}, "announced as"),
        (frame(16, 16), lambda b: b | {"shape": [60_000, 60_000, 3]}, "announced as"),
        (frame(16, 16), lambda b: b | {"shape": [-1, 2, 3]}, "announced as"),
        (frame(16, 16), lambda b: b | {"shape": [0, -1, 3], "jpeg": b""}, "announced as"),
        (frame(16, 16), lambda b: b | {"shape": [16, 16]}, "Expected `array` of length 3"),
    ],
)
def test_a_forged_body_is_refused_with_the_field_at_fault(record: Any, change: Any, complaint: str) -> None:
    with pytest.raises(CodecError, match=r'from "rogue" refused') as refusal:
        decode(with_body(record, change))
    assert complaint in str(refusal.value)


def test_a_picture_that_claims_more_than_its_bytes_hold_is_refused() -> None:
    data = encode(frame(64, 64), "rogue")
    jpeg = data.index(b"\xff\xd8")
    with pytest.raises(CodecError, match="rogue"):
        decode(data[:jpeg] + bytes(len(data) - jpeg))


def test_a_pickle_is_never_opened() -> None:
    with pytest.raises(CodecError, match="no camlink record"):
        decode(pickle.dumps(SETTLED))
    source = [path.read_text() for path in _modules()]
    assert not any("import pickle" in text or "allow_pickle=True" in text for text in source)


def _modules() -> list[Any]:
    from pathlib import Path

    import camlink

    root = Path(camlink.__file__).parent.resolve().parent
    return [p for folder in ("pipeline", "operators", "links") for p in (root / folder).rglob("*.py")]


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 60), st.integers(0, 255))
def test_garbage_is_refused_and_never_anything_else(tail: bytes, place: int, byte: int) -> None:
    data = bytearray(encode(SETTLED, "x") + tail)
    data[place % len(data)] = byte
    try:
        decode(bytes(data))
    except CodecError:
        return
    assert not tail  # only a changed letter or digit within a field can pass


@pytest.mark.parametrize(
    "name", ["../../etc", "/etc", "..", ".", "a/b", "a\\b", "hall\0", "", "h" * 65, "hall\n", "Süd"]
)
def test_a_name_that_could_lead_out_of_its_folder_is_refused_with_the_sender(name: str) -> None:
    promotions = LinkPromotion("hall", name, 1, NOW, b""), LinkPromotion(name, "persons", 1, NOW, b"")
    for record in (Settled(name, 7, NOW), *promotions):
        with pytest.raises(CodecError, match='record from "mallory" refused'):
            decode(encode(record, "mallory"))
