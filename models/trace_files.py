"""The files of a trace folder, read and checked (design.md, "Traces"). Every fault names its file and line.

``trace.yaml`` describes the models; ``frames`` and ``outputs`` are tables, CSV or Parquet.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf, isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np

from camlink.models.base import Inference, OutputSpec
from camlink.pipeline.errors import TraceError
from camlink.pipeline.records import FIRST_STATISTICS, STATISTICS, Detections, Frame, FrameStats

_NO_PIXELS = np.zeros((0, 0, 3), np.uint8)
_NO_PIXELS.flags.writeable = False
_BOX_COLUMNS = 6  # x1, y1, x2, y2, score, class
_KINDS = {"tokens": "sequence", "detections": "set"}  # where trace.yaml does not say; all else is a vector
_SPEC_FIELDS = ("kind", "size", "task", "labels", "max_steps", "scale")

Answers = dict[str, dict[int, Inference]]  # camera id -> frame index -> inference
Row = tuple[int, tuple[Any, ...]]  # line (CSV) or row (Parquet), and the asked columns


@dataclass(frozen=True, slots=True)
class RecordedEntry:
    """What ``trace.yaml`` says of one model."""

    spec: OutputSpec
    time_ms: float
    memory_gb: float


def read_models(folder: Path) -> dict[str, RecordedEntry]:
    """Read ``trace.yaml``. Raises `TraceError`."""
    import yaml

    path = folder / "trace.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (FileNotFoundError, NotADirectoryError):
        raise TraceError(f"{folder}: no trace: there is no trace.yaml in it; `camlink record` writes one") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise TraceError(f"{path}:{line}: not YAML: {error.problem}") from error
    except (yaml.reader.ReaderError, UnicodeDecodeError) as error:  # both tell what is wrong with a character
        raise TraceError(f"{path}:1: not YAML: {error.reason}") from error
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, dict) or not models:
        raise TraceError(f"{path}:1: wanted a mapping `models:` of NAME: {{kind, size, task, time_ms, memory_gb}}")
    lines = _model_lines(tree)
    return {str(name): _entry(str(name), raw, f"{path}:{lines.get(str(name), 1)}") for name, raw in models.items()}


def is_synthetic(folder: Path) -> bool:
    """Say whether ``trace.yaml``, which `read_models` has read, labels the trace as made up.

    The first ones of `camlink simulate` say so in their first line only.
    """
    import yaml

    text = (folder / "trace.yaml").read_text(encoding="utf-8")
    return text.startswith("# SYNTHETIC") or yaml.safe_load(text).get("synthetic") is True


def read_frames(folder: Path) -> tuple[Frame, ...]:
    """Read the frames table into frames without pixels, in order of event time. Raises `TraceError`."""
    path, rows = _table(folder, "frames", ("camera_id", "frame_index", "captured_at"), STATISTICS)
    frames: list[Frame] = []
    seen: set[tuple[str, int]] = set()
    for line, (named, index, captured_at, *stats) in rows:
        where = f"{path}:{line}"
        camera = _name(named, "camera_id", where)
        frame = Frame(camera, _index(index, where), _moment(captured_at, where), _NO_PIXELS, _stats(stats, where))
        if (camera, frame.index) in seen:
            raise TraceError(f'{where}: frame {frame.index} of camera "{camera}" stands here a second time')
        seen.add((camera, frame.index))
        frames.append(frame)
    return tuple(sorted(frames, key=lambda frame: (frame.captured_at, frame.camera_id, frame.index)))


def read_outputs(folder: Path, specs: Mapping[str, OutputSpec]) -> dict[str, Answers]:
    """Read the outputs table into answers per model. Raises `TraceError`."""
    path, rows = _table(folder, "outputs", ("camera_id", "frame_index", "model", "value"), ("detections",))
    answers: dict[str, Answers] = {name: {} for name in specs}
    parsed: dict[str, dict[Any, Inference]] = {name: {} for name in specs}  # equal values share one inference
    for line, (named, index, said_by, value, boxes) in rows:
        where = f"{path}:{line}"
        camera, model = _name(named, "camera_id", where), _name(said_by, "model", where)
        if model not in answers:
            raise TraceError(f'{where}: model "{model}" is not in trace.yaml, which has {", ".join(specs)}')
        key = (_hashable(value), _hashable(boxes))
        inference = parsed[model].get(key)
        if inference is None:
            inference = parsed[model][key] = _inference(*key, specs[model], where)
        number = _index(index, where)
        earlier = answers[model].setdefault(camera, {}).setdefault(number, inference)
        if earlier is not inference and not np.array_equal(earlier.value, inference.value):
            raise TraceError(f'{where}: "{model}" on frame {number} of camera "{camera}" had another value before')
    return answers


def _entry(name: str, raw: Any, where: str) -> RecordedEntry:
    if not isinstance(raw, dict):
        raise TraceError(f'{where}: model "{name}" wants a mapping, got {type(raw).__name__}')
    missing = [key for key in ("size", "task", "time_ms", "memory_gb") if key not in raw]
    if missing:
        raise TraceError(f'{where}: model "{name}" lacks {", ".join(missing)}')
    try:
        fields = {key: raw[key] for key in _SPEC_FIELDS if raw.get(key) is not None}
        for key in ("size", "max_steps"):
            if type(fields.get(key, 1)) is not int:
                raise ValueError(f"{key} must be a whole number, got {fields[key]!r}")
        if not isinstance(fields.get("labels", []), list):
            raise ValueError(f"labels must be a list, got {fields['labels']!r}")
        fields["labels"] = tuple(str(label) for label in raw.get("labels") or ())
        spec = OutputSpec(name, **{"kind": _KINDS.get(str(raw["task"]), "vector"), **fields})
        costs = {key: _cost(raw[key], key) for key in ("time_ms", "memory_gb")}
    except (TypeError, ValueError) as error:
        said = str(error).removeprefix(f'model "{name}": ')
        raise TraceError(f'{where}: model "{name}": {said}') from error
    return RecordedEntry(spec, **costs)


def _cost(raw: Any, name: str) -> float:
    cost = float(raw)
    if not 0.0 <= cost < inf:
        raise ValueError(f"{name} must be 0 or more, got {raw!r}")
    return cost


def _model_lines(tree: Any) -> dict[str, int]:
    """Return the line on which each model's name stands in ``trace.yaml``."""
    top = {key.value: value for key, value in tree.value}
    return {str(key.value): key.start_mark.line + 1 for key, _ in top["models"].value}


def _table(folder: Path, name: str, needed: tuple[str, ...], optional: tuple[str, ...]) -> tuple[Path, Iterator[Row]]:
    """Return the table's path and its rows: needed columns, then optional ones (None where absent)."""
    readers: tuple[tuple[str, Callable[..., Iterator[Row]]], ...] = ((".parquet", _parquet_rows), (".csv", _csv_rows))
    for suffix, reader in readers:
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return path, reader(path, needed, optional)
    raise TraceError(f"{folder}: holds neither {name}.csv nor {name}.parquet")


def _csv_rows(path: Path, needed: tuple[str, ...], optional: tuple[str, ...]) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8-sig") as stream:  # Excel begins its files with a mark
        reader = csv.reader(stream, strict=True)
        try:
            header = next(reader, [])
            _check_columns(header, needed, f"{path}:1")
            places = [header.index(column) if column in header else None for column in (*needed, *optional)]
            for row in reader:
                if len(row) != len(header):
                    raise TraceError(f"{path}:{reader.line_num}: {len(row)} fields, wanted {len(header)} as in line 1")
                yield reader.line_num, tuple(None if place is None else row[place] for place in places)
        except (csv.Error, UnicodeDecodeError) as error:
            raise TraceError(f"{path}:{reader.line_num}: not CSV: {error}") from error


def _parquet_rows(path: Path, needed: tuple[str, ...], optional: tuple[str, ...]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(names, needed, str(path))
            present = [column for column in (*needed, *optional) if column in names]
            line = 0
            for batch in file.iter_batches(columns=present):
                columns = {column: to_microseconds(batch.column(column)).to_pylist() for column in present}
                absent = [None] * batch.num_rows
                for row in zip(*(columns.get(column, absent) for column in (*needed, *optional)), strict=True):
                    line += 1
                    yield line, row
    except pyarrow.ArrowException as error:
        raise TraceError(f"{path}: not Parquet: {error}") from error


def to_microseconds(column: Any) -> Any:
    """Return a column of finer times, as pandas writes them, in microseconds; any other one as it is."""
    import pyarrow

    finer = pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns"
    return column.cast(pyarrow.timestamp("us", column.type.tz), safe=False) if finer else column


def _check_columns(header: list[str], needed: tuple[str, ...], where: str) -> None:
    missing = [column for column in needed if column not in header]
    if missing:
        raise TraceError(f"{where}: lacks the column {', '.join(missing)}; it has {', '.join(header) or 'none'}")


def _name(raw: Any, column: str, where: str) -> str:
    """Return a name; numbers, as a table of another program may hold, are names too."""
    if raw is None or raw == "":
        raise TraceError(f"{where}: has no {column}")
    return str(raw)


def _index(raw: Any, where: str) -> int:
    try:
        index = int(raw)
    except (TypeError, ValueError, OverflowError):
        index = None
    if index is None or (isinstance(raw, float) and index != raw):
        raise TraceError(f"{where}: frame_index {raw!r} is no whole number")
    return index


def _moment(raw: Any, where: str) -> datetime:
    try:
        moment = raw if isinstance(raw, datetime) else datetime.fromisoformat(raw)
    except (TypeError, ValueError):
        raise TraceError(f"{where}: captured_at {raw!r} is no ISO 8601 time") from None
    if moment.tzinfo is None:
        raise TraceError(f"{where}: captured_at {raw!r} has no time zone; write it in UTC, ending in +00:00")
    return moment.astimezone(UTC)


def _stats(raw: list[Any], where: str) -> FrameStats | None:
    """Return a frame's statistics, or None where one was not measured: nothing, or NaN, as tables write it."""
    try:
        numbers = [nan if value is None or value == "" else float(value) for value in raw]
    except ValueError:
        raise TraceError(f"{where}: frame statistics {raw} are not all numbers") from None
    if not all(map(isfinite, numbers[: len(FIRST_STATISTICS)])):
        return None
    return FrameStats(*(number if isfinite(number) else 0.0 for number in numbers))


def _hashable(raw: Any) -> Any:
    return tuple(map(_hashable, raw)) if isinstance(raw, list) else raw


def _inference(raw: Any, boxes: Any, spec: OutputSpec, where: str) -> Inference:
    """Parse one value and its boxes, if there are any: JSON lists (text), or the numbers themselves."""
    try:
        numbers = json.loads(raw) if isinstance(raw, str) else raw
        value = np.array(numbers, np.float32)
    except (TypeError, ValueError):
        raise TraceError(f'{where}: value {raw!r} of "{spec.model}" is no JSON list of numbers') from None
    fits = value.shape == (spec.size,) if spec.kind == "vector" else value.ndim >= 1
    if not fits or not np.isfinite(value).all():
        raise TraceError(f'{where}: value {raw!r} of "{spec.model}", wanted {spec.size} finite numbers')
    if spec.task == "count" and (value < 0).any():
        raise TraceError(f'{where}: value {raw!r} of "{spec.model}" has a count below 0')
    value.flags.writeable = False
    return Inference(value, None if boxes in (None, "") else _detections(boxes, spec, where))


def _detections(raw: Any, spec: OutputSpec, where: str) -> Detections:
    """Parse boxes: a list of [x1, y1, x2, y2, score, class]."""
    try:
        rows = np.array(json.loads(raw) if isinstance(raw, str) else raw, np.float32)
    except (TypeError, ValueError):
        raise TraceError(f'{where}: detections {raw!r:.60} of "{spec.model}" are no JSON list of boxes') from None
    if rows.size and rows.shape[1:] != (_BOX_COLUMNS,):
        raise TraceError(
            f'{where}: detections {raw!r:.60} of "{spec.model}", wanted [x1, y1, x2, y2, score, class] each'
        )
    rows = rows.reshape(-1, _BOX_COLUMNS)
    classes = rows[:, 5].astype(np.int32)
    known = (classes >= 0) & (classes < spec.size)
    if not np.isfinite(rows).all() or not known.all() or (classes != rows[:, 5]).any():
        wanted = f"wanted finite numbers, and classes 0 to {spec.size - 1}"
        raise TraceError(f'{where}: detections {raw!r:.60} of "{spec.model}", {wanted}')
    arrays = rows[:, :4].copy(), rows[:, 4].copy(), classes
    for array in arrays:
        array.flags.writeable = False
    return Detections(*arrays)
