"""Merges the many small parts of a long run into few, so that reading a week does not mean opening a million files.

    Merger(run_dir).merge()       # what is due, at once
    Merging(run_dir)              # the same now and then, in a thread beside the log that writes the parts

Parts of many cameras (``mixed``) are cut up by camera; a camera's parts of one day become one. A merged part is
written whole and synced before the parts that it holds are removed, so a crash in between leaves rows twice, never
none; repeats fall out on reading, and at the next merge. Parts are never written to, so anybody may read meanwhile:
`RunResults` and the dashboard look again where a part that they had listed is gone. One process merges a folder at a
time.
"""

from __future__ import annotations

import fcntl
import json
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from camlink.pipeline.durable import write_durably
from camlink.pipeline.errors import ResultsError
from camlink.pipeline.results.read import distinct_rows
from camlink.pipeline.results.tables import BY_DAY, KEYS, MIXED, TABLES, folder_name, schema

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

MANY = 60  # small parts in a folder: ten minutes of a live run that is flushed every ten seconds
SMALL = 4 << 20  # bytes of a part; larger ones stay as they are
EVERY = 60  # parts that a log writes between two looks at the folder
MERGED_END = "m.parquet"  # how a merged part's name ends; a log's token is hexadecimal
MERGED_FROM = b"camlink.merged_from"  # in a part's metadata: the names of the parts that it replaces, as JSON


class Merger:
    """Merges what is due in one run folder: folders with `MANY` small parts, and days that are over, as a whole."""

    def __init__(self, run_dir: Path, many: int = MANY) -> None:
        self._run_dir = run_dir
        self._many = many

    def merge(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Return how many parts were merged away; 0 also where another process merges this folder.

        ``stop`` is asked after each folder. Raises `ResultsError` where a part cannot be read or written; all rows are
        then still there.
        """
        merged = 0
        with _alone(self._run_dir) as alone:
            for parts in self._merge_due() if alone else ():
                merged += parts
                if stop():
                    break
        return merged

    def _merge_due(self) -> Iterator[int]:
        newest = max((day.name for day in (self._run_dir / "outputs").glob("day=*")), default="")
        for table in TABLES:
            if table not in BY_DAY:
                yield self._merge_folder(table, self._run_dir / table, self._many)
                continue
            for day in sorted((self._run_dir / table).glob("day=*")):
                over = day.name < newest
                yield self._merge_folder(table, day / MIXED, 1 if over else self._many)
                for folder in sorted(day.glob("camera=*")):
                    yield self._merge_folder(table, folder, 2 if over else self._many)

    def _merge_folder(self, table: str, folder: Path, many: int) -> int:
        parts = [part for part in sorted(folder.glob("part-*.parquet")) if part.stat().st_size < SMALL]
        if len(parts) < many:
            return 0
        rows = _read(table, parts)
        if folder.name == MIXED:
            for camera_id, of_camera in _by_camera(rows):
                _write(folder.with_name(f"camera={folder_name(camera_id)}"), of_camera, parts)
        else:
            _write(folder, rows, parts)
        for part in parts:
            part.unlink(missing_ok=True)
        return len(parts)


class Merging:
    """Lets a `Merger` work in a thread whenever a log has written `EVERY` more parts; troubles are logged, once."""

    def __init__(self, run_dir: Path) -> None:
        self._merger = Merger(run_dir)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._written = 0
        self._failing = False

    def start_if_due(self, written: int) -> None:
        """``written``: the number of parts so far. Returns at once."""
        if written - self._written < EVERY or (self._thread is not None and self._thread.is_alive()):
            return
        self._written = written
        self._thread = threading.Thread(target=self._run, name="merging", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for a merge that is under way."""
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """Let a merge that is under way end with the folder that it is at, and wait for that.

        A program that ends while a thread of it is within Arrow is aborted, whatever it has written.
        """
        self._stopping.set()
        self.join()

    def _run(self) -> None:
        try:
            self._merger.merge(self._stopping.is_set)
            self._failing = False
        except (ResultsError, OSError) as error:
            if not self._failing:
                logger.warning("small files are not merged: %s; trying again, nothing is lost", error)
            self._failing = True


@contextmanager
def _alone(run_dir: Path) -> Iterator[bool]:
    """Give whether nobody else merges this folder; the kernel lets go of the lock however a process ends."""
    with (run_dir / ".merging").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _read(table: str, parts: Sequence[Path]) -> pa.Table:
    """Return the parts' rows by camera and time, each fact once, as a reader of them would see them."""
    import duckdb

    in_time = "camera_id, captured_at, frame_index, model"
    order = {"outputs": f"{in_time}, how", "boxes": f"{in_time}, box"}.get(table, ", ".join(KEYS[table]))
    with duckdb.connect(config={"threads": 1}) as connection:  # the cores are the models'
        connection.execute("SET TimeZone = 'UTC'")
        connection.register(f"no_{table}", schema(table).empty_table())
        try:
            found = connection.sql(f"{distinct_rows(table)} ORDER BY {order}", params=[[str(part) for part in parts]])
            return found.to_arrow_table().cast(schema(table))
        except duckdb.Error as error:
            raise ResultsError(f"{parts[0].parent}: {len(parts)} parts cannot be merged: {error}") from error


def _by_camera(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of each camera; ``rows`` are in the order of their cameras."""
    import pyarrow.compute as pc

    start = 0
    for counted in pc.value_counts(rows.column("camera_id")).to_pylist():
        yield counted["values"], rows.slice(start, counted["counts"])
        start += counted["counts"]


def _write(folder: Path, rows: pa.Table, sources: Sequence[Path]) -> None:
    import pyarrow.parquet as pq

    told = json.dumps([source.name for source in sources]).encode()
    path = folder / f"part-{sources[-1].name.split('-')[1]}-{secrets.token_hex(4)}{MERGED_END}"
    merged = rows.replace_schema_metadata({MERGED_FROM: told})
    write_durably(path, lambda temporary: pq.write_table(merged, temporary, compression="zstd"))


def merged_from(part: Path) -> tuple[str, ...]:
    """Return the names of the parts that a merged one replaces; none for one that was written by a log.

    Raises `OSError` or `pyarrow.ArrowException` where the part is gone or unreadable.
    """
    import pyarrow.parquet as pq

    metadata = pq.read_schema(part).metadata or {}
    return tuple(json.loads(metadata.get(MERGED_FROM, b"[]")))
