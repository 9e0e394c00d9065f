"""Frames that need a model which is being loaded wait; others go on. Memory that runs out costs frames a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import pytest

from camlink.models.base import Inference
from camlink.models.images import picture_of
from camlink.models.pool import ModelPool
from camlink.operators.inference import DEFER_FRAMES, InferenceOperator
from camlink.operators.paced_inference import IDLE_S, LIVE_QUEUE, MOST_RUNNING, PacedInference
from camlink.operators.sampling import FramePlanner, SamplingRules
from camlink.pipeline.jpeg import JpegPicture, coded
from camlink.pipeline.records import Decision, Frame, FrameDropped, FrameResult, OutputReady, Picture, Record
from camlink.pipeline.state.memory import MemoryState
from camlink.pipeline.testing import START, TinyModel, make_frames, run_frames
from tests.models.test_pool import Greedy, Later
from tests.models.tiny import picture

NOBODY = SamplingRules(timedelta(hours=1), 0.0, 0, 0.0, 0, 0)


def decision(camera: str, execute: tuple[str, ...], loaded: tuple[str, ...]) -> Decision:
    end = START + timedelta(hours=1)
    return Decision(camera, START - timedelta(seconds=1), end, execute, (), loaded, {}, {}, {}, None, "a test")


def site(models: list[Greedy], loader: Later) -> InferenceOperator:
    pool = ModelPool(models, memory_budget_gb=2.0)
    pool.set_loaded(["a", "b"])
    pool.load_beside(loader)
    return InferenceOperator(pool, lambda camera: FramePlanner(camera, NOBODY, 1.0), MemoryState())


def ran(records: Iterable[Record]) -> dict[str, tuple[str, ...]]:
    return {r.camera_id: r.ran for r in records if isinstance(r, OutputReady)}


def frames(index: int) -> list[Frame]:
    return [replace(picture(index, camera=camera), captured_at=START) for camera in ("hall", "yard")]


def test_frames_of_other_models_go_on_while_one_is_loaded() -> None:
    loader = Later()
    operator = site([Greedy(name) for name in "abc"], loader)
    list(operator.on_records([decision("hall", ("a",), ("a", "c")), decision("yard", ("c",), ("a", "c"))]))
    assert ran(operator.on_records(frames(0))) == {"hall": ("a",)}
    assert ran(operator.on_time(START)) == {}, "the model is still on its way"
    loader.work()
    assert ran(operator.on_time(START)) == {"yard": ("c",)}
    assert ran(operator.on_records(frames(1))) == {"hall": ("a",), "yard": ("c",)}


def test_memory_that_runs_out_while_loading_costs_the_frames_that_need_it_and_no_others() -> None:
    loader, models = Later(), [Greedy(name) for name in "abc"]
    operator = site(models, loader)
    models[2].no_room = True
    list(operator.on_records([decision("hall", ("a",), ("a", "c")), decision("yard", ("c",), ("a", "c"))]))
    assert ran(operator.on_records(frames(0))) == {"hall": ("a",)}
    loader.work()
    (failed,) = [r for r in operator.on_time(START) if isinstance(r, OutputReady)]
    assert failed.camera_id == "yard" and failed.ran == ()
    assert "out of memory while loading" in failed.failed["c"]


def test_a_camera_that_moved_takes_its_waiting_frames_with_it() -> None:
    loader = Later()
    operator = site([Greedy(name) for name in "abc"], loader)
    list(operator.on_records([decision("yard", ("c",), ("a", "c"))]))
    list(operator.on_records(frames(0)[1:]))
    operator.forget("yard")
    loader.work()
    assert ran(operator.on_time(START)) == {}


def test_outputs_of_models_that_had_to_be_loaded_say_which_frames_were_answered_before() -> None:
    tiny = [TinyModel.count(name, lambda frame: frame.index) for name in ("a", "b")]
    rules: dict[str, Any] = {
        "policy": "camlink",
        "budgets": {"memory_gb": 1.0},
        "audit": {"fraction": 0.2},
        "links": {"bootstrap_frames": 20},
        "adaptation": {"policy": "off"},
    }
    records = run_frames(make_frames("hall", 300), tiny, **rules)
    (loaded,) = {r.loaded for r in records if isinstance(r, Decision)}
    audits = [r for r in records if isinstance(r, FrameResult) and r.purpose == "audit"]
    late = {o.model: o for r in audits for o in r.outputs if o.known_after is not None}
    at_once = {o.model for r in audits for o in r.outputs if o.how == "executed" and o.known_after is None}
    assert at_once == set(loaded) and not at_once & set(late)
    told = [r.frame_index for r in records if isinstance(r, FrameResult)]
    answered = {r.frame_index: told.index(r.frame_index) for r in records if isinstance(r, FrameResult)}
    frames = {f.captured_at: f.index for f in make_frames("hall", 300)}
    for result in audits[:DEFER_FRAMES]:
        (output,) = (o for o in result.outputs if o.known_after is not None)
        after = frames[output.known_after]  # type: ignore[index]
        assert after == audits[DEFER_FRAMES - 1].frame_index, "they run together, once there are enough"
        served = [i for i in answered if result.frame_index < i < after and i not in {r.frame_index for r in audits}]
        assert all(answered[i] < answered[result.frame_index] for i in served)


def live(operator: InferenceOperator, seconds: Callable[[], float]) -> PacedInference:
    worker = PacedInference(operator, seconds, in_step=False, drops_oldest=True)
    for camera in ("hall", "yard"):
        worker.resume(camera, {})
    return worker


def test_no_more_frames_wait_for_a_model_than_are_counted_as_dropped_else() -> None:
    loader, now_s = Later(), 0.0
    worker = live(site([Greedy(name) for name in "abc"], loader), lambda: now_s)
    told = list(worker.on_records([decision("hall", ("a",), ("a", "c")), decision("yard", ("c",), ("a", "c"))]))
    for index in range(200):
        now_s += 0.1
        came = [replace(frame, captured_at=START + timedelta(seconds=index)) for frame in frames(index)]
        told += [*worker.on_records(came), *worker.on_time(START)]
        assert len(worker.held()) <= MOST_RUNNING + LIVE_QUEUE
    dropped = [(r.camera_id, r.first_index) for r in told if isinstance(r, FrameDropped)]
    kept = [*range(MOST_RUNNING), *range(200 - LIVE_QUEUE, 200)]
    assert dropped == [("yard", index) for index in range(200) if index not in kept]
    assert [r.frame_index for r in told if isinstance(r, OutputReady)] == list(range(200)), "the hall waits for nothing"
    loader.work()
    for _ in range(LIVE_QUEUE + 1):
        told += worker.on_time(START)
    assert [r.frame_index for r in told if isinstance(r, OutputReady) and r.camera_id == "yard"] == kept
    assert not worker.held()


def test_a_camera_that_is_quiet_has_no_frame_waited_for_that_waits_for_a_model() -> None:
    """Else the whole worker would wait for the loading, and the frames of all other cameras with it."""
    loader, now_s = Later(), 0.0
    worker = live(site([Greedy(name) for name in "abc"], loader), lambda: now_s)
    list(worker.on_records([decision("yard", ("c",), ("a", "c"))]))
    list(worker.on_records(frames(0)[1:]))
    now_s = 10.0 * IDLE_S
    assert list(worker.on_time(START)) == []
    loader.work()
    assert ran(worker.on_time(START)) == {"yard": ("c",)}


@pytest.mark.parametrize("memory_gb", [None, 1.5], ids=["all fit", "loaded in turn"])
def test_a_damaged_picture_costs_its_own_frame_its_answers_and_nothing_else(memory_gb: float | None) -> None:
    """Where models are loaded in turn it took 15 other frames with it, which then kept the worker from committing."""

    class Looks(TinyModel):
        def run(self, frames: Sequence[Frame]) -> list[Inference]:
            return super().run([replace(frame, picture=picture_of(frame, self.spec.model)) for frame in frames])

    def encode(frame: Frame) -> bytes:
        return bytes(coded(frame.pixels)[1])

    whole = bytes(coded(np.zeros((64, 64, 3), np.uint8))[1])
    damaged = JpegPicture(whole[:200], (64, 64, 3))
    pool = ModelPool([Looks.count(name, lambda frame: 1) for name in "ab"], memory_gb)
    rules, now_s = SamplingRules(timedelta(hours=1), 0.0, 5, 0.0, 100, 0), 0.0
    planner = partial(FramePlanner, rules=rules, fps=1.0)
    worker = PacedInference(InferenceOperator(pool, planner, MemoryState(), encode), lambda: now_s, in_step=False)
    worker.resume("hall", {})
    told: list[Record] = []
    for frame in make_frames("hall", 40):
        now_s += 1.0
        shown = damaged if frame.index == 20 else JpegPicture.of(whole)
        told += [*worker.on_records([replace(frame, picture=shown)]), *worker.on_time(START)]
    now_s += 10.0
    told += worker.on_time(START)
    ready = {r.frame_index: r for r in told if isinstance(r, OutputReady)}
    assert [i for i, r in sorted(ready.items()) if set(r.ran) == {"a", "b"}] == [i for i in range(40) if i != 20]
    assert "cannot be looked at: a damaged" in ready[20].failed["a"] and set(ready[20].failed) == {"a", "b"}
    pictured = [r.frame_index for r in told if isinstance(r, Picture)]
    assert 3 <= len(pictured) <= 4 and 20 not in pictured, "and a preview now and then"
    assert not worker.held() and not worker.refused()
