"""A trace as arrays: the same values as the checked reader gives, quickly, and the same complaints."""

from __future__ import annotations

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
    trace = random_trace(0, 50, 3)
    read = open_arrays(write_arrays(tmp_path / "t", trace.models, trace.cameras, note="made by chance"))
    (camera,), (wanted,) = read.cameras, trace.cameras
    assert read.models == trace.models and read.notes == ()
    np.testing.assert_allclose(camera.time_s, wanted.time_s, atol=1e-6)
    for name in wanted.values:
        np.testing.assert_array_equal(camera.values[name], wanted.values[name])
    for name in wanted.stats:
        np.testing.assert_array_equal(camera.stats[name], wanted.stats[name])
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
    assert arrays.notes[1] == 'trace t: camera "c": 3 frames lack an output of m, n; left out'


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
        (f"{HEAD}\n", "c,0,m,[1]\n", r"the frames table is empty"),
        ("camera_id,captured_at\n", "", r"frames\.csv:1: lacks the column frame_index"),
    ],
)
def test_a_fault_is_named_with_file_and_line(tmp_path: Path, frames: str, outputs: str, where: str) -> None:
    with pytest.raises(TraceError, match=where):
        open_arrays(tiny(tmp_path / "t", frames, outputs))
