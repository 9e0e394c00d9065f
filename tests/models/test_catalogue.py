"""The catalogue says what each model is; building one finds its weights, its backend and its costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from camlink.models import building, catalogue
from camlink.models.base import Inference
from camlink.models.catalogue import ModelDefinition, build, definition, output_spec, sets
from camlink.models.classes import Grouping
from camlink.models.profile import stored
from camlink.models.weights import REGISTRY
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.errors import ModelError, WeightsError
from camlink.pipeline.records import Frame
from tests.models.tiny import picture, write_classifier_onnx, write_trace, write_yolo_onnx


def test_every_model_of_a_set_is_known_and_says_what_it_is() -> None:
    for names in sets().values():
        for name in names:
            model = definition(name)
            spec = output_spec(model)
            assert spec.model == name
            assert spec.size == len(spec.labels)
            assert model.weights in REGISTRY
            assert model.licence
            assert len(model.description) > 40


def test_yolo_models_state_their_licence() -> None:
    for name in catalogue.names():
        model = definition(name)
        if model.adapter == "ultralytics":
            assert model.licence == "AGPL-3.0"


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match='did you mean "persons"'):
        definition("person")


def test_a_definition_without_labels_takes_those_of_its_classes_or_groups() -> None:
    assert ModelDefinition("m", "onnx", "x.onnx", "count", classes=("car", "bus")).labels == ("car", "bus")
    assert ModelDefinition("m", "onnx", "x.onnx", "single_label", groups={"wet": ("rain",)}).labels == ("wet",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "give labels"),
        ({"labels": ("a", "b"), "classes": ("a",)}, "1 classes for 2 labels"),
        ({"labels": ("a",), "groups": {"b": ("x",)}}, 'the group "b" is none of its labels'),
    ],
)
def test_definitions_that_contradict_themselves_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ModelDefinition("m", "onnx", "x.onnx", "count", **changes)  # type: ignore[arg-type]


def test_groups_sum_their_classes_and_other_takes_the_rest() -> None:
    grouping = Grouping("m", ("cars", "other"), {"cars": ("cab", "jeep")}, ("cab, taxi", "jeep, landrover", "crane"))
    np.testing.assert_allclose(grouping(np.float32([0.25, 0.25, 0.25])), [0.5, 0.5])  # a quarter was rounded away
    with pytest.raises(ModelError, match='no class "jeeps"; did you mean "jeep"'):
        Grouping("m", ("cars",), {"cars": ("jeeps",)}, ("cab", "jeep"))


def test_builds_an_onnx_detector_that_counts(tmp_path: Path) -> None:
    path = write_yolo_onnx(tmp_path / "y.onnx")
    model = build(
        ModelDefinition("things", "onnx", str(path), "count", ("car", "person"), image_size=32, time_ms=7, memory_gb=1),
        device="cpu",
        cache_dir=tmp_path,
    )
    assert (model.time_ms, model.memory_gb) == (7, 1)
    model.load()
    reddish = Frame("a", 0, EPOCH, np.full((32, 32, 3), (0, 40, 200), np.uint8))
    greenish = Frame("a", 1, EPOCH, np.full((32, 32, 3), (0, 200, 40), np.uint8))
    dim = Frame("a", 2, EPOCH, np.full((32, 32, 3), (0, 50, 40), np.uint8))
    found = model.run([reddish, greenish, dim])
    assert [answer.value.tolist() for answer in found] == [[0, 1], [1, 0], [0, 0]]
    assert found[2].detections is not None
    np.testing.assert_allclose(found[2].detections.scores, [50 / 255], rtol=1e-5)
    np.testing.assert_allclose(found[0].detections.xyxy, [[0.25, 0.375, 0.75, 0.625]])  # type: ignore[union-attr]


def test_costs_that_are_not_stated_are_measured_once_and_kept(tmp_path: Path) -> None:
    path = write_classifier_onnx(tmp_path / "c.onnx")
    entry = ModelDefinition("colour", "onnx", str(path), "single_label", ("red", "green", "blue"), memory_gb=0.5)
    model = build(entry, device="cpu", cache_dir=tmp_path)
    assert model.memory_gb == 0.5
    assert 0 < model.time_ms < 1000
    assert build(entry, device="cpu", cache_dir=tmp_path).time_ms == model.time_ms


def test_on_cpu_the_backend_measured_to_be_faster_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "own.pt"
    weights.write_bytes(b"stand-in")
    entry = ModelDefinition("own", "ultralytics", str(weights), "count", ("person",), time_ms=1.0, memory_gb=1.0)
    taken: list[str] = []
    monkeypatch.setattr(building, "_yolo", lambda d, path, place, backend, cache: taken.append(backend) or Named(d))
    build(entry, "cpu", tmp_path)
    for backend, ms in (("onnxruntime", 60.0), ("torch", 40.0)):
        key = building._key(entry, building.sha256_of(weights), "cpu", backend)
        profile = building.measure(Named(entry), key, [picture()], (1,))
        building.store(replace(profile, ms_by_batch={1: ms}), tmp_path)
        assert stored(key, tmp_path) is not None
    build(entry, "cpu", tmp_path)
    assert taken == ["onnxruntime", "torch"]


class Named:
    """A runner that does nothing, for a definition."""

    def __init__(self, entry: ModelDefinition) -> None:
        self.spec = output_spec(entry)

    def load(self) -> None: ...
    def unload(self) -> None: ...
    def run(self, frames: list[Frame]) -> list[Inference]:
        return [Inference(np.zeros(self.spec.size, np.float32)) for _ in frames]


def test_builds_a_recorded_model_from_its_trace(tmp_path: Path) -> None:
    folder = write_trace(tmp_path / "t")
    model = build(ModelDefinition("people", "recorded", str(folder), "count"))
    assert (model.spec.labels, model.time_ms, model.memory_gb) == (("person",), 20.0, 1.5)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (ModelDefinition("m", "torchvision", "resnet18", "single_label", ("a",)), "should read ARCHITECTURE:PATH"),
        (ModelDefinition("m", "onnx", "nowhere.onnx", "single_label", ("a",)), "neither a file"),
    ],
)
def test_weights_that_cannot_be_are_refused(entry: ModelDefinition, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        build(entry, "cpu", tmp_path)


def test_a_file_that_is_no_network_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match=r"cannot load .*bad\.onnx"):
        build(ModelDefinition("m", "onnx", str(tmp_path / "bad.onnx"), "count", ("a",)), "cpu", tmp_path)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(building.machine, "cuda_devices", lambda: 0)
    path = write_classifier_onnx(tmp_path / "c.onnx")
    entry = ModelDefinition("m", "onnx", str(path), "single_label", ("a", "b", "c"))
    with pytest.raises(ModelError, match="no CUDA device"):
        build(entry, "cuda", tmp_path)
    with pytest.raises(ModelError, match="write auto, cpu, cuda or cuda:N"):
        build(entry, "gpu", tmp_path)


@pytest.mark.slow
@pytest.mark.footage
@pytest.mark.parametrize("clip", ["campus-crossing.avi", "one-by-one-person-detection.mp4"])
def test_the_onnx_backend_counts_as_torch_does(
    clip: str, footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    monkeypatch.setenv("CAMLINK_WEIGHTS_OFFLINE", "1")
    entry = definition("objects")
    cache = building.cache_folder()
    try:
        path = building.fetch(entry.weights)
    except WeightsError as error:
        pytest.skip(f"run `camlink models pull` first: {error}")
    video = cv2.VideoCapture(str(footage / "building" / clip))
    frames = [Frame("a", index, EPOCH, video.read()[1]) for index in range(300)][::30]
    video.release()
    values = []
    for backend in building.backends(entry, "cpu"):
        runner = building._runner(entry, path, "cpu", backend, cache)
        runner.load()
        values.append([answer.value.tolist() for answer in runner.run(frames)])
        runner.unload()
    assert values[0] == values[1]
