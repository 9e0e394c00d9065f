"""The wiring, in one table: which operator reads and writes which topics.

ingest ── frames ──> inference ── outputs ──> linking ── results ──> scheduler, adaptation, results log
scheduler ── decisions ──> inference        adaptation ── links ──> linking, scheduler
                                            adaptation ── relabel ──> inference
"""

from __future__ import annotations

from dataclasses import dataclass

from camlink.pipeline.records import (
    AdaptationEvent,
    CameraEvent,
    Decision,
    Frame,
    FrameDropped,
    FrameResult,
    LinkPromotion,
    ModelCard,
    OutputReady,
    Picture,
    Record,
    RelabelRequest,
    Settled,
)

TOPIC_OF: dict[type, str] = {
    Frame: "frames",
    OutputReady: "outputs",
    FrameResult: "results",
    Decision: "decisions",
    RelabelRequest: "relabel",
    LinkPromotion: "links",
    FrameDropped: "events",
    CameraEvent: "events",
    AdaptationEvent: "events",
    Picture: "events",
    Settled: "links",
    ModelCard: "models",
}


@dataclass(frozen=True)
class Step:
    """One operator: its name, which is also its consumer group, and its topics."""

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


GRAPH = (
    Step("ingest", (), ("frames", "events")),
    Step("inference", ("decisions", "relabel", "frames"), ("outputs", "events")),
    Step("linking", ("links", "outputs"), ("results",)),
    Step("adaptation", ("results",), ("links", "relabel", "events")),
    Step("scheduler", ("links", "results"), ("decisions",)),
    Step("results", ("results", "decisions", "links", "events"), ()),
)


def topic_of(record: Record) -> str:
    """Return the topic that a record travels on."""
    return TOPIC_OF[type(record)]
