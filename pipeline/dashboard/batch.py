"""Output rows of new Parquet parts as numpy arrays, cut into one piece per camera and model."""

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
from camlink.pipeline.reports.rows import ModelRows, value_matrix
from camlink.pipeline.results_tables import schema

COLUMNS = (
    "camera_id", "frame_index", "captured_at", "model", "value", "purpose", "how", "served", "link_version",
    "confidence", "audit_probability", "reason",
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
        columns = ("frame_index", "times_us", "values", "how", "purpose", "served", "probability", "on_trial")
        rows = replace(self.rows, **{name: getattr(self.rows, name)[mask] for name in columns})
        return Piece(self.camera_id, rows, self.link_version[mask], self.confidence[mask])


def read_pieces(files: Sequence[str], specs: Mapping[str, OutputSpec]) -> Iterator[Piece]:
    """Read parts and yield their rows; models that ``specs`` does not name are left out.

    Raises `ResultsError` when a part cannot be read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    try:
        table = ds.dataset(list(files), format="parquet", schema=schema("outputs")).to_table(columns=list(COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise ResultsError(f"{files[0]} and {len(files) - 1} other parts cannot be read: {error}") from error
    camera, camera_names = _codes(table, "camera_id")
    model, model_names = _codes(table, "model")
    times = table.column("captured_at").cast(pa.int64()).to_numpy()
    order = np.lexsort((times, model, camera))
    group = (camera.astype(np.int64) * len(model_names) + model)[order]
    edges = np.concatenate(([0], np.flatnonzero(np.diff(group)) + 1, [len(group)])) if len(group) else np.zeros(1, int)
    plain = {name: table.column(name).to_numpy() for name in ("frame_index", "served")}
    plain |= {name: _strings(table, name) for name in ("how", "purpose")}
    plain["on_trial"] = _begins(table, "reason", ON_TRIAL)
    plain["probability"] = table.column("audit_probability").to_numpy().astype(np.float64)
    version = pc.fill_null(table.column("link_version"), -1).to_numpy()
    confidence = table.column("confidence").to_numpy().astype(np.float64)
    values = table.column("value").combine_chunks()
    for start, end in pairwise(edges.tolist()):
        rows = order[start:end]
        spec = specs.get(model_names[model[rows[0]]])
        if spec is None or spec.kind != "vector":
            continue
        taken = value_matrix(values.take(pa.array(rows)), spec.size)
        some = {name: column[rows] for name, column in plain.items()}
        yield Piece(
            camera_names[camera[rows[0]]],
            ModelRows(spec=spec, times_us=times[rows], values=taken, **some),
            version[rows],
            confidence[rows],
        )


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
