"""The pool keeps to its memory budget whatever is asked of it, and accounts for what it ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camlink.models.base import Inference
from camlink.models.pool import RETRY_S, ModelPool
from camlink.pipeline.errors import ModelError
from camlink.pipeline.records import Frame
from tests.models.tiny import MeanColour, picture


def three(**sizes: float) -> list[MeanColour]:
    return [MeanColour(name, memory_gb) for name, memory_gb in (sizes or {"a": 1.0, "b": 2.0, "c": 3.0}).items()]


def test_loads_exactly_what_is_asked_and_counts_loadings() -> None:
    models = three()
    pool = ModelPool(models)
    pool.set_loaded(["c", "a"])
    pool.set_loaded(["a", "c"])
    assert pool.loaded == ("a", "c")
    assert pool.loads == 2
    pool.set_loaded(["b"])
    assert [model.is_loaded for model in models] == [False, True, False]
    assert pool.loads == 3


def test_refuses_a_set_beyond_the_budget_and_stays_as_it_was() -> None:
    pool = ModelPool(three(), memory_budget_gb=3.0)
    pool.set_loaded(["a", "b"])
    with pytest.raises(ModelError, match=r"b 2\.00, c 3\.00 GB\) exceed the memory budget of 3\.00 GB"):
        pool.set_loaded(["b", "c"])
    assert pool.loaded == ("a", "b")
    assert not pool.fits_together


def test_refuses_a_model_that_never_fits() -> None:
    with pytest.raises(ModelError, match=r"model c 3\.00 GB exceeds the memory budget of 2\.50 GB by itself"):
        ModelPool(three(), memory_budget_gb=2.5)


def test_refuses_two_models_of_one_name() -> None:
    with pytest.raises(ModelError, match="share a name"):
        ModelPool([MeanColour("a"), MeanColour("a")])


def test_names_the_nearest_model_for_a_wrong_name() -> None:
    with pytest.raises(ModelError, match='did you mean "colour"'):
        ModelPool([MeanColour("colour")]).run("color", [picture()])


def test_brings_guests_in_within_the_budget_and_restores_afterwards() -> None:
    pool = ModelPool(three(), memory_budget_gb=3.0)
    pool.set_loaded(["a", "b"])
    for name in pool.specs:
        pool.run(name, [picture()])
        assert pool.loaded_gb <= 3.0
    assert pool.loaded == ("c",)
    pool.restore()
    assert pool.loaded == ("a", "b")
    assert pool.loads == 5  # a, b; then c as a guest; then a and b again


def test_puts_guests_out_before_the_models_that_were_asked_for() -> None:
    pool = ModelPool(three(a=1.0, b=1.0, c=1.0), memory_budget_gb=2.0)
    pool.set_loaded(["a"])
    pool.run("b", [picture()])
    pool.run("c", [picture()])
    assert pool.loaded == ("a", "c")


@settings(deadline=None)  # a busy machine may take its time
@given(st.lists(st.sampled_from("abcd"), max_size=20), st.floats(4.0, 10.0))
def test_never_holds_more_than_the_budget(names: list[str], budget_gb: float) -> None:
    pool = ModelPool(three(a=1.0, b=2.0, c=3.0, d=4.0), memory_budget_gb=budget_gb)
    for name in names:
        pool.run(name, [picture()])
        assert name in pool.loaded
        assert pool.loaded_gb <= budget_gb + 1e-6


def test_splits_batches_and_keeps_their_order() -> None:
    model = MeanColour()
    frames = [picture(i) for i in range(10)]
    found = ModelPool([model], max_batch=4).run("colour", frames)
    assert model.batches == [4, 4, 2]
    for frame, answer in zip(frames, found, strict=True):
        np.testing.assert_allclose(answer.value, frame.pixels.mean(axis=(0, 1)), rtol=1e-6)


def test_halves_the_batch_when_memory_runs_out_and_remembers() -> None:
    model = MeanColour(largest_batch=3)
    pool = ModelPool([model], max_batch=8)
    assert len(pool.run("colour", [picture(i) for i in range(8)])) == 8
    assert model.batches == [8, 4, 2, 2, 2, 2]
    pool.run("colour", [picture(i) for i in range(4)])
    assert model.batches[6:] == [2, 2]
    assert pool.executions["colour"] == 12


class CudaOutOfMemoryError(RuntimeError):
    """What torch raises is a RuntimeError that only its text tells from others."""

    def __init__(self) -> None:
        super().__init__("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB")


class Greedy(MeanColour):
    """Raises what torch would: on batches beyond ``largest_batch``, and on loading while ``no_room`` is set."""

    no_room = False
    attempts = 0

    def load(self) -> None:
        self.attempts += 1
        if self.no_room:
            raise CudaOutOfMemoryError
        super().load()

    def unload(self) -> None:
        self.is_loaded = False

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        if self.largest_batch is not None and len(frames) > self.largest_batch:
            self.batches.append(len(frames))
            raise CudaOutOfMemoryError
        return super().run(frames)


def test_an_out_of_memory_of_torch_shrinks_the_batch_too() -> None:
    model = Greedy(largest_batch=2)
    pool = ModelPool([model], max_batch=8)
    assert len(pool.run("colour", [picture(i) for i in range(5)])) == 5
    assert model.batches == [5, 2, 2, 1]


@pytest.mark.parametrize("error", [RuntimeError, ValueError, ZeroDivisionError, OSError])
def test_another_error_of_a_model_is_not_taken_for_a_lack_of_memory(error: type[Exception]) -> None:
    class Wrong(MeanColour):
        def run(self, frames: Sequence[Frame]) -> list[Inference]:
            raise error("shape mismatch")

    with pytest.raises(ModelError, match=f'model "colour": {error.__name__}: shape mismatch') as told:
        ModelPool([Wrong()]).run("colour", [picture()])
    assert isinstance(told.value.__cause__, error)


class Unreadable(MeanColour):
    """Its weights cannot be read until they are mended."""

    problem: Exception | None = OSError("no such file")
    attempts = 0

    def load(self) -> None:
        self.attempts += 1
        if self.problem is not None:
            raise self.problem
        super().load()


def test_a_model_that_cannot_be_loaded_keeps_no_other_from_it_and_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now_s = 0.0
    broken, other = Unreadable("broken"), MeanColour("other")
    pool = ModelPool([broken, other], clock=lambda: now_s)
    for _ in range(3):
        pool.set_loaded(["broken", "other"])
        pool.restore()
    assert pool.loaded == ("other",)
    assert [r.message for r in caplog.records] == [
        'model "broken": OSError: no such file; frames are to do without broken'
    ]
    for attempts in (broken.attempts, broken.attempts, broken.attempts + 1):
        with pytest.raises(ModelError, match='model "broken": OSError: no such file'):
            pool.run("broken", [picture()])
        assert broken.attempts == attempts, "it may take long to find out that it cannot be loaded"
        now_s += 0.6 * RETRY_S
    broken.problem = None
    now_s += RETRY_S
    assert pool.run("broken", [picture()]) and pool.loaded == ("broken", "other")


def test_keeps_the_old_set_where_memory_runs_out_on_loading_a_new_one() -> None:
    old, new, other = Greedy("old"), Greedy("new"), Greedy("other")
    pool = ModelPool([old, new, other])
    pool.set_loaded(["old", "other"])
    new.no_room = True
    with pytest.raises(ModelError, match='"new": out of memory while loading it; keeping old, other'):
        pool.set_loaded(["new", "other"])
    assert pool.loaded == ("old", "other")
    assert [model.is_loaded for model in (old, new, other)] == [True, False, True]
    tries = new.attempts
    for _ in range(3):
        with pytest.raises(ModelError, match="out of memory while loading"):
            pool.run("new", [picture()])
    assert new.attempts == tries, "no frame waits for a loading that cannot succeed"
    new.no_room = False
    pool.set_loaded(["new"])
    assert pool.loaded == ("new",)


class Promised(Future[Any]):
    """What nobody may wait for: nothing would ever come."""

    def result(self, timeout: float | None = None) -> Any:
        assert self.done(), "waited for what is still being loaded"
        return super().result(timeout)


class Later(Executor):
    """Runs what was submitted when it is told to, on this thread: no test waits for another."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = Promised()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def work(self) -> None:
        for future, call in self.waiting:
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)
        self.waiting = []


def test_others_run_while_a_model_is_loaded_beside() -> None:
    pool, loader = ModelPool(three(a=1.0, b=1.0, c=1.0), memory_budget_gb=2.0), Later()
    pool.set_loaded(["a", "b"])
    pool.load_beside(loader)
    pool.set_loaded(["a", "c"])
    assert pool.is_coming("c")
    assert pool.loaded == ("a",)
    assert pool.loaded_gb == 2.0, "the room is taken from the start"
    assert len(pool.run("a", [picture()])) == 1
    assert pool.is_coming("c"), "nothing waited for it"
    loader.work()
    assert not pool.is_coming("c")
    assert pool.loaded == ("a", "c")
    assert pool.loads == 3


def test_keeps_the_old_set_where_memory_runs_out_beside() -> None:
    models = [Greedy("a"), Greedy("b"), Greedy("c")]
    pool, loader = ModelPool(models, memory_budget_gb=2.0), Later()
    pool.set_loaded(["a", "b"])
    pool.load_beside(loader)
    models[2].no_room = True
    pool.set_loaded(["a", "c"])
    loader.work()
    assert not pool.is_coming("c")
    assert pool.is_coming("b"), "what made room for it comes back"
    loader.work()
    assert not pool.is_coming("b")
    assert pool.loaded == ("a", "b")
    with pytest.raises(ModelError, match="out of memory while loading"):
        pool.run("c", [picture()])


def test_a_model_that_cannot_be_loaded_beside_is_left_to_who_asks_for_it(caplog: pytest.LogCaptureFixture) -> None:
    broken, loader = Unreadable("broken"), Later()
    pool = ModelPool([broken, MeanColour("other")])
    pool.load_beside(loader)
    pool.set_loaded(["broken", "other"])
    loader.work()
    assert not pool.is_coming("broken") and not pool.is_coming("other")
    assert pool.loaded == ("other",)
    assert "frames are to do without broken" in caplog.text
    with pytest.raises(ModelError, match='model "broken": OSError: no such file'):
        pool.run("broken", [picture()])


def test_closing_leaves_nothing_that_was_coming() -> None:
    models = three(a=1.0, b=1.0, c=1.0)
    pool, loader = ModelPool(models), Later()
    pool.load_beside(loader)
    pool.set_loaded(["a"])
    loader.work()
    pool.close()
    assert pool.loaded == ()
    assert not any(model.is_loaded for model in models)


def test_takes_at_most_what_it_is_told_at_once() -> None:
    model = MeanColour()
    pool = ModelPool([model], max_batch=16)
    pool.take_at_most(3)
    pool.run("colour", [picture(i) for i in range(7)])
    assert model.batches == [3, 3, 1]


def test_gives_up_when_a_single_frame_is_too_much() -> None:
    with pytest.raises(ModelError, match="out of memory on a single frame"):
        ModelPool([MeanColour(largest_batch=0)]).run("colour", [picture()])


def test_counts_time_and_frames_per_model() -> None:
    ticks = iter(range(100))
    pool = ModelPool(three(), max_batch=2, clock=lambda: float(next(ticks)))
    pool.run("a", [picture(i) for i in range(3)])
    assert pool.busy_ms == {"a": 2000.0, "b": 0.0, "c": 0.0}
    assert pool.executions == {"a": 3, "b": 0, "c": 0}


class Broken(MeanColour):
    """Gives what it is told to give."""

    def __init__(self, value: Sequence[float], count: int = 1) -> None:
        super().__init__()
        self.answers = [Inference(np.array(value, np.float32))] * count

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        return self.answers


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Broken([1, 2]), r"shape \(2,\), wanted \(3,\)"),
        (Broken([1, 2, float("nan")]), 'frame 0 of camera "a" is not finite'),
        (Broken([1, 2, 3], count=2), "2 values for 1 frames"),
    ],
)
def test_stops_values_that_break_the_spec(model: Broken, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ModelPool([model]).run("colour", [picture()])


@pytest.mark.parametrize("answers", [None, [None], [[1.0, 2.0, 3.0]]])
def test_stops_what_is_no_inference_at_all(answers: Any) -> None:
    model = Broken([1, 2, 3])
    model.answers = answers
    with pytest.raises(ModelError, match=r'model "colour": (TypeError|AttributeError): '):
        ModelPool([model]).run("colour", [picture()])
