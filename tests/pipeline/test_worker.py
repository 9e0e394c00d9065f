"""Workers on their own: poison, full disks, restarts, health."""

from __future__ import annotations

import json
import random
import urllib.error
import urllib.request
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camlink.models.pool import ModelPool
from camlink.operators.pacing import Guard
from camlink.pipeline.assembly import CameraFacts
from camlink.pipeline.bus.memory import MemoryBus
from camlink.pipeline.clock import ManualClock
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.distributed import inference
from camlink.pipeline.errors import ResultsError, StateError
from camlink.pipeline.graph import GRAPH
from camlink.pipeline.health import Health
from camlink.pipeline.ingest_worker import RESERVED, Indexes, IngestWorker
from camlink.pipeline.records import Frame, FrameDropped, FrameResult, ModelOutput
from camlink.pipeline.results import RunResults
from camlink.pipeline.results_worker import ResultsWorker
from camlink.pipeline.run_info import RunInfo
from camlink.pipeline.state.memory import MemoryState
from camlink.pipeline.testing import START, TinyModel, make_frames, outputs
from camlink.pipeline.worker import Worker
from tests.integration.test_in_step import RULES, Site, models, people


def test_a_frame_that_breaks_a_model_adapter_is_put_aside_counted_and_costs_no_other() -> None:
    def fragile(frame: Frame) -> int:
        if frame.index in (20, 90):
            raise ZeroDivisionError("an adapter's bug")
        return people(frame)

    tiny = [*models()[:2], TinyModel.count("bags", fragile)]
    site = Site(SiteConfig(models="building", **{**RULES, "policy": "all"}), tiny, ("hall",))
    records = site.run(make_frames("hall", 150), random.Random(0))
    dropped = [r for r in records if isinstance(r, FrameDropped)]
    assert [(r.first_index, r.count, r.reason) for r in dropped] == [
        (20, 1, "refused by inference"),
        (90, 1, "refused by inference"),
    ]
    served = Counter((o.frame_index, o.model) for o in outputs(records))
    assert set(served) == {(i, m) for i in range(150) if i not in (20, 90) for m in ("objects", "persons", "bags")}
    assert set(served.values()) == {1}
    assert [topic for topic, _, _ in site.bus.refused] == ["frames", "frames"]
    assert "ZeroDivisionError: an adapter's bug" in site.bus.refused[0][2]
    assert all(not worker._operator.held() for worker in site.workers.values()), "poison must not hold up the commit"


def test_a_guard_hands_on_what_follows_from_the_rest_of_a_batch() -> None:
    class Fragile:
        def on_records(self, records: Any) -> Any:
            for record in records:
                if record == "bad":
                    raise ValueError("no")
                yield f"after {record}"

    guard = Guard(Fragile())  # type: ignore[arg-type]
    assert guard.on_records(["a", "bad", "b"]) == ["after a", "after b"]  # type: ignore[list-item,comparison-overlap]
    assert [(r.record, r.reason) for r in guard.drain()] == [("bad", "ValueError: no")]  # type: ignore[comparison-overlap]
    assert guard.drain() == []


def test_an_inference_worker_that_takes_a_camera_over_goes_on_where_the_other_stood() -> None:
    config = SiteConfig(models="building", **RULES)
    state = MemoryState()

    def worker() -> Any:
        return inference(config, ModelPool(models()), {"hall": CameraFacts(1.0)}, state, seconds=lambda: 0.0)

    first, second = worker(), worker()
    frames = make_frames("hall", 60)
    first.resume("hall", None)
    given = list(first.on_records(frames[:45]))
    assert [r.purpose for r in given] == ["profile"] * len(given)
    snapshot = first.snapshots()["hall"]
    assert first.snapshots() == {}, "nothing has changed since"
    done = len(given)
    assert not second.knows("hall")
    second.resume("hall", snapshot)
    assert second.knows("hall")
    assert list(second.on_records(frames[:done])) == [], "what was done before is not done again"
    assert list(worker().on_records(frames[:5])), "without a snapshot it would be"


def test_frames_of_other_cameras_share_a_batch_for_which_none_waits_too_long() -> None:
    """The clock moves while the bus is polled, as far as it is asked to wait."""
    now = [0.0]

    class Trickle(MemoryBus):
        def subscribe(self, topics: Any, group: str, follow: Any = ()) -> Any:
            inbox, arrivals = (
                super().subscribe(topics, group, follow),
                iter([["a"], [], ["b", "c"], [], ["d"], *[[]] * 9]),
            )

            def poll(timeout_s: float = 0.0) -> Any:
                now[0] += 0.004
                return [make_frames(camera, 1)[0] for camera in next(arrivals)]

            inbox.poll = poll  # type: ignore[method-assign]
            return inbox

    bus, state = Trickle(), MemoryState()
    operator = inference(SiteConfig(models="building", **RULES), ModelPool(models()), {}, state, seconds=lambda: now[0])
    step = next(step for step in GRAPH if step.name == "inference")
    worker = Worker(step, operator, bus, state, ManualClock(START), batch=3, batch_wait_s=0.02, seconds=lambda: now[0])
    assert worker.once(0.05) == 3, "a full batch goes at once"
    assert worker.once(0.05) == 0, "nothing came, so nothing was waited for"
    before = now[0]
    assert worker.once(0.05) == 1, "a lonely frame goes when its time is up"
    assert 0.02 <= now[0] - before <= 0.02 + 3 * 0.004


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


def test_live_indexes_go_on_after_a_clean_end_and_never_repeat_after_a_crash() -> None:
    state = MemoryState()
    first = Indexes(state)
    assert [first.shifted(frame).index for frame in make_frames("hall", 3)] == [0, 1, 2]  # type: ignore[union-attr]
    gap = first.shifted(FrameDropped("hall", 3, 4, START, "overload"))
    assert isinstance(gap, FrameDropped)
    assert gap.first_index == 3
    first.release()
    second = Indexes(state)
    assert second.shifted(make_frames("hall", 1)[0]).index == 7  # type: ignore[union-attr]
    third = Indexes(state)  # the second crashed: it released nothing
    after = third.shifted(make_frames("hall", 1)[0]).index  # type: ignore[union-attr]
    assert 8 <= after <= 8 + RESERVED


def test_indexes_count_from_0_where_the_store_is_away(caplog: pytest.LogCaptureFixture) -> None:
    class Away(MemoryState):
        def get_blobs(self, keys: Any) -> Any:
            raise StateError("redis://nowhere: refused")

    assert Indexes(Away()).shifted(make_frames("hall", 1)[0]).index == 0  # type: ignore[union-attr]
    assert "camera hall counts from 0" in caplog.text


def test_ingest_publishes_until_told_to_stop_and_says_what_does_not_fit() -> None:
    from camlink.pipeline.errors import CodecError

    class Narrow(MemoryBus):
        def publish(self, topic: str, record: Any) -> None:
            if isinstance(record, Frame) and record.index == 1:
                raise CodecError("Frame of 2,000,000 bytes exceeds the limit")
            super().publish(topic, record)

    bus = Narrow()
    inbox = bus.subscribe(["frames", "events"], "all")
    worker = IngestWorker(make_frames("hall", 10), bus)
    worker.run(stop=lambda: worker.counts["Frame"] >= 3)
    got = inbox.poll()
    assert [type(r).__name__ for r in got] == ["Frame", "FrameDropped", "Frame", "Frame"]
    assert got[1].reason == "too large for the bus"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("path", "age_s", "code"),
    [
        ("healthz", 1.0, 200),
        ("healthz", 99.0, 503),
        ("healthz", None, 200),
        ("readyz", None, 503),
        ("secret", 1.0, 404),
    ],
)
def test_health_is_what_a_supervisor_asks_for(path: str, age_s: float | None, code: int) -> None:
    page = Health("0", lambda: age_s, lambda: {"taken": 3})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{page.port}/{path}", timeout=10) as answer:
            got, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        got, body = error.code, error.read()
        error.close()
    finally:
        page.close()
    assert got == code
    assert code == 404 or json.loads(body)["counts"] == {"taken": 3}
