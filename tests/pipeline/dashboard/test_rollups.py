"""Running sums over a growing folder equal what is counted from all its rows at once."""

from __future__ import annotations

import shutil
import tracemalloc
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camlink.models.base import OutputSpec
from camlink.operators.evidence import certify
from camlink.pipeline.certificates import answers, camera_evidence, model_evidence
from camlink.pipeline.dashboard.buckets import Buckets
from camlink.pipeline.dashboard.library import REFRESH_S, OpenRun
from camlink.pipeline.dashboard.parts import NewParts
from camlink.pipeline.dashboard.rollups import (
    KEYS_KEPT,
    N_ABSTAINED,
    N_EXECUTED,
    N_PREDICTED,
    QUIET,
    CameraState,
    RunRollups,
)
from camlink.pipeline.dashboard.seen_frames import BLOCK, BLOCKS, SeenFrames
from camlink.pipeline.dashboard.trust import trust_of_cameras, trusts_of_cameras
from camlink.pipeline.errors import ResultsError
from camlink.pipeline.records import CalibratedOutput, CameraEvent, FrameDropped, FrameResult, ModelOutput
from camlink.pipeline.reports.rows import read_camera
from camlink.pipeline.results import ResultsLog, RunInfo, RunResults
from camlink.pipeline.results.tables import microseconds
from camlink.pipeline.testing import START
from tests.pipeline.dashboard.conftest import HALL, YARD


def refreshed(folder: Path) -> RunRollups:
    rollups = RunRollups(folder)
    rollups.refresh()
    return rollups


def test_counts_equal_those_of_the_rows(runs: Path) -> None:
    rollups, results = refreshed(runs / "replayed"), RunResults(runs / "replayed")
    for camera_id in (HALL, YARD):
        rows = results.outputs(camera_id).select(["model", "how", "served"]).to_pylist()
        counts = Counter((row["model"], row["how"], row["served"]) for row in rows)
        for name, model in rollups.cameras[camera_id].models.items():
            served = Counter({how: n for (m, how, ok), n in counts.items() if m == name and ok})
            assert +model.served == served
            assert model.executions == sum(n for (m, how, _), n in counts.items() if m == name and how == "executed")


def test_certificates_equal_those_made_from_all_rows(runs: Path) -> None:
    rollups = refreshed(runs / "replayed")
    rows = read_camera(RunResults(runs / "replayed"), HALL)
    camera = rollups.cameras[HALL]
    told = {name: answers(model) for name, model in rows.models.items()}
    assert certify(camera.evidence) == certify(camera_evidence(told.values()))
    for name, model in camera.models.items():
        assert certify(model.audit.evidence) == certify(model_evidence(told[name]))
    assert certify(camera.evidence).audits > 20


def test_parts_that_come_one_by_one_give_the_same_as_all_at_once(runs: Path, tmp_path: Path) -> None:
    whole, source = refreshed(runs / "replayed"), runs / "replayed"
    shutil.copytree(source, tmp_path / "run", ignore=shutil.ignore_patterns("part-*"))
    growing = RunRollups(tmp_path / "run")
    read = [part for part in source.glob("**/part-*.parquet") if "boxes" not in part.relative_to(source).parts]
    for part in sorted(read, key=lambda part: part.name):
        target = tmp_path / "run" / part.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(part, target)
        assert growing.refresh()
    for camera_id, camera in whole.cameras.items():
        again = growing.cameras[camera_id]
        assert {n: m.served for n, m in camera.models.items()} == {n: m.served for n, m in again.models.items()}
        one, other = certify(camera.evidence), certify(again.evidence)
        assert (one.audits, one.frames) == (other.audits, other.frames)
        assert one.estimate == pytest.approx(other.estimate)
        assert len(camera.decisions) == len(again.decisions) > 0


def test_rows_that_were_written_twice_count_once(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "replayed", tmp_path / "run")
    once = refreshed(tmp_path / "run")
    before = {name: model.served.copy() for name, model in once.cameras[HALL].models.items()}
    decisions = len(once.cameras[HALL].decisions)
    for part in list((tmp_path / "run").glob("**/part-*.parquet")):
        shutil.copy(part, part.with_name(f"part-{999:06d}-{part.stem[-8:]}.parquet"))
    assert once.refresh()
    assert {name: model.served for name, model in once.cameras[HALL].models.items()} == before
    assert len(once.cameras[HALL].decisions) == decisions


def test_nothing_new_changes_nothing(runs: Path) -> None:
    rollups = refreshed(runs / "replayed")
    version = rollups.version
    assert not rollups.refresh()
    assert rollups.version == version


def test_what_a_person_would_say_is_left_to_reports(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "replayed", tmp_path / "run")
    rollups = refreshed(tmp_path / "run")
    said = CalibratedOutput(HALL, 3, START, "people", np.float32([2.0]), ("persons",), 0.7)
    with ResultsLog(tmp_path / "said", specs=RunInfo.load(tmp_path / "run").specs()) as log:
        log.write([said])
    shutil.copytree(tmp_path / "said" / "calibrated", tmp_path / "run" / "calibrated")
    assert (tmp_path / "run" / "calibrated").is_dir()
    rollups.refresh()
    assert rollups.cameras.keys() == refreshed(runs / "replayed").cameras.keys()


def test_a_part_that_is_no_parquet_is_named(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "replayed", tmp_path / "run")
    broken = next((tmp_path / "run").glob("outputs/*/*")) / "part-000099-broken.parquet"
    broken.write_bytes(b"no parquet")
    with pytest.raises(ResultsError, match=r"part-0000\d\d"):
        refreshed(tmp_path / "run")


def test_days_beyond_the_window_are_left_unread(tmp_path: Path) -> None:
    for day in ("2026-01-01", "2026-01-04", "2026-01-05", "not-a-day"):
        folder = tmp_path / "outputs" / f"day={day}" / "camera=hall"
        folder.mkdir(parents=True)
        (folder / "part-000001-x.parquet").touch()
    parts = NewParts(tmp_path, days=2)
    found = parts.take()["outputs"]
    assert [Path(file).parents[1].name for file in found] == ["day=2026-01-04", "day=2026-01-05"]
    assert parts.since == date(2026, 1, 4)
    (tmp_path / "outputs" / "day=2026-01-06").mkdir()
    parts.take()
    assert parts.since == date(2026, 1, 4), "what was read is known still"
    whole = NewParts(tmp_path, days=9)
    whole.take()
    assert whole.since is None


def test_files_that_appear_within_one_tick_of_the_clock_are_found(tmp_path: Path) -> None:
    (tmp_path / "drops").mkdir()
    parts = NewParts(tmp_path, days=1)
    for name in ("part-1.parquet", "part-2.parquet", ".part-3.parquet.tmp"):
        (tmp_path / "drops" / name).touch()
        found = parts.take()
        assert [Path(file).name for file in found.get("drops", [])] == [name][: name.startswith("part")]


@given(st.lists(st.integers(0, 200_000), max_size=60), st.lists(st.integers(0, 200_000), max_size=60))
def test_each_frame_is_new_exactly_once(first: list[int], second: list[int]) -> None:
    seen, known = SeenFrames(), set[int]()
    for indexes in (first, second):
        fresh = seen.new(np.array(indexes, np.int64))
        expected = []
        for index in indexes:
            expected.append(index not in known)
            known.add(index)
        assert fresh.tolist() == expected


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=80), st.integers(1, 40))
def test_growing_buckets_lose_nothing(times: list[int], at_once: int) -> None:
    buckets = Buckets(columns=1, width_us=1, capacity=16, grows=True)
    for start in range(0, len(times), at_once):
        some = np.array(times[start : start + at_once], np.int64)
        buckets.add(some, np.ones((len(some), 1)), some.astype(float))
    filled = buckets.read()
    assert filled.sums.sum() == len(times)
    assert len(filled.starts_us) <= 16
    assert np.nanmin(filled.low) == min(times) and np.nanmax(filled.high) == max(times)
    assert (np.diff(filled.starts_us) > 0).all()


def test_a_span_of_fixed_width_keeps_its_newest_part() -> None:
    buckets = Buckets(columns=1, width_us=10, capacity=3)
    buckets.add(np.array([0, 11, 22]), np.ones((3, 1)), np.zeros(3))
    buckets.add(np.array([45, 5]), np.ones((2, 1)), np.zeros(2))  # 5 is too old by now
    assert buckets.read().starts_us.tolist() == [20, 40]


def test_buckets_hold_every_served_output_once(runs: Path) -> None:
    camera = refreshed(runs / "replayed").cameras[HALL]
    for model in camera.models.values():
        sums = model.series["all"].read().sums
        assert sums[:, [N_EXECUTED, N_PREDICTED, N_ABSTAINED]].sum() == model.served.total()


def test_many_cameras_at_once_are_trusted_like_each_alone(runs: Path) -> None:
    rollups = refreshed(runs / "replayed")
    info = replace(rollups.info, complete=False)
    cameras = [*rollups.cameras.values(), CameraState("new", {})]
    for camera, found in zip(cameras, trusts_of_cameras(cameras, info), strict=True):
        alone = trust_of_cameras([camera], info)
        assert (found is None) == (alone is None) == (camera.camera_id == "new")
        if found is not None and alone is not None:
            assert (found.audits, found.baseline) == (alone.audits, alone.baseline)
            assert (found.low, found.mean, found.high) == pytest.approx((alone.low, alone.mean, alone.high))


def test_of_many_cameras_all_live_at_once_and_are_worked_in_by_turns(tmp_path: Path) -> None:
    cameras = [f"cam-{number:03d}" for number in range(200)]
    specs = {"persons": OutputSpec("persons", "vector", 1, "count")}
    told = {"persons": {"task": "count", "size": 1}}
    info = RunInfo("run", "0", 0, "mlink", told, {c: {} for c in cameras}, START, live=True)
    (tmp_path / "run").mkdir()
    info.save(tmp_path / "run")
    log, rollups = ResultsLog(tmp_path / "run", specs=specs), RunRollups(tmp_path / "run")

    def comes(index: int) -> None:
        at = START + timedelta(seconds=index)
        outputs = [ModelOutput(c, index, at, "persons", np.ones(1, np.float32), "serve", "executed") for c in cameras]
        log.write([FrameResult(o.camera_id, index, at, "serve", (o,)) for o in outputs])
        log.flush()

    def worked_in() -> list[int]:
        return [rollups.cameras[c].models["persons"].executions for c in cameras]

    comes(0)
    rollups.refresh()
    assert worked_in() == [1] * 200, "a run that is opened is shown whole"
    for index in range(1, 7):
        comes(index)
        assert rollups.refresh()
        states = [rollups.cameras[c] for c in cameras]
        assert {s.frames() for s in states} == {index + 1}
        assert {s.last_us for s in states} == {microseconds(START + timedelta(seconds=index))}
        assert sum(not s.new for s in states) == -(-200 // 6)
    assert min(worked_in()) > 1, "all had their turn"
    with rollups.lock:
        assert rollups.up_to_date("cam-000").models["persons"].executions == 7  # type: ignore[union-attr]
    for _ in range(QUIET):
        rollups.refresh()
    assert worked_in() == [7] * 200, "nothing comes any more, so nothing is left waiting"


def test_drops_one_by_one_over_weeks_take_hardly_any_memory_and_repeats_are_not_counted(tmp_path: Path) -> None:
    """An overload drops frames one by one, a day and more long: what was seen of them is one bit each."""

    def write(frames: range, reason: str) -> None:
        with ResultsLog(tmp_path) as log:
            log.write(FrameDropped("hall", n, 1, START + timedelta(seconds=n), reason) for n in frames)

    RunInfo("run", "1", 0, "all", {}, {}, START).save(tmp_path)
    write(range(100), "overload")
    rollups = refreshed(tmp_path)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    write(range(50, 20_000), "overload")
    write(range(3), "stale")
    rollups.refresh()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert rollups.cameras["hall"].dropped == {"overload": 20_000, "stale": 3}
    assert grown < 2_000_000


def test_what_happened_over_weeks_takes_a_bounded_memory(tmp_path: Path) -> None:
    RunInfo("run", "1", 0, "all", {}, {}, START).save(tmp_path)
    with ResultsLog(tmp_path) as log:
        log.write(CameraEvent("hall", START + timedelta(seconds=n), "down", "") for n in range(KEYS_KEPT + 500))
    rollups = refreshed(tmp_path)
    assert len(rollups._keys["camera_events"]) == KEYS_KEPT
    assert rollups.cameras["hall"].events[-1]["at"] == START + timedelta(seconds=KEYS_KEPT + 499)


def test_a_frame_from_a_clock_that_ran_ahead_does_not_hide_the_present(tmp_path: Path) -> None:
    """A camera's machine that came up in 2036 for a moment."""
    for day in ("2026-01-04", "2026-01-05", "2025-12-01", "2036-01-01"):
        (folder := tmp_path / "outputs" / f"day={day}" / "camera=hall").mkdir(parents=True)
        (folder / f"part-000001-{day}.parquet").touch()

    def days_read(now: datetime) -> list[str]:
        found = NewParts(tmp_path, 7, now_ns=lambda: int(now.timestamp() * 1e9)).take()["outputs"]
        return [Path(file).stem[12:] for file in found]

    assert days_read(START) == ["2026-01-04", "2026-01-05", "2036-01-01"]
    assert days_read(datetime(1970, 1, 1, tzinfo=UTC)) == ["2036-01-01"], "where all is ahead, the newest day counts"


def test_a_camera_that_counts_from_0_again_after_millions_of_frames_is_counted_on() -> None:
    seen = SeenFrames()
    assert seen.new(np.arange(BLOCKS) * BLOCK).all()
    assert seen.new(np.array([0, 1, 2])).tolist() == [False, True, True]
    assert seen.new(np.array([BLOCKS * BLOCK])).tolist() == [True], "and the block that came first is forgotten"
    assert seen.new(np.array([5, 6])).tolist() == [True, True]
    assert seen.new(np.array([5, 7])).tolist() == [False, True]


def test_a_fault_while_a_run_is_followed_is_told_and_followed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread that follows all runs must outlive it: pages would stand still and not say so."""
    RunInfo("run", "1", 0, "all", {}, {}, START).save(tmp_path / "run")
    run = OpenRun("run", tmp_path / "run", days=7)

    def fail(*, watched: bool) -> bool:
        raise KeyError(0)

    with monkeypatch.context() as broken:
        broken.setattr(run.rollups, "refresh", fail)
        run.refresh(0.0)
        run.refresh(REFRESH_S)
    assert "KeyError" in run.problem and caplog.text.count("KeyError: 0") == 1
    run.refresh(2 * REFRESH_S)
    assert run.problem == ""
