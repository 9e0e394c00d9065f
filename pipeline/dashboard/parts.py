"""Finds what is new in a results folder, so that a page never reads twice what it has read once.

Parquet parts are written whole and never change, so a part that was read needs no second look; a folder whose time of
change stands still needs none either.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from camlink.pipeline.errors import ResultsError
from camlink.pipeline.results.merge import MERGED_END, merged_from
from camlink.pipeline.results.tables import BY_DAY, MIXED, TABLES, folder_name

SETTLED_NS = 2_000_000_000  # a folder that changed less than this ago may change again within one tick of its clock


class NewParts:
    """The parts of a run folder that were not there at the last `take`. Folders and files may come and go meanwhile."""

    def __init__(self, run_dir: Path, days: int, now_ns: Callable[[], int] = time.time_ns) -> None:
        """Outputs older than ``days`` before the newest day, but for days that are yet to come, are left unread."""
        self.since: date | None = None  # the first day of which outputs are read, where there are earlier ones
        self._run_dir = run_dir
        self._days = days
        self._read: set[date] = set()
        self._now_ns = now_ns
        self._changed: dict[str, int] = {}  # folder -> its time of change when it was last looked into
        self._known: dict[str, set[str]] = {}
        self._names: set[str] = set()  # of all parts in whatever folder; no two have the same

    def take(self) -> dict[str, list[str]]:
        """Return new files per table, in the order of their names. Raises `ResultsError` if a folder is unreadable."""
        try:
            found = {table: list(self._in(self._run_dir / table)) for table in TABLES if table not in BY_DAY}
            found["outputs"] = [file for folder in self._camera_folders() for file in self._in(folder)]
        except OSError as error:
            raise ResultsError(f"{self._run_dir}: cannot be listed: {error.strerror}") from error
        return {table: files for table, files in found.items() if files}

    def _camera_folders(self) -> Iterator[Path]:
        days = {day: path for path in _folders(self._run_dir / "outputs") if (day := _day_of(path)) is not None}
        tomorrow = datetime.fromtimestamp(self._now_ns() / 1e9, UTC).date() + timedelta(days=1)
        newest = max((day for day in days if day <= tomorrow), default=max(days, default=date.min))
        wanted = [day for day in sorted(days) if newest - day < timedelta(days=self._days)]
        self._read.update(wanted)
        self.since = min(self._read, default=None) if days.keys() - self._read else None
        for day in wanted:
            yield from _folders(days[day])  # "camera=…" before "mixed", where later rows lie

    def _in(self, folder: Path) -> Iterator[str]:
        key = str(folder)
        try:
            changed = os.stat(key).st_mtime_ns
        except FileNotFoundError:
            return
        if self._changed.get(key) == changed:
            return
        if self._now_ns() - changed > SETTLED_NS:
            self._changed[key] = changed
        known = self._known.setdefault(key, set())
        names = {name for name in os.listdir(key) if name.startswith("part-") and name.endswith(".parquet")}
        for name in sorted(names - known):
            if not self._has_all_of(os.path.join(key, name)):
                yield os.path.join(key, name)
        known |= names
        self._names |= names

    def _has_all_of(self, part: str) -> bool:
        """Return whether a part holds only rows of parts that were taken before it was merged from them."""
        if not part.endswith(MERGED_END) or not self._names:
            return False
        try:
            sources = merged_from(Path(part))
        except (OSError, ValueError):  # gone already, or broken: whoever reads it finds out
            return False
        return bool(sources) and self._names.issuperset(sources)

    def forget(self, files: Iterable[str]) -> None:
        """Take these files, which could not be read, for new; also where they have become part of others."""
        for file in files:
            folder, name = os.path.split(file)
            self._known[folder].discard(name)
            self._names.discard(name)
            self._changed.pop(folder, None)


def days_of(run_dir: Path, camera_id: str | None = None) -> list[date]:
    """Return the days that a run, or one camera of it, has outputs of, newest first.

    A day whose rows of all cameras are not merged yet counts as one of each camera.
    """
    places = None if camera_id is None else (f"camera={folder_name(camera_id)}", MIXED)
    return sorted(
        (
            day
            for path in _folders(run_dir / "outputs")
            if (day := _day_of(path)) is not None and (places is None or any((path / p).is_dir() for p in places))
        ),
        reverse=True,
    )


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _day_of(folder: Path) -> date | None:
    try:
        return date.fromisoformat(folder.name.removeprefix("day="))
    except ValueError:
        return None  # not ours: somebody put it there
