"""Ingest as a process: readings of its cameras onto the bus.

The bus blocks while too much is on its way: then a replay waits, and a live camera keeps only its newest frame and
counts the others as dropped ("overload").
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from camlink.operators.base import StateStore
from camlink.pipeline.bus.base import Bus
from camlink.pipeline.errors import CodecError, StateError
from camlink.pipeline.graph import topic_of
from camlink.pipeline.ingest.base import Reading
from camlink.pipeline.records import Frame, FrameDropped

logger = logging.getLogger(__name__)

RESERVED = 1000  # indexes that are put by ahead of use, so that a crash never makes one come twice
REFRESH_S = 10.0  # a store that is emptied has the indexes again after so long
PATIENCE_S, ASK_AGAIN_S = 60.0, 1.0  # with a store that is away when a camera's index is asked for
INDEX_TTL_S = 365 * 24 * 3600.0


class Indexes:
    """Frame indexes of live cameras that go on where the process before left off.

    A source counts from 0 each time it is opened. What is put by in the state store is beyond any index in use; after a
    crash up to `RESERVED` indexes are skipped, for frames that never were.

    Raises `StateError` where the store does not say within `PATIENCE_S` how far a camera has come: rows of indexes that
    were given before would fall out as repeats.
    """

    def __init__(
        self,
        state: StateStore,
        seconds: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._state, self._seconds, self._wait = state, seconds, wait
        self._base: dict[str, int] = {}
        self._reserved: dict[str, int] = {}
        self._next: dict[str, int] = {}

    def shifted(self, reading: Reading) -> Reading:
        """Return ``reading`` with its index after those of earlier processes."""
        if isinstance(reading, Frame):
            return replace(reading, index=self._shift(reading.camera_id, reading.index, 1))
        if isinstance(reading, FrameDropped):
            first = self._shift(reading.camera_id, reading.first_index, reading.count)
            return replace(reading, first_index=first)
        return reading

    def release(self) -> None:
        """Put by the very next indexes, at a clean end; a store that is away costs indexes, as a crash does."""
        self._put_all(self._next)

    def refresh(self) -> None:
        """Put by again what is reserved: the store may have been emptied."""
        self._put_all(self._reserved)

    def _put_all(self, indexes: Mapping[str, int]) -> None:
        for camera_id, index in indexes.items():
            self._put(camera_id, index)
        try:
            self._state.flush()
        except StateError as error:
            logger.warning("%s; a restart may skip indexes, or give some twice", error)

    def _shift(self, camera_id: str, index: int, count: int) -> int:
        if camera_id not in self._base:
            self._base[camera_id] = self._reserved[camera_id] = self._found(camera_id)
        shifted = self._base[camera_id] + index
        self._next[camera_id] = shifted + count
        if self._next[camera_id] >= self._reserved[camera_id]:
            self._reserved[camera_id] = self._next[camera_id] + RESERVED
            self._put(camera_id, self._reserved[camera_id])
            try:
                self._state.flush()
            except StateError as error:
                logger.warning("%s; a restart may give indexes of camera %s twice", error, camera_id)
        return shifted

    def _found(self, camera_id: str) -> int:
        deadline, is_told = self._seconds() + PATIENCE_S, False
        while True:
            try:
                (found,) = self._state.get_blobs([_key(camera_id)])
                return int(found) if found else 0
            except StateError as error:
                if self._seconds() > deadline:
                    raise
                if not is_told:
                    logger.warning(
                        "%s; it knows the next index of camera %s: its frames wait for that", error, camera_id
                    )
                is_told = True
                self._wait(ASK_AGAIN_S)

    def _put(self, camera_id: str, index: int) -> None:
        self._state.put_blob(_key(camera_id), str(index).encode(), INDEX_TTL_S)


def _key(camera_id: str) -> str:
    return f"index/{camera_id}"


class IngestWorker:
    """Publishes readings until they end or it is told to stop."""

    def __init__(
        self,
        readings: Iterable[Reading | None],
        bus: Bus,
        indexes: Indexes | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """``readings``: None among them says that nothing is to be had at the moment.

        ``indexes``: for live cameras; recorded ones count from 0 each time, so that a repeat is recognised.
        """
        self._readings = readings
        self._bus = bus
        self._indexes = indexes
        self._seconds = seconds
        self.counts: Counter[str] = Counter()
        self.beat = seconds()
        self._refresh_at = self.beat + REFRESH_S

    def run(self, stop: Callable[[], bool]) -> None:
        """Publish; return once all that was published is durable. Raises `BusError`."""
        for reading in self._until(stop):
            if reading is not None:
                self._publish(self._indexes.shifted(reading) if self._indexes else reading)
            self.beat = self._seconds()
            if self._indexes is not None and self.beat >= self._refresh_at:
                self._indexes.refresh()
                self._refresh_at = self.beat + REFRESH_S
        self._bus.flush()
        self._bus.check(look=True)  # what was published may have been lost since; a replay is then replayed
        if self._indexes is not None:
            self._indexes.release()

    def _until(self, stop: Callable[[], bool]) -> Iterator[Reading | None]:
        for reading in self._readings:
            yield reading
            if stop():
                return

    def _publish(self, reading: Reading) -> None:
        try:
            self._bus.publish(topic_of(reading), reading)
            self.counts[type(reading).__name__] += 1
        except CodecError as error:
            if not isinstance(reading, Frame):
                raise
            logger.error('camera "%s": %s', reading.camera_id, error)
            dropped = FrameDropped(reading.camera_id, reading.index, 1, reading.captured_at, "too large for the bus")
            self._bus.publish(topic_of(dropped), dropped)
            self.counts["too_large"] += 1
