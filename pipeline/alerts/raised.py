"""The alerts that a run has raised, for people to see beside all else that happened: read from its outbox."""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from camlink.pipeline.alerts.outbox import FILE_NAME

logger = logging.getLogger(__name__)

KNOWN = {
    "not asked": "{}",
    "by execution": "predicted, and confirmed by execution",
    "not possible": "{}, could not be confirmed",
}
NEWEST = 2000  # letters of a run that are looked through: one for each alert and place
_SQL = "SELECT id, body, tries, told_s IS NOT NULL, problem FROM outbox ORDER BY rowid DESC LIMIT ?"


@dataclass(frozen=True)
class Raised:
    """One alert: what it said, and what became of it."""

    at: datetime
    rule: str
    detail: str
    known: str  # how the value was known: "executed", "predicted, and confirmed by execution", ...
    delivery: str  # empty once it has arrived everywhere


def raised_alerts(run_dir: Path, camera_id: str) -> list[Raised]:
    """Return the newest alerts about a camera; none where there is no outbox, or none that can be read."""
    file = run_dir / FILE_NAME
    if not file.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as database:
            rows = database.execute(_SQL, (NEWEST,)).fetchall()
    except sqlite3.Error as error:
        logger.debug("%s: cannot be read: %s", file, error)
        return []
    letters: dict[str, list[tuple[Any, ...]]] = {}
    for row in rows:
        letters.setdefault(row[0], []).append(row)
    told = ((json.loads(group[0][1]), group) for group in letters.values())
    return [_raised(body, group) for body, group in told if body["camera_id"] == camera_id]


def _raised(body: dict[str, Any], letters: list[tuple[Any, ...]]) -> Raised:
    waiting = [(tries, problem) for _, _, tries, has_arrived, problem in letters if not has_arrived]
    return Raised(
        at=datetime.fromisoformat(body["at"]),
        rule=body["rule"],
        detail=body["detail"],
        known=KNOWN[body["confirmed"]].format(body["how"]),
        delivery=_delivery(waiting),
    )


def _delivery(waiting: list[tuple[int, str | None]]) -> str:
    if not waiting:
        return ""
    tries, problem = max(waiting, key=lambda each: each[0])
    return (
        f"not delivered after {tries} {'try' if tries == 1 else 'tries'}: {problem}"
        if tries and problem
        else "not delivered yet"
    )
