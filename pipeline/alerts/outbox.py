"""Alerts that somebody has still to hear of, in a SQLite file of the results folder: each is told once or more.

An alert is put in before the records that led to it are committed, so that a crash loses none; its id is the same when
it is found again, so that it is put in once. Several processes may share the file.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camlink.pipeline.alerts.alert import Alert
from camlink.pipeline.errors import ResultsError
from camlink.pipeline.quantities import counted

logger = logging.getLogger(__name__)

FILE_NAME = "alerts.sqlite"
BACKOFF_FIRST_S, BACKOFF_MOST_S = 2.0, 300.0
KEPT_S = 7 * 24 * 3600.0  # told or not, an alert so old is news to nobody
_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    id TEXT NOT NULL, place TEXT NOT NULL, body BLOB NOT NULL, put_s REAL NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, due_s REAL NOT NULL, told_s REAL, problem TEXT,
    PRIMARY KEY (id, place)
);
CREATE INDEX IF NOT EXISTS due ON outbox (due_s) WHERE told_s IS NULL;
"""


@dataclass(frozen=True)
class Letter:
    """One alert for one place. ``place`` is the number of an address, so that no secret lies in the file."""

    id: str
    place: str
    body: bytes
    tries: int


class Outbox:
    """Safe to be used by several threads. Raises `ResultsError` when the file cannot be written or read."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE_NAME
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._file, check_same_thread=False, isolation_level=None, timeout=10.0)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ResultsError(f"{self._file}: alerts cannot be kept: {error}") from error

    def put(self, alert: Alert, places: Sequence[str], now_s: float) -> None:
        """Keep an alert for each of ``places``; on return it is on disk. One that is there already is left alone."""
        body = alert.to_json()
        rows = [(alert.id, place, body, now_s, now_s) for place in places]
        self._run("INSERT OR IGNORE INTO outbox (id, place, body, put_s, due_s) VALUES (?, ?, ?, ?, ?)", rows)
        self._forget_old(now_s)

    def places_due(self, now_s: float) -> list[str]:
        """Return the places for which there are letters whose time has come."""
        sql = "SELECT DISTINCT place FROM outbox WHERE told_s IS NULL AND due_s <= ? ORDER BY place"
        return [place for (place,) in self._query(sql, (now_s,))]

    def due(self, now_s: float, place: str, most: int = 100) -> list[Letter]:
        """Return letters for a place whose time has come, oldest first."""
        found = self._query(
            "SELECT id, place, body, tries FROM outbox WHERE told_s IS NULL AND due_s <= ? AND place = ? "
            "ORDER BY put_s LIMIT ?",
            (now_s, place, most),
        )
        return [Letter(*row) for row in found]

    def told(self, letter: Letter, now_s: float) -> None:
        """Note that a letter has arrived."""
        self._run("UPDATE outbox SET told_s = ? WHERE id = ? AND place = ?", [(now_s, letter.id, letter.place)])
        self._forget_old(now_s)

    def failed(self, letter: Letter, problem: str, now_s: float) -> float:
        """Note that a letter did not arrive; return in how many seconds it is tried again."""
        wait_s = min(BACKOFF_FIRST_S * 2.0 ** min(letter.tries, 20), BACKOFF_MOST_S)
        self._run(
            "UPDATE outbox SET tries = tries + 1, due_s = ?, problem = ? WHERE id = ? AND place = ?",
            [(now_s + wait_s, problem[:500], letter.id, letter.place)],
        )
        self._forget_old(now_s)
        return wait_s

    def waiting(self) -> int:
        """Return how many letters have not arrived."""
        return int(self._query("SELECT count(*) FROM outbox WHERE told_s IS NULL", ())[0][0])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _forget_old(self, now_s: float) -> None:
        """Forget what is older than `KEPT_S`, also where a place has been away for so long that nothing arrives."""
        old = (now_s - KEPT_S,)
        untold = self._query("SELECT count(*) FROM outbox WHERE told_s IS NULL AND put_s < ?", old)[0][0]
        if untold:
            days = KEPT_S / 86_400
            logger.warning(
                "%s: %s that has not arrived within %.0f days forgotten", self._file, counted(untold, "alert"), days
            )
        self._run("DELETE FROM outbox WHERE put_s < ?", [old])

    def _run(self, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            with self._lock, self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany(sql, rows)
        except sqlite3.Error as error:
            raise ResultsError(f"{self._file}: alerts cannot be kept: {error}") from error

    def _query(self, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._database.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise ResultsError(f"{self._file}: alerts cannot be read: {error}") from error
