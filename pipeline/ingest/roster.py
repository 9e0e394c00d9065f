"""The live cameras of a site, which may be edited while they run: one stream of readings from whoever is there."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from zlib import crc32

from camlink.pipeline.clock import WallClock
from camlink.pipeline.errors import SourceError
from camlink.pipeline.ingest.base import Reading, SourceSpec
from camlink.pipeline.ingest.live import LiveSource, close_together
from camlink.pipeline.ingest.opening import address_of
from camlink.pipeline.records import Frame, FrameDropped

logger = logging.getLogger(__name__)

IDLE_S = 0.01
Open = Callable[[SourceSpec, int], LiveSource]
Edits = Callable[[], "Iterable[SourceSpec] | None"]

_CLOCK = WallClock()


def open_live_source(spec: SourceSpec, first_index: int, waiting: int = 1) -> LiveSource:
    """Open a live camera whose frames count from ``first_index``, and of which so many may be ``waiting``.

    Raises `SourceError` if it cannot be live.
    """
    return LiveSource(spec, address_of(spec), clock=_CLOCK, first_index=first_index, waiting=waiting)


class Roster:
    """Runs live cameras, and starts, ends and changes them as edits say; the others are not touched by that.

    Frame indexes of a camera go on over a change, and over its removal and return, so that none comes twice.
    """

    def __init__(
        self,
        specs: Iterable[SourceSpec],
        *,
        edits: Edits = lambda: None,
        open_source: Open = open_live_source,
        wait: Callable[[float], object] = time.sleep,
        tell: Callable[[str], object] = logger.info,
    ) -> None:
        """``edits`` gives all cameras anew when they were edited, else None; ``tell`` is told what comes of each.

        Raises `SourceError` as opening does.
        """
        self._edits = edits
        self._open = open_source
        self._wait = wait
        self._tell = tell
        self._specs: dict[str, SourceSpec] = {}
        self._sources: dict[str, LiveSource] = {}
        self._captured: Counter[str] = Counter()
        self._closed = False
        for spec in specs:
            self._start(spec)

    def __iter__(self) -> Iterator[Reading | None]:
        """Yield readings as they come, in turn, so that a camera that is down holds up no other.

        After each round comes None: what has come should not wait for more. The newest frames of all cameras come
        together, after those that they overtook. Ends when closed, or when all cameras were files that have been
        played. Closes all at the end, or when the iteration is given up.
        """
        with ExitStack() as stack:
            stack.callback(self.close)
            while not self._closed:
                had = sum(self._captured.values())
                yield from self._edited()
                readings = [_parted(list(iter(source.poll, None))) for source in list(self._sources.values())]
                earlier = [reading for before, _ in readings for reading in before]
                yield from map(self._counted, earlier)
                if any(isinstance(reading, Frame) for reading in earlier):
                    yield None
                yield from (self._counted(reading) for _, newest in readings for reading in newest)
                yield None
                if self._sources and all(source.is_finished for source in self._sources.values()):
                    return
                if sum(self._captured.values()) == had:
                    self._wait(IDLE_S)

    def captured(self) -> Mapping[str, int]:
        """Return frames sampled so far, dropped ones included, of each camera that was ever there."""
        return {camera_id: self._captured[camera_id] for camera_id in {*self._specs, *self._captured}}

    def close(self) -> None:
        """Let go of all cameras; an iteration in progress ends."""
        self._closed = True
        close_together(self._sources.values())

    def _edited(self) -> Iterator[Reading]:
        wanted = self._edits()
        if wanted is None:
            return
        specs = {spec.camera_id: spec for spec in wanted}
        ended = [camera_id for camera_id, spec in self._specs.items() if specs.get(camera_id) != spec]
        for camera_id in ended:
            yield from self._end(camera_id)
            if camera_id not in specs:
                self._tell(f'camera "{camera_id}" let go')
        for camera_id, spec in specs.items():
            if camera_id not in self._specs:
                self._try_start(spec, "reopened" if camera_id in ended else "taken up")

    def _try_start(self, spec: SourceSpec, what: str) -> None:
        try:
            self._start(spec)
        except SourceError as error:
            logger.error("%s; going on without it", error)
        else:
            self._tell(f'camera "{spec.camera_id}" {what}: {spec.shown}')

    def _start(self, spec: SourceSpec) -> None:
        self._sources[spec.camera_id] = self._open(spec, self._captured[spec.camera_id])
        self._specs[spec.camera_id] = spec

    def _end(self, camera_id: str) -> Iterator[Reading]:
        """Let go of a camera, after what it has given already."""
        source = self._sources.pop(camera_id)
        del self._specs[camera_id]
        while (reading := source.poll()) is not None:
            yield self._counted(reading)
        source.close()

    def _counted(self, reading: Reading) -> Reading:
        if isinstance(reading, Frame):
            self._captured[reading.camera_id] += 1
        elif isinstance(reading, FrameDropped):
            self._captured[reading.camera_id] += reading.count
        return reading


def _parted(readings: list[Reading]) -> tuple[list[Reading], list[Reading]]:
    """Return what came before a camera's newest frame, and what came from that on."""
    newest = next((i for i in reversed(range(len(readings))) if isinstance(readings[i], Frame)), len(readings))
    return readings[:newest], readings[newest:]


def is_in_share(camera_id: str, number: int, of: int) -> bool:
    """Say whether a camera belongs to the ``number``-th of ``of`` ingest workers, counted from 1.

    Told from the id alone, so that no camera moves when others are added or removed.
    """
    return crc32(camera_id.encode()) % of == number - 1
