"""The whole graph in one process: each reading is carried through every operator before the next one enters.

Time is event time, so a replay at any speed decides alike, and two replays with one seed give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from camlink.operators.base import Operator
from camlink.pipeline.bus.base import Bus, Subscription
from camlink.pipeline.clock import StreamClock
from camlink.pipeline.graph import GRAPH, topic_of
from camlink.pipeline.records import CameraEvent, Frame, FrameDropped, Record

Reading = Frame | FrameDropped | CameraEvent
Sink = Callable[[Sequence[Record]], Iterable[Record] | None]


class EmbeddedPipeline:
    """Operators over an in-memory bus. ``sink`` receives what the step "results" reads, and may ask for something back.

    ``tick`` is the number of frames, of different cameras, that enter together, so that models get batches.
    """

    def __init__(self, operators: Mapping[str, Operator], bus: Bus, sink: Sink, clock: StreamClock, tick: int = 1):
        missing = {step.name for step in GRAPH} - {"ingest", "results"} - set(operators)
        if missing:
            raise ValueError(f"operators missing from the graph: {', '.join(sorted(missing))}")
        self.operators = operators
        self._bus = bus
        self._sink = sink
        self._clock = clock
        self._tick = tick
        self._steps: list[tuple[Operator | None, Subscription]] = [
            (operators.get(step.name), bus.subscribe(step.reads, group=step.name)) for step in GRAPH if step.reads
        ]
        self._in_order = [operator for operator, _ in self._steps if operator is not None]

    def run(self, readings: Iterable[Reading | None], stop: Callable[[], bool] = lambda: False) -> None:
        """Carry all readings through the graph, then let the operators give what they hold back.

        Once ``stop`` says so, what the readings still hold is counted as dropped, reason "stopped"; the caller sees
        to it that they end. ``None`` among the readings says that nothing is to be had at the moment.
        """
        for tick in ticks(readings, self._tick):
            self._advance(tick[-1])
            self.publish(map(stopped, tick) if stop() else tick)
            self._pump()
        for operator in self._in_order:
            self.publish(operator.on_end())
            self._pump()

    def _advance(self, reading: Reading) -> None:
        self._clock.advance_to(reading.at if isinstance(reading, CameraEvent) else reading.captured_at)
        now = self._clock.now()
        for operator in self._in_order:
            due = operator.next_time()
            if due is not None and due <= now:
                self.publish(operator.on_time(now))
                self._pump()

    def publish(self, records: Iterable[Record]) -> None:
        """Hand records to the operators that read them, when the next reading is carried through."""
        for record in records:
            self._bus.publish(topic_of(record), record)

    def _pump(self) -> None:
        """Run the operators, in the order of the graph, until no record waits."""
        busy = True
        while busy:
            busy = False
            for operator, subscription in self._steps:
                records = subscription.poll()
                if not records:
                    continue
                busy = True
                if operator is None:
                    self.publish(self._sink(records) or ())
                else:
                    self.publish(operator.on_records(records))
                subscription.commit()


def stopped(reading: Reading) -> Reading:
    """Return the word that a frame was read but not processed any more."""
    if not isinstance(reading, Frame):
        return reading
    return FrameDropped(reading.camera_id, reading.index, 1, reading.captured_at, "stopped")


def ticks(readings: Iterable[Reading | None], size: int, *, one_per_camera: bool = True) -> Iterator[list[Reading]]:
    """Group readings into batches of at most ``size``, by default with no two readings of one camera in a batch.

    ``None`` ends a batch: nothing else is there now, and what is there should not wait.
    """
    group: list[Reading] = []
    cameras: set[str] = set()
    for reading in readings:
        full = reading is None or len(group) >= size or (one_per_camera and reading.camera_id in cameras)
        if group and full:
            yield group
            group, cameras = [], set()
        if reading is not None:
            group.append(reading)
            cameras.add(reading.camera_id)
    if group:
        yield group
