"""What every `Model` must keep to, as a function: run it over an adapter of your own before you trust links to it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from camlink.models.base import Inference, Model, OutputSpec
from camlink.models.detections import KEPT_SCORE
from camlink.pipeline.records import Detections, Frame

TOLERANCE = 1e-4  # float32 networks may differ in the last bits between batch sizes


def check_model(model: Model, frames: Sequence[Frame]) -> None:
    """Assert the contract of `camlink.models.base.Model` on ``frames`` (two or more, best of different shapes).

    Raises `AssertionError` saying what is broken, and leaves the model unloaded.
    """
    assert isinstance(model, Model), "lacks a member of camlink.models.base.Model"
    assert len(frames) >= 2, "give at least two frames, so that their order can be checked"
    assert math.isfinite(model.time_ms), "time_ms is not finite"
    assert model.time_ms > 0, "time_ms must be above 0"
    assert math.isfinite(model.memory_gb), "memory_gb is not finite"
    assert model.memory_gb >= 0, "memory_gb must not be negative"
    before = [frame.pixels.copy() for frame in frames]
    model.load()
    model.load()
    try:
        answers = model.run(frames)
        assert len(answers) == len(frames), f"{len(answers)} values for {len(frames)} frames"
        for answer in answers:
            check_value(model.spec, answer)
        assert list(model.run([])) == [], "an empty batch must give an empty list"
        _check_independence(model, frames, answers)
    finally:
        model.unload()
    model.unload()
    model.load()
    again = model.run(frames)
    model.unload()
    assert all(_alike(a, b) for a, b in zip(answers, again, strict=True)), "values change after unload and load"
    assert all(np.array_equal(frame.pixels, kept) for frame, kept in zip(frames, before, strict=True)), (
        "the model wrote into the pixels of its frames"
    )


def check_value(spec: OutputSpec, answer: Inference) -> None:
    """Assert that one value means what ``spec`` says."""
    value = answer.value
    assert value.dtype == np.float32, f"value is {value.dtype}, wanted float32"
    assert np.isfinite(value).all(), f"value is not finite: {value}"
    if spec.kind == "vector":
        assert value.shape == (spec.size,), f"value has shape {value.shape}, wanted ({spec.size},)"
    if spec.task == "count":
        assert (value >= 0).all(), f"a count is below 0: {value}"
    if spec.task in ("single_label", "multi_label"):
        assert ((value >= 0) & (value <= 1 + TOLERANCE)).all(), f"a probability is outside 0..1: {value}"
    if spec.task == "single_label":
        assert abs(float(value.sum()) - 1) < 1e-3, f"probabilities sum to {value.sum()}, wanted 1"
    if answer.detections is not None:
        _check_detections(spec, answer.detections)


def _check_detections(spec: OutputSpec, found: Detections) -> None:
    count = len(found.scores)
    assert found.xyxy.shape == (count, 4), f"boxes have shape {found.xyxy.shape} for {count} scores"
    assert found.classes.shape == (count,), f"classes have shape {found.classes.shape} for {count} scores"
    assert ((found.xyxy >= 0) & (found.xyxy <= 1)).all(), "a box leaves the picture: corners are shares of it, 0..1"
    assert (found.xyxy[:, 2:] >= found.xyxy[:, :2]).all(), "a box has its corners the wrong way round"
    assert (found.scores >= KEPT_SCORE).all(), f"a box below the score {KEPT_SCORE} was kept"
    assert ((found.classes >= 0) & (found.classes < max(len(spec.labels), 1))).all(), "a class is no index into labels"


def _check_independence(model: Model, frames: Sequence[Frame], answers: Sequence[Inference]) -> None:
    """A frame's value must depend on that frame alone, or a replay would not repeat live operation."""
    backwards = model.run(list(reversed(frames)))[::-1]
    alone = [model.run([frame])[0] for frame in frames]
    for frame, batch, reverse, single in zip(frames, answers, backwards, alone, strict=True):
        where = f'frame {frame.index} of camera "{frame.camera_id}"'
        assert _alike(batch, reverse), f"{where}: the value depends on the order of the batch"
        assert _alike(batch, single), f"{where}: the value depends on the other frames of the batch"


def _alike(a: Inference, b: Inference) -> bool:
    return bool(np.allclose(a.value, b.value, atol=TOLERANCE))
