"""Keeps pictures of the audit frames on which predictions went most wrong, a bounded number per camera."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar
from zlib import crc32

from camlink.models.base import OutputSpec
from camlink.models.scores import RULES, agreement
from camlink.operators.certificates import is_on_trial
from camlink.pipeline.durable import write_durably
from camlink.pipeline.records import FrameResult, Picture
from camlink.pipeline.results.tables import folder_name

PENDING = 256  # audit frames that may wait for their other half, over all cameras

FrameKey = tuple[str, int]
Rank = tuple[float, int]
V = TypeVar("V")


class DisagreementPictures:
    """Joins pictures with audit results, which come in either order, and keeps the worst ``per_camera`` of them.

    Among equally wrong frames the choice is a hash of (camera, index): a sample spread over the run, the same in
    every replay.
    """

    def __init__(self, run_dir: Path, specs: Mapping[str, OutputSpec], per_camera: int = 24) -> None:
        self._folder = run_dir / "pictures"
        self._specs = {name: spec for name, spec in specs.items() if spec.task in RULES}
        self._per_camera = per_camera
        self._pictures: dict[FrameKey, bytes] = {}  # waiting for a result
        self._wrong: dict[FrameKey, float] = {}  # waiting for a picture
        self._kept: dict[str, list[tuple[Rank, int]]] = {}  # per camera: a heap, the least wrong on top

    def on_result(self, result: FrameResult) -> None:
        """Judge an audit frame: its picture is wanted if a shadow prediction differs from the execution."""
        key = (result.camera_id, result.frame_index)
        wrongness = self._wrongness(result)
        jpeg = self._pictures.pop(key, None)
        if wrongness <= 0.0:
            return
        if jpeg is None:
            _put_bounded(self._wrong, key, wrongness)
        else:
            self._keep(key, wrongness, jpeg)

    def on_picture(self, picture: Picture) -> None:
        """Keep the picture if its frame is known to be wrong, or hold it until the result comes."""
        key = (picture.camera_id, picture.frame_index)
        wrongness = self._wrong.pop(key, None)
        if wrongness is None:
            _put_bounded(self._pictures, key, picture.jpeg)
        else:
            self._keep(key, wrongness, picture.jpeg)

    def _wrongness(self, result: FrameResult) -> float:
        """Return 1 - agreement, summed over the models predicted in shadow on this frame."""
        executed = result.executed()
        total = 0.0
        for output in result.outputs:
            spec, truth = self._specs.get(output.model), executed.get(output.model)
            if output.served or is_on_trial(output) or output.value is None or spec is None or truth is None:
                continue
            total += 1.0 - float(agreement(spec, output.value[None, :], truth[None, :])[0])
        return total

    def _keep(self, key: FrameKey, wrongness: float, jpeg: bytes) -> None:
        camera_id, index = key
        kept = self._kept_of(camera_id)
        entry = ((wrongness, crc32(f"{camera_id}/{index}".encode())), index)
        if entry in kept:  # a repeat
            return
        if len(kept) >= self._per_camera and entry <= kept[0]:
            return
        write_durably(self._file(camera_id, index), lambda temporary: _write_bytes(temporary, jpeg))
        kept[:] = [other for other in kept if other[1] != index]
        kept.append(entry)
        heapq.heapify(kept)
        while len(kept) > self._per_camera:
            self._file(camera_id, heapq.heappop(kept)[1]).unlink(missing_ok=True)

    def _kept_of(self, camera_id: str) -> list[tuple[Rank, int]]:
        """Return what is kept of a camera; of what an earlier writer kept it is not known how wrong it was."""
        if camera_id not in self._kept:
            there = sorted(kept_pictures(self._folder.parent, camera_id))
            self._kept[camera_id] = [((0.0, place), index) for place, index in enumerate(there)]
        return self._kept[camera_id]

    def _file(self, camera_id: str, index: int) -> Path:
        return picture_file(self._folder.parent, camera_id, index)


def picture_file(run_dir: Path, camera_id: str, index: int) -> Path:
    """Return where the picture of a frame lies, if it was kept."""
    return run_dir / "pictures" / folder_name(camera_id) / f"{index}.jpg"


def kept_pictures(run_dir: Path, camera_id: str) -> dict[int, Path]:
    """Return the kept pictures of a camera: frame index -> JPEG file."""
    folder = picture_file(run_dir, camera_id, 0).parent
    return {int(file.stem): file for file in sorted(folder.glob("*.jpg")) if file.stem.isdigit()}


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _put_bounded(waiting: dict[FrameKey, V], key: FrameKey, value: V) -> None:
    """Add an entry; beyond `PENDING` the one waiting longest goes, since its other half is not coming."""
    waiting[key] = value
    if len(waiting) > PENDING:
        del waiting[next(iter(waiting))]
