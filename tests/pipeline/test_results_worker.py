"""The results worker on its own: full disks, broken listeners, a bus that lost what it held."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow.parquet import ParquetFile

from camlink.models.base import OutputSpec
from camlink.pipeline.bus.memory import MemoryBus
from camlink.pipeline.commands.worker import _promoted as promoted
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.dashboard.health import health_of
from camlink.pipeline.dashboard.rollups import CameraState
from camlink.pipeline.errors import ResultsError
from camlink.pipeline.graph import GRAPH, topic_of
from camlink.pipeline.records import FrameResult, LinkPromotion, ModelOutput, RelabelRequest
from camlink.pipeline.results import RunResults
from camlink.pipeline.results.worker import ResultsWorker
from camlink.pipeline.run_info import RunInfo
from camlink.pipeline.telemetry import Telemetry
from camlink.pipeline.testing import START

SPECS = {"persons": OutputSpec("persons", "vector", 1, "count")}
HEADER = RunInfo("run", "1", 0, "all", {}, {}, datetime.now(UTC))


def result(index: int) -> FrameResult:
    value = np.array([1.0], np.float32)
    output = ModelOutput("hall", index, START, "persons", value, "serve", "executed")
    return FrameResult("hall", index, START, "serve", (output,))


def test_a_full_disk_stops_the_log_and_not_the_bus_and_no_row_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = MemoryBus()
    header = RunInfo("run", "1", 0, "all", {}, {}, datetime.now(UTC))
    now = [0.0]
    worker = ResultsWorker(GRAPH[-1], bus, tmp_path, {}, header, flush_s=1.0, seconds=lambda: now[0])

    def fail() -> None:
        raise ResultsError("no space left")

    bus.publish("results", result(0))
    with monkeypatch.context() as full:
        full.setattr(worker._log, "flush", fail)
        worker.once()
        now[0] += 2
        worker.once()
        assert worker.counts["failures"] == 1
        bus.publish("results", result(1))
        assert worker.once() == 0, "nothing more is read while writing fails"
    worker._subscription.rewind()  # type: ignore[attr-defined]  # a crash now: nothing was committed
    now[0] += 6
    worker.once()
    assert worker.once() == 2
    worker.run(stop=lambda: True)
    assert RunResults(tmp_path).outputs().num_rows == 2
    assert RunResults(tmp_path).info.captured == {"hall": 2}


def test_what_the_log_could_not_take_is_not_committed_though_rows_can_be_written(tmp_path: Path) -> None:
    """An outbox on a broken disk, say, while Parquet files can be written."""
    bus, now, broken = MemoryBus(), [0.0], [True]

    def listen(records: Any) -> list[RelabelRequest]:
        if broken[0]:
            raise ResultsError("alerts.sqlite: alerts cannot be kept")
        heard.extend(records)
        return []

    heard: list[Any] = []
    worker = ResultsWorker(
        *(GRAPH[-1], bus, tmp_path, {}, HEADER), flush_s=1.0, seconds=lambda: now[0], listeners=[listen]
    )
    bus.publish("results", result(0))
    for now[0] in (0.0, 2.0, 8.0):
        worker.once()
    worker._subscription.rewind()  # type: ignore[attr-defined]  # a crash now
    assert len(worker._subscription.poll()) == 1, "it comes again"
    broken[0] = False
    now[0] += 9
    worker.once()
    assert [record.frame_index for record in heard] == [0]
    parts = list(tmp_path.glob("outputs/**/*.parquet"))
    assert [ParquetFile(part).metadata.num_rows for part in parts] == [1], "written once, however often it was tried"


def test_frames_that_a_bus_has_lost_are_counted_though_the_log_fails_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, now = MemoryBus(), [0.0]
    (tmp_path / "bus.json").write_text('{"generation": "an earlier one"}')
    header = replace(HEADER, captured={"hall": 5})
    worker = ResultsWorker(GRAPH[-1], bus, tmp_path, {}, header, flush_s=1.0, seconds=lambda: now[0])

    def fail(records: Any) -> None:
        raise ResultsError("no space left")

    bus.publish("results", result(7))
    with monkeypatch.context() as full:
        full.setattr(worker._log, "write", fail)
        worker.once()
    now[0] += 9
    worker.once()
    drops = RunResults(tmp_path).drops().to_pylist()
    assert [(row["first_index"], row["count"]) for row in drops] == [(5, 2)]


def test_frames_that_a_bus_has_lost_are_counted_and_those_that_come_again_are_not(tmp_path: Path) -> None:
    def worker(generation: str) -> tuple[MemoryBus, ResultsWorker]:
        bus = MemoryBus()
        bus.generation = generation
        header = RunInfo.load(tmp_path) if (tmp_path / "run.json").exists() else HEADER
        return bus, ResultsWorker(GRAPH[-1], bus, tmp_path, {}, header, seconds=lambda: 0.0)

    for generation, indexes in (("first", (0, 1, 2)), ("first", (2, 3, 7)), ("second", (12, 13)), ("second", (20,))):
        bus, results = worker(generation)
        for index in indexes:
            bus.publish("results", result(index))
        results.once()
        results.checkpoint()
    drops = RunResults(tmp_path).drops().to_pylist()
    assert [(row["first_index"], row["count"], row["reason"]) for row in drops] == [(8, 4, "lost with the bus")]


def test_a_run_whose_results_were_stopped_says_so_until_they_go_on(tmp_path: Path) -> None:
    bus = MemoryBus()
    worker = ResultsWorker(GRAPH[-1], bus, tmp_path, {}, HEADER)
    bus.publish("results", result(0))
    worker.once()
    worker.checkpoint()
    assert RunInfo.load(tmp_path).stopped_by is None, "it may be killed from here on"
    worker.run(stop=lambda: True)
    stopped = RunInfo.load(tmp_path)
    assert stopped.stopped_by == "the user" and stopped.finished_at is None, "another start goes on with it"
    camera = CameraState("hall", {})
    assert health_of(camera, stopped, START).state == "stopped"
    again = ResultsWorker(GRAPH[-1], MemoryBus(), tmp_path, {}, stopped)
    assert RunInfo.load(tmp_path).stopped_by is None
    assert health_of(camera, again.info, START).state == "no frames"


def test_metrics_of_a_worker_that_was_restarted_have_the_links_that_the_last_one_put_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run(records: list[Any], policy: str = "mlink") -> dict[tuple[str, ...], float]:
        """Return the versions of links that a worker states after some records."""
        bus = MemoryBus()
        telemetry = Telemetry(SPECS, promoted=promoted(SiteConfig(models="building", policy=policy), tmp_path))
        worker = ResultsWorker(GRAPH[-1], bus, tmp_path, SPECS, HEADER, listeners=[telemetry.observe])
        for record in records:
            bus.publish(topic_of(record), record)
        worker.run(stop=iter((False, True)).__next__)
        (family,) = (f for f in telemetry.registry.collect() if f.name == "camlink_link_version")
        return {tuple(sample.labels.values()): sample.value for sample in family.samples}

    assert run([result(0), LinkPromotion("hall", "persons", 3, START, b"links")]) == {("hall", "persons"): 3.0}
    assert run([result(1)]) == {("hall", "persons"): 3.0}
    assert run([result(2)], policy="camlink") == {}, "which reads no links"
    (tmp_path / "links" / "hall" / "persons" / "current.json").write_text("cut o")
    assert run([result(3)]) == {}
    assert "no link version in /metrics until the next promotion" in caplog.text
