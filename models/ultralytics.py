"""YOLO weights run by ultralytics in torch: the backend on CUDA (half precision), and for YOLO classifiers everywhere.

Frames of one shape run together, so that a frame's input, and with it its value, never depends on which other cameras
happened to be in the batch (ultralytics itself pads a mixed batch to squares).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from camlink.models import device as machine
from camlink.models import images
from camlink.models.base import Inference, OutputSpec
from camlink.models.classes import Grouping
from camlink.models.detections import (
    KEPT_SCORE,
    MAX_BOXES,
    OVERLAP,
    as_detections,
    check_yolo,
    counted_ids,
    counts,
    highest_scores,
    relabel,
)
from camlink.models.weights import cache_folder
from camlink.pipeline.errors import ModelError
from camlink.pipeline.records import Frame


def library(cache: Path | None = None) -> Any:
    """Return the package ultralytics, with installing, phoning home and writing into the user's folders turned off.

    The switches are read when it is first imported, hence this one door. Raises `ModelError`.
    """
    settings_folder = cache_folder(cache) / "ultralytics"
    settings_folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("YOLO_CONFIG_DIR", str(settings_folder))
    for switch, value in (("YOLO_AUTOINSTALL", "false"), ("YOLO_OFFLINE", "true"), ("YOLO_VERBOSE", "false")):
        os.environ.setdefault(switch, value)
    try:
        import ultralytics
    except ImportError as error:
        raise ModelError("ultralytics is not installed (pip install ultralytics)") from error
    package: Any = ultralytics
    if package.settings.get("sync"):
        package.settings.update({"sync": False})
    return package


def open_yolo(path: Path, cache: Path | None = None) -> Any:
    """Return ``ultralytics.YOLO(path)``. Raises `ModelError`."""
    package = library(cache)
    try:
        return package.YOLO(str(path))
    except Exception as error:  # a broken checkpoint can raise anything
        raise ModelError(f"cannot open {path} as YOLO weights: {error}") from error


def version() -> str:
    """Return ultralytics' version without importing it (seconds)."""
    try:
        return metadata.version("ultralytics")
    except metadata.PackageNotFoundError:
        raise ModelError("ultralytics is not installed (pip install ultralytics)") from None


class UltralyticsModel:
    """A YOLO detector, pose network or classifier as counts, highest scores, or probabilities per label."""

    def __init__(
        self,
        spec: OutputSpec,
        path: Path,
        classes: Sequence[str | int] = (),
        groups: Mapping[str, Sequence[str]] | None = None,
        confidence: float = 0.25,
        image_size: int = 640,
        device: str = "cpu",
        cache: Path | None = None,
    ) -> None:
        self.spec = spec
        self._path, self._classes, self._groups = path, tuple(classes), dict(groups or {})
        self._confidence, self._size, self._device, self._cache = confidence, image_size, device, cache
        self._yolo: Any = None
        self._ids: tuple[int, ...] = ()
        self._grouping: Grouping | None = None

    def load(self) -> None:
        """Open the checkpoint and find its classes. Raises `ModelError`."""
        if self._yolo is not None:
            return
        yolo = open_yolo(self._path, self._cache)
        check_yolo(self.spec, yolo.task)
        names = {int(number): str(name) for number, name in yolo.names.items()}
        if yolo.task == "classify":
            ordered = [names[i] for i in sorted(names)]
            self._grouping = Grouping(self.spec.model, self.spec.labels, self._groups, ordered)
        else:
            self._ids = counted_ids(self.spec.model, self._classes, names)
        if self._device == "cpu":
            import torch

            torch.set_num_threads(machine.threads())
        self._yolo = yolo

    def unload(self) -> None:
        """Drop the network; on CUDA, give its memory back to the device."""
        self._yolo = None
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        """Return one inference per frame, in order; frames of equal shape share a batch."""
        if self._yolo is None:
            raise ModelError(f'model "{self.spec.model}": asked to run while not loaded; call load() first')
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for place, frame in enumerate(frames):
            by_shape.setdefault(images.picture_of(frame, self.spec.model).shape, []).append(place)
        found: dict[int, Inference] = {}
        for places in by_shape.values():
            found.update(zip(places, self._run_alike([frames[place] for place in places]), strict=True))
        return [found[place] for place in range(len(frames))]

    def _run_alike(self, frames: Sequence[Frame]) -> list[Inference]:
        from ultralytics.utils import DEFAULT_CFG_DICT

        half = {"quantize": 16} if "quantize" in DEFAULT_CFG_DICT else {"half": True}  # renamed within 8.4
        try:
            results = self._yolo.predict(
                [frame.pixels for frame in frames],
                imgsz=self._size,
                conf=KEPT_SCORE,
                iou=OVERLAP,
                max_det=MAX_BOXES,
                device=self._device,
                verbose=False,
                **(half if self._device.startswith("cuda") else {}),
            )
        except Exception as error:  # torch raises RuntimeError and its children for everything
            raise ModelError(f'model "{self.spec.model}": failed on {len(frames)} frames: {error}') from error
        return [self._inference(result) for result in results]

    def _inference(self, result: Any) -> Inference:
        if self._grouping is not None:
            return Inference(self._grouping(result.probs.data.float().cpu().numpy()))
        classes = result.boxes.cls.int().cpu().numpy()
        wanted = np.isin(classes, self._ids)
        found = as_detections(
            result.boxes.xyxyn.float().cpu().numpy()[wanted],
            result.boxes.conf.float().cpu().numpy()[wanted],
            relabel(classes[wanted], self._ids),
        )
        if self.spec.task == "count":
            return Inference(counts(found, self.spec.size, self._confidence), found)
        return Inference(highest_scores(found, self.spec.size), found)
