"""Results as one CSV or Parquet file for other programs: a row per model output, or per box, repeats removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from camlink.pipeline.durable import write_durably
from camlink.pipeline.errors import RequestError
from camlink.pipeline.results import RunResults
from camlink.pipeline.results.tables import schema

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("csv", "parquet")


def export_results(
    results: RunResults, path: Path, form: str, day: date | None = None, table: Literal["outputs", "boxes"] = "outputs"
) -> int:
    """Write all rows of ``table``, of one day in UTC if given, to ``path`` in one step; return how many.

    In CSV a value is its JSON list and sources are joined by spaces. One camera is in memory at a time. Raises
    `RequestError` when the file cannot be written, `ValueError` for a format that is not of `FORMATS`.
    """
    if form not in FORMATS:
        raise ValueError(f'"{form}" is no format to export to; there are {" and ".join(FORMATS)}')
    rows = 0

    def write(temporary: Path) -> None:
        nonlocal rows
        with closing(_writer(temporary, form, table)) as writer:
            for found in _tables(results, day, table):
                writer.write_table(_flat(found) if form == "csv" else found)
                rows += found.num_rows

    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, write)
    return rows


def known_day(results: RunResults, day: date) -> date:
    """Return ``day`` if the run has results of it. Raises `RequestError` with the days that it has."""
    days = results.days()
    if day not in days:
        held = f"its days are {days[0]} to {days[-1]}" if days else "it has no results yet"
        raise RequestError(f"{results.run_dir}: nothing was captured on {day}; {held} (UTC)")
    return day


def _tables(results: RunResults, day: date | None, table: str) -> Iterator[pa.Table]:
    read = {"outputs": results.outputs, "boxes": results.boxes}[table]
    for camera in results.cameras():
        yield read(camera, day=day)


def _writer(path: Path, form: str, table: str) -> Any:
    if form == "csv":
        import pyarrow.csv as csv

        return csv.CSVWriter(path, _flat(schema(table).empty_table()).schema)
    import pyarrow.parquet as pq

    return pq.ParquetWriter(path, schema(table), compression="zstd")


def _flat(table: pa.Table) -> pa.Table:
    """Return the table with lists as text."""
    import pyarrow as pa

    if "value" not in table.column_names:
        return table
    values = [None if value is None else json.dumps(value) for value in table.column("value").to_pylist()]
    sources = [" ".join(names or ()) for names in table.column("sources").to_pylist()]
    for name, texts in (("value", values), ("sources", sources)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(texts, pa.string()))
    return table
