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
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from camlink.operators.base import Operator
from camlink.operators.snapshots import get_times, put_time, reading
from camlink.pipeline.records import NOT_FULL, Frame, FrameResult, Record

logger = logging.getLogger(__name__)

HOLD_S = 10.0  # how long a camera's records wait for what came before
REFRESH_S = 60.0  # a camera's snapshot is written so often even if nothing has changed
CROWDED = 16  # records held of one camera from which on its topic is read no further
Seconds = Callable[[], float]
SnapshotKey = tuple[str, str]  # camera, part


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

    @property
    def parts(self) -> Sequence[str]:
        """Names of the parts of a camera's snapshot, each of which is written when it has changed."""
        ...

    def resume(self, camera_id: str, snapshot: Mapping[str, bytes]) -> None:
        """Take up a camera, from the parts of its last snapshot that there are."""
        ...

    def refused(self) -> Sequence[Refused]:
        """Return the records that could not be dealt with since the last call."""
        ...

    def snapshots(self) -> dict[SnapshotKey, bytes]:
        """Return the parts of cameras' snapshots that changed since the last call, consistent with `held`."""
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
        self.changed = False  # since the last snapshot
        self.resumed = False
        self._last: dict[str, tuple[datetime, int]] = {}  # per kind of frames that keep their order
        self._seconds = seconds
        self._saved_s = seconds()

    def repeats(self, record: Frame | FrameResult) -> bool:
        """Say whether a record came before, as after a crash.

        Neither its time nor its index alone tells: a machine's clock may be set back, and a live camera counts from 0
        again when the state store has lost its count.
        """
        at, index = self._last.get(_kind(record), (None, -1))
        return at is not None and record.captured_at <= at and _index(record) <= index

    def hand_on(self, record: Frame | FrameResult) -> None:
        """Note that a record goes to the operator."""
        self.seen, self.changed = record.captured_at, True
        self._last[_kind(record)] = (record.captured_at, _index(record))

    def is_due(self) -> bool:
        """Say whether a snapshot should be written; if so, count it as written.

        Also now and then where nothing has changed: the store may have been emptied.
        """
        now = self._seconds()
        if not self.changed and now - self._saved_s < REFRESH_S:
            return False
        self.changed, self._saved_s = False, now
        return True

    def told(self) -> dict[str, Any]:
        """Return what was handed on, for a snapshot."""
        return {kind: [put_time(at), index] for kind, (at, index) in self._last.items()}

    def take_up(self, told: Mapping[str, Any]) -> None:
        """Go on from where another worker stood. Raises `StateError`."""
        with reading():
            times = get_times([at for at, _ in told.values()])
            self._last = {kind: (at, int(told[kind][1])) for kind, at in zip(told, times, strict=True)}
        self.seen = max(times, default=None)


def _kind(record: Frame | FrameResult) -> str:
    """Frames on which every model runs may be overtaken, where models are loaded in turn; each kind keeps its order."""
    return "full" if isinstance(record, FrameResult) and record.purpose not in NOT_FULL else "served"


def _index(record: Frame | FrameResult) -> int:
    return record.index if isinstance(record, Frame) else record.frame_index


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
