"""What is recorded is what plays back, boxes and all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from camlink.models.base import Inference, OutputSpec
from camlink.models.pool import ModelPool
from camlink.models.recorded import open_trace
from camlink.models.trace_arrays import open_arrays
from camlink.pipeline.commands import running
from camlink.pipeline.errors import ModelError, TraceError
from camlink.pipeline.progress import Progress
from camlink.pipeline.recording import MOST_IN_A_ROW, TraceWriter, check_replayable, record_trace
from camlink.pipeline.records import Detections, Frame
from camlink.pipeline.testing import TinyModel, make_frames


class Detector(TinyModel):
    """Sees as many boxes as the frame's index says: the first of each frame sure, the others doubtful."""

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        return [Inference(np.float32([min(f.index, 1), 0]), boxes(f.index)) for f in frames]


def boxes(count: int) -> Detections:
    rng = np.random.default_rng(count)
    scores = np.where(np.arange(count) == 0, 0.9, 0.15).astype(np.float32)
    return Detections(rng.random((count, 4)).astype(np.float32), scores, (np.arange(count) % 2).astype(np.int32))


def record(folder: Path) -> Path:
    detector = Detector(OutputSpec("people", "vector", 2, "count", ("person", "bag")), lambda frame: 0)
    pool = ModelPool([detector, TinyModel.count("light", lambda frame: 1)])
    with TraceWriter(folder, pool) as trace:
        record_trace(make_frames("hall", 4), pool, trace, Progress(pool.specs))
    return folder


def test_boxes_play_back_as_they_were_recorded(tmp_path: Path) -> None:
    trace = open_trace(record(tmp_path / "t"))
    for frame, played in zip(trace.frames, trace.model("people").run(trace.frames), strict=True):
        found, expected = played.detections, boxes(frame.index)
        assert found is not None
        assert found.xyxy.shape == (frame.index, 4)
        np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-5)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        np.testing.assert_array_equal(found.classes, expected.classes)
        assert not found.xyxy.flags.writeable


def test_a_recording_tells_how_far_it_is_and_nothing_of_what_a_run_saves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "PLAIN_EVERY_S", 0.0)
    progress = Progress({}, frames=3)
    with running.shown_progress(progress, 9, say=lambda _: "") as tick:
        tick()
    assert capsys.readouterr().err == "3 of 9 frames\n"


@pytest.mark.parametrize("frames", [4, 3000], ids=["when it is closed", "while it is written"])
def test_a_full_disk_is_an_error_that_names_the_trace(tmp_path: Path, frames: int) -> None:
    (folder := tmp_path / "t").mkdir()
    (folder / "outputs.csv").symlink_to("/dev/full")
    pool = ModelPool([TinyModel.count("light", lambda frame: 1)])
    told = pytest.raises(TraceError, match=r"t: a trace cannot be written here: No space left")
    with told, TraceWriter(folder, pool) as trace:
        record_trace(make_frames("hall", frames), pool, trace, Progress(pool.specs))


def test_no_boxes_and_boxes_that_were_not_recorded_differ(tmp_path: Path) -> None:
    trace = open_trace(record(tmp_path / "t"))
    assert trace.model("people").run(trace.frames[:1])[0].detections is not None
    assert trace.model("light").run(trace.frames[:1])[0].detections is None


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("[[0.1, 0.1, 0.2, 0.2, 0.9]]", r"outputs\.csv:4: detections .* wanted \[x1, y1, x2, y2, score, class\] each"),
        ("[[0.1, 0.1, 0.2, 0.2, 0.9, 2]]", r"outputs\.csv:4: .* classes 0 to 1"),
        ("[[0.1, 0.1, 0.2, 0.2, NaN, 1]]", r"outputs\.csv:4: .* wanted finite numbers"),
        ("[[0.1, 0.1", r"outputs\.csv:4: detections .* no JSON list of boxes"),
    ],
)
def test_malformed_boxes_are_named_with_line(tmp_path: Path, new: str, message: str) -> None:
    folder = record(tmp_path / "t")
    lines = (folder / "outputs.csv").read_text().splitlines()
    assert lines[3].startswith("hall,1,people,")
    lines[3] = f'hall,1,people,"[1, 0]","{new}"'
    (folder / "outputs.csv").write_text("\n".join(lines))
    with pytest.raises(TraceError, match=message):
        open_trace(folder)


def a_trace(folder: Path, camera: str = "hall", of: str | None = None, boxes_too: bool = False) -> Path:
    """Write a trace of two frames of ``camera``, with outputs of the camera ``of``."""
    folder.mkdir()
    boxed = "  finds: {size: 1, task: detections, time_ms: 1, memory_gb: 1}\n" if boxes_too else ""
    (folder / "trace.yaml").write_text(
        f"models:\n  people: {{size: 1, task: count, time_ms: 1, memory_gb: 1}}\n{boxed}", encoding="utf-8"
    )
    frames = "".join(f"{camera},{i},2026-01-01T00:00:0{i}+00:00\n" for i in range(2))
    outputs = "".join(f"{of or camera},{i},people,[1]\n" for i in range(2))
    (folder / "frames.csv").write_text(f"camera_id,frame_index,captured_at\n{frames}", encoding="utf-8")
    (folder / "outputs.csv").write_text(f"camera_id,frame_index,model,value\n{outputs}", encoding="utf-8")
    return folder


def test_a_trace_whose_tables_do_not_meet_is_refused(tmp_path: Path) -> None:
    trace = open_trace(a_trace(tmp_path / "t", of="Hall"))
    with pytest.raises(TraceError, match=r"no frame has an output of people; .* \(cameras of frames: hall\)"):
        check_replayable(trace, trace.models, named_folders=False)


def test_boxes_of_a_trace_are_not_replayed(tmp_path: Path) -> None:
    trace = open_trace(a_trace(tmp_path / "t", boxes_too=True))
    with pytest.raises(TraceError, match="what finds gives is boxes, which can be compared but not served"):
        check_replayable(trace, trace.models, named_folders=False)
    check_replayable(trace, [trace.model("people")], named_folders=True)


def test_a_task_that_nobody_knows_is_not_replayed(tmp_path: Path) -> None:
    folder = a_trace(tmp_path / "t")
    text = (folder / "trace.yaml").read_text()
    (folder / "trace.yaml").write_text(text.replace("task: count", "task: counts"))
    trace = open_trace(folder)
    with pytest.raises(TraceError, match='model "people" has the unknown task "counts"; did you mean "count"'):
        check_replayable(trace, trace.models, named_folders=False)


def test_names_of_a_trace_have_to_serve_as_folders_only_where_folders_are_named_after_them(tmp_path: Path) -> None:
    trace = open_trace(a_trace(tmp_path / "t", camera="Süd 3"))
    check_replayable(trace, trace.models, named_folders=False)
    with pytest.raises(TraceError, match=r'camera "Süd 3" names folders here, .* such as "Sud-3-'):
        check_replayable(trace, trace.models, named_folders=True)


def record_failing(folder: Path, fails_on: range, frames: int = 200) -> dict[str, int]:
    failing = TinyModel.count("people", lambda frame: 1, fails_on=frozenset(fails_on))
    pool = ModelPool([failing, TinyModel.count("light", lambda frame: 2)])
    with TraceWriter(folder, pool) as trace:
        return record_trace(make_frames("hall", frames), pool, trace, Progress(pool.specs))


def test_a_recording_goes_on_where_a_model_fails(tmp_path: Path) -> None:
    failures = range(21, 21 + MOST_IN_A_ROW - 1)
    assert record_failing(tmp_path / "t", failures) == {"people": len(failures)}
    trace = open_trace(tmp_path / "t")
    assert [frame.index for frame in trace.frames] == list(range(200))
    people, light = trace.model("people"), trace.model("light")
    assert [f.index for f in trace.frames if not people.knows("hall", f.index)] == list(failures)
    assert all(light.knows("hall", f.index) for f in trace.frames)
    with pytest.raises(ModelError, match='no output for frame 21 of camera "hall": it failed there'):
        people.run([trace.frames[21]])
    arrays = open_arrays(tmp_path / "t")
    assert len(arrays.cameras[0]) == 200 - len(failures)
    assert any("49 frames left out" in note and "people on 49 frames" in note for note in arrays.notes)


def test_a_recording_ends_where_a_model_goes_on_failing_and_keeps_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r'"people" fails on frame \d+, .* keeps the 72 frames so far'):
        record_failing(tmp_path / "t", range(21, 200))
    trace = open_trace(tmp_path / "t")
    assert len(trace.frames) == 72, "whole batches"
    assert sum(trace.model("people").knows("hall", f.index) for f in trace.frames) == 21
    assert all(trace.model("light").knows("hall", f.index) for f in trace.frames)
