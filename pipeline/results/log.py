"""The results log: every output, box, decision, drop and event of a run, as Parquet by day and camera.

    RUN/run.json                                          the header (`RunInfo`)
    RUN/outputs/day=YYYY-MM-DD/camera=ID/part-*.parquet   one row per model output
    RUN/outputs/day=YYYY-MM-DD/mixed/part-*.parquet       the latest of them, of all cameras, until they are merged
    RUN/boxes/day=...                                     one row per box of an executed output, laid out like outputs
    RUN/{decisions,drops,camera_events,adaptation}/part-*.parquet
    RUN/calibrated/part-*.parquet                         what a person would say, where labels were given
    RUN/pictures/CAMERA/INDEX.jpg                         audit frames on which predictions were wrong
    RUN/latest/                                           each camera's latest picture, for people to look at

Delivery is at least once (design ruling 7), so a row may be written twice; `RunResults` lets repeats fall out.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self

from camlink.models.base import OutputSpec
from camlink.pipeline.durable import write_durably
from camlink.pipeline.errors import ResultsError
from camlink.pipeline.records import FrameResult, ModelOutput, Picture, Record
from camlink.pipeline.results.boxes import boxes_table
from camlink.pipeline.results.latest import LatestPictures
from camlink.pipeline.results.merge import Merging
from camlink.pipeline.results.pictures import DisagreementPictures
from camlink.pipeline.results.tables import (
    DAY_US,
    SELDOM,
    Row,
    microseconds,
    outputs_table,
    partition,
    schema,
)

if TYPE_CHECKING:
    import pyarrow as pa

OWN_PART = 2_000  # rows of one camera from which on a flush gives them a part of their own
NO_SPECS: Mapping[str, OutputSpec] = MappingProxyType({})
PartitionKey = tuple[str, int]  # camera, days since 1970


class _Pending:
    """Rows that are not on disk yet, of one camera and day."""

    __slots__ = ("changes", "outputs", "times_us")

    def __init__(self) -> None:
        self.times_us: list[int] = []
        self.outputs: list[ModelOutput] = []
        self.changes: list[float | None] = []

    def extend(self, more: _Pending) -> None:
        self.times_us += more.times_us
        self.outputs += more.outputs
        self.changes += more.changes

    def tables(self, specs: Mapping[str, OutputSpec]) -> dict[str, pa.Table]:
        """Return what is to be written, the outputs last: where they are, so are their boxes."""
        boxes = boxes_table(self.times_us, self.outputs, specs)
        outputs = outputs_table(self.times_us, self.outputs, self.changes)
        return {"outputs": outputs} if boxes is None else {"boxes": boxes, "outputs": outputs}


class ResultsLog:
    """Writes records into a run folder. Memory stays bounded by ``flush_rows``; `flush` makes all rows durable.

    ``specs`` lets it judge which audit pictures are worth keeping, and which boxes counted; without them none of either
    are kept. Several logs may write to one folder at once (distributed operation): file names never collide. Raises
    `ResultsError` with the path when the disk is full or not writable; rows not yet durable are kept, so that the
    caller may `flush` again.
    """

    def __init__(
        self,
        run_dir: Path,
        flush_rows: int = 20_000,
        *,
        specs: Mapping[str, OutputSpec] = NO_SPECS,
        pictures_per_camera: int = 24,
    ) -> None:
        self.run_dir = Path(run_dir)
        self._flush_rows = flush_rows
        self._pending: dict[PartitionKey, _Pending] = {}
        self._seldom: dict[str, list[Row]] = {}
        self._rows = 0
        self._written = 0
        self._token = secrets.token_hex(4)  # keeps part names of several writers apart
        self._specs = specs
        self._merging = Merging(self.run_dir)
        self._pictures = DisagreementPictures(self.run_dir, specs, pictures_per_camera)
        self._latest = LatestPictures(self.run_dir, specs)
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            why = error.strerror if isinstance(error, OSError) else error
            raise ResultsError(f"{str(run_dir)!r:.200}: cannot be made: {why}; choose another folder") from error

    def write(self, records: Iterable[Record]) -> None:
        """Take any records; those that are no results (frames, requests, promotions) are ignored."""
        for record in records:
            if type(record) is FrameResult:
                self._write_result(record)
            elif type(record) is Picture:
                self._latest.on_picture(record)
                if record.purpose == "audit":
                    self._pictures.on_picture(record)
            elif type(record) in SELDOM:
                table, row = SELDOM[type(record)]
                self._seldom.setdefault(table, []).append(row(record))
                self._rows += 1
        if self._rows >= self._flush_rows:
            self.flush()

    def flush(self) -> None:
        """Return once every row written so far is on disk.

        What is little of each camera goes into one part of all cameras, so that neither this nor whoever follows the
        run handles hundreds of small files every ten seconds; another thread merges them by camera in due time.
        """
        self._write_pending(OWN_PART)
        self._merging.start_if_due(self._written)

    def close(self) -> None:
        """Make all rows durable, each camera's in a part of its own. Closing twice is harmless."""
        self._write_pending(0)
        self._merging.join()

    def leave(self) -> None:
        """Let go of the folder as it is: nothing is written any more, and merging ends as soon as it can."""
        self._merging.stop()

    def _write_pending(self, own_part: int) -> None:
        small: dict[int, list[PartitionKey]] = {}
        for key in list(self._pending):
            camera_id, day = key
            if len(self._pending[key].outputs) < own_part:
                small.setdefault(day, []).append(key)
                continue
            self._write_of_day(day, camera_id, self._pending[key])
            del self._pending[key]
        for day, keys in small.items():
            together = _Pending()
            for key in sorted(keys):
                together.extend(self._pending[key])
            self._write_of_day(day, None, together)
            for key in keys:
                del self._pending[key]
        for table in list(self._seldom):
            self._write_part(self.run_dir / table, _rows_table(table, self._seldom[table]))
            del self._seldom[table]
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_result(self, result: FrameResult) -> None:
        """Note one frame's outputs: the hot path, a few microseconds."""
        if not result.outputs:
            return  # an answer that there was nothing to say
        time_us = microseconds(result.captured_at)
        key = (result.camera_id, time_us // DAY_US)
        rows = self._pending.get(key)
        if rows is None:
            rows = self._pending[key] = _Pending()
        outputs = result.outputs
        rows.outputs.extend(outputs)
        rows.times_us.extend([time_us] * len(outputs))
        rows.changes.extend([None if result.stats is None else result.stats.pixel_change] * len(outputs))
        self._rows += len(outputs)
        self._latest.on_result(result)
        if result.purpose == "audit":
            self._pictures.on_result(result)
        if self._rows >= self._flush_rows:
            self.flush()

    def _write_of_day(self, day: int, camera_id: str | None, rows: _Pending) -> None:
        for table, content in rows.tables(self._specs).items():
            self._write_part(partition(self.run_dir / table, day, camera_id), content)

    def _write_part(self, folder: Path, table: pa.Table) -> None:
        import pyarrow.parquet as pq

        self._written += 1
        path = folder / f"part-{self._written:06d}-{self._token}.parquet"
        write_durably(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def _rows_table(table: str, rows: list[Row]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema(table))
