"""Models in ONNX files, run by onnxruntime: YOLO detectors exported by ultralytics, and classifiers of any origin.

Frames are run one by one although they arrive in batches. On CPU a batch saves nothing (measured on 2 cores: 36 ms a
frame in a batch of 4, 37 ms alone), and alone each frame keeps its own shape (a 16:9 frame needs no square padding) and
a value that never depends on its neighbours.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camlink.models import device as machine
from camlink.models import images
from camlink.models.base import Inference, OutputSpec
from camlink.models.classes import Grouping, Head
from camlink.models.detections import (
    as_detections,
    check_yolo,
    counted_ids,
    counts,
    decode_end_to_end,
    decode_yolo,
    highest_scores,
    relabel,
)
from camlink.pipeline.errors import ModelError
from camlink.pipeline.records import Frame

log = logging.getLogger(__name__)

_CUDA = "CUDAExecutionProvider"
_DTYPES: dict[str, type[np.floating[Any]]] = {  # of inputs
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class OnnxSession:
    """An ONNX file in memory: what `OnnxDetector` and `OnnxClassifier` share."""

    def __init__(self, model: str, path: Path, device: str = "cpu") -> None:
        self.model, self.path, self.device = model, path, device
        self._session: Any = None
        self._dtype: type[np.floating[Any]] = np.float32
        self.input_shape: tuple[int | str, ...] = ()
        self.metadata: dict[str, str] = {}

    def load(self) -> None:
        """Open the file. Raises `ModelError` naming it, also where it takes something else than one picture."""
        if self._session is not None:
            return
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = machine.threads()
        options.log_severity_level = 3
        # Spinning threads of one model steal the cores of the next one in turn.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[Any] = ["CPUExecutionProvider"]
        if self.device.startswith("cuda"):
            if _CUDA in onnxruntime.get_available_providers():
                providers.insert(0, (_CUDA, {"device_id": int(self.device.partition(":")[2] or 0)}))
            else:
                log.warning("model %s: onnxruntime here knows no CUDA, so that it runs on the CPU", self.model)
        try:
            session = onnxruntime.InferenceSession(str(self.path), options, providers)
        except Exception as error:  # onnxruntime's own classes share no public root
            raise ModelError(f'model "{self.model}": cannot load {self.path}: {error}') from error
        taken = session.get_inputs()[0]
        self.input_shape = tuple(taken.shape)
        one_picture = len(taken.shape) == 4 and all(
            not isinstance(given, int) or given == wanted for given, wanted in zip(taken.shape[:2], (1, 3), strict=True)
        )
        if taken.type not in _DTYPES or not one_picture:
            raise ModelError(
                f'model "{self.model}": {self.path} takes a {taken.type} of shape {taken.shape}, wanted floats '
                "of shape (1, 3, height, width); export it for one picture at a time"
            )
        self._session, self._dtype = session, _DTYPES[taken.type]
        self.metadata = dict(session.get_modelmeta().custom_metadata_map)

    def unload(self) -> None:
        """Free the session."""
        self._session = None

    def __call__(self, planes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the first output for one input ``(1, 3, H, W)``. Raises `ModelError`."""
        if self._session is None:
            raise ModelError(f'model "{self.model}": asked to run while not loaded; call load() first')
        try:
            name = self._session.get_inputs()[0].name
            first = self._session.run(None, {name: planes.astype(self._dtype, copy=False)})[0]
        except Exception as error:
            raise ModelError(f'model "{self.model}": failed on an input of shape {planes.shape}: {error}') from error
        return np.asarray(first, np.float32)

    def class_names(self) -> dict[int, str]:
        """Return the class names that ultralytics' exporter wrote into the file, empty if there are none."""
        return {int(number): str(name) for number, name in self._told("names").items()}

    def suppresses_overlaps(self) -> bool:
        """Say whether the network gives boxes without overlaps: by its nature, or exported with ``nms=True``."""
        return self.metadata.get("end2end") == "True" or bool(self._told("args").get("nms"))

    def _told(self, key: str) -> dict[Any, Any]:
        try:
            return dict(ast.literal_eval(self.metadata.get(key, "{}")))
        except (ValueError, SyntaxError, TypeError) as error:
            raise ModelError(f'model "{self.model}": {self.path} carries unreadable {key}: {error}') from error


class OnnxDetector:
    """A YOLO detection or pose network, exported by ultralytics, as counts or highest scores per label."""

    def __init__(
        self,
        spec: OutputSpec,
        path: Path,
        classes: Sequence[str | int],
        confidence: float = 0.25,
        image_size: int = 640,
        device: str = "cpu",
    ) -> None:
        self.spec = spec
        self._session = OnnxSession(spec.model, path, device)
        self._classes, self._confidence, self._size = tuple(classes), confidence, image_size
        self._ids: tuple[int, ...] = ()
        self._known = 0
        self._ends = False

    def load(self) -> None:
        """Open the file and find the counted classes in it. Raises `ModelError`."""
        self._session.load()
        try:
            check_yolo(self.spec, self._session.metadata.get("task", "detect"))
            names = self._session.class_names()
            if not names:
                raise ModelError(
                    f'model "{self.spec.model}": {self._session.path} names no classes; export it with ultralytics'
                )
            self._ids, self._known = counted_ids(self.spec.model, self._classes, names), len(names)
            self._ends = self._session.suppresses_overlaps()
        except ModelError:
            self._session.unload()
            raise

    def unload(self) -> None:
        self._session.unload()

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        """Return counts (task "count") or highest scores (other tasks), with the boxes behind them."""
        return [self._infer(frame) for frame in frames]

    def _infer(self, frame: Frame) -> Inference:
        picture = images.picture_of(frame, self.spec.model)
        fixed = tuple(side for side in self._session.input_shape[2:] if isinstance(side, int))
        size = (fixed[0], fixed[1]) if len(fixed) == 2 else self._size
        boxed = images.letterbox(picture, size, filled=len(fixed) == 2)
        raw = self._session(images.to_planes(boxed.pixels))[0]
        if self._ends:
            xyxy, scores, classes = decode_end_to_end(raw, self._ids)
        else:
            xyxy, scores, classes = decode_yolo(raw, self._known, self._ids)
        found = as_detections(boxed.to_unit(xyxy), scores, relabel(classes, self._ids))
        if self.spec.task == "count":
            return Inference(counts(found, self.spec.size, self._confidence), found)
        return Inference(highest_scores(found, self.spec.size), found)


class OnnxClassifier:
    """A network with one output per class: probabilities (or logits), or the numbers themselves for a regression.

    Class names come from ``names`` or from the file's metadata, else they are the labels themselves, in order. A file
    that ultralytics exported gets ultralytics' preprocessing (0..1), any other one the ImageNet normalisation.
    """

    def __init__(
        self,
        spec: OutputSpec,
        path: Path,
        groups: Mapping[str, Sequence[str]],
        names: Sequence[str] = (),
        image_size: int = 224,
        device: str = "cpu",
    ) -> None:
        self.spec = spec
        self._session = OnnxSession(spec.model, path, device)
        self._groups, self._names, self._size = groups, tuple(names), image_size
        self._outputs = spec.size
        self._head = Head(spec.task)  # outlives unloading: what it has learnt of the network stays true

    def load(self) -> None:
        """Open the file and resolve the groups. Raises `ModelError`."""
        self._session.load()
        try:
            if (task := self._session.metadata.get("task", "classify")) != "classify":
                raise ModelError(
                    f'model "{self.spec.model}": {self._session.path} is a YOLO network of task "{task}"; name the '
                    "classes that it finds under `classes`"
                )
            from_file = self._session.class_names()
            names = self._names or tuple(from_file[i] for i in sorted(from_file)) or self.spec.labels
            if self.spec.task == "single_label":
                self._head.grouping = Grouping(self.spec.model, self.spec.labels, self._groups, names)
        except ModelError:
            self._session.unload()
            raise
        self._outputs = len(names) if self.spec.task == "single_label" else self.spec.size

    def unload(self) -> None:
        self._session.unload()

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        """Return probabilities per label."""
        return [self._infer(frame) for frame in frames]

    def _infer(self, frame: Frame) -> Inference:
        picture = images.picture_of(frame, self.spec.model)
        shape = self._session.input_shape
        size = int(shape[3]) if len(shape) == 4 and isinstance(shape[3], int) else self._size
        if self._session.metadata.get("author") == "Ultralytics":
            planes = images.to_planes(images.centre_crop(picture, size))
        else:
            planes = images.imagenet_planes(picture, size)
        raw = self._session(planes).reshape(-1)
        if len(raw) != self._outputs:
            of = "classes" if self.spec.task == "single_label" else "labels"
            raise ModelError(
                f'model "{self.spec.model}": {self._session.path} gives {len(raw)} numbers for {self._outputs} {of}'
            )
        return Inference(self._head(raw))
