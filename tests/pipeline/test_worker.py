"""Workers on their own: poison, full disks, restarts, health."""

from __future__ import annotations

import json
import random
import urllib.error
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from camlink.models.pool import ModelPool
from camlink.operators.inference import InferenceOperator
from camlink.operators.linking import LinkingOperator
from camlink.operators.paced_inference import LIVE_QUEUE
from camlink.operators.pacing import Guard
from camlink.operators.sampling import FramePlanner
from camlink.pipeline.assembly import CameraFacts, sampling_rules
from camlink.pipeline.bus.memory import MemoryBus
from camlink.pipeline.clock import ManualClock
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.distributed import inference
from camlink.pipeline.errors import StateError
from camlink.pipeline.graph import GRAPH
from camlink.pipeline.health import Health
from camlink.pipeline.ingest_worker import PATIENCE_S, RESERVED, Indexes, IngestWorker
from camlink.pipeline.records import (
    AdaptationEvent,
    Frame,
    FrameDropped,
    FrameResult,
    OutputReady,
    RelabelRequest,
)
from camlink.pipeline.run_info import RunInfo
from camlink.pipeline.state.memory import MemoryState
from camlink.pipeline.testing import START, TinyModel, make_frames, outputs
from camlink.pipeline.worker import Worker
from tests.integration.test_in_step import RULES, Site, models, people


def test_a_frame_that_breaks_an_operator_is_put_aside_counted_and_costs_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = FramePlanner.plan

    def fragile(self: FramePlanner, index: int, *args: Any, **more: Any) -> Any:
        if index in (20, 90):
            raise ZeroDivisionError("a bug")
        return plan(self, index, *args, **more)

    monkeypatch.setattr(FramePlanner, "plan", fragile)
    tiny = [*models()[:2], TinyModel.count("bags", people)]
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
    assert "ZeroDivisionError: a bug" in site.bus.refused[0][2]
    assert all(not worker._operator.held() for worker in site.workers.values()), "poison must not hold up the commit"


def test_a_frame_that_breaks_a_model_adapter_costs_its_answer_and_no_other() -> None:
    def fragile(frame: Frame) -> int:
        if frame.index in (20, 90):
            raise ZeroDivisionError("an adapter's bug")
        return people(frame)

    tiny = [*models()[:2], TinyModel.count("bags", fragile)]
    site = Site(SiteConfig(models="building", **{**RULES, "policy": "all"}), tiny, ("hall",))
    records = site.run(make_frames("hall", 150), random.Random(0))
    assert not [r for r in records if isinstance(r, FrameDropped)] and not site.bus.refused
    lost = [o for o in outputs(records) if o.how != "executed"]
    assert [(o.frame_index, o.model, o.how) for o in lost] == [(20, "bags", "abstained"), (90, "bags", "abstained")]
    assert {o.reason for o in lost} == {'model "bags": ZeroDivisionError: an adapter\'s bug'}


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
    first.resume("hall", {})
    given = list(first.on_records(frames[:45]))
    assert [r.purpose for r in given] == ["profile"] * len(given)
    snapshot = first.snapshots()["hall", "place"]
    assert first.snapshots() == {}, "nothing has changed since"
    done = len(given)
    assert not second.knows("hall")
    second.resume("hall", {"place": snapshot})
    assert second.knows("hall")
    assert list(second.on_records(frames[:done])) == [], "what was done before is not done again"
    assert list(worker().on_records(frames[:5])), "without a snapshot it would be"


HEADER = RunInfo("run", "1", 0, "all", {}, {}, datetime.now(UTC))


def test_a_frame_is_a_repeat_only_if_neither_its_time_nor_its_index_is_new() -> None:
    """A clock may be set back, and a live camera counts from 0 again when the state store has lost its count."""
    config, state = SiteConfig(models="building", **RULES), MemoryState()
    worker = inference(config, ModelPool(models()), {"hall": CameraFacts(1.0)}, state, seconds=lambda: 0.0)
    worker.resume("hall", {})
    hour = timedelta(hours=1)
    told = [
        make_frames("hall", 3),
        make_frames("hall", 3),  # published again after a crash of ingest
        make_frames("hall", 2, start=START - hour, first=3),  # the clock was set back
        make_frames("hall", 2, start=START + hour),  # the store was emptied
    ]
    ran = [[r.frame_index for r in worker.on_records(frames)] for frames in told]
    assert ran == [[0, 1, 2], [], [3, 4], [0, 1]]


def test_who_asks_for_a_frame_that_is_gone_is_answered() -> None:
    """Without an answer adaptation waits for one, falls behind, and asks for frames that are gone ever after."""
    config, state = SiteConfig(models="building", **RULES), MemoryState()
    operator = InferenceOperator(ModelPool(models()), lambda c: FramePlanner(c, sampling_rules(config), 1.0), state)
    missed, ready = operator.on_records([RelabelRequest("hall", 7, START, ("persons",), "periodic")])
    assert isinstance(missed, AdaptationEvent)
    assert missed.kind == "relabel_missed"
    (answer,) = LinkingOperator(("persons",), state).on_records([ready])
    assert isinstance(answer, FrameResult)
    assert (answer.purpose, answer.frame_index, answer.outputs) == ("relabel", 7, ())


def test_frames_of_other_cameras_share_a_batch_for_which_none_waits_too_long() -> None:
    """The clock moves while the bus is polled, as far as it is asked to wait."""
    now = [0.0]

    class Trickle(MemoryBus):
        def subscribe(self, topics: Any, group: str, **read: Any) -> Any:
            inbox, arrivals = (
                super().subscribe(topics, group, **read),
                iter([["a"], [], ["b", "c"], [], ["d"], *[[]] * 5, ["e"], ["f"]]),
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
    assert worker.once(0.05) == 1, "the next waits for nobody: the last one's waiting won it no company"
    assert now[0] - before <= 0.02 + 4 * 0.004


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


class AwayAtFirst(MemoryState):
    """A store that answers from a moment on, as a Redis that still loads what it had after a reboot."""

    def __init__(self, back_s: float) -> None:
        super().__init__()
        self.clock_s, self.back_s = 0.0, back_s

    def get_blobs(self, keys: Any) -> Any:
        if self.clock_s < self.back_s:
            raise StateError("redis://nowhere: loading")
        return super().get_blobs(keys)

    def wait(self, seconds: float) -> None:
        self.clock_s += seconds


def test_indexes_go_on_once_a_store_that_is_away_at_the_start_answers(caplog: pytest.LogCaptureFixture) -> None:
    """Begun from 0 again, a camera's rows would have the keys of earlier ones and fall out as repeats."""
    state = AwayAtFirst(back_s=20.0)
    state.put_blob("index/hall", b"700", 1e6)
    indexes = Indexes(state, seconds=lambda: state.clock_s, wait=state.wait)
    assert indexes.shifted(make_frames("hall", 1)[0]).index == 700  # type: ignore[union-attr]
    assert caplog.text.count("its frames wait for that") == 1


def test_who_cannot_know_the_indexes_of_its_cameras_ends() -> None:
    state = AwayAtFirst(back_s=1e9)
    with pytest.raises(StateError, match="loading"):
        Indexes(state, seconds=lambda: state.clock_s, wait=state.wait).shifted(make_frames("hall", 1)[0])
    assert state.clock_s == pytest.approx(PATIENCE_S, abs=2.0)


def test_indexes_are_put_by_again_in_a_store_that_was_emptied_and_a_store_that_is_away_stops_no_clean_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Fragile(MemoryState):
        away = False

        def flush(self) -> None:
            if self.away:
                raise StateError("redis://nowhere: refused")

    state, now = Fragile(), [0.0]

    def frames() -> Any:
        yield from make_frames("hall", 3)
        state._blobs.clear()
        now[0] = 11.0
        yield from make_frames("hall", 1, first=3)
        assert Indexes(state).shifted(make_frames("hall", 1)[0]).index >= 4  # type: ignore[union-attr]
        state.away = True

    IngestWorker(frames(), MemoryBus(), Indexes(state), seconds=lambda: now[0]).run(stop=lambda: False)
    assert "a restart may skip indexes" in caplog.text


def test_snapshots_that_the_store_does_not_take_are_put_again() -> None:
    class Away(MemoryState):
        away = True

        def flush(self) -> None:
            if self.away:
                self._blobs.clear()
                raise StateError("redis://nowhere: refused")

    config, state = SiteConfig(models="building", **RULES), Away()
    operator = inference(config, ModelPool(models()), {"hall": CameraFacts(1.0)}, state, seconds=lambda: 0.0)
    bus = MemoryBus()
    worker = Worker(GRAPH[1], operator, bus, state, ManualClock(), seconds=lambda: 0.0)
    bus.publish("frames", make_frames("hall", 1)[0])
    worker.once()
    worker.checkpoint()
    assert not state._blobs
    state.away = False
    worker.checkpoint()
    assert list(state._blobs) == ["snapshot/inference/place/hall"]


class Forgetful(MemoryState):
    """Takes nothing (``refuses``), or takes it and loses it."""

    def __init__(self, *, refuses: bool) -> None:
        super().__init__()
        self._refuses, self._put = refuses, {}  # type: ignore[var-annotated]

    def put(self, key: str, value: Any, ttl_s: float) -> None:
        self._put[key] = value

    def flush(self) -> None:
        if self._refuses and self._put:
            raise StateError("redis://nowhere: read-only")

    def untaken(self) -> Any:
        untaken, self._put = self._put, {}
        return untaken


def test_what_the_state_store_does_not_take_travels_on_the_bus_and_costs_no_output() -> None:
    site = Site(SiteConfig(models="building", **RULES), models(), ("hall",), Forgetful(refuses=True))
    records = site.run(make_frames("hall", 80), random.Random(0))
    assert Counter(o.how for o in outputs(records))["abstained"] == 0
    assert len(outputs(records)) == 80 * 3


def test_frames_that_wait_for_one_another_wait_for_lost_outputs_together() -> None:
    """One after another, a queue of 16 frames would be held up for 160 s."""
    rules = {**RULES, "adaptation": {"policy": "periodic", "interval": timedelta(seconds=60), "frames": 5}}
    site = Site(SiteConfig(models="building", **rules), models(), ("hall",), Forgetful(refuses=False))
    for frame in make_frames("hall", 16):
        site.bus.publish("frames", frame)
    for seconds in (0.0, 10.1):
        site.clock.advance(seconds)
        for _ in range(40):
            for worker in site.workers.values():
                worker.once()
    abstained = {o.frame_index for o in outputs(site._results.poll()) if o.how == "abstained"}
    assert abstained == set(range(16))


def test_of_live_cameras_that_overload_inference_the_oldest_frames_are_dropped_and_counted() -> None:
    """The worker takes all that has come before it runs anything, and runs one round before it looks again."""
    config, state, bus = SiteConfig(models="building", **RULES), MemoryState(), MemoryBus()
    cameras = {name: CameraFacts(1.0) for name in ("hall", "yard")}
    operator = inference(config, ModelPool(models()), cameras, state, seconds=lambda: 0.0, behind="drop-oldest")
    given = bus.subscribe(["outputs", "events"], "all")
    worker = Worker(GRAPH[1], operator, bus, state, ManualClock(), drains=True, seconds=lambda: 0.0)
    for frame in [*make_frames("hall", 30), *make_frames("yard", 3)]:
        bus.publish("frames", frame)
    for _ in range(30):
        worker.once()
    records = given.poll()
    dropped = [(r.camera_id, r.first_index, r.reason) for r in records if isinstance(r, FrameDropped)]
    assert dropped == [("hall", index, "overload") for index in range(30 - LIVE_QUEUE)]
    ran = Counter(r.camera_id for r in records if isinstance(r, OutputReady))
    assert ran == {"hall": LIVE_QUEUE, "yard": 3}, "a camera that is not behind loses nothing"


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
