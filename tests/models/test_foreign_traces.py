"""Traces as other programs write them: `camlink replay` and `camlink compare` read them alike, or refuse them alike."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from camlink.models.recorded import open_trace
from camlink.models.trace_arrays import open_arrays
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.errors import TraceError
from tests.models.tiny import write_trace

YAML = "models:\n  people: {size: 1, task: count, time_ms: 20, memory_gb: 1}\n"
TIMES = pa.array([EPOCH + timedelta(seconds=i) for i in range(4)], pa.timestamp("us", "UTC"))

Change = Callable[[dict[str, Any]], dict[str, Any]]


def write_tables(folder: Path, frames: dict[str, Any], outputs: dict[str, Any]) -> Path:
    """Write a trace of four frames of one camera, with these columns in place of the plain ones."""
    index = pa.array(range(4))
    plain = {"camera_id": pa.array(["a"] * 4), "frame_index": index, "captured_at": TIMES}
    said = {"camera_id": plain["camera_id"], "frame_index": index, "model": pa.array(["people"] * 4)}
    folder.mkdir()
    (folder / "trace.yaml").write_text(YAML)
    parquet.write_table(pa.table(plain | frames), folder / "frames.parquet")
    values = {"value": pa.array([[float(i)] for i in range(4)])}
    parquet.write_table(pa.table(said | values | outputs), folder / "outputs.parquet")
    return folder


def test_a_table_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    folder = write_trace(tmp_path / "t")
    for name in ("frames.csv", "outputs.csv", "trace.yaml"):
        text = (folder / name).read_text()
        (folder / name).write_text(text, encoding="utf-8-sig")
    assert len(open_trace(folder).frames) == sum(map(len, open_arrays(folder).cameras)) == 8


def test_numbers_name_cameras_too(tmp_path: Path) -> None:
    numbers = {"camera_id": pa.array([7] * 4)}
    folder = write_tables(tmp_path / "t", numbers, numbers)
    trace = open_trace(folder)
    assert {frame.camera_id for frame in trace.frames} == {"7"}
    assert trace.model("people").run(trace.frames)[3].value.tolist() == [3.0]
    assert [camera.camera_id for camera in open_arrays(folder).cameras] == ["7"]


def test_times_in_nanoseconds_are_read_to_the_microsecond(tmp_path: Path) -> None:
    finer = pa.array([t.value * 1000 + 123 for t in TIMES]).cast(pa.timestamp("ns", "Asia/Singapore"))
    folder = write_tables(tmp_path / "t", {"captured_at": finer}, {})
    assert [frame.captured_at for frame in open_trace(folder).frames] == TIMES.to_pylist()
    assert open_arrays(folder).cameras[0].time_s.tolist() == [t.timestamp() for t in TIMES.to_pylist()]


@pytest.mark.parametrize(
    ("frames", "outputs", "message"),
    [
        ({"captured_at": TIMES.cast(pa.timestamp("us"))}, {}, r"frames.parquet:1: captured_at .* has no time zone"),
        ({"frame_index": pa.array([0.0, 1.0, 2.5, 3.0])}, {}, r"frames.parquet:3: frame_index 2.5 is no whole number"),
        ({"camera_id": pa.array(["a", "", "a", "a"])}, {}, r"frames.parquet:2: has no camera_id"),
        ({}, {"camera_id": pa.array(["a", "a", None, "a"])}, r"outputs.parquet:3: has no camera_id"),
        ({}, {"model": pa.array(["people", None] * 2)}, r"outputs.parquet:2: has no model"),
        (
            {},
            {"value": pa.array([[0.0], [1.0], [1.0], [-1.0]])},
            r'outputs.parquet:4: .* of "people" has a count below 0',
        ),
    ],
)
def test_what_would_be_misread_is_refused_with_its_row(
    frames: dict[str, Any], outputs: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_tables(tmp_path / "t", frames, outputs)
    for read in (open_trace, open_arrays):
        with pytest.raises(TraceError, match=message):
            read(folder)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{size: 2.0, task: count, time_ms: 1, memory_gb: 1}", "size must be a whole number, got 2.0"),
        ("{size: 2, task: count, labels: ab, time_ms: 1, memory_gb: 1}", "labels must be a list, got 'ab'"),
    ],
)
def test_models_that_are_described_wrongly_are_refused_with_their_line(
    model: str, message: str, tmp_path: Path
) -> None:
    folder = write_trace(tmp_path / "t")
    (folder / "trace.yaml").write_text(f"models:\n  people: {model}\n")
    for read in (open_trace, open_arrays):
        with pytest.raises(TraceError, match=f'trace.yaml:2: model "people": {message}'):
            read(folder)
