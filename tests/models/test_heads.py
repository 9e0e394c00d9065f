"""What a network gives, read alike on every frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camlink.models.base import OutputSpec
from camlink.models.classes import Head
from camlink.models.onnx import OnnxClassifier
from camlink.pipeline.testing import make_frames

SPEC = OutputSpec("gates", "vector", 2, "multi_label", ("open", "car"))


def sigmoid(*logits: float) -> list[float]:
    return [1 / (1 + np.exp(-x)) for x in logits]


class Session:
    """Stands in for a file: gives these raw outputs one after the other."""

    input_shape = (1, 3, 32, 32)
    metadata: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, *raws: tuple[float, ...]) -> None:
        self._raws = iter(raws)

    def load(self) -> None: ...
    def unload(self) -> None: ...
    def class_names(self) -> dict[int, str]:
        return {}

    def __call__(self, planes: Any) -> Any:
        return np.array([next(self._raws)], np.float32)


def test_logits_that_happen_to_lie_between_0_and_1_are_read_as_those_of_other_frames() -> None:
    model = OnnxClassifier(SPEC, Path("gates.onnx"), {})
    model._session = Session((-3.0, 2.0), (0.4, 0.9), (0.4, 0.9))  # type: ignore[assignment]
    model.load()
    pictured = [
        type(f)(f.camera_id, f.index, f.captured_at, np.zeros((32, 32, 3), np.uint8)) for f in make_frames("hall", 3)
    ]
    found = [model.run([frame])[0].value.tolist() for frame in pictured[:2]]
    model.unload()
    model.load()
    found += [model.run([pictured[2]])[0].value.tolist()]
    assert found == [pytest.approx(sigmoid(*raw)) for raw in ((-3.0, 2.0), (0.4, 0.9), (0.4, 0.9))]


def test_shares_stay_shares_and_a_head_that_is_known_to_give_logits_needs_no_example() -> None:
    raw = np.array([0.4, 0.9], np.float32)
    assert Head("multi_label")(raw).tolist() == pytest.approx([0.4, 0.9])
    assert Head("multi_label")(np.array([1.004, -0.004], np.float32)).tolist() == [1.0, 0.0]  # quantised
    assert Head("multi_label", gives_logits=True)(raw).tolist() == pytest.approx(sigmoid(0.4, 0.9))
