"""A trace as arrays: the same values as the checked reader gives, quickly, and the same complaints."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from camlink.models.recorded import open_trace
from camlink.models.trace_arrays import open_arrays
from camlink.models.trace_writing import write_arrays
from camlink.pipeline.errors import TraceError
from tests.lab_traces import random_trace
from tests.models.tiny import write_trace

HEAD = "camera_id,frame_index,captured_at"


def tiny(folder: Path, frames: str, outputs: str, models: str = "m: {size: 1, task: count}") -> Path:
    folder.mkdir()
    named = models.replace("}", ", time_ms: 1, memory_gb: 1}")
    (folder / "trace.yaml").write_text(f"models:\n  {named}\n")
    (folder / "frames.csv").write_text(frames)
    (folder / "outputs.csv").write_text(f"camera_id,frame_index,model,value\n{outputs}")
    return folder


def moment(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}+00:00"


def test_values_times_and_statistics_are_those_of_the_checked_reader(tmp_path: Path) -> None:
    folder = write_trace(tmp_path / "t")
    trace, arrays = open_trace(folder), open_arrays(folder)
    for camera in arrays.cameras:
        frames = [f for f in trace.frames if f.camera_id == camera.camera_id]
        assert camera.index.tolist() == [f.index for f in frames]
        assert camera.time_s.tolist() == [f.captured_at.timestamp() for f in frames]
        assert camera.stats["pixel_change"].tolist() == [f.stats.pixel_change for f in frames if f.stats]
        for model in trace.models:
            wanted = np.stack([i.value for i in model.run(frames)])
            np.testing.assert_array_equal(camera.values[model.spec.model], wanted)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    trace = random_trace(0, 50, 3, with_detections=True)
    folder = write_arrays(tmp_path / "t", trace.models, trace.cameras, note="made by chance")
    read = open_arrays(folder, detections=True)
    (camera,), (wanted,) = read.cameras, trace.cameras
    assert read.models == trace.models and read.notes == ()
    np.testing.assert_allclose(camera.time_s, wanted.time_s, atol=1e-6)
    for name in wanted.values:
        np.testing.assert_array_equal(camera.values[name], wanted.values[name])
    for name in wanted.stats:
        np.testing.assert_array_equal(camera.stats[name], wanted.stats[name])
    assert camera.detections.keys() == wanted.detections.keys() == wanted.values.keys()
    for name, drawn in wanted.detections.items():
        assert camera.detections[name].lists() == drawn.lists()
    assert not open_arrays(folder).cameras[0].detections, "boxes are read only where they are asked for"
    assert (tmp_path / "t" / "trace.yaml").read_text().startswith("# made by chance\n")


def test_frames_come_in_order_of_time_and_missing_columns_are_named(tmp_path: Path) -> None:
    frames = f"{HEAD}\nc,2,{moment(1)}\nc,1,{moment(2)}\n"
    arrays = open_arrays(tiny(tmp_path / "t", frames, "c,1,m,[1]\nc,2,m,[2]\n"))
    (camera,) = arrays.cameras
    assert camera.index.tolist() == [2, 1] and camera.values["m"].ravel().tolist() == [2.0, 1.0]
    assert camera.stats == {}
    assert arrays.notes == ("trace t: no pixel_change, edge_density, mean_luma on every frame; policies do without",)


def test_frames_without_an_output_are_left_out_and_counted(tmp_path: Path) -> None:
    frames = f"{HEAD}\n" + "".join(f"c,{i},{moment(i)}\n" for i in range(4))
    models = "m: {size: 1, task: count}\n  n: {size: 1, task: count}"
    arrays = open_arrays(tiny(tmp_path / "t", frames, "c,0,m,[1]\nc,1,m,[1]\nc,1,n,[3]\nc,9,m,[3]\n", models))
    (camera,) = arrays.cameras
    assert camera.index.tolist() == [1]
    why = "no output, or one that is null, NaN or infinite, of m on 2 frames, n on 3 frames"
    assert arrays.notes[1] == f'trace t: camera "c": 3 frames left out: {why}'


def test_a_camera_without_one_of_the_models_keeps_the_others(tmp_path: Path) -> None:
    frames = f"{HEAD}\nc,0,{moment(0)}\nd,0,{moment(0)}\n"
    models = "m: {size: 1, task: count}\n  n: {size: 1, task: count}"
    arrays = open_arrays(tiny(tmp_path / "t", frames, "c,0,m,[1]\nc,0,n,[2]\nd,0,m,[1]\n", models))
    assert [list(c.values) for c in arrays.cameras] == [["m", "n"], ["m"]]
    assert 'camera "d" has no outputs of n' in arrays.notes[1]


def test_sequences_are_padded_to_the_longest(tmp_path: Path) -> None:
    frames = f"{HEAD}\nc,0,{moment(0)}\nc,1,{moment(1)}\n"
    models = "m: {kind: sequence, size: 9, task: tokens}"
    arrays = open_arrays(tiny(tmp_path / "t", frames, 'c,0,m,[1]\nc,1,m,"[2, 3, 4]"\n', models))
    assert arrays.cameras[0].values["m"].tolist() == [[1, 0, 0], [2, 3, 4]]


@pytest.mark.parametrize(
    ("frames", "outputs", "where"),
    [
        (f"{HEAD}\nc,0,yesterday\n", "c,0,m,[1]\n", r"frames\.csv:2: captured_at 'yesterday'"),
        (f"{HEAD}\nc,0,2026-01-01T00:00:00\n", "c,0,m,[1]\n", r"frames\.csv:2: .* has no time zone"),
        (f"{HEAD}\nc,x,{moment(0)}\n", "c,0,m,[1]\n", r"frames\.csv:2: frame_index 'x'"),
        (f"{HEAD}\nc,0,{moment(0)}\nc,0,{moment(0)}\n", "c,0,m,[1]\n", r"frames\.csv:3: .* a second time"),
        (f"{HEAD}\nc,0,{moment(0)}\n", "c,0,who,[1]\n", r'outputs\.csv:2: model "who"'),
        (f"{HEAD}\nc,0,{moment(0)}\n", "c,0,m,[1;2]\n", r"outputs\.csv:2: value"),
        (f"{HEAD}\nc,0,{moment(0)}\n", 'c,0,m,"[1, 2]"\n', r"outputs\.csv:2: value .* wanted 1 finite"),
        (f"{HEAD}\nc,0,{moment(0)}\n", "c,0,m,[1]\nc,0,m,[2]\n", r"outputs\.csv:3: .* another value before"),
        (f"{HEAD}\nc,0,{moment(0)}\n", "c,0,m,1\n", r"outputs\.csv:2: value '1' of .m."),
        (f"{HEAD}\n", "c,0,m,[1]\n", r"the frames table is empty"),
        ("camera_id,captured_at\n", "", r"frames\.csv:1: lacks the column frame_index"),
    ],
)
def test_a_fault_is_named_with_file_and_line(tmp_path: Path, frames: str, outputs: str, where: str) -> None:
    with pytest.raises(TraceError, match=where):
        open_arrays(tiny(tmp_path / "t", frames, outputs))


@pytest.mark.parametrize("nothing", ["", "null", "[null]", "[NaN]", "[1e39]"])
def test_an_output_that_is_no_number_is_no_output(tmp_path: Path, nothing: str) -> None:
    frames = f"{HEAD}\n" + "".join(f"c,{i},{moment(i)}\n" for i in range(3))
    arrays = open_arrays(tiny(tmp_path / "t", frames, f"c,0,m,[1]\nc,1,m,{nothing}\nc,2,m,[3]\n"))
    assert arrays.cameras[0].index.tolist() == [0, 2] and arrays.cameras[0].values["m"].ravel().tolist() == [1.0, 3.0]
    why = "no output, or one that is null, NaN or infinite, of m on 1 frame"
    assert arrays.notes[1] == f'trace t: camera "c": 1 frame left out: {why}'


def test_an_output_that_is_no_number_is_no_output_in_parquet_either(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    frames = f"{HEAD}\n" + "".join(f"c,{i},{moment(i)}\n" for i in range(4))
    folder = tiny(tmp_path / "t", frames, "")
    (folder / "outputs.csv").unlink()
    values = pyarrow.array([[1.0], None, [None], [float("nan")]], pyarrow.list_(pyarrow.float32()))
    columns = {"camera_id": ["c"] * 4, "frame_index": range(4), "model": ["m"] * 4, "value": values}
    parquet.write_table(pyarrow.table(columns), folder / "outputs.parquet")
    assert open_arrays(folder).cameras[0].index.tolist() == [0]


def test_frames_may_be_numbered_from_anywhere(tmp_path: Path) -> None:
    far = 1_790_000_000_000_000  # microseconds, as some recorders number frames
    for start in (-3, far):
        frames = f"{HEAD}\n" + "".join(f"{c},{start + i},{moment(i)}\n" for c in "cd" for i in range(3))
        outputs = "".join(f"{c},{start + i},m,[{i}]\n" for c in "cd" for i in range(3))
        arrays = open_arrays(tiny(tmp_path / str(start), frames, outputs))
        assert [c.index.tolist() for c in arrays.cameras] == [[start, start + 1, start + 2]] * 2


BOXES = "m: {size: 2, task: count, labels: [person, car]}\n  n: {size: 1, task: count}"


def with_boxes(folder: Path) -> Path:
    frames = f"{HEAD}\nc,0,{moment(0)}\nc,1,{moment(1)}\n"
    made = tiny(folder, frames, "", BOXES)
    rows = ['c,0,m,"[1, 0]","[[0, 0, 1, 1, 0.5, 0]]"', 'c,1,m,"[0, 0]",[]', "c,0,n,[3],", "c,1,n,[3],"]
    (made / "outputs.csv").write_text("\n".join(["camera_id,frame_index,model,value,detections", *rows, ""]))
    return made


def test_detectors_give_counts_or_boxes_as_asked(tmp_path: Path) -> None:
    folder = with_boxes(tmp_path / "t")
    (counts,), (boxes,) = open_arrays(folder).cameras, open_arrays(folder, boxes=True).cameras
    assert counts.values["m"].tolist() == [[1, 0], [0, 0]] and counts.specs["m"].task == "count"
    assert boxes.values["m"].tolist() == [[0, 0, 1, 1, 0.5, 1], [0, 0, 0, 0, 0, 0]]
    assert (boxes.specs["m"].task, boxes.specs["n"].task) == ("detections", "count")
    (folder / "frames.csv").write_text((folder / "frames.csv").read_text() + "\n")  # an oddity: the checked reader
    np.testing.assert_array_equal(open_arrays(folder, boxes=True).cameras[0].values["m"], boxes.values["m"])


def test_boxes_are_not_written_from_arrays(tmp_path: Path) -> None:
    read = open_arrays(with_boxes(tmp_path / "t"), boxes=True)
    with pytest.raises(TraceError, match="m: boxes are written by `camlink record` only"):
        write_arrays(tmp_path / "u", read.models, read.cameras)


def test_a_trace_without_boxes_says_so(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "t", f"{HEAD}\nc,0,{moment(0)}\n", "c,0,m,[1]\n")
    assert open_arrays(folder, boxes=True).notes[0] == "trace t: holds no boxes; counts are compared instead"


def test_boxes_may_be_a_models_value(tmp_path: Path) -> None:
    frames = f"{HEAD}\nc,0,{moment(0)}\nc,1,{moment(1)}\n"
    models = "m: {size: 3, task: detections}"
    outputs = 'c,0,m,"[[0, 0, 1, 1, 0.5, 2]]"\nc,1,m,"[[0, 0, 1, 1, 0.5, 0], [0, 0, 1, 1, 0.4, 1]]"\n'
    (camera,) = open_arrays(tiny(tmp_path / "t", frames, outputs, models)).cameras
    assert camera.specs["m"].kind == "set" and camera.values["m"][1, [5, 11]].tolist() == [1.0, 2.0]
    with pytest.raises(TraceError, match="m: a box is of no class 0 to 2"):
        open_arrays(tiny(tmp_path / "u", frames, outputs.replace("0.4, 1]", "0.4, 3]"), models))


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("m: {size: 1, task: count, kind: blob}", 'model "m": kind must be one of vector, sequence, set, got "blob"'),
        ("m: {size: 1, task: regression, scale: 0}", 'model "m": scale must be above 0'),
        ("m: {size: 2, task: count, labels: [a]}", 'yaml:2: model "m": 1 labels for an output of size 2'),
    ],
)
def test_a_model_that_cannot_be_is_refused(tmp_path: Path, models: str, said: str) -> None:
    with pytest.raises(TraceError, match=said):
        open_arrays(tiny(tmp_path / "t", f"{HEAD}\nc,0,{moment(0)}\n", "c,0,m,[1]\n", models))


@pytest.mark.parametrize("cost", ["time_ms: -1, memory_gb: 1", "time_ms: 1, memory_gb: .nan"])
def test_a_cost_that_cannot_be_is_refused(tmp_path: Path, cost: str) -> None:
    folder = tiny(tmp_path / "t", f"{HEAD}\nc,0,{moment(0)}\n", "c,0,m,[1]\n")
    (folder / "trace.yaml").write_text(f"models:\n  m: {{size: 1, task: count, {cost}}}\n")
    with pytest.raises(TraceError, match=r'trace\.yaml:2: model "m": (time_ms|memory_gb) must be 0 or more'):
        open_arrays(folder)


def test_a_folder_without_a_description_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"is no trace, for it holds no trace\.yaml"):
        open_arrays(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(TraceError, match="file: is no folder"):
        open_arrays(tmp_path / "file")


def test_reading_takes_little_more_memory_than_the_arrays_themselves(tmp_path: Path) -> None:
    peaks = []
    for frames in (10_000, 60_000):
        made = random_trace(0, frames, 3)
        folder = write_arrays(tmp_path / str(frames), made.models, made.cameras)
        tracemalloc.start()
        (camera,) = open_arrays(folder).cameras
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    kept = [camera.index, camera.time_s, *camera.stats.values(), *camera.values.values()]
    assert (peaks[1] - peaks[0]) / 50_000 < 2.5 * sum(array.nbytes for array in kept) / len(camera)


BOXED = "camera_id,frame_index,model,value,detections"


def boxed(folder: Path, *detections: str) -> Path:
    rows = "".join(f'cam,{i},m,[1],"{boxes}"\n' for i, boxes in enumerate(detections))
    frames = "".join(f"cam,{i},{moment(i)}\n" for i in range(len(detections)))
    tiny(folder, f"{HEAD}\n{frames}", "")
    (folder / "outputs.csv").write_text(f"{BOXED}\n{rows}")
    return folder


@pytest.mark.parametrize("order", ["fast", "checked"])
def test_boxes_behind_counts_are_read_where_a_model_has_them_on_every_frame(tmp_path: Path, order: str) -> None:
    one, other = "[[0.1, 0.2, 0.3, 0.4, 0.9, 0]]", "[[0.1, 0.2, 0.3, 0.4, 0.5, 0], [0, 0, 1, 1, 0.2, 0]]"
    folder = boxed(tmp_path / "t", one, "[]", other)
    if order == "checked":  # an index that is no whole number as written sends the reader there
        text = (folder / "frames.csv").read_text().replace(moment(2), "2026-01-01 00:00:02Z")
        (folder / "frames.csv").write_text(text)
    (camera,) = open_arrays(folder, detections=True).cameras
    drawn = camera.detections["m"]
    assert len(drawn) == 3
    assert [len(drawn.at(row).scores) for row in range(3)] == [1, 0, 2]
    np.testing.assert_allclose(drawn.at(2).scores, [0.5, 0.2])
    np.testing.assert_allclose(drawn.at(0).xyxy, [[0.1, 0.2, 0.3, 0.4]])
    assert drawn.take(np.array([2, 0])).lists() == [drawn.lists()[2], drawn.lists()[0]]
    assert [len(b) for b in drawn.where(drawn.boxes[:, 4] > 0.4).lists()] == [1, 0, 1]


def test_a_model_that_lacks_boxes_on_a_frame_has_none(tmp_path: Path) -> None:
    (camera,) = open_arrays(boxed(tmp_path / "t", "[]", ""), detections=True).cameras
    assert not camera.detections


@pytest.mark.parametrize("wrong", ["[[0.1, 0.2]]", "[3]", "{}", "nonsense"])
def test_boxes_that_are_none_are_named_with_their_line(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(TraceError, match=r"outputs\.csv:3"):
        open_arrays(boxed(tmp_path / "t", "[]", wrong), detections=True)
