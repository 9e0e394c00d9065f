"""The wiring, in one table: which operator reads which topics; who writes them is drawn here.

ingest ── frames ──> inference ── outputs ──> linking ── results ──> scheduler, adaptation, results log
scheduler ── decisions ──> inference        adaptation ── links ──> linking, scheduler
                     adaptation, results log (to confirm alerts) ── relabel ──> inference
all ── events ──> results log               inference ── models ──> all others, at their start
"""

from __future__ import annotations

from dataclasses import dataclass

from camlink.pipeline.records import (
    AdaptationEvent,
    CalibratedOutput,
    CameraEvent,
    Decision,
    FederationRound,
    FederationUpdate,
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
    CalibratedOutput: "events",
    FederationRound: "federation",
    FederationUpdate: "federation-updates",
}


# Topics of which the latest record per key is the present state; brokers keep that for ever (compaction).
STATE_TOPICS = ("decisions", "links", "models")


@dataclass(frozen=True)
class Step:
    """One operator: its name, which is also its consumer group, and its topics.

    Between processes the members of a group share the cameras of the topics in ``shares``, and read the others beside,
    and those in ``beside``, which one process does not need, to stay in step. What lies on those in ``restores`` they
    read once, when they take up a camera: they write these topics themselves.
    """

    name: str
    reads: tuple[str, ...]
    shares: tuple[str, ...]
    beside: tuple[str, ...] = ()
    restores: tuple[str, ...] = ()

    @property
    def follows(self) -> tuple[str, ...]:
        """The topics read beside: for this member's cameras, from their present state on."""
        return tuple(topic for topic in self.reads if topic not in self.shares) + self.beside


GRAPH = (
    Step("ingest", (), ()),
    Step("inference", ("decisions", "relabel", "frames"), ("frames",), ("links",)),
    Step("linking", ("links", "outputs"), ("outputs",)),
    Step("adaptation", ("results",), ("results",), restores=("links",)),
    Step("scheduler", ("links", "results"), ("results",), restores=("decisions",)),
    Step("results", ("results", "decisions", "links", "events"), ("results", "decisions", "links", "events")),
)
TOPICS = tuple(dict.fromkeys(TOPIC_OF.values()))


def topic_of(record: Record) -> str:
    """Return the topic that a record travels on."""
    return TOPIC_OF[type(record)]


def camera_of(record: Record) -> str:
    """Return what a record is sorted into partitions by: its camera, or the model or federation that it is about."""
    if isinstance(record, FederationRound | FederationUpdate):
        return record.federation
    return record.model if isinstance(record, ModelCard) else record.camera_id


def key_of(record: Record) -> str:
    """Return the key within a topic: of two records with one key, the later one says all (state topics).

    >>> from datetime import UTC, datetime
    >>> key_of(LinkPromotion("hall", "persons", 3, datetime(2026, 1, 1, tzinfo=UTC), b""))
    'hall/persons'
    """
    if isinstance(record, LinkPromotion):
        return f"{record.camera_id}/{record.target}"
    if isinstance(record, Settled):
        return f"{record.camera_id}/"  # no target has an empty name
    if isinstance(record, FederationUpdate):
        return f"{record.federation}/{record.site}"
    return camera_of(record)
