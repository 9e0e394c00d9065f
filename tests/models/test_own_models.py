"""A model of the user's own gives what its network says, or is refused before the first frame, with advice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer

from camlink.models import building, export
from camlink.models.catalogue import ModelDefinition, build, output_spec
from camlink.models.detections import check_yolo
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.commands.running import build_pool
from camlink.pipeline.commands.settings import load_settings
from camlink.pipeline.config import load_config
from camlink.pipeline.errors import ConfigError, ModelError
from camlink.pipeline.records import Frame
from tests.models.tiny import picture, write_boxes_onnx, write_classifier_onnx, write_yolo_onnx

LABELS = ("car", "person")


def own(path: Path, task: str = "count", labels: tuple[str, ...] = LABELS, **more: object) -> ModelDefinition:
    return ModelDefinition("own", "onnx", str(path), task, labels, time_ms=1.0, memory_gb=1.0, **more)  # type: ignore[arg-type]


def test_a_network_that_suppresses_overlaps_itself_is_read_row_by_row(tmp_path: Path) -> None:
    model = build(own(write_boxes_onnx(tmp_path / "y.onnx")), "cpu", tmp_path)
    model.load()
    (found,) = model.run([picture()])
    assert found.value.tolist() == [3, 0]
    assert found.detections is not None
    np.testing.assert_allclose(found.detections.scores, [0.9, 0.8, 0.3])


def test_a_network_of_a_fixed_oblong_input_gets_it_filled(tmp_path: Path) -> None:
    path = write_yolo_onnx(tmp_path / "y.onnx", shape=(1, 3, 32, 64))
    model = build(own(path), "cpu", tmp_path)
    model.load()
    red = np.full((64, 64, 3), (0, 0, 255), np.uint8)  # scaled to 32x32, with 16 columns of padding left and right
    (found,) = model.run([Frame("a", 0, EPOCH, red)])
    assert found.value.tolist() == [0, 1]
    assert found.detections is not None
    np.testing.assert_allclose(found.detections.xyxy, [[0.0, 0.375, 0.25, 0.625]])  # the input's columns 8 to 24


@pytest.mark.parametrize("shape", [(4, 3, 32, 32), (1, 1, 32, 32), (1, 32, 32, 3)])
def test_a_network_that_takes_something_else_than_one_picture_is_refused(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    path = write_classifier_onnx(tmp_path / "c.onnx", shape)
    with pytest.raises(ModelError, match=r"wanted floats of shape \(1, 3, height, width\)"):
        build(own(path, "single_label"), "cpu", tmp_path)


def test_networks_are_refused_for_tasks_that_they_do_not_give(tmp_path: Path) -> None:
    detector, classifier = write_yolo_onnx(tmp_path / "y.onnx"), write_classifier_onnx(tmp_path / "c.onnx")
    of_pictures = write_yolo_onnx(tmp_path / "p.onnx", told={"task": "classify"})
    for entry, message in (
        (own(detector, "single_label"), 'of task "detect"; name the classes that it finds'),
        (own(detector, "multi_label"), 'of task "detect"; name the classes that it finds'),
        (own(of_pictures), "its task is single_label, not count"),
        (own(classifier), "names no classes"),
        (own(classifier, "single_label"), "gives 3 numbers for 2 classes"),
        (own(classifier, "multi_label"), "gives 3 numbers for 2 labels"),
        (own(classifier, "regression"), "gives 3 numbers for 2 labels"),
        (own(detector, labels=("two", "names"), classes=("car", 1)), '"car" is counted twice'),
    ):
        with pytest.raises(ModelError, match=message):
            build(entry, "cpu", tmp_path)


@pytest.mark.parametrize(
    ("network", "task", "message"),
    [("obb", "count", '"obb" are not read'), ("pose", "regression", "count or multi_label, not regression")],
)
def test_yolo_weights_that_cannot_give_what_is_asked_are_refused(network: str, task: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        check_yolo(output_spec(own(Path("y.onnx"), task)), network)


@pytest.mark.parametrize(
    ("adapter", "task", "more", "message"),
    [
        ("tflite", "regression", {}, "adapter tflite gives single_label, not regression"),
        ("torchvision", "count", {}, "adapter torchvision gives multi_label, single_label, regression, not count"),
        ("onnx", "count", {"labels": ("car", "car")}, 'the label "car" stands twice'),
        ("onnx", "multi_label", {"groups": {"car": ("cab",)}}, "groups are summed for task single_label"),
        ("onnx", "single_label", {"classes": LABELS}, "classes are what a detector finds"),
        ("ultralytics", "count", {"image_size": 500}, "no multiple of 32; take 480 or 512"),
        ("ultralytics", "count", {"confidence": 0.05}, "below 0.1, under which no box is kept"),
    ],
)
def test_definitions_of_what_no_network_gives_are_refused(
    adapter: str, task: str, more: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        ModelDefinition("m", adapter, "x", task, **{"labels": LABELS, **more})  # type: ignore[arg-type]


def test_a_regression_says_at_which_error_it_is_wrong() -> None:
    assert output_spec(own(Path("r.onnx"), "regression", ("celsius",), scale=5.0)).scale == 5.0


def test_a_wrong_model_of_a_site_is_told_with_its_line(tmp_path: Path) -> None:
    write_yolo_onnx(tmp_path / "y.onnx")
    entry = "{name: own, adapter: onnx, weights: y.onnx, task: count, labels: [cat], time_ms: 1, memory_gb: 1}"
    (tmp_path / "site.yaml").write_text(f"device: cpu\nmodels:\n  - {entry}\n")
    with pytest.raises(ConfigError, match=r'site.yaml:3: model "own": the weights know no class "cat"; did you mean'):
        build_pool(load_config(tmp_path / "site.yaml"))


def test_an_option_names_models_of_the_file_and_of_the_catalogue(tmp_path: Path) -> None:
    entry = "{name: own, adapter: onnx, weights: y.onnx, task: count, labels: [cat], confidence: 0.4}"
    (tmp_path / "site.yaml").write_text(f"models: [objects, {entry}]\n")
    chosen = load_settings(str(tmp_path / "site.yaml"), {"models": "own, persons"}).model_definitions()
    assert [(model.name, model.confidence) for model in chosen] == [("own", 0.4), ("persons", 0.25)]
    with pytest.raises(typer.BadParameter, match='"owm" is no model here; did you mean "own"'):
        load_settings(str(tmp_path / "site.yaml"), {"models": "owm"})


def test_weights_of_torchvision_are_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "gates.pt").touch()
    entry = '{name: own, adapter: torchvision, weights: "resnet18:gates.pt", task: single_label, labels: [open]}'
    (tmp_path / "site.yaml").write_text(f"models: [{entry}]\n")
    (definition,) = load_config(tmp_path / "site.yaml").model_definitions()
    assert definition.weights == f"resnet18:{tmp_path / 'gates.pt'}"
    building.check_files(definition)


def test_weights_that_are_none_are_named_as_the_user_named_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, cache: Path | None = None) -> None:
        raise ModelError(f"cannot open {path} as YOLO weights")

    monkeypatch.setattr(export, "open_yolo", refuse)
    weights = tmp_path / "own.pt"
    weights.write_bytes(b"no weights")
    with pytest.raises(ModelError, match=f"cannot open {weights} as YOLO weights"):
        export.exported(weights, 640, tmp_path / "cache")
