"""Several recorded cameras as one stream, by event time. (Live ones: `camlink.pipeline.ingest.roster`.)"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from camlink.pipeline.ingest.base import Reading, Source
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
