"""Output rows of new Parquet parts as numpy arrays, by camera, and cut into one piece per model when needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.operators.certificates import ON_TRIAL
from camlink.pipeline.errors import ResultsError
from camlink.pipeline.reports.rows import ModelRows, known_us, value_matrix
from camlink.pipeline.results.tables import schema

COLUMNS = (
    "camera_id", "frame_index", "captured_at", "model", "value", "purpose", "how", "served", "link_version",
    "confidence", "audit_probability", "reason", "known_after",
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """New rows of one camera and model, by capture time."""

    camera_id: str
    rows: ModelRows
    link_version: NDArray[np.int64]  # -1 where none
    confidence: NDArray[np.float64]  # NaN where none

    def kept(self, mask: NDArray[np.bool_]) -> Piece:
        """Return the rows for which ``mask`` (n,) is true."""
        columns = (
            "frame_index",
            "times_us",
            "values",
            "how",
            "purpose",
            "served",
            "probability",
            "on_trial",
            "known_us",
        )
        rows = replace(self.rows, **{name: getattr(self.rows, name)[mask] for name in columns})
        return Piece(self.camera_id, rows, self.link_version[mask], self.confidence[mask])


@dataclass(frozen=True)
class Unsorted:
    """New rows of one camera as they came from the disk: cut into models only when somebody wants to know.

    With hundreds of cameras that is what costs, and it costs the same for ten rows as for a hundred.
    """

    columns: Mapping[str, NDArray[Any]]
    values: Any  # pyarrow lists
    first_us: int
    last_us: int
    frames: int  # about; repeated rows are not left out yet

    def __len__(self) -> int:
        return len(self.values)


def read_rows(files: Sequence[str], models: int) -> dict[str, Unsorted]:
    """Read parts and return their rows by camera; ``models``: how many rows are served of one frame.

    Raises `ResultsError` when a part cannot be read.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    try:
        table = ds.dataset(list(files), format="parquet", schema=schema("outputs")).to_table(columns=list(COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise ResultsError(f"{files[0]} and {len(files) - 1} other parts cannot be read: {error}") from error
    camera, names = _codes(table, "camera_id")
    order = np.argsort(camera, kind="stable")
    columns = {name: column[order] for name, column in _columns(table).items()}
    values = table.column("value").combine_chunks().take(pa.array(order))
    ends = np.cumsum(np.bincount(camera, minlength=len(names))).tolist() if names else []
    found = {}
    for name, (start, end) in zip(names, pairwise([0, *ends]), strict=True):
        own = {column: array[start:end] for column, array in columns.items()}
        times, served = own["times_us"], int(own["served"].sum())
        found[name] = Unsorted(
            own, values.slice(start, end - start), int(times.min()), int(times.max()), served // max(1, models)
        )
    return found


def pieces(camera_id: str, rows: Sequence[Unsorted], specs: Mapping[str, OutputSpec]) -> Iterator[Piece]:
    """Yield the rows of one camera model by model, each by capture time; models that ``specs`` lacks are left out."""
    import pyarrow as pa

    columns = {name: np.concatenate([some.columns[name] for some in rows]) for name in rows[0].columns}
    values = pa.concat_arrays([some.values for some in rows])
    models = columns.pop("model")
    version, confidence = columns.pop("link_version"), columns.pop("confidence")
    for model in np.unique(models).tolist():
        spec = specs.get(model)
        if spec is None or spec.kind != "vector":
            continue
        own = np.flatnonzero(models == model)
        own = own[np.argsort(columns["times_us"][own], kind="stable")]
        matrix = value_matrix(values.take(pa.array(own)), spec.size)
        some: Any = {name: column[own] for name, column in columns.items()}
        yield Piece(camera_id, ModelRows(spec=spec, values=matrix, **some), version[own], confidence[own])


def _columns(table: Any) -> dict[str, NDArray[Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = {name: table.column(name).to_numpy() for name in ("frame_index", "served")}
    found |= {name: _strings(table, name) for name in ("model", "how", "purpose")}
    found["times_us"] = table.column("captured_at").cast(pa.int64()).to_numpy()
    found["known_us"] = known_us(table)
    found["on_trial"] = _begins(table, "reason", ON_TRIAL)
    found["probability"] = table.column("audit_probability").to_numpy().astype(np.float64)
    found["link_version"] = pc.fill_null(table.column("link_version"), -1).to_numpy()
    found["confidence"] = table.column("confidence").to_numpy().astype(np.float64)
    return found


def _begins(table: Any, name: str, start: str) -> NDArray[np.bool_]:
    import pyarrow.compute as pc

    found = pc.fill_null(pc.starts_with(table.column(name), pattern=start), False)
    return np.asarray(found.to_numpy(), np.bool_)


def _codes(table: Any, name: str) -> tuple[NDArray[np.int64], list[str]]:
    encoded = table.column(name).combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _strings(table: Any, name: str) -> NDArray[np.str_]:
    codes, names = _codes(table, name)
    return np.asarray(names, dtype=np.str_)[codes] if names else np.zeros(0, np.str_)
