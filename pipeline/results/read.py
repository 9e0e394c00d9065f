"""Reads a run folder back, also while it is being written: repeated rows fall out, missing tables are empty."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from camlink.pipeline.errors import ResultsError
from camlink.pipeline.results.pictures import kept_pictures
from camlink.pipeline.results.tables import BY_DAY, KEYS, MIXED, TABLES, folder_name, schema
from camlink.pipeline.run_info import RunInfo

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


_OF_CAMERA = "$2 IS NULL OR camera_id = $3"
ATTEMPTS = 5  # to read files that are listed: of a run that goes on, some may be merged into others meanwhile


class RunResults:
    """The results of one run, as Arrow tables in event-time order. Copes with empty and unfinished runs.

    Raises `ResultsError` when the folder is no run or a file in it cannot be read.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = Path(run_dir)
        self.info = RunInfo.load(self.run_dir)

    def cameras(self) -> list[str]:
        """Return the cameras of the run: those of its header, then any that only its rows know."""
        names = dict.fromkeys([*self.info.cameras, *self.info.captured])
        for table in ("outputs", "drops"):
            found = self.query(f"SELECT DISTINCT camera_id FROM {table} ORDER BY 1", table, repeats=True)
            names |= dict.fromkeys(found.column(0).to_pylist())
        return list(names)

    def days(self) -> list[date]:
        """Return the days in UTC that there are outputs of, in order."""
        parts = (self.run_dir / "outputs").glob("day=*/*/part-*.parquet")
        return sorted({date.fromisoformat(part.parent.parent.name.removeprefix("day=")) for part in parts})

    def outputs(self, camera: str | None = None, where: str = "true", *, day: date | None = None) -> pa.Table:
        """Return output rows, one per (camera, frame, model, how), of a day in UTC or of all; ``where`` is SQL over the
        columns (trusted).
        """
        order = ("captured_at", "camera_id", "frame_index", "model", "how")
        return self._rows("outputs", camera, where, *order, day=day)

    def boxes(self, camera: str | None = None, where: str = "true", *, day: date | None = None) -> pa.Table:
        """Return the boxes of executed outputs, a row each; arguments are those of `outputs`.

        A frame and model without rows has none only if `outputs` says that it was executed. Runs of versions that kept
        no boxes have no rows.
        """
        return self._rows("boxes", camera, where, "captured_at", "camera_id", "frame_index", "model", "box", day=day)

    def frames_seen(self, camera: str) -> int:
        """Return how many frames of a camera have at least one served row."""
        sql = "SELECT count(DISTINCT frame_index) FROM outputs WHERE served"
        return int(self.query(sql, "outputs", camera).column(0)[0].as_py())

    def decisions(self, camera: str | None = None) -> pa.Table:
        """Return decisions by start; mappings are JSON texts."""
        return self._rows("decisions", camera, "true", "start", "camera_id")

    def drops(self, camera: str | None = None) -> pa.Table:
        """Return dropped frames with their reasons."""
        return self._rows("drops", camera, "true", "captured_at", "camera_id", "first_index")

    def camera_events(self, camera: str | None = None) -> pa.Table:
        """Return what happened to the cameras."""
        return self._rows("camera_events", camera, "true", "at", "camera_id", "kind")

    def adaptation(self, camera: str | None = None) -> pa.Table:
        """Return what the adaptation did; ``scores`` is a JSON text."""
        return self._rows("adaptation", camera, "true", "at", "camera_id", "target", "version", "kind")

    def calibrated(self, camera: str | None = None) -> pa.Table:
        """Return what the oracle node says a person would say, by time."""
        return self._rows("calibrated", camera, "true", "captured_at", "camera_id", "frame_index", "name")

    def pictures(self, camera: str) -> dict[int, Path]:
        """Return the kept pictures of a camera: frame index -> JPEG file."""
        return kept_pictures(self.run_dir, camera)

    def query(
        self, sql: str, table: str, camera: str | None = None, day: date | None = None, *, repeats: bool = False
    ) -> pa.Table:
        """Run ``sql`` over ``table`` of one camera or all; of outputs and boxes also of one ``day`` (UTC), for which no
        other is read. Repeats fall out, which means sorting the rows, unless ``repeats`` says that they do not matter.
        """
        import duckdb

        for attempt in range(ATTEMPTS):
            files = [str(file) for file in self._files(table, camera, day)]
            try:
                if not files:
                    return self._connection.sql(sql).to_arrow_table()
                named = _with_repeats(table) if repeats else _without_repeats(table)
                return self._connection.sql(f"{named} {sql}", params=[files, camera, camera]).to_arrow_table()
            except duckdb.Error as error:
                merged_meanwhile = not all(map(os.path.exists, files))
                if not merged_meanwhile or attempt == ATTEMPTS - 1:
                    raise ResultsError(f"{self.run_dir}/{table}: cannot be read: {error}") from error
        raise AssertionError("unreachable")

    def _rows(self, table: str, camera: str | None, where: str, *order: str, day: date | None = None) -> pa.Table:
        found = self.query(f"SELECT * FROM {table} WHERE {where} ORDER BY {_names(order)}", table, camera, day)
        return found.cast(schema(table))

    def _files(self, table: str, camera: str | None, day: date | None) -> list[Path]:
        folder = self.run_dir / table
        if table not in BY_DAY:
            return sorted(folder.glob("part-*.parquet"))
        chosen = "*" if camera is None else folder_name(camera)
        days = "day=*" if day is None else f"day={day}"
        places = (f"{days}/camera={chosen}", f"{days}/{MIXED}")
        return sorted(part for place in places for part in folder.glob(f"{place}/part-*.parquet"))

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        for table in TABLES:  # what a query sees when nothing has been written yet
            connection.register(table, schema(table).empty_table())
            connection.register(f"no_{table}", schema(table).empty_table())
        return connection


def distinct_rows(table: str, where: str = "true") -> str:
    """Return SQL for the rows of ``table`` in Parquet files ($1), each fact once; ``no_TABLE`` must be an empty one.

    Columns that an earlier version did not write are null.
    """
    columns, key = _names(TABLES[table]), _names(KEYS[table])
    preferred = (
        "served DESC, coalesce(known_after, captured_at), " if table == "outputs" else ""
    )  # as it was known first
    place = "rank" if table == "boxes" else "row_number"  # a fact is all of its rows in one file, or a row
    return (
        f"SELECT {columns} FROM {_in_parts(table)} WHERE {where} "
        f"QUALIFY {place}() OVER (PARTITION BY {key} ORDER BY {preferred}filename) = 1"
    )


def _in_parts(table: str) -> str:
    """Return SQL for the rows of ``table`` in Parquet files ($1) as they are, with the file's name."""
    return (
        "(SELECT * FROM read_parquet($1, hive_partitioning=false, filename=true) "
        f"UNION ALL BY NAME SELECT * FROM no_{table})"
    )


def _with_repeats(table: str) -> str:
    """Return SQL that names ``table`` as `_without_repeats` does, with every row that was written."""
    return f"WITH {table} AS (SELECT {_names(TABLES[table])} FROM {_in_parts(table)} WHERE {_OF_CAMERA})"


def _without_repeats(table: str) -> str:
    """Return SQL that names ``table`` over Parquet files ($1), of one camera ($2 and $3) or, when null, of all."""
    rows = distinct_rows(table, _OF_CAMERA)
    return f"WITH {table} AS ({_ONE_SERVED.format(rows=rows) if table == 'outputs' else rows})"


# A frame that was dealt with twice, by a worker and by the one that took over from it, may have been linked by one and
# executed by the other. One output is served per frame and model: the best that is known.
_ONE_SERVED = (
    "SELECT * FROM ({rows}) QUALIFY NOT served OR row_number() OVER ("
    "PARTITION BY camera_id, frame_index, model, served "
    "ORDER BY list_position(['executed', 'linked', 'reused', 'abstained'], how)) = 1"
)


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def column(table: pa.Table, name: str) -> list[Any]:
    """Return a column as a list of Python values."""
    return cast("list[Any]", table.column(name).to_pylist())
