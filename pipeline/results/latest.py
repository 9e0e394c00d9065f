"""Keeps each camera's latest picture, with the outputs and boxes that belong to that very frame, for people to look at.

    RUN/latest/CAMERA.json           frame, time, and per model: how, value, boxes (corners x, y, x, y in 0..1)
    RUN/latest/CAMERA/INDEX.jpg      the picture; the one before it stays until the next, for pages that ask late

It is a view of the moment: nothing here is synced to disk, and nothing is computed from it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camlink.models.base import OutputSpec
from camlink.pipeline.records import FrameResult, Picture
from camlink.pipeline.results.tables import folder_name
from camlink.pipeline.results.told import told_output

logger = logging.getLogger(__name__)

RECENT = 32  # results kept per camera for a picture that comes after its result


class LatestPictures:
    """Joins pictures with results, which come in either order. A disk that refuses costs a picture, not the run."""

    def __init__(self, run_dir: Path, specs: Mapping[str, OutputSpec]) -> None:
        self._folder = run_dir / "latest"
        self._specs = specs
        self._results: dict[str, dict[int, FrameResult]] = {}
        self._waiting: dict[str, Picture] = {}
        self._shown: dict[str, int] = {}  # by camera: the frame whose picture was written last
        self._failing = False

    def on_result(self, result: FrameResult) -> None:
        """Note what is known of a frame; relabelled frames are none that a user gets."""
        if result.purpose == "relabel":
            return
        picture = self._waiting.get(result.camera_id)
        if picture is not None and picture.frame_index == result.frame_index:
            del self._waiting[result.camera_id]
            self._write(picture, result)
        recent = self._results.setdefault(result.camera_id, {})
        recent[result.frame_index] = result
        if len(recent) > RECENT:
            del recent[next(iter(recent))]

    def on_picture(self, picture: Picture) -> None:
        """Show a picture once its frame's outputs are known."""
        result = self._results.get(picture.camera_id, {}).get(picture.frame_index)
        if result is None:
            self._waiting[picture.camera_id] = picture
        else:
            self._write(picture, result)

    def _write(self, picture: Picture, result: FrameResult) -> None:
        pictures = self._folder / folder_name(picture.camera_id)
        told = {
            "frame_index": result.frame_index,
            "captured_at": result.captured_at.isoformat(),
            "purpose": result.purpose,
            "outputs": {o.model: told_output(o, self._specs.get(o.model)) for o in result.outputs if o.served},
        }
        try:
            pictures.mkdir(parents=True, exist_ok=True)
            _replace(pictures / f"{result.frame_index}.jpg", picture.jpeg)
            _replace(pictures.with_name(f"{pictures.name}.json"), json.dumps(told).encode())
            kept = {result.frame_index, self._shown.get(picture.camera_id)}
            for old in _indexes(pictures) - kept:  # not by their order: an index may begin again from 0
                (pictures / f"{old}.jpg").unlink(missing_ok=True)
            self._shown[picture.camera_id] = result.frame_index
            self._failing = False
        except OSError as error:
            if not self._failing:
                logger.warning("%s: no latest pictures: %s", self._folder, error)
            self._failing = True


def read_latest(run_dir: Path, camera_id: str) -> dict[str, Any] | None:
    """Return what is known of a camera's latest picture; None when there is none."""
    file = run_dir / "latest" / f"{folder_name(camera_id)}.json"
    try:
        told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return told


def latest_picture(run_dir: Path, camera_id: str, index: int) -> Path:
    """Return where the picture of a frame lies while it is among the latest."""
    return run_dir / "latest" / folder_name(camera_id) / f"{index}.jpg"


def _indexes(folder: Path) -> set[int]:
    return {int(file.stem) for file in folder.glob("*.jpg") if file.stem.isdigit()}


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
