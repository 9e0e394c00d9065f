"""A trace as arrays, one set per camera: what the lab reads a million frames in seconds with.

`camlink.models.recorded` builds an object per frame, which is what the pipeline wants and ten times too slow here.
Well-formed tables go through pyarrow; at the first oddity the checked reader of `camlink.models.trace_files` is asked
instead, and names file and line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.recorded import open_trace
from camlink.models.trace_files import RecordedEntry, read_models
from camlink.pipeline.errors import TraceError

Array = NDArray[np.float32]
STATS = ("pixel_change", "edge_density", "mean_luma")
_NEEDED = {"frames": ("camera_id", "frame_index", "captured_at"), "outputs": ("camera_id", "frame_index", "model")}
_BLOCK_BYTES = 1 << 24  # of CSV text parsed at a time: memory stays flat however long the table


class _NotPlain(Exception):
    """The table holds something that the fast reader leaves to the checked one."""


@dataclass(frozen=True, eq=False)
class CameraTrace:
    """One camera's frames on which every model was recorded, in order of event time.

    ``index``, ``time_s`` (n,); ``stats``: column -> (n,), only the columns that every frame has; ``values``: model ->
    (n, size) float32, or (n, longest) for sequences, closed by token 0.
    """

    camera_id: str
    specs: Mapping[str, OutputSpec]
    index: NDArray[np.int64]
    time_s: NDArray[np.float64]
    stats: Mapping[str, Array]
    values: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, eq=False)
class TraceArrays:
    """A whole trace. ``notes`` say what was left out and why."""

    name: str
    models: Mapping[str, RecordedEntry]
    cameras: tuple[CameraTrace, ...]
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class _Rows:
    """All frames, sorted by camera, time and index, and where each one's outputs belong."""

    cameras: list[str]
    camera: NDArray[np.int64]  # (n,) position in ``cameras``
    index: NDArray[np.int64]
    time_s: NDArray[np.float64]
    stats: dict[str, Array]
    keys: NDArray[np.int64] = field(init=False)
    order: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        keys = self._key(self.camera, self.index)
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]
        if (np.diff(self.keys) == 0).any():
            raise _NotPlain("a frame stands twice")

    @staticmethod
    def _key(camera: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int64]:
        if len(index) and (int(index.min()) < 0 or int(index.max()) >= 1 << 40):
            raise _NotPlain("a frame index out of range")
        return (camera << 40) + index

    def find(self, camera: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each (camera, index), and -1 where there is no such frame."""
        wanted = self._key(camera, index)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[place] == wanted, self.order[place], -1)


def open_arrays(path: Path | str) -> TraceArrays:
    """Read the trace folder ``path`` into arrays. Raises `TraceError` with the file and line at fault."""
    folder = Path(path)
    if not folder.is_dir():
        raise TraceError(f"{folder}: no such trace folder; record one with `camlink record`")
    models = read_models(folder)
    try:
        rows = _read_frames(folder)
        values, known = _read_outputs(folder, models, rows)
    except _NotPlain:
        rows, values, known = _checked(folder, models)
    return _split(folder.resolve().name, models, rows, values, known)


def _read_frames(folder: Path) -> _Rows:
    import pyarrow
    import pyarrow.compute as pc

    tables = list(_batches(folder, "frames", STATS))
    if not tables:
        raise TraceError(f"{folder}: the frames table is empty; record one with `camlink record`")
    table = pyarrow.Table.from_batches(tables)
    try:
        moments = pc.cast(table["captured_at"], pyarrow.timestamp("us", "UTC"))
        time_s = pc.cast(moments, pyarrow.int64()).to_numpy() / 1e6
    except pyarrow.ArrowException as error:
        raise _NotPlain from error
    if table["captured_at"].null_count or table["camera_id"].null_count:
        raise _NotPlain("a time or a camera is missing")
    coded = pc.dictionary_encode(table["camera_id"]).combine_chunks()
    seen = [str(c) for c in coded.dictionary.to_pylist()]
    cameras = sorted(seen)
    camera = np.array([cameras.index(c) for c in seen], np.int64)[coded.indices.to_numpy()]
    index = _whole(table["frame_index"])
    order = np.lexsort((index, time_s, camera))
    stats = {
        name: np.asarray(table[name].to_numpy(), np.float32)[order]
        for name in STATS
        if name in table.column_names and not table[name].null_count
    }
    return _Rows(cameras, camera[order], index[order], time_s[order], stats)


def _read_outputs(
    folder: Path, models: Mapping[str, RecordedEntry], rows: _Rows
) -> tuple[dict[str, Array], dict[str, NDArray[np.bool_]]]:
    """Fill one array per model, batch by batch."""
    import pyarrow.compute as pc

    values = {m: np.zeros((len(rows.index), e.spec.size if e.spec.kind == "vector" else 1), np.float32)
              for m, e in models.items()}  # fmt: skip
    known = {m: np.zeros(len(rows.index), np.bool_) for m in models}
    places = {name: i for i, name in enumerate(rows.cameras)}
    for batch in _batches(folder, "outputs", ("value",)):
        coded = pc.dictionary_encode(batch.column("camera_id"))
        lookup = np.array([places.get(str(c), -1) for c in coded.dictionary.to_pylist()], np.int64)
        camera = lookup[coded.indices.to_numpy()] if len(lookup) else np.zeros(0, np.int64)
        found = rows.find(np.maximum(camera, 0), _whole(batch.column("frame_index")))
        row = np.where(camera < 0, -1, found)
        named = pc.dictionary_encode(batch.column("model"))
        for code, name in enumerate(named.dictionary.to_pylist()):
            if name not in models:
                raise _NotPlain(f"unknown model {name}")
            mine = np.flatnonzero((named.indices.to_numpy() == code) & (row >= 0))
            if len(mine):
                at = row[mine]
                if known[name][at].any() or len(np.unique(at)) != len(at):
                    raise _NotPlain("an output stands twice")
                values[name] = _place(values[name], at, _parse(batch.column("value").take(mine), models[name].spec))
                known[name][at] = True
    return values, known


def _place(into: Array, at: NDArray[np.int64], parsed: Array) -> Array:
    """Write rows, widening the array for longer sequences than were seen before."""
    wider = parsed.shape[1] - into.shape[1]
    if wider > 0:
        into = np.pad(into, ((0, 0), (0, wider)))
    into[at, : parsed.shape[1]] = parsed
    return into


def _parse(column: Any, spec: OutputSpec) -> Array:
    """Turn JSON lists, or lists of numbers, into (n, size); equal texts are parsed once."""
    import pyarrow

    if pyarrow.types.is_list(column.type) and spec.kind == "vector" and not column.null_count:
        flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32)
        if len(flat) != len(column) * spec.size or (np.diff(column.offsets.to_numpy()) != spec.size).any():
            raise _NotPlain("a value does not fit")
        return _stacked(flat.reshape(-1, spec.size), spec)
    if not pyarrow.types.is_string(column.type) and not pyarrow.types.is_large_string(column.type):
        return _stacked(column.to_pylist(), spec)
    coded = column.dictionary_encode()
    try:
        unique = json.loads(f"[{','.join(coded.dictionary.to_pylist())}]")
    except (TypeError, ValueError) as error:
        raise _NotPlain from error
    if len(unique) != len(coded.dictionary):
        raise _NotPlain("a value is no JSON list")
    return np.asarray(_stacked(unique, spec)[coded.indices.to_numpy()])


def _stacked(lists: Any, spec: OutputSpec) -> Array:
    try:
        if spec.kind != "vector":
            longest = max((len(tokens) for tokens in lists), default=1)
            lists = [[*tokens, *[0.0] * (longest - len(tokens))] for tokens in lists]
        stacked = np.array(lists, np.float32)
    except (TypeError, ValueError) as error:
        raise _NotPlain from error
    fits = stacked.ndim == 2 and (spec.kind != "vector" or stacked.shape[1] == spec.size)
    if not fits or not np.isfinite(stacked).all():
        raise _NotPlain("a value does not fit")
    return stacked


def _batches(folder: Path, name: str, optional: tuple[str, ...]) -> Iterator[Any]:
    """Yield a table's record batches: Parquet if it is there, else CSV."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    needed = _NEEDED[name]
    try:
        if (path := folder / f"{name}.parquet").is_file():
            with pyarrow.parquet.ParquetFile(path) as file:
                present = _present(file.schema_arrow.names, needed, optional)
                yield from file.iter_batches(columns=present)
        elif (path := folder / f"{name}.csv").is_file():
            with path.open(encoding="utf-8") as stream:
                header = stream.readline().rstrip("\r\n").split(",")
            present = _present(header, needed, optional)
            types = dict.fromkeys(("camera_id", "captured_at", "model", "value"), pyarrow.string())
            types |= {"frame_index": pyarrow.int64(), **dict.fromkeys(STATS, pyarrow.float64())}
            convert = pyarrow.csv.ConvertOptions(column_types=types, include_columns=present)
            read = pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
            with pyarrow.csv.open_csv(path, read_options=read, convert_options=convert) as reader:
                yield from reader
        else:
            raise _NotPlain("no table")
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise _NotPlain from error


def _present(header: list[str], needed: tuple[str, ...], optional: tuple[str, ...]) -> list[str]:
    if any(column not in header for column in needed):
        raise _NotPlain("a column is missing")
    return [column for column in (*needed, *optional) if column in header]


def _whole(column: Any) -> NDArray[np.int64]:
    if column.null_count:
        raise _NotPlain("a frame index is missing")
    return np.asarray(column.to_numpy(), np.int64)


def _checked(
    folder: Path, models: Mapping[str, RecordedEntry]
) -> tuple[_Rows, dict[str, Array], dict[str, NDArray[np.bool_]]]:
    """Read by way of the checked reader, which raises `TraceError` with file and line where something is wrong."""
    trace = open_trace(folder)
    if not trace.frames:
        raise TraceError(f"{folder}: the frames table is empty; record one with `camlink record`")
    frames = sorted(trace.frames, key=lambda f: (f.camera_id, f.captured_at, f.index))
    cameras = sorted({f.camera_id for f in frames})
    place = {name: i for i, name in enumerate(cameras)}
    stats = {
        name: np.array([getattr(f.stats, name) for f in frames], np.float32)
        for name in STATS
        if all(f.stats is not None for f in frames)
    }
    rows = _Rows(
        cameras,
        np.array([place[f.camera_id] for f in frames], np.int64),
        np.array([f.index for f in frames], np.int64),
        np.array([f.captured_at.timestamp() for f in frames], np.float64),
        stats,
    )
    values, known = {}, {}
    for model in trace.models:
        name, spec = model.spec.model, model.spec
        has = np.array([model.knows(f.camera_id, f.index) for f in frames], np.bool_)
        given = [i.value.tolist() for i in model.run([f for f, h in zip(frames, has, strict=True) if h])]
        width = models[name].spec.size if spec.kind == "vector" else 1
        values[name] = np.zeros((len(frames), width), np.float32)
        if given:
            values[name] = _place(values[name], np.flatnonzero(has), _stacked(given, spec))
        known[name] = has
    return rows, values, known


def _split(
    name: str,
    models: Mapping[str, RecordedEntry],
    rows: _Rows,
    values: Mapping[str, Array],
    known: Mapping[str, NDArray[np.bool_]],
) -> TraceArrays:
    """Cut the rows into cameras, each with the models that were recorded on it."""
    cameras, notes = [], []
    missing = [s for s in STATS if s not in rows.stats]
    if missing:
        notes.append(f"trace {name}: no {', '.join(missing)} on every frame; policies do without")
    for code, camera_id in enumerate(rows.cameras):
        mine = rows.camera == code
        present = [m for m in models if known[m][mine].any()]
        absent = [m for m in models if m not in present]
        if absent:
            notes.append(f'trace {name}: camera "{camera_id}" has no outputs of {", ".join(absent)}; left out there')
        whole = mine & np.logical_and.reduce([known[m] for m in present]) if present else np.zeros_like(mine)
        if left_out := int(mine.sum() - whole.sum()):
            notes.append(f'trace {name}: camera "{camera_id}": {left_out} frames lack the output of a model; left out')
        at = np.flatnonzero(whole)
        cameras.append(
            CameraTrace(
                camera_id,
                {m: models[m].spec for m in present},
                rows.index[at],
                rows.time_s[at],
                {s: column[at] for s, column in rows.stats.items()},
                {m: _read_only(values[m][at]) for m in present},
            )
        )
    return TraceArrays(name, models, tuple(cameras), tuple(notes))


def _read_only(values: Array) -> Array:
    values.flags.writeable = False
    return values
