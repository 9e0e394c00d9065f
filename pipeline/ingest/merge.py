"""Several cameras as one stream: recorded ones by event time, live ones as they come."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack

from camlink.pipeline.ingest.base import Reading, Source
from camlink.pipeline.ingest.live import LiveSource, close_together
from camlink.pipeline.ingest.replay import time_of


def merge(sources: Iterable[Source]) -> Iterator[Reading]:
    """Yield recorded sources' readings by event time, ties by camera id: the same order at every replay.

    Holds one reading of each source and closes all at the end, or when the iteration is given up.
    """
    ordered = sorted(sources, key=lambda source: source.camera_id)
    with ExitStack() as stack:
        for source in ordered:
            stack.callback(source.close)
        # heapq.merge prefers earlier iterables on equal keys, and takes each source's readings in their own order.
        yield from heapq.merge(*ordered, key=time_of)


def gather(sources: Sequence[LiveSource], wait: Callable[[float], object] = time.sleep) -> Iterator[Reading | None]:
    """Yield live sources' readings as they come, in turn, so that a camera that is down holds up no other.

    After each round comes None: what has come should not wait for more. Closes all at the end, or when the iteration
    is given up.
    """
    running = list(sources)
    with ExitStack() as stack:
        stack.callback(close_together, sources)
        while running:
            readings = [reading for reading in (source.poll() for source in running) if reading is not None]
            yield from readings
            yield None
            running = [source for source in running if not source.is_finished]
            if running and not readings:
                wait(0.01)
