"""Keeps operators that run in different processes in step, so that they do what they would do in one.

In one process a frame is carried through the whole graph before the next one enters: what a frame decides, teaches or
asks for has happened when its camera's next frame comes. Between processes each operator sees its topics at its own
pace. The classes here stand before an operator and hand it a camera's records only once what came before is known;
docs/distributed.md has the argument. Waiting is bounded: after `HOLD_S` (`--hold-s`) an operator goes on with what it
knows, which costs reproducibility, never a result.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from camlink.operators.base import Operator
from camlink.pipeline.records import Record

logger = logging.getLogger(__name__)

HOLD_S = 10.0  # how long a camera's records wait for what came before
CROWDED = 16  # records held of one camera from which on its topic is read no further
Seconds = Callable[[], float]


class PacedOperator(Operator, Protocol):
    """An operator that can be one of many: it says what it still holds, forgets cameras that moved, and resumes."""

    def held(self) -> Collection[Record]:
        """Return the records that were taken and not yet dealt with: they must be delivered again after a crash."""
        ...

    def crowded(self) -> Collection[str]:
        """Return the cameras of which so much is held that no more should come for now."""
        ...

    def forget(self, cameras: Collection[str]) -> None:
        """Drop all that is known of cameras which another worker has now."""
        ...

    def knows(self, camera_id: str) -> bool:
        """Say whether this camera's state is here; if not, `resume` is called before its first record."""
        ...

    def resume(self, camera_id: str, snapshot: bytes | None) -> None:
        """Take up a camera, from its last snapshot if there is one."""
        ...

    def refused(self) -> Sequence[Refused]:
        """Return the records that could not be dealt with since the last call."""
        ...

    def snapshots(self) -> dict[str, bytes]:
        """Return the snapshots of the cameras that changed since the last call, consistent with `held`."""
        ...


class Patience:
    """How long something has been waited for. ``what`` and ``camera_id`` are for the one message when it runs out."""

    def __init__(self, seconds: Seconds, limit_s: float) -> None:
        self._seconds = seconds
        self._limit_s = limit_s
        self._since: float | None = None

    def start(self) -> None:
        """Begin to wait, now."""
        self._since = self._seconds()

    def is_over(self, camera_id: str, what: str) -> bool:
        """Say whether the time is up; say so in the log, once."""
        if self._since is None or self._seconds() - self._since < self._limit_s:
            return False
        logger.warning('camera "%s": %s did not come within %.0f s; going on without', camera_id, what, self._limit_s)
        self._since = None
        return True


class PacedCamera:
    """One camera's queue before an operator."""

    def __init__(self, seconds: Seconds, hold_s: float) -> None:
        self.queue: deque[Record] = deque()
        self.patience = Patience(seconds, hold_s)
        self.seen: datetime | None = None  # event time of the last record handed on, or of the snapshot
        self.changed = False
        self.resumed = False


@dataclass(frozen=True)
class Refused:
    """A record that an operator could not deal with, and why."""

    record: Record
    reason: str


class Guard:
    """Stands around an operator, so that one record that breaks it costs that record and no other.

    A batch that fails is handed on again record by record; those that fail alone are kept in ``refused``.
    """

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self.refused: list[Refused] = []

    def on_records(self, records: Sequence[Record]) -> list[Record]:
        """Return all that follows from ``records``."""
        if not records:
            return []
        try:
            return list(self._operator.on_records(records))
        except Exception as error:  # whatever it is: the reason goes with the record, to the dead-letter topic
            if len(records) == 1:
                self.refused.append(Refused(records[0], f"{type(error).__name__}: {error}"))
                logger.exception("a record was refused")
                return []
        return [after for record in records for after in self.on_records([record])]

    def drain(self) -> list[Refused]:
        """Return what was refused since the last call."""
        refused, self.refused = self.refused, []
        return refused


def queued(cameras: Iterable[PacedCamera]) -> list[Record]:
    """Return all records that wait in queues."""
    return [record for camera in cameras for record in camera.queue]
