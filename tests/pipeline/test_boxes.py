"""Boxes of executed detectors stay with a run: those that counted, once each, through merges, restarts and exports."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from camlink.models.base import Inference, OutputSpec
from camlink.models.detections import MAX_BOXES, as_detections
from camlink.models.pool import ModelPool
from camlink.pipeline import durable
from camlink.pipeline.bus.memory import MemoryBus
from camlink.pipeline.cli import app
from camlink.pipeline.errors import RequestError, ResultsError
from camlink.pipeline.graph import GRAPH
from camlink.pipeline.progress import Progress
from camlink.pipeline.recording import TraceWriter, record_trace
from camlink.pipeline.records import Detections, Frame, FrameResult, ModelOutput
from camlink.pipeline.results import ResultsLog, RunInfo, RunResults
from camlink.pipeline.results.merge import Merger
from camlink.pipeline.results.told import BOXES, told_output
from camlink.pipeline.results.worker import ResultsWorker
from camlink.pipeline.testing import TinyModel, make_frames

START = datetime(2026, 3, 2, 23, 59, 58, tzinfo=UTC)  # so that a run goes over midnight
SPECS = {
    "objects": OutputSpec("objects", "vector", 2, "count", ("person", "chair")),
    "action": OutputSpec("action", "vector", 2, "multi_label", ("normal", "fall")),
    "things": OutputSpec("things", "vector", 3, "count"),
}
HEADER = RunInfo("test", "0.1.0", 7, "camlink", {}, {"hall": {}, "yard": {}}, START)


def boxes(*found: tuple[float, int]) -> Detections:
    """Boxes with these scores and labels, each in a place of its own."""
    corners = [[0.01 * n, 0.2, 0.01 * n + 0.05, 0.987654] for n in range(len(found))]
    scores, labels = [score for score, _ in found], [label for _, label in found]
    return as_detections(np.array(corners, np.float32), np.array(scores, np.float32), np.array(labels, np.int32))


def executed(index: int, value: Any, found: Detections | None, model: str = "objects", camera: str = "hall"):
    at = START + timedelta(seconds=index)
    array = None if value is None else np.array(value, np.float32)
    return ModelOutput(camera, index, at, model, array, "serve", "executed", detections=found)


def result(*outputs: ModelOutput) -> FrameResult:
    first = outputs[0]
    return FrameResult(first.camera_id, first.frame_index, first.captured_at, first.purpose, outputs)


def one_person(index: int, camera: str = "hall") -> FrameResult:
    return result(executed(index, [1, 0], boxes((0.9, 0), (0.2, 0)), camera=camera))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    HEADER.save(tmp_path / "run")
    return tmp_path / "run"


def write(run_dir: Path, *results: FrameResult) -> None:
    with ResultsLog(run_dir, specs=SPECS) as log:
        log.write(results)


def kept(run_dir: Path, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in columns) for row in RunResults(run_dir).boxes().to_pylist()]


def test_a_box_is_a_row_with_all_that_is_needed_to_draw_it(run_dir: Path) -> None:
    write(run_dir, result(executed(3, [1, 1], boxes((0.41, 1), (0.91234, 0), (0.3, 0)))))
    first, second = RunResults(run_dir).boxes().to_pylist()
    assert {key: first[key] for key in ("camera_id", "frame_index", "captured_at", "model", "box", "label")} == {
        **{"camera_id": "hall", "frame_index": 3, "captured_at": START + timedelta(seconds=3)},
        **{"model": "objects", "box": 0, "label": "person"},
    }
    assert [first[key] for key in ("score", "x1", "y1", "x2", "y2")] == pytest.approx([0.912, 0.01, 0.2, 0.06, 0.9877])
    assert (second["box"], second["label"]) == (1, "chair"), "the third was not counted"


def test_of_labels_boxes_are_those_that_gave_one_and_labels_without_names_are_numbers(run_dir: Path) -> None:
    action = executed(0, [0.9, 0.135], boxes((0.9, 0), (0.135, 1), (0.6, 0)), "action")
    write(run_dir, result(action, executed(0, [0, 0, 1], boxes((0.7, 2)), "things")))
    assert kept(run_dir, "model", "label") == [("action", "normal"), ("action", "normal"), ("things", "2")]


def test_an_output_without_value_or_boxes_and_one_of_an_unknown_model_have_no_rows(run_dir: Path) -> None:
    failed = replace(executed(0, None, boxes((0.9, 0))), how="failed")
    unknown = executed(2, [1], boxes((0.9, 0)), "nobody")
    beyond = executed(3, [1, 0], boxes((0.9, 2), (0.8, -1)))
    write(run_dir, *map(result, (failed, executed(1, [0, 0], boxes()), executed(1, [1], None), unknown, beyond)))
    assert kept(run_dir, "model") == []
    assert not (run_dir / "boxes").exists()


def test_a_crowd_is_kept_whole_though_a_live_answer_tells_of_the_surest_only(run_dir: Path) -> None:
    crowd = executed(0, [MAX_BOXES + 9, 0], boxes(*((1 - n / 1000, 0) for n in range(MAX_BOXES + 5))))
    write(run_dir, result(crowd))
    assert kept(run_dir, "box") == [(n,) for n in range(MAX_BOXES)]
    assert len(told_output(crowd, SPECS["objects"])["boxes"]) == BOXES


def test_live_answers_and_rows_have_the_same_boxes(run_dir: Path) -> None:
    rng = np.random.default_rng(7)
    for index in range(40):
        number = int(rng.integers(0, 30))
        found = Detections(
            rng.random((number, 4), np.float32),
            rng.random(number, np.float32),
            rng.integers(0, 2, number).astype(np.int32),
        )
        output = executed(index, rng.integers(0, 9, 2), found, ("objects", "action")[index % 2])
        write(run_dir, result(output))
        told = told_output(output, SPECS[output.model])["boxes"]
        rows = RunResults(run_dir).boxes(where=f"frame_index = {index}").to_pylist()
        assert [(box["label"], pytest.approx(box["score"])) for box in told] == [(r["label"], r["score"]) for r in rows]
        assert [pytest.approx(box["xyxy"]) for box in told] == [[r["x1"], r["y1"], r["x2"], r["y2"]] for r in rows]


def test_boxes_lie_by_day_and_camera_as_outputs_do_and_merge_with_them(run_dir: Path) -> None:
    log = ResultsLog(run_dir, specs=SPECS)
    for index in range(12):
        log.write([one_person(index), one_person(index, "yard")])
        log.flush()
    before = RunResults(run_dir).boxes().to_pylist()
    assert len(before) == 24
    assert {part.parent.name for part in run_dir.glob("boxes/**/part-*")} == {"mixed"}
    Merger(run_dir, many=1).merge()
    laid_out = [
        sorted(str(part.parent.relative_to(run_dir / table)) for part in (run_dir / table).rglob("part-*"))
        for table in ("boxes", "outputs")
    ]
    assert laid_out[0] == laid_out[1] and len(laid_out[0]) == 4, "a part for each camera and day"
    assert RunResults(run_dir).boxes().to_pylist() == before
    results = RunResults(run_dir)
    assert results.boxes("yard", day=START.date()).column("frame_index").to_pylist() == [0, 1]


def test_boxes_of_a_frame_that_was_executed_twice_are_those_of_one_of_both(run_dir: Path) -> None:
    """By a worker and by the one that took over from it, say, and not quite alike."""
    once = result(executed(0, [2, 0], boxes((0.9, 0), (0.51, 0))))
    again = result(executed(0, [1, 1], boxes((0.9, 0), (0.52, 1), (0.3, 0))))
    write(run_dir, once, once, again)
    write(run_dir, again)
    write(run_dir, once)
    labels = {(2.0, 0.0): ["person", "person"], (1.0, 1.0): ["person", "chair"]}
    for _ in range(2):
        (row,) = RunResults(run_dir).outputs().to_pylist()
        assert kept(run_dir, "label") == [(label,) for label in labels[tuple(row["value"])]]
        assert Merger(run_dir, many=1).merge()


def test_a_disk_that_is_full_after_the_boxes_loses_and_doubles_none(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, sync = ResultsLog(run_dir, specs=SPECS), durable._sync
    log.write([one_person(0)])

    def full(path: Path) -> None:
        if "outputs" in path.parts:
            raise OSError(28, "No space left on device")
        sync(path)

    with monkeypatch.context() as disk:
        disk.setattr(durable, "_sync", full)
        with pytest.raises(ResultsError, match="No space left"):
            log.flush()
    log.flush()
    assert RunResults(run_dir).outputs().num_rows == 1
    assert kept(run_dir, "frame_index", "box") == [(0, 0)]


def test_a_results_worker_that_is_given_a_frame_again_keeps_its_boxes_once(tmp_path: Path) -> None:
    for results in ([one_person(0), one_person(1)], [one_person(1), one_person(2)]):  # a crash before the commit
        bus = MemoryBus()
        worker = ResultsWorker(GRAPH[-1], bus, tmp_path, SPECS, HEADER)
        for each in results:
            bus.publish("results", each)
        worker.run(stop=iter((False, True)).__next__)
    assert kept(tmp_path, "frame_index", "box", "label") == [(n, 0, "person") for n in range(3)]


def test_a_run_of_a_version_that_kept_no_boxes_has_none(run_dir: Path) -> None:
    with ResultsLog(run_dir) as log:  # as without: it knows no specs
        log.write([one_person(0)])
    assert not (run_dir / "boxes").exists()
    assert RunResults(run_dir).boxes("hall").num_rows == 0
    assert here("report", str(run_dir), "--boxes", str(run_dir / "boxes.csv")).exit_code == 0
    assert len((run_dir / "boxes.csv").read_text().splitlines()) == 1


def here(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


class Finds(TinyModel):
    """A detector that finds up to three people, and one that it is not sure of."""

    def run(self, frames: Any) -> list[Inference]:
        return [Inference(given.value, _people(f)) for f, given in zip(frames, super().run(frames), strict=True)]


def _people(frame: Frame) -> Detections:
    return boxes(*((0.9 - 0.1 * n, 0) for n in range(frame.index // 20 % 4)), (0.15, 0))


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boxes")
    finds = Finds.count("persons", lambda f: f.index // 20 % 4, time_ms=30.0)
    pool = ModelPool([finds, TinyModel.count("objects", lambda f: f.index // 20 % 4, time_ms=30.0)])
    with TraceWriter(folder / "trace", pool) as trace:
        record_trace(make_frames("hall", 200), pool, trace, Progress(pool.specs))
    told = ("--config", "demo", "--answers", str(folder / "answers"), "--out", str(folder / "run"))
    assert here("replay", str(folder / "trace"), *told).exit_code == 0
    return folder


def test_a_replay_keeps_the_boxes_of_what_it_executed_and_no_others(replayed: Path) -> None:
    results = RunResults(replayed / "run")
    rows = results.outputs(where="model = 'persons' AND how = 'executed'").to_pylist()
    known = {row["frame_index"]: row["value"][0] for row in rows}
    assert len(known) < 200, "some were predicted"
    count = results.query("SELECT frame_index, count(*) AS n FROM boxes GROUP BY 1", "boxes").to_pylist()
    assert {row["frame_index"]: row["n"] for row in count} == {index: n for index, n in known.items() if n}
    answers = [json.loads(line) for line in (replayed / "answers").read_text().splitlines()]
    told = {a["frame_index"]: [b["score"] for b in a["answers"]["persons"]["boxes"]] for a in answers}
    for row in results.boxes().to_pylist():
        assert told[row["frame_index"]][row["box"]] == pytest.approx(row["score"])


def test_boxes_are_exported_as_csv_and_as_parquet(replayed: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    results = RunResults(replayed / "run")
    for name in ("all.csv", "all.parquet"):
        said = here("report", str(replayed / "run"), "--no-write", "--boxes", str(tmp_path / name))
        assert f"Boxes: {tmp_path / name}, {results.boxes().num_rows} rows" in said.stdout
    assert pq.read_table(tmp_path / "all.parquet").equals(results.boxes())
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(r["frame_index"]), float(r["x2"])) for r in rows] == [
        (r["frame_index"], pytest.approx(r["x2"])) for r in results.boxes().to_pylist()
    ]
    refused = here("report", str(replayed / "run"), "--day", "2000-01-01", "--boxes", str(tmp_path / "none.csv"))
    assert isinstance(refused.exception, RequestError) and not (tmp_path / "none.csv").exists()
