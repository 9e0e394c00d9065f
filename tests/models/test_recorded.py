"""A trace plays back exactly what it holds, and every fault in its files is named with file and line."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from camlink.models.recorded import open_trace
from camlink.pipeline.errors import ModelError, TraceError
from camlink.pipeline.records import FrameStats
from tests.models.tiny import picture, write_trace


def test_plays_back_what_was_recorded(tmp_path: Path) -> None:
    trace = open_trace(write_trace(tmp_path / "t"))
    people = trace.model("people")
    assert [float(answer.value[0]) for answer in people.run(trace.frames)] == [0, 0, 1, 1, 2, 2, 0, 0]
    assert (people.time_ms, people.memory_gb) == (20.0, 1.5)
    assert trace.specs["people"].labels == ("person",)
    assert trace.specs["light"].kind == "vector"
    np.testing.assert_array_equal(trace.model("light").run(trace.frames[:1])[0].value, np.float32([0.25, 0.75]))


def test_frames_are_in_order_of_event_time_and_have_statistics_but_no_pixels(tmp_path: Path) -> None:
    frames = open_trace(write_trace(tmp_path / "t")).frames
    assert [(f.camera_id, f.index) for f in frames[:4]] == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert frames[2].captured_at == datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    assert frames[2].pixels.shape == (0, 0, 3)
    assert frames[2].stats == FrameStats(0.25, 0.5, 101.0)


def test_reads_parquet_as_it_reads_csv(tmp_path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    folder = write_trace(tmp_path / "t")
    from_csv = open_trace(folder)
    for name in ("frames", "outputs"):
        pyarrow.parquet.write_table(pyarrow.csv.read_csv(folder / f"{name}.csv"), folder / f"{name}.parquet")
        (folder / f"{name}.csv").unlink()
    # pyarrow reads the times as naive: state their zone, as a recorder does.
    table = pyarrow.parquet.read_table(folder / "frames.parquet")
    place = table.schema.get_field_index("captured_at")
    zoned = table.column(place).cast(pyarrow.timestamp("us", tz="UTC"))
    pyarrow.parquet.write_table(table.set_column(place, "captured_at", zoned), folder / "frames.parquet")
    from_parquet = open_trace(folder)
    assert [(f.camera_id, f.index, f.captured_at, f.stats) for f in from_parquet.frames] == [
        (f.camera_id, f.index, f.captured_at, f.stats) for f in from_csv.frames
    ]
    for name in from_csv.specs:
        for a, b in zip(
            from_csv.model(name).run(from_csv.frames), from_parquet.model(name).run(from_csv.frames), strict=True
        ):
            np.testing.assert_array_equal(a.value, b.value)


def test_statistics_may_be_missing(tmp_path: Path) -> None:
    folder = write_trace(tmp_path / "t")
    (folder / "frames.csv").write_text("camera_id,frame_index,captured_at\na,0,1970-01-01T00:00:00Z\n")
    assert open_trace(folder).frames[0].stats is None


@pytest.mark.parametrize("number", ["nan", "NaN", "inf", ""])
def test_a_frame_whose_statistics_are_no_numbers_has_none(tmp_path: Path, number: str) -> None:
    folder = write_trace(tmp_path / "t")
    text = (folder / "frames.csv").read_text()
    (folder / "frames.csv").write_text(text.replace("0.25,0.5,101", f"{number},0.5,101"))
    stats = [frame.stats for frame in open_trace(folder).frames]
    assert None in stats and any(stats)


def test_a_frame_that_was_not_recorded_is_an_error_naming_it(tmp_path: Path) -> None:
    model = open_trace(write_trace(tmp_path / "t")).model("people")
    with pytest.raises(ModelError, match=r'trace t: model "people" has no output for frame 9 of camera "a"'):
        model.run([picture(0), picture(9)])
    with pytest.raises(ModelError, match=r'for camera "z"; it knows a, b'):
        model.run([picture(0, camera="z")])


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "outputs.csv",
            "a,1,people,[1]",
            "a,1,people,[1",
            r"outputs\.csv:4: value '\[1' of \"people\" is no JSON list",
        ),
        ("outputs.csv", "a,1,people,[1]", 'a,1,people,"[1,2]"', r"outputs\.csv:4: .* wanted 1 finite numbers"),
        ("outputs.csv", "a,1,people,[1]", "a,1,people,[NaN]", r"outputs\.csv:4: .* wanted 1 finite numbers"),
        ("outputs.csv", "a,1,people,[1]", "a,1,persons,[1]", r'outputs\.csv:4: model "persons" is not in trace\.yaml'),
        ("outputs.csv", "a,1,people,[1]", "a,one,people,[1]", r"outputs\.csv:4: frame_index 'one' is no whole number"),
        ("outputs.csv", "a,1,people,[1]", "a,0,people,[1]", r"outputs\.csv:4: .* had another value before"),
        ("outputs.csv", "a,1,people,[1]", "a,1,people", r"outputs\.csv:4: 3 fields, wanted 4"),
        ("outputs.csv", "camera_id,", "camera,", r"outputs\.csv:1: lacks the column camera_id"),
        ("frames.csv", "1970-01-01T00:01:00+00:00", "1970-01-01T00:01:00", r"frames\.csv:3: .* has no time zone"),
        ("frames.csv", "1970-01-01T00:01:00+00:00", "noon", r"frames\.csv:3: captured_at 'noon' is no ISO 8601 time"),
        ("frames.csv", "a,1,", "a,0,", r'frames\.csv:3: frame 0 of camera "a" stands here a second time'),
        ("frames.csv", "0.25,0.5,101", "much,0.5,101", r"frames\.csv:3: frame statistics"),
        ("trace.yaml", "task: single_label", "sort: x", r'trace\.yaml:3: model "light" lacks task'),
        ("trace.yaml", "size: 1,", "size: 7,", r"trace\.yaml:2: .*1 labels for an output of size 7"),
        ("trace.yaml", "models:", "models: [", r"trace\.yaml:\d+: not YAML"),
        ("trace.yaml", "models:", "modules:", r"trace\.yaml:1: wanted a mapping `models:`"),
    ],
)
def test_malformed_files_are_named_with_line(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    folder = write_trace(tmp_path / "t")
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))
    with pytest.raises(TraceError, match=message):
        open_trace(folder)


@pytest.mark.parametrize("content", [b"models: {a: \xff}", b"models: \x00"])
def test_a_description_that_is_no_text_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trace.yaml").write_bytes(content)
    with pytest.raises(TraceError, match=r"trace\.yaml:1: not YAML"):
        open_trace(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such trace folder"):
        open_trace(tmp_path / "none")
    folder = write_trace(tmp_path / "t")
    (folder / "outputs.csv").unlink()
    with pytest.raises(TraceError, match=r"neither outputs\.csv nor outputs\.parquet"):
        open_trace(folder)


def test_a_spoilt_parquet_is_named(tmp_path: Path) -> None:
    folder = write_trace(tmp_path / "t")
    (folder / "frames.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(TraceError, match=r"frames\.parquet: not Parquet"):
        open_trace(folder)


def test_equal_values_share_one_object(tmp_path: Path) -> None:
    trace = open_trace(write_trace(tmp_path / "t"))
    answers = trace.model("light").run(trace.frames)
    assert len({id(answer) for answer in answers}) == 1
    assert not answers[0].value.flags.writeable
