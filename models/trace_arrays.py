"""A trace as arrays, one set per camera: what the lab reads a million frames in seconds with.

`camlink.models.recorded` builds an object per frame, which is what the pipeline wants and ten times too slow here.
Well-formed tables go through `camlink.models.trace_columns`; at the first oddity the checked reader of
`camlink.models.trace_files` is asked instead, and names file and line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import Inference, OutputSpec
from camlink.models.detection_arrays import DetectionArrays, detection_arrays, joined
from camlink.models.recorded import open_trace
from camlink.models.trace_columns import (
    Array,
    FrameRows,
    NotPlain,
    OutputRows,
    boxed_models,
    place,
    read_frames,
    read_outputs,
    stacked,
)
from camlink.models.trace_files import RecordedEntry, is_synthetic, read_models
from camlink.pipeline.errors import TraceError
from camlink.pipeline.records import FIRST_STATISTICS, STATISTICS, Detections

__all__ = ["Array", "CameraTrace", "TraceArrays", "open_arrays"]


@dataclass(frozen=True, eq=False)
class CameraTrace:
    """One camera's frames on which every model was recorded, in order of event time.

    ``index``, ``time_s`` (n,); ``stats``: column -> (n,), only the columns that every frame has; ``values``: model ->
    (n, size) float32, or (n, longest) for sequences, closed by token 0, or (n, most boxes x 6) for detections
    (`camlink.models.average_precision`); ``detections``: the boxes behind values, of models that have them on every
    frame, where they were asked for.
    """

    camera_id: str
    specs: Mapping[str, OutputSpec]
    index: NDArray[np.int64]
    time_s: NDArray[np.float64]
    stats: Mapping[str, Array]
    values: Mapping[str, Array]
    detections: Mapping[str, DetectionArrays] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, eq=False)
class TraceArrays:
    """A whole trace. ``notes`` say what was left out and why; ``synthetic``: no camera has seen it."""

    name: str
    models: Mapping[str, RecordedEntry]
    cameras: tuple[CameraTrace, ...]
    notes: tuple[str, ...] = ()
    synthetic: bool = False


def open_arrays(path: Path | str, *, name: str = "", boxes: bool = False, detections: bool = False) -> TraceArrays:
    """Read the trace folder ``path`` into arrays; with ``boxes``, detectors give their boxes instead of counts.

    ``name``: what it goes by, if not the folder's name; ``detections``: also read the boxes behind values. Raises
    `TraceError` with the file and line at fault.
    """
    folder = Path(path)
    check_folder(folder)
    name = name or folder.resolve().name
    models = read_models(folder)
    notes: tuple[str, ...] = ()
    boxed: list[str] = []
    if boxes:
        boxed = _boxed(folder, models)
        models = {m: _as_boxes(e) if m in boxed else e for m, e in models.items()}
        notes = () if boxed else (f"trace {name}: holds no boxes; counts are compared instead",)
    specs = {m: e.spec for m, e in models.items()}
    rows = outputs = None
    try:
        rows = read_frames(folder)
        outputs = read_outputs(folder, specs, rows, boxed, detections=detections) if rows is not None else None
    except NotPlain:
        outputs = None
    if rows is None or outputs is None:
        rows, outputs = _checked(folder, specs, boxed, detections=detections)
    return replace(_split(name, models, rows, outputs, notes), synthetic=is_synthetic(folder))


def _boxed(folder: Path, models: Mapping[str, RecordedEntry]) -> list[str]:
    try:
        return boxed_models(folder, list(models))
    except NotPlain as error:
        open_trace(folder)  # names file and line
        raise TraceError(f"{folder}: {error}") from error


def names_of(traces: Sequence[Path]) -> dict[Path, str]:
    """Return each folder once, with the name it goes by: its own, with those above it where two are called alike.

    >>> list(names_of([Path("/a/hall"), Path("/b/hall"), Path("/b/yard"), Path("/b/yard")]).values())
    ['a/hall', 'b/hall', 'yard']
    """
    parts = {path: path.resolve().parts for path in traces}
    unique = dict.fromkeys(parts.values())

    def name(own: Sequence[str]) -> str:
        tails = (own[-n:] for n in range(1, len(own)))
        short = (tail for tail in tails if sum(other[-len(tail) :] == tail for other in unique) == 1)
        return "/".join(next(short, own))

    first = {own: path for path, own in reversed(parts.items())}
    return {first[own]: name(own) for own in unique}


def check_folder(folder: Path) -> None:
    """Raise `TraceError` for what is no trace at the first look, before anything is read."""
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "no such trace folder"
        raise TraceError(f"{folder}: {what}; record a trace with `camlink record`")
    if not (folder / "trace.yaml").is_file():
        raise TraceError(f"{folder}: is no trace, for it holds no trace.yaml; record one with `camlink record`")


def _as_boxes(entry: RecordedEntry) -> RecordedEntry:
    return replace(entry, spec=replace(entry.spec, kind="set", task="detections"))


def _checked(
    folder: Path, specs: Mapping[str, OutputSpec], boxed: Sequence[str], *, detections: bool
) -> tuple[FrameRows, OutputRows]:
    """Read by way of the checked reader, which raises `TraceError` with file and line where something is wrong."""
    trace = open_trace(folder)
    if not trace.frames:
        raise TraceError(f"{folder}: the frames table is empty; record one with `camlink record`")
    frames = sorted(trace.frames, key=lambda f: (f.camera_id, f.captured_at, f.index))
    cameras = sorted({f.camera_id for f in frames})
    places = {name: i for i, name in enumerate(cameras)}
    stats = {
        name: np.array([getattr(f.stats, name) for f in frames], np.float32)
        for name in STATISTICS
        if all(f.stats is not None for f in frames)
    }
    outputs = OutputRows({}, {})
    try:
        rows = FrameRows(
            cameras,
            np.array([places[f.camera_id] for f in frames], np.int32),
            np.array([f.index for f in frames], np.int64),
            np.array([f.captured_at.timestamp() for f in frames], np.float64),
            stats,
        )
        for model in trace.models:
            name, spec = model.spec.model, specs[model.spec.model]
            has = np.array([model.knows(f.camera_id, f.index) for f in frames], np.bool_)
            said = model.run([f for f, h in zip(frames, has, strict=True) if h])
            given = [_listed(i, name in boxed) for i in said]
            empty = np.zeros((len(frames), spec.size if spec.kind == "vector" else 1), np.float32)
            outputs.values[name] = place(empty, np.flatnonzero(has), stacked(given, spec)) if given else empty
            outputs.known[name] = has
            drawn = np.array([i.detections is not None for i in said], np.bool_)
            if detections and drawn.any():
                found = detection_arrays([_boxes_of(i.detections) for i in said if i.detections is not None])
                outputs.detections[name] = [(np.flatnonzero(has)[drawn], found)]
    except NotPlain as error:
        raise TraceError(f"{folder}: {error}") from error
    return rows, outputs


def _listed(inference: Inference, boxes: bool) -> list[float] | list[list[float]]:
    found = inference.detections
    if not boxes or found is None:
        return [] if boxes else list(inference.value.tolist())
    return _boxes_of(found)


def _boxes_of(found: Detections) -> list[list[float]]:
    return list(np.column_stack([found.xyxy, found.scores, found.classes]).tolist())


def _split(
    name: str, models: Mapping[str, RecordedEntry], rows: FrameRows, outputs: OutputRows, said: tuple[str, ...]
) -> TraceArrays:
    """Cut the rows into cameras, each with the models that were recorded on it."""
    cameras, notes = [], list(said)
    missing = [s for s in FIRST_STATISTICS if s not in rows.stats]
    if missing:
        notes.append(f"trace {name}: no {', '.join(missing)} on every frame; policies do without")
    drawn = {m: _Drawn(parts, len(rows.index)) for m, parts in outputs.detections.items()}
    all_rows = np.arange(len(rows.index))
    for code, camera_id in enumerate(rows.cameras):
        mine, where = rows.rows_of(code), f'trace {name}: camera "{camera_id}"'
        known = {m: outputs.known[m][mine] for m in models}
        present = [m for m in models if known[m].any()]
        if absent := [m for m in models if m not in present]:
            notes.append(f"{where} has no outputs of {', '.join(absent)}; left out there")
        whole = np.logical_and.reduce([known[m] for m in present]) if present else np.zeros(0, np.bool_)
        if left_out := int(np.count_nonzero(~whole)):
            notes.append(f"{where}: {_frames(left_out)} left out: {_lacking(known, present)}")
        at = slice(None) if whole.all() and present else np.flatnonzero(whole)
        cameras.append(
            CameraTrace(
                camera_id,
                {m: models[m].spec for m in present},
                rows.index[mine][at],
                rows.time_s[mine][at],
                {s: column[mine][at] for s, column in rows.stats.items()},
                {m: _read_only(outputs.values[m][mine][at]) for m in present},
                {m: boxes for m in present if m in drawn and (boxes := drawn[m].on(all_rows[mine][at])) is not None},
            )
        )
    return TraceArrays(name, models, tuple(cameras), tuple(notes))


class _Drawn:
    """The boxes of one model, by the rows of the frames that have any known."""

    def __init__(self, parts: Sequence[tuple[NDArray[np.int64], DetectionArrays]], frames: int) -> None:
        rows = np.concatenate([at for at, _ in parts])
        self._boxes = joined([boxes for _, boxes in parts])
        self._place = np.full(frames, -1, np.int64)
        self._place[rows] = np.arange(len(rows))

    def on(self, rows: NDArray[np.int64]) -> DetectionArrays | None:
        """Return the boxes on ``rows``, if all of them have them."""
        place = self._place[rows]
        return self._boxes.take(place) if (place >= 0).all() else None


def _lacking(known: Mapping[str, NDArray[np.bool_]], models: Sequence[str]) -> str:
    """Say what stands in the way of frames on which a model's output is not there, or is no finite number."""
    missing = {m: int(np.count_nonzero(~known[m])) for m in models if not known[m].all()}
    each = ", ".join(f"{m} on {_frames(count)}" for m, count in missing.items())
    return f"no output, or one that is null, NaN or infinite, of {each}"


def _frames(count: int) -> str:
    return f"{count} frame{'' if count == 1 else 's'}"


def _read_only(values: Array) -> Array:
    values.flags.writeable = False
    return values
