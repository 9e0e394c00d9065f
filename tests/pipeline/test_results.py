"""The results log: what is written comes back once, survives faults, and keeps only pictures worth looking at."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from camlink.models.base import OutputSpec
from camlink.pipeline import durable
from camlink.pipeline.errors import ResultsError
from camlink.pipeline.records import (
    AdaptationEvent,
    CameraEvent,
    Decision,
    Frame,
    FrameDropped,
    FrameResult,
    LinkPromotion,
    ModelOutput,
    OutputReady,
    Picture,
    RelabelRequest,
)
from camlink.pipeline.reports import build_report
from camlink.pipeline.results import ResultsLog, RunInfo, RunResults

START = datetime(2026, 3, 2, 23, 59, 59, tzinfo=UTC)
SPECS = {"objects": OutputSpec("objects", "vector", 2, "count", ("person", "chair"))}
HEADER = RunInfo("test", "0.1.0", 7, "mlink", {"objects": {"task": "count", "size": 2}}, {"hall": {}}, START)


def output(index: int, how="executed", value=(1.0, 0.0), camera="hall", at=START, **fields) -> ModelOutput:
    held = None if value is None else np.array(value, np.float32)
    return ModelOutput(camera, index, at, "objects", held, fields.pop("purpose", "serve"), how, **fields)


def result(*outputs: ModelOutput) -> FrameResult:
    first = outputs[0]
    return FrameResult(first.camera_id, first.frame_index, first.captured_at, first.purpose, outputs)


def audit(index: int, predicted, executed=(1.0, 0.0)) -> FrameResult:
    shadow = output(index, "linked", predicted, served=False, purpose="audit", audit_probability=0.05)
    return result(output(index, "executed", executed, purpose="audit", audit_probability=0.05), shadow)


def picture(index: int) -> Picture:
    return Picture("hall", index, START, b"\xff\xd8 %d" % index)


def kept(run_dir: Path) -> set[int]:
    return {int(file.stem) for file in run_dir.glob("pictures/hall/*.jpg")}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "one"
    HEADER.save(folder)
    return folder


def test_every_field_of_an_output_comes_back(run_dir):
    linked = output(3, "linked", (2.0, 0.5), sources=("persons",), link_version=4, confidence=0.75, reason="x")
    with ResultsLog(run_dir) as log:
        log.write([result(linked)])
    (row,) = RunResults(run_dir).outputs().to_pylist()
    assert row["captured_at"] == START
    assert row["value"] == [2.0, 0.5]
    assert row["sources"] == ["persons"]
    assert (row["link_version"], row["confidence"], row["reason"]) == (4, 0.75, "x")
    assert (row["served"], row["audit_probability"]) == (True, None)


def test_abstained_output_has_no_value_rather_than_an_empty_one(run_dir):
    with ResultsLog(run_dir) as log:
        log.write([result(output(1)), result(output(2, "abstained", None, reason="deadline"))])
    assert RunResults(run_dir).outputs().column("value").to_pylist() == [[1.0, 0.0], None]


def test_rows_lie_by_day_and_camera(run_dir):
    with ResultsLog(run_dir) as log:
        log.write([result(output(i, at=START + timedelta(seconds=i))) for i in range(3)])
    days = sorted(path.name for path in (run_dir / "outputs").iterdir())
    assert days == ["day=2026-03-02", "day=2026-03-03"]
    assert [p.name for p in (run_dir / "outputs" / days[0]).iterdir()] == ["camera=hall"]


def test_camera_named_like_a_path_cannot_leave_the_run_folder(run_dir):
    for name in ("../../outside", "..", "a/b", ""):
        with ResultsLog(run_dir, specs=SPECS) as log:
            log.write([replace(audit(1, (9.0, 9.0)), camera_id=name), Picture(name, 1, START, b"x")])
    assert [path.name for path in run_dir.parent.iterdir()] == ["one"]
    assert {path.name for path in run_dir.iterdir()} == {"run.json", "outputs", "pictures", "latest"}
    assert RunResults(run_dir).pictures("..").keys() == {1}


def test_repeats_of_a_row_fall_out_but_shadow_and_execution_stay_apart(run_dir):
    for _ in range(2):  # a second delivery after a restart
        with ResultsLog(run_dir) as log:
            log.write([audit(1, (1.0, 0.0))])
            log.write([FrameDropped("hall", 2, 3, START, "queue full"), CameraEvent("hall", START, "down", "timeout")])
    results = RunResults(run_dir)
    assert sorted(results.outputs().column("how").to_pylist()) == ["executed", "linked"]
    assert results.drops().column("count").to_pylist() == [3]
    assert results.camera_events().num_rows == 1


@pytest.mark.parametrize("repeats", [(None, 9), (9, None), (9, 4), (4, 9)])
def test_an_output_that_came_twice_was_known_from_the_first_time_on(run_dir, repeats):
    """A frame that is relabelled again after a crash comes when later ones have been answered."""
    for known in repeats:
        at = None if known is None else START + timedelta(seconds=known)
        with ResultsLog(run_dir) as log:
            log.write([result(output(1, purpose="relabel", served=False, known_after=at))])
    expected = None if None in repeats else START + timedelta(seconds=4)
    assert RunResults(run_dir).outputs().column("known_after").to_pylist() == [expected]


@pytest.mark.parametrize("order", [("executed", "linked", "abstained"), ("abstained", "linked", "executed")])
def test_a_frame_that_was_dealt_with_twice_serves_the_best_that_is_known_of_it(run_dir, order):
    """A worker that wakes after its cameras went to another may have abstained where the other executed."""
    with ResultsLog(run_dir) as log:
        for how in order:
            log.write([result(output(0, how, None if how == "abstained" else (1.0, 0.0)))])
        log.write([result(output(1, "linked")), audit(2, (1.0, 0.0))])
    rows = RunResults(run_dir).outputs().to_pylist()
    assert [(row["frame_index"], row["how"]) for row in rows if row["served"]] == [
        (0, "executed"),
        (1, "linked"),
        (2, "executed"),
    ]
    assert [(row["frame_index"], row["how"]) for row in rows if not row["served"]] == [(2, "linked")]


def test_decisions_and_adaptation_keep_their_mappings_as_json(run_dir):
    end = START + timedelta(hours=1)
    scores = {"objects": {"persons": 0.9}}
    decision = Decision("hall", START, end, ("objects",), ("persons",), (), {"objects": 1.2}, {}, scores, None, "why")
    event = AdaptationEvent("hall", START, "promoted", "persons", 2, "better", {"new": 0.9})
    with ResultsLog(run_dir) as log:
        log.write([decision, event])
    results = RunResults(run_dir)
    (row,) = results.decisions().to_pylist()
    assert json.loads(row["link_scores"]) == scores
    assert (row["start"], row["end"], row["execute"]) == (START, end, ["objects"])
    assert json.loads(results.adaptation().column("scores")[0].as_py()) == {"new": 0.9}


def test_records_that_are_no_results_are_ignored(run_dir):
    pixels = np.zeros((0, 0, 3), np.uint8)
    with ResultsLog(run_dir) as log:
        log.write([Frame("hall", 0, START, pixels), OutputReady("hall", 0, START, "serve", (), ())])
        log.write([RelabelRequest("hall", 0, START, (), ""), LinkPromotion("hall", "objects", 1, START, b"")])
    assert [path.name for path in run_dir.iterdir()] == ["run.json"]


def test_a_result_without_outputs_is_no_row_and_no_trouble(run_dir):
    with ResultsLog(run_dir) as log:
        log.write([FrameResult("hall", 7, START, "relabel", ())])
    assert RunResults(run_dir).outputs().num_rows == 0


def test_run_without_rows_reads_as_empty_tables(run_dir):
    results = RunResults(run_dir)
    for table in (results.outputs("hall"), results.decisions(), results.drops(), results.adaptation()):
        assert table.num_rows == 0
    assert results.cameras() == ["hall"]


def test_rows_are_readable_once_flushed_and_memory_stays_bounded(run_dir):
    log = ResultsLog(run_dir, flush_rows=10)
    for i in range(95):
        log.write([result(output(i))])
    assert RunResults(run_dir).outputs().num_rows == 90
    log.flush()
    assert RunResults(run_dir).outputs().num_rows == 95


def test_half_written_part_is_never_read(run_dir):
    folder = run_dir / "outputs" / "day=2026-03-02" / "camera=hall"
    folder.mkdir(parents=True)
    (folder / ".part-000001-x.parquet.1.tmp").write_bytes(b"PAR1 cut off")
    assert RunResults(run_dir).outputs().num_rows == 0


def test_full_disk_raises_with_the_path_and_loses_no_row(run_dir, monkeypatch):
    log = ResultsLog(run_dir)
    log.write([result(output(1))])
    with monkeypatch.context() as disk:
        disk.setattr(durable, "_sync", lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(ResultsError, match=r"part-000001.*No space left on device"):
            log.flush()
    assert not list(run_dir.rglob("*.tmp"))
    log.flush()
    assert RunResults(run_dir).outputs().num_rows == 1


def test_folder_that_cannot_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResultsError, match="cannot be made"):
        ResultsLog(tmp_path / "file" / "run")


def test_two_writers_share_a_folder(run_dir):
    with ResultsLog(run_dir) as one, ResultsLog(run_dir) as two:
        one.write([result(output(1))])
        two.write([result(output(2))])
    assert RunResults(run_dir).outputs().column("frame_index").to_pylist() == [1, 2]


@pytest.mark.parametrize("picture_first", [True, False])
def test_picture_is_kept_only_where_a_prediction_was_wrong(run_dir, picture_first):
    with ResultsLog(run_dir, specs=SPECS) as log:
        for index, predicted in ((1, (1.0, 0.0)), (2, (5.0, 0.0))):
            pair = [picture(index), audit(index, predicted)]
            log.write(pair if picture_first else pair[::-1])
    assert kept(run_dir) == {2}


def test_pictures_of_the_worst_frames_stay_when_there_are_too_many(run_dir):
    with ResultsLog(run_dir, specs=SPECS, pictures_per_camera=3) as log:
        for index in range(20):
            value = (5.0, 5.0) if index in (4, 11, 17) else (5.0, 0.0)
            log.write([picture(index), audit(index, value)])
    assert kept(run_dir) == {4, 11, 17}


def test_pictures_stay_bounded_however_often_a_writer_begins_anew(run_dir):
    for start in range(0, 50, 10):
        with ResultsLog(run_dir, specs=SPECS, pictures_per_camera=3) as log:
            for index in (*range(start, start + 10), start):  # the bus gives one again
                log.write([picture(index), audit(index, (5.0, 0.0))])
            assert len(kept(run_dir)) == 3
    assert min(kept(run_dir)) >= 40, "how wrong earlier ones were is no longer known: they make room"


def test_equally_wrong_pictures_are_a_sample_of_the_whole_run(run_dir):
    with ResultsLog(run_dir, specs=SPECS, pictures_per_camera=8) as log:
        for index in range(200):
            log.write([picture(index), audit(index, (5.0, 0.0))])
    assert len(kept(run_dir)) == 8
    assert max(kept(run_dir)) > 100


def test_pictures_whose_result_never_comes_do_not_pile_up(run_dir):
    log = ResultsLog(run_dir, specs=SPECS)
    log.write(picture(index) for index in range(1000))
    assert len(log._pictures._pictures) <= 256


def test_header_comes_back_as_saved(tmp_path):
    info = replace(HEADER, finished_at=START, complete=True, captured={"hall": 5}, busy_ms={"objects": 1.5})
    info.save(tmp_path)
    assert RunInfo.load(tmp_path) == info
    assert RunInfo.load(tmp_path / "run.json").specs()["objects"].size == 2


def test_header_of_a_newer_version_is_read_as_far_as_known(tmp_path):
    HEADER.save(tmp_path)
    entries = json.loads((tmp_path / "run.json").read_text()) | {"added_later": 1}
    (tmp_path / "run.json").write_text(json.dumps(entries))
    assert RunInfo.load(tmp_path).name == "test"


@pytest.mark.parametrize("content", [None, "{", "[]", '{"name": "x"}', '{"started_at": "soon"}'])
def test_broken_header_says_which_file(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(ResultsError, match=r"run\.json"):
        RunInfo.load(tmp_path)


def test_broken_part_is_an_error_with_the_folder_not_a_silent_gap(run_dir):
    folder = run_dir / "outputs" / "day=2026-03-02" / "camera=hall"
    folder.mkdir(parents=True)
    (folder / "part-000001-x.parquet").write_bytes(b"not parquet")
    with pytest.raises(ResultsError, match="outputs"):
        RunResults(run_dir).outputs()


def test_columns_that_an_earlier_version_did_not_write_are_empty(run_dir):
    import pyarrow.parquet as pq

    with ResultsLog(run_dir) as log:
        log.write([result(output(1)), Decision("hall", START, START, ("objects",), (), (), {}, {}, {}, None, "why")])
    for file, missing in (
        ("outputs", ["pixel_change", "known_after"]),
        ("decisions", ["trial", "target_states", "certificates"]),
    ):
        (part,) = (run_dir / file).rglob("part-*.parquet")
        pq.write_table(pq.read_table(part, partitioning=None).drop_columns(missing), part)
    results = RunResults(run_dir)
    assert results.outputs("hall").column("pixel_change").to_pylist() == [None]
    assert results.decisions("hall").column("trial").to_pylist() == [None]
    assert build_report(run_dir)["cameras"]["hall"]["frames"]["executed"] == 1
