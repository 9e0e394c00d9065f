"""The tables of a trace as columns, read batch by batch, so that no table ever lies in memory as a whole.

Well-formed tables only: at the first oddity `NotPlain` sends the caller to the checked reader of
`camlink.models.trace_files`, which names file and line. An output that is null, or holds something that is no finite
number, is no oddity but no output: the frame lacks it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camlink.models.average_precision import COLUMNS, places_of
from camlink.models.base import OutputSpec
from camlink.models.detection_arrays import DetectionArrays, detection_arrays
from camlink.models.trace_files import to_microseconds
from camlink.pipeline.records import STATISTICS

Array = NDArray[np.float32]
Whole = NDArray[np.int64]
_NEEDED = {"frames": ("camera_id", "frame_index", "captured_at"), "outputs": ("camera_id", "frame_index", "model")}
_BLOCK_BYTES = 1 << 22  # of CSV text parsed at a time
_BATCH_ROWS = 1 << 16  # of Parquet


class NotPlain(Exception):
    """The table holds something that the fast reader leaves to the checked one."""


@dataclass(eq=False)
class FrameRows:
    """All frames, sorted by camera, time and index."""

    cameras: list[str]
    camera: NDArray[np.int32]  # (n,) position in ``cameras``
    index: Whole
    time_s: NDArray[np.float64]
    stats: dict[str, Array]

    def __post_init__(self) -> None:
        order = np.lexsort((self.index, self.time_s, self.camera))
        if (order[1:] < order[:-1]).any():
            self.camera, self.index, self.time_s = self.camera[order], self.index[order], self.time_s[order]
            self.stats = {name: column[order] for name, column in self.stats.items()}
        del order
        self._first = int(self.index.min())
        self._span = int(self.index.max()) - self._first + 1
        if self._span > (1 << 62) // len(self.cameras):
            raise NotPlain("frame indices lie too far apart")
        self._keys = self._key(self.camera, self.index)
        self._row: Whole | None = None  # of each key; None: they stand in order, as where indices rise with time
        if (self._keys[1:] <= self._keys[:-1]).any():
            self._row = np.argsort(self._keys, kind="stable")
            self._keys = self._keys[self._row]
            if (self._keys[1:] == self._keys[:-1]).any():
                raise NotPlain("a frame stands twice")

    def _key(self, camera: NDArray[np.integer], index: Whole) -> Whole:
        return np.asarray(camera.astype(np.int64) * self._span + (index - self._first))

    def find(self, camera: NDArray[np.int64], index: Whole) -> Whole:
        """Return the row of each (camera, index), and -1 where there is no such frame; camera -1 is unknown."""
        wanted = self._key(camera, index)
        place = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        known = (camera >= 0) & (index >= self._first) & (index < self._first + self._span)
        row = place if self._row is None else self._row[place]
        return np.where(known & (self._keys[place] == wanted), row, -1)

    def rows_of(self, camera: int) -> slice:
        """Return where the rows of one camera stand."""
        start, stop = np.searchsorted(self.camera, [camera, camera + 1])
        return slice(int(start), int(stop))


def read_frames(folder: Path) -> FrameRows | None:
    """Return the frames, or None if there are none. Raises `NotPlain`."""
    import pyarrow
    import pyarrow.compute as pc

    places: dict[str, int] = {}
    parts: dict[str, list[NDArray[Any]]] = {"camera": [], "index": [], "time_s": []}
    stats: dict[str, list[NDArray[Any]]] | None = None
    for batch in _batches(folder, "frames", STATISTICS):
        if batch.column("captured_at").null_count or batch.column("camera_id").null_count:
            raise NotPlain("a time or a camera is missing")
        captured_at = to_microseconds(batch.column("captured_at"))
        if pyarrow.types.is_timestamp(captured_at.type) and captured_at.type.tz is None:
            raise NotPlain("a time without a zone")
        try:
            moments = pc.cast(captured_at, pyarrow.timestamp("us", "UTC"))
        except pyarrow.ArrowException as error:
            raise NotPlain from error
        parts["time_s"].append(pc.cast(moments, pyarrow.int64()).to_numpy() / 1e6)
        parts["camera"].append(_coded(batch.column("camera_id"), places))
        parts["index"].append(_whole(batch.column("frame_index")))
        given = {name: _statistic(batch.column(name)) for name in STATISTICS if name in batch.schema.names}
        whole = {name: column for name, column in given.items() if column is not None}
        if stats is None:
            stats = {name: [] for name in whole}
        stats = {name: [*earlier, whole[name]] for name, earlier in stats.items() if name in whole}
    if not places:
        return None
    names = sorted(places)
    rank = np.array([names.index(name) for name in places], np.int32)
    joined = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
    columns = {name: np.concatenate(chunks) for name, chunks in (stats or {}).items()}
    return FrameRows(names, rank[joined["camera"]], joined["index"], joined["time_s"], columns)


def _coded(column: Any, places: dict[str, int]) -> NDArray[np.int32]:
    """Return each name's place, giving new names the next one."""
    import pyarrow.compute as pc

    coded = pc.dictionary_encode(column)
    names = [str(name) for name in coded.dictionary.to_pylist()]
    if "" in names:
        raise NotPlain("a camera has no name")
    lookup = [places.setdefault(name, len(places)) for name in names]
    return np.asarray(np.array(lookup, np.int32)[coded.indices.to_numpy()])


def _statistic(column: Any) -> Array | None:
    """Return a statistic if every frame of the batch has it."""
    if column.null_count:
        return None
    values = np.asarray(column.to_numpy(), np.float32)
    return values if np.isfinite(values).all() else None


@dataclass(eq=False)
class OutputRows:
    """What each model said on each row of the frames: model -> (n, size), and on which rows it did."""

    values: dict[str, Array]
    known: dict[str, NDArray[np.bool_]]
    detections: dict[str, list[tuple[Whole, DetectionArrays]]] = field(default_factory=dict)  # rows, and what is there


def read_outputs(
    folder: Path, specs: Mapping[str, OutputSpec], rows: FrameRows, boxed: Sequence[str], *, detections: bool = False
) -> OutputRows:
    """Fill one array per model, batch by batch; for models in ``boxed`` from their detections.

    ``detections``: also keep the boxes behind values. Raises `NotPlain`.
    """
    frames = len(rows.index)
    outputs = OutputRows(
        {m: np.zeros((frames, s.size if s.kind == "vector" else 1), np.float32) for m, s in specs.items()},
        {m: np.zeros(frames, np.bool_) for m in specs},
    )
    places = {name: i for i, name in enumerate(rows.cameras)}
    for batch in _batches(folder, "outputs", ("value", "detections") if boxed or detections else ("value",)):
        for model, at, column, drawn in _by_model(batch, rows, places, boxed):
            if model not in specs:
                raise NotPlain(f"unknown model {model}")
            usable, parsed = parse(column, specs[model])
            _fill(outputs, model, at[usable], parsed)
            if detections and drawn is not None:
                given, boxes = detections_of(drawn)
                outputs.detections.setdefault(model, []).append((at[given], boxes))
    return outputs


def _by_model(
    batch: Any, rows: FrameRows, places: Mapping[str, int], boxed: Sequence[str]
) -> Iterator[tuple[str, Whole, Any, Any]]:
    """Yield each model of a batch with the rows it answers for, what it gave there, and its detections if read."""
    import pyarrow.compute as pc

    if batch.column("camera_id").null_count or batch.column("model").null_count:
        raise NotPlain("a camera or a model is missing")
    cameras = pc.dictionary_encode(batch.column("camera_id"))
    lookup = np.array([places.get(str(c), -1) for c in cameras.dictionary.to_pylist()], np.int64)
    camera = lookup[cameras.indices.to_numpy()] if len(lookup) else np.zeros(0, np.int64)
    row = rows.find(camera, _whole(batch.column("frame_index")))
    named = pc.dictionary_encode(batch.column("model"))
    codes = named.indices.to_numpy()
    for code, model in enumerate(map(str, named.dictionary.to_pylist())):
        mine = np.flatnonzero((codes == code) & (row >= 0))
        drawn = batch.column("detections").take(mine) if "detections" in batch.schema.names else None
        yield model, row[mine], drawn if model in boxed else batch.column("value").take(mine), drawn


def _fill(outputs: OutputRows, model: str, at: Whole, parsed: Array) -> None:
    """Write rows, widening the array for longer sequences than were seen before."""
    known = outputs.known[model]
    if known[at].any() or len(np.unique(at)) != len(at):
        raise NotPlain("an output stands twice")
    known[at] = True
    outputs.values[model] = place(outputs.values[model], at, parsed)


def place(into: Array, at: Whole | NDArray[np.intp], parsed: Array) -> Array:
    """Return ``into`` with rows ``at`` set to ``parsed``; wider where these are wider."""
    if len(at) and (wider := parsed.shape[1] - into.shape[1]) > 0:
        into = np.pad(into, ((0, 0), (0, wider)))
    into[at, : parsed.shape[1]] = parsed
    return into


def parse(column: Any, spec: OutputSpec) -> tuple[NDArray[np.bool_], Array]:
    """Turn JSON lists, or lists of numbers, into arrays: which of them are outputs (n,), and those (k, width)."""
    import pyarrow

    given = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), np.bool_)
    column = column.drop_null()
    if pyarrow.types.is_list(column.type) and spec.kind == "vector":
        flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32)
        if (np.diff(column.offsets.to_numpy()) != spec.size).any():
            raise NotPlain("a value does not fit")
        values = flat.reshape(-1, spec.size)
    elif _is_text(column):
        coded = column.dictionary_encode()  # equal texts are parsed once
        values = stacked(_lists(coded.dictionary.to_pylist()), spec)[coded.indices.to_numpy()]
    else:
        values = stacked(column.to_pylist(), spec)
    if spec.task == "count" and (values < 0).any():
        raise NotPlain("a count below 0")
    finite = np.isfinite(values).all(axis=1)
    given[given] = finite
    return given, values if finite.all() else values[finite]


def _is_text(column: Any) -> bool:
    return str(column.type) in ("string", "large_string")


def _lists(texts: list[str]) -> list[Any]:
    try:
        lists = json.loads(f"[{','.join(text or 'null' for text in texts)}]")
    except ValueError as error:
        raise NotPlain from error
    if len(lists) != len(texts):
        raise NotPlain("a value is no JSON list")
    return list(lists)


def detections_of(drawn: Any) -> tuple[NDArray[np.bool_], DetectionArrays]:
    """Say where a column of detections, JSON or lists, holds any (n,), `[]` included, and return those (k frames)."""
    lists = drawn.to_pylist()
    if _is_text(drawn):
        lists = _lists(lists)
    given = np.array([one is not None for one in lists], np.bool_)
    try:
        return given, detection_arrays([one for one in lists if one is not None])
    except ValueError as error:
        raise NotPlain from error


def stacked(lists: Sequence[Any], spec: OutputSpec) -> Array:
    """Return lists of numbers, tokens or boxes as (n, width); not a number in the rows of those that are None."""
    missing = [i for i, one in enumerate(lists) if one is None]
    empty: list[Any] = [0.0] * spec.size if spec.kind == "vector" else []
    lists = [empty if one is None else one for one in lists]
    try:
        if spec.task == "detections":
            values = _boxes(lists, spec)
        else:
            if spec.kind != "vector":
                longest = max((len(tokens) for tokens in lists), default=1)
                lists = [[*tokens, *[0.0] * (max(longest, 1) - len(tokens))] for tokens in lists]
            with np.errstate(over="ignore"):  # what is too large for a float is no finite number either
                values = np.array(lists, np.float32) if lists else np.zeros((0, spec.size), np.float32)
    except (TypeError, ValueError) as error:
        raise NotPlain(f"a value of {spec.model} is no list of numbers") from error
    if values.ndim != 2 or (spec.kind == "vector" and values.shape[1] != spec.size):
        raise NotPlain("a value does not fit")
    values[missing] = np.nan
    return values


def _boxes(lists: Sequence[Any], spec: OutputSpec) -> Array:
    """Return boxes [x1, y1, x2, y2, score, class] as places. Raises `NotPlain`."""
    values = places_of(lists)
    numbers = values.reshape(-1, COLUMNS)[:, 5]
    if not ((numbers >= 0) & (numbers <= spec.size) & (numbers == np.floor(numbers))).all():
        raise NotPlain(f"{spec.model}: a box is of no class 0 to {spec.size - 1}")
    return values


def boxed_models(folder: Path, models: Sequence[str]) -> list[str]:
    """Return the models whose boxes the trace holds beside their counts."""
    import pyarrow.compute as pc

    found: set[str] = set()
    for batch in _batches(folder, "outputs", ("detections",)):
        if "detections" not in batch.schema.names:
            return []
        column = batch.column("detections")
        there = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), np.bool_)
        if _is_text(column):
            there &= np.asarray(pc.not_equal(column.fill_null(""), "").to_numpy(zero_copy_only=False), np.bool_)
        found |= set(pc.unique(batch.column("model").take(np.flatnonzero(there))).to_pylist())
    return [m for m in models if m in found]


def _batches(folder: Path, name: str, optional: tuple[str, ...]) -> Iterator[Any]:
    """Yield a table's record batches: Parquet if it is there, else CSV."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if (path := folder / f"{name}.parquet").is_file():
            with pyarrow.parquet.ParquetFile(path) as file:
                columns = _present(file.schema_arrow.names, _NEEDED[name], optional)
                yield from file.iter_batches(_BATCH_ROWS, columns=columns)
        elif (path := folder / f"{name}.csv").is_file():
            with path.open(encoding="utf-8-sig") as stream:
                header = stream.readline().rstrip("\r\n").split(",")
            present = _present(header, _NEEDED[name], optional)
            types = dict.fromkeys(("camera_id", "captured_at", "model", "value", "detections"), pyarrow.string())
            types |= {"frame_index": pyarrow.int64(), **dict.fromkeys(STATISTICS, pyarrow.float64())}
            convert = pyarrow.csv.ConvertOptions(column_types=types, include_columns=present)
            read = pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False)
            with pyarrow.csv.open_csv(path, read_options=read, convert_options=convert) as reader:
                yield from reader
        else:
            raise NotPlain("no table")
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise NotPlain from error


def _present(header: list[str], needed: tuple[str, ...], optional: tuple[str, ...]) -> list[str]:
    if any(column not in header for column in needed):
        raise NotPlain("a column is missing")
    return [column for column in (*needed, *optional) if column in header]


def _whole(column: Any) -> Whole:
    if column.null_count:
        raise NotPlain("a frame index is missing")
    numbers = column.to_numpy()
    if not np.issubdtype(numbers.dtype, np.integer) and not np.equal(np.mod(numbers, 1), 0).all():
        raise NotPlain("a frame index is no whole number")
    return np.asarray(numbers, np.int64)
