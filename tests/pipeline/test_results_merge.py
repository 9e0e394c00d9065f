"""Merging small parts: readers see the same rows before, while and after, whatever stops it half-way."""

from __future__ import annotations

import fcntl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camlink.models.base import OutputSpec
from camlink.pipeline.dashboard.rollups import RunRollups
from camlink.pipeline.errors import ResultsError
from camlink.pipeline.records import FrameDropped, FrameResult, ModelOutput
from camlink.pipeline.results import ResultsLog, RunInfo, RunResults
from camlink.pipeline.results import merge as results_merge
from camlink.pipeline.results.merge import EVERY, Merger, Merging, merged_from

START = datetime(2026, 3, 2, 23, 59, 45, tzinfo=UTC)  # so that a run goes over midnight
SPECS = {"persons": OutputSpec("persons", "vector", 1, "count", ("person",))}
FRAMES = 28  # fewer parts than a log merges by itself
CAMERAS = ("hall", "yard", "../roof")
HEADER = RunInfo("run", "0", 0, "mlink", {"persons": {"task": "count", "size": 1}}, {c: {} for c in CAMERAS}, START)


def result(camera: str, index: int) -> FrameResult:
    at = START + timedelta(seconds=index)
    output = ModelOutput(camera, index, at, "persons", np.array([index % 5], np.float32), "serve", "executed")
    return FrameResult(camera, index, at, "serve", (output,))


def write(log: ResultsLog, indexes: range) -> None:
    """Flush after each frame, as a live run does after each ten seconds."""
    for index in indexes:
        log.write([result(camera, index) for camera in CAMERAS])
        log.write([FrameDropped("hall", 1000 + index, 1, START, "overload")])
        log.flush()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    HEADER.save(folder)
    write(ResultsLog(folder, specs=SPECS), range(FRAMES))
    return folder


def parts(run_dir: Path, pattern: str = "**") -> list[Path]:
    return sorted(run_dir.glob(f"{pattern}/part-*.parquet"))


def rows(run_dir: Path) -> list[dict[str, object]]:
    results = RunResults(run_dir)
    return results.outputs().to_pylist() + results.drops().to_pylist()


def test_a_flush_of_many_cameras_is_one_part(run_dir: Path) -> None:
    assert len(parts(run_dir, "outputs/**")) == FRAMES
    assert {part.parent.name for part in parts(run_dir, "outputs/**")} == {"mixed"}
    assert len(rows(run_dir)) == FRAMES * 4


def test_merged_parts_are_few_and_hold_the_same_rows(run_dir: Path) -> None:
    before = rows(run_dir)
    assert Merger(run_dir, many=10).merge() == 2 * FRAMES
    assert rows(run_dir) == before
    assert len(parts(run_dir, "outputs/day=2026-03-02/camera=hall")) == 1  # the day that is over
    assert len(parts(run_dir, "outputs/**")) == 2 * 3 and len(parts(run_dir, "drops")) == 1
    assert RunResults(run_dir).outputs("../roof").num_rows == FRAMES
    assert Merger(run_dir, many=10).merge() == 0


def test_a_day_that_is_over_ends_as_one_part_per_camera(run_dir: Path) -> None:
    merger = Merger(run_dir, many=1000)
    merger.merge()
    log = ResultsLog(run_dir, specs=SPECS)
    write(log, range(5))  # rows that come late, and some twice
    log.write([result("hall", 12)])
    log.close()
    merger.merge()
    before = rows(run_dir)
    merger.merge()
    assert len(parts(run_dir, "outputs/day=2026-03-02/*")) == 3
    assert rows(run_dir) == before and len(before) == FRAMES * 4
    assert len(parts(run_dir, "outputs/day=2026-03-03/mixed")) == 13, "the day goes on, and they are few"


@pytest.mark.parametrize("stops_at", range(1, 7))
def test_a_merge_that_dies_half_way_loses_and_doubles_nothing(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, stops_at: int
) -> None:
    before, written = rows(run_dir), results_merge.write_durably
    left = iter(range(stops_at))

    def dies(path: Path, fill: object) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        written(path, fill)  # type: ignore[arg-type]

    monkeypatch.setattr(results_merge, "write_durably", dies)
    with pytest.raises(KeyboardInterrupt):
        Merger(run_dir, many=10).merge()
    assert rows(run_dir) == before
    monkeypatch.undo()
    Merger(run_dir, many=10).merge()
    assert rows(run_dir) == before
    assert not parts(run_dir, "outputs/*/mixed")


def test_a_part_that_cannot_be_read_stops_the_merge_and_nothing_is_removed(run_dir: Path) -> None:
    (run_dir / "outputs/day=2026-03-02/mixed/part-000099-x.parquet").write_bytes(b"not parquet")
    before = parts(run_dir)
    with pytest.raises(ResultsError, match="mixed: 16 parts cannot be merged"):
        Merger(run_dir, many=10).merge()
    assert parts(run_dir) == before


def test_a_merge_that_is_told_to_stop_ends_with_its_folder(run_dir: Path) -> None:
    before = rows(run_dir)
    merged = Merger(run_dir, many=10).merge(lambda: True)
    assert 0 < merged < FRAMES
    assert rows(run_dir) == before


def test_a_log_that_is_left_merges_no_more(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends with a thread within Arrow is aborted by the C++ library."""
    reached, go_on = threading.Event(), threading.Event()
    merge_folder = Merger._merge_folder

    def slow(self: Merger, table: str, folder: Path, many: int) -> int:
        reached.set()
        go_on.wait(30)
        return merge_folder(self, table, folder, many)

    monkeypatch.setattr(Merger, "_merge_folder", slow)
    monkeypatch.setattr(results_merge, "EVERY", 1)
    log = ResultsLog(run_dir, specs=SPECS)
    write(log, range(FRAMES, FRAMES + 1))
    assert reached.wait(30)
    threading.Timer(0.05, go_on.set).start()
    log.leave()
    assert not [thread for thread in threading.enumerate() if thread.name == "merging"]
    assert parts(run_dir, "outputs/*/mixed"), "only the folder it was at"


def test_only_one_merges_a_folder_at_a_time(run_dir: Path) -> None:
    with (run_dir / ".merging").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert Merger(run_dir, many=10).merge() == 0
    assert Merger(run_dir, many=10).merge() > 0


def test_a_reader_whose_parts_are_merged_meanwhile_looks_again(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, listed, calls = rows(run_dir), RunResults._files, []

    def merged_after_listing(self: RunResults, *asked: Any) -> list[Path]:
        files = listed(self, *asked)
        if not calls:
            calls.append(Merger(run_dir, many=10).merge())
        return files

    monkeypatch.setattr(RunResults, "_files", merged_after_listing)
    assert rows(run_dir) == before
    assert calls == [2 * FRAMES]


def test_a_dashboard_takes_merged_rows_once(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follows, opens_later = RunRollups(run_dir), RunRollups(run_dir)
    follows.refresh()
    Merger(run_dir, many=10).merge()
    assert not follows.refresh(), "what it knows it need not read again"
    write(ResultsLog(run_dir, specs=SPECS), range(FRAMES, 38))
    assert follows.refresh() and opens_later.refresh()
    for rollups in (follows, opens_later):
        assert [rollups.cameras[name].frames() for name in CAMERAS] == [38] * 3
        assert rollups.cameras["hall"].dropped == {"overload": 38}


def test_a_dashboard_whose_parts_are_merged_meanwhile_looks_again(run_dir: Path) -> None:
    rollups = RunRollups(run_dir)
    taken = rollups._parts.take

    def merged_after_listing() -> dict[str, list[str]]:
        found = taken()
        Merger(run_dir, many=10).merge()
        return found

    rollups._parts.take = merged_after_listing  # type: ignore[method-assign]
    rollups.refresh()
    rollups.refresh()
    assert [rollups.cameras[name].frames() for name in CAMERAS] == [FRAMES] * 3
    assert rollups.cameras["hall"].dropped == {"overload": FRAMES}


def test_a_log_merges_now_and_then_beside_its_work(run_dir: Path) -> None:
    before = len(parts(run_dir))
    merging = Merging(run_dir)
    merging.start_if_due(EVERY - 1)
    assert len(parts(run_dir)) == before
    merging.start_if_due(EVERY)
    merging.join()
    assert len(parts(run_dir)) < before


def test_a_merge_that_fails_is_told_once_and_tried_again(run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = run_dir / "outputs/day=2026-03-02/mixed/part-000099-x.parquet"
    broken.write_bytes(b"not parquet")
    merging = Merging(run_dir)
    for number in range(1, 4):
        merging.start_if_due(number * EVERY)
        merging.join()
    assert len(caplog.messages) == 1 and "not merged" in caplog.text
    broken.unlink()
    merging.start_if_due(4 * EVERY)
    merging.join()
    assert not parts(run_dir, "outputs/day=2026-03-02/mixed")


def test_a_merged_part_names_what_it_replaces(run_dir: Path) -> None:
    sources = {part.name for part in parts(run_dir, "drops")}
    Merger(run_dir, many=10).merge()
    (part,) = parts(run_dir, "drops")
    assert set(merged_from(part)) == sources
