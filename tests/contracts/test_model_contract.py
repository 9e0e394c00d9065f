"""Every adapter keeps the model contract, each over a tiny network made on the spot; the real weights do too (slow)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from camlink.models import catalogue
from camlink.models.base import Inference, Model, OutputSpec
from camlink.models.contract import check_model
from camlink.models.onnx import OnnxClassifier, OnnxDetector
from camlink.models.profile import PricedModel
from camlink.models.recorded import open_trace
from camlink.models.torchvision import TorchvisionClassifier
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.errors import WeightsError
from camlink.pipeline.records import Frame
from tests.models.tiny import MeanColour, picture, write_classifier_onnx, write_trace, write_yolo_onnx

COLOURS = OutputSpec("colour", "vector", 3, "single_label", ("red", "green", "blue"))


def recorded(folder: Path) -> Model:
    return open_trace(write_trace(folder / "trace")).model("light")


def onnx_detector(folder: Path) -> Model:
    spec = OutputSpec("things", "vector", 2, "count", ("car", "person"))
    return PricedModel(OnnxDetector(spec, write_yolo_onnx(folder / "y.onnx"), spec.labels, image_size=64), 1.0, 0.1)


def onnx_scores(folder: Path) -> Model:
    spec = OutputSpec("things", "vector", 1, "multi_label", ("car",))
    return PricedModel(OnnxDetector(spec, write_yolo_onnx(folder / "y.onnx"), ("car",), image_size=64), 1.0, 0.1)


def onnx_classifier(folder: Path) -> Model:
    return PricedModel(OnnxClassifier(COLOURS, write_classifier_onnx(folder / "c.onnx"), {}), 1.0, 0.1)


def torchvision_classifier(folder: Path) -> Model:
    import torch
    import torchvision

    torch.manual_seed(0)
    torch.save(torchvision.models.get_model("shufflenet_v2_x0_5", num_classes=3).state_dict(), folder / "s.pt")
    return PricedModel(TorchvisionClassifier(COLOURS, "shufflenet_v2_x0_5", folder / "s.pt", image_size=64), 1.0, 0.1)


@pytest.mark.parametrize(
    "make",
    [
        recorded,
        onnx_detector,
        onnx_scores,
        onnx_classifier,
        pytest.param(torchvision_classifier, marks=pytest.mark.slow),
        lambda _: MeanColour(),
    ],
)
def test_keeps_the_contract(make: Callable[[Path], Model], tmp_path: Path) -> None:
    check_model(make(tmp_path), [picture(0), picture(1, 36, 64), picture(2, 64, 48)])


@pytest.mark.slow
@pytest.mark.footage
@pytest.mark.parametrize("name", catalogue.names())
def test_real_weights_keep_the_contract(name: str, footage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.setenv("CAMLINK_WEIGHTS_OFFLINE", "1")
    clip = cv2.VideoCapture(str(footage / "building" / "campus-crossing.avi"))
    pictures = [clip.read()[1] for _ in range(2)]
    clip.release()
    pictures.append(np.ascontiguousarray(pictures[0][:360]))
    try:
        model = catalogue.build(replace(catalogue.definition(name), time_ms=1.0, memory_gb=0.1), device="cpu")
    except WeightsError as error:
        pytest.skip(f"run `camlink models pull` first: {error}")
    check_model(model, [Frame("campus", index, EPOCH, pixels) for index, pixels in enumerate(pictures)])


class Faulty(MeanColour):
    """Breaks the contract in one way."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.runs = 0

    def run(self, frames: list[Frame]) -> list[Inference]:  # type: ignore[override]
        self.runs += 1
        answers = super().run(frames)
        match self.fault:
            case "short":
                return answers[:-1]
            case "double":
                return [Inference(answer.value.astype(np.float64)) for answer in answers]  # type: ignore[arg-type]
            case "neighbours":
                return [Inference(answer.value + np.float32(len(frames))) for answer in answers]
            case "forgetful":
                return [Inference(answer.value + np.float32(self.runs > 6)) for answer in answers]
        return answers


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("short", "values for 3 frames"),
        ("double", "wanted float32"),
        ("neighbours", "depends on the other frames"),
        ("forgetful", "after unload and load"),
    ],
)
def test_the_contract_finds_faults(fault: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_model(Faulty(fault), [picture(i) for i in range(3)])
