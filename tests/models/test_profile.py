"""Costs are medians of real runs, kept on disk, and believed only for what they were measured on."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from camlink.models.base import Inference
from camlink.models.profile import PricedModel, ProfileKey, cheaper, measure, store, stored
from camlink.pipeline.errors import ModelError
from camlink.pipeline.records import Frame
from tests.models.tiny import MeanColour, picture

KEY = ProfileKey("ab" * 32, "cpu", "numpy", 2, 640)


class Clocked(MeanColour):
    """Takes 10 ms to start a run and 20 ms a frame by its own clock, and hiccups once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.hiccups = iter([0.0] * 4 + [5.0] + [0.0] * 100)

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        self.now += 0.010 + 0.020 * len(frames) + next(self.hiccups)
        return super().run(frames)

    def clock(self) -> Callable[[], float]:
        return lambda: self.now


def test_measures_the_median_per_frame_by_batch_size() -> None:
    model = Clocked()
    profile = measure(model, KEY, [picture()], batch_sizes=(4, 1), clock=model.clock(), floor_gb=0.5)
    assert profile.ms_by_batch == {1: pytest.approx(30.0), 4: pytest.approx(22.5)}
    assert profile.time_ms == pytest.approx(30.0)
    assert profile.memory_gb >= 0.5
    assert not model.is_loaded


def test_a_batch_of_one_prices_a_model_whatever_else_is_measured() -> None:
    model = Clocked()
    profile = measure(model, KEY, [picture()], batch_sizes=(4,), clock=model.clock())
    assert profile.time_ms == pytest.approx(30.0)


def test_memory_on_cuda_is_that_of_the_device_which_the_model_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {"cuda:0": 0, "cuda:1": 3_000_000_000}  # bytes, at the peak
    cuda = SimpleNamespace(
        reset_peak_memory_stats=lambda place: None,
        memory_allocated=lambda place: taken[place] // 3,
        max_memory_allocated=lambda place: taken[place],
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    key = dataclasses.replace(KEY, device="cuda A card")
    assert measure(MeanColour(), key, [picture()], place="cuda:1").memory_gb == pytest.approx(2.0)
    assert measure(MeanColour(), key, [picture()], place="cuda:0").memory_gb == 0.0


def test_a_profile_is_kept_and_read_back(tmp_path: Path) -> None:
    profile = measure(MeanColour(), KEY, [picture()], batch_sizes=(1,))
    store(profile, tmp_path)
    assert stored(KEY, tmp_path) == profile
    assert stored(dataclasses.replace(KEY, threads=1), tmp_path) is None
    assert len(list((tmp_path / "profiles").iterdir())) == 1


def test_a_profile_of_another_version_of_the_library_is_not_believed(tmp_path: Path) -> None:
    profile = measure(MeanColour(), KEY, [picture()], batch_sizes=(1,))
    store(dataclasses.replace(profile, versions={"numpy": "0.1"}), tmp_path)
    assert stored(KEY, tmp_path) is None


def test_an_unreadable_profile_is_measured_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = store(measure(MeanColour(), KEY, [picture()], batch_sizes=(1,)), tmp_path)
    path.write_text("{}")
    assert stored(KEY, tmp_path) is None
    assert "measuring again" in caplog.text


def test_the_cheaper_profile_wins() -> None:
    slow = measure(MeanColour(), KEY, [picture()], batch_sizes=(1,))
    fast = dataclasses.replace(slow, ms_by_batch={1: slow.time_ms / 2, 4: slow.time_ms * 9})
    assert cheaper([slow, fast]) is fast


@pytest.mark.parametrize(("time_ms", "memory_gb"), [(0.0, 1.0), (float("nan"), 1.0), (1.0, -0.1)])
def test_impossible_costs_are_refused(time_ms: float, memory_gb: float) -> None:
    with pytest.raises(ModelError, match="cannot be"):
        PricedModel(MeanColour(), time_ms, memory_gb)
