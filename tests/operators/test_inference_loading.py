"""Frames that need a model which is being loaded wait; others go on. Memory that runs out costs frames a reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from camlink.models.pool import ModelPool
from camlink.operators.inference import InferenceOperator
from camlink.operators.sampling import FramePlanner, SamplingRules
from camlink.pipeline.records import Decision, Frame, OutputReady, Record
from camlink.pipeline.state.memory import MemoryState
from camlink.pipeline.testing import START
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
