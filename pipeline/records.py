"""The records that flow between operators. Plain immutable data: no behaviour beyond small derived properties.

Shapes and units are stated once, here:

* pixels: ``(H, W, 3)`` uint8, BGR, read-only;
* an output value: ``(size,)`` float32, one entry per label of the model's `OutputSpec`;
* times: aware UTC datetimes; ``captured_at`` is event time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Value = NDArray[np.float32]
Purpose = Literal["serve", "profile", "audit", "relabel", "overtaken"]
NOT_FULL = ("serve", "overtaken")  # frames on which not every model runs
JUDGED = (*NOT_FULL, "audit")  # frames whose answers count towards accuracy
How = Literal["executed", "linked", "reused", "abstained", "failed"]
EXECUTIONS: tuple[How, ...] = ("executed", "failed")  # with and without an answer: both took the model's time


@dataclass(frozen=True, slots=True)
class FrameStats:
    """Cheap statistics of a frame, defined in the trace format (docs/traces.md)."""

    pixel_change: float  # share of changed pixels since the previous sampled frame, 0..1
    edge_density: float  # share of edge pixels, 0..1
    mean_luma: float  # 0..255
    changed_area: float = 0.0  # the largest connected part of what changed, as a share of the picture, 0..1
    corner_density: float = 0.0  # share of corner pixels, 0..1


STATISTICS = tuple(field.name for field in fields(FrameStats))  # as columns of a trace
FIRST_STATISTICS = STATISTICS[:3]  # those that all traces with statistics have; the others came later


class CodedPicture(Protocol):
    """A picture as it travels: decoded when somebody looks at it (`camlink.pipeline.jpeg`)."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def jpeg(self) -> bytes | memoryview: ...

    @property
    def pixels(self) -> Pixels:
        """Raises `ValueError` for a damaged picture."""
        ...

    def at_least(self, width: int) -> Pixels:
        """Return the picture, smaller where that is cheaper to decode, but no narrower than ``width`` if it was wider.

        Raises `ValueError` for a damaged picture.
        """
        ...

    def undecoded(self) -> CodedPicture:
        """Return the same picture without the pixels it may have been decoded to."""
        ...


FramePicture = Pixels | CodedPicture


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One sampled frame of one camera. A gap in ``index`` is a dropped frame."""

    camera_id: str
    index: int
    captured_at: datetime
    picture: FramePicture  # as it came; models read `pixels`
    stats: FrameStats | None = None
    decode_s: float | None = None  # it took to decode, with the unsampled pictures before it; None: unknown
    overtaken: bool = False  # the camera's next frame is there already: no model is to run on this one just to serve

    @property
    def pixels(self) -> Pixels:
        """(H, W, 3) BGR; (0, 0, 3) when a recorded trace stands in for pixels. A coded picture is decoded once.

        Raises `ValueError` for a damaged picture.
        """
        return self.picture if isinstance(self.picture, np.ndarray) else self.picture.pixels

    def at_rest(self) -> Frame:
        """Return this frame for keeping: where its picture came coded, without what it was decoded to."""
        if isinstance(self.picture, np.ndarray):
            return self
        return replace(self, picture=self.picture.undecoded())


@dataclass(frozen=True, slots=True)
class FrameDropped:
    """Sampled frames that never reached the models, and why (conservation law, design ruling 6)."""

    camera_id: str
    first_index: int
    count: int
    captured_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class CameraEvent:
    """A change in a camera's state that a person should see: down, frozen, too slow, resolution changed, and back."""

    camera_id: str
    at: datetime
    kind: Literal["down", "recovered", "frozen", "thawed", "slow", "steady", "resolution", "corrupt", "ended"]
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes behind a value, for overlays and set links: ``xyxy`` (n, 4) in 0..1, ``scores`` (n,), ``classes`` (n,)."""

    xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class ModelOutput:
    """What is known of one model on one frame, and how it came about.

    ``served`` is True for the one output per (camera, frame, model) that a user of camlink gets; shadow predictions
    on audit frames and executions on relabel frames are kept beside it with ``served=False``, and so is the word that
    the model was executed for nothing (``how="failed"``), beside what was answered in its place.
    """

    camera_id: str
    frame_index: int
    captured_at: datetime
    model: str
    value: Value | None  # None when abstained or failed
    purpose: Purpose
    how: How
    served: bool = True
    sources: tuple[str, ...] = ()  # models whose executed outputs a linked value was predicted from
    link_version: int | None = None
    confidence: float | None = None  # estimated agreement, 0..1
    audit_probability: float | None = None  # chance with which this frame was to be audited; None where none was due
    reason: str | None = None  # why abstained, failed, executed, or why a prediction is on trial
    detections: Detections | None = None
    # where models are loaded in turn, or a frame is relabelled: its camera's latest frame that was answered before this
    # was known; None where that is this very frame
    known_after: datetime | None = None


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a per-frame policy expects of one model, for the choice of those that are held in memory; shares are 0..1.

    The first four are those of `camlink.operators.worth.Outlook`.
    """

    stale: float
    renewed: float
    steady: float
    hazard: float
    usual: float  # how often its usual value is right
    told_by: Mapping[str, float]  # other model -> how much more often right than usual, where that one executes


@dataclass(frozen=True, slots=True)
class OutputReady:
    """Says that executed outputs of a frame lie in the state store, and what else to expect for that frame."""

    camera_id: str
    frame_index: int
    captured_at: datetime
    purpose: Purpose
    ran: tuple[str, ...]  # models executed now
    predict: tuple[str, ...]  # models the decision leaves to links (on audit frames: as shadow)
    abstain: tuple[str, ...] = ()  # models the decision neither executes nor predicts (on audit frames: as shadow)
    failed: Mapping[str, str] = field(default_factory=dict)  # model that should have run -> why it did not
    audit_probability: float | None = None
    stats: FrameStats | None = None
    profile_ends: bool = False  # the last profile frame of its period: the scheduler may decide
    trial: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # as of the decision in force
    outputs: tuple[ModelOutput, ...] = ()  # the executed outputs themselves, where the state store did not take them
    answers: tuple[ModelOutput, ...] = ()  # rows for models of ``predict``, where a policy decides on every frame
    prospects: Mapping[str, Prospect] = field(default_factory=dict)  # as profiling ends, where not all models fit

    @property
    def needs_links(self) -> bool:
        """Whether any model of ``predict`` is left to the links."""
        return bool(self.predict) and not self.answers


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """All outputs of one frame that became known together."""

    camera_id: str
    frame_index: int
    captured_at: datetime
    purpose: Purpose
    outputs: tuple[ModelOutput, ...]
    audit_probability: float | None = None
    stats: FrameStats | None = None
    profile_ends: bool = False
    trial: tuple[str, ...] = ()  # models that execute because their predictions are not good enough
    prospects: Mapping[str, Prospect] = field(default_factory=dict)  # of the policy that decides on every frame

    def executed(self) -> dict[str, Value]:
        """Return the values that the models themselves gave."""
        return {o.model: o.value for o in self.outputs if o.how == "executed" and o.value is not None}


@dataclass(frozen=True, slots=True)
class Decision:
    """Which models execute and which are predicted for one camera, from ``start`` until ``end``."""

    camera_id: str
    start: datetime
    end: datetime
    execute: tuple[str, ...]
    predict: tuple[str, ...]
    loaded: tuple[str, ...]  # models held in GPU memory by this camera's worker
    activation: Mapping[str, float]  # MLink Eq. 7
    budget: Mapping[str, float]  # limits: memory_gb, time_share, latency_ms; and what it uses
    link_scores: Mapping[str, Mapping[str, float]]  # source -> target -> agreement
    expected_agreement: float | None
    reason: str
    target_states: Mapping[str, str] = field(default_factory=dict)  # model with a target -> met, not met, not known
    certificates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # of those models: target, low, high…
    trial: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # executed as not met -> sources of its trials
    audit_share: float | None = None  # chance of audit from here on; None: the site's share
    per_frame: bool = False  # the models of ``predict`` execute or are answered for as a policy says on each frame


@dataclass(frozen=True, slots=True)
class RelabelRequest:
    """Asks for models to be run on a recent frame, to give the links something to learn from."""

    camera_id: str
    frame_index: int
    captured_at: datetime
    models: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class LinkPromotion:
    """A new version of the links towards one target takes effect for one camera."""

    camera_id: str
    target: str
    version: int
    at: datetime
    payload: bytes  # Ensemble.to_bytes()


@dataclass(frozen=True, slots=True)
class AdaptationEvent:
    """Something the adaptation did, for reports: trained, promoted, rejected, rolled_back, relabel_missed."""

    camera_id: str
    at: datetime
    kind: Literal["trained", "promoted", "rejected", "rolled_back", "relabel_missed"]
    target: str
    version: int
    detail: str
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Picture:
    """A small JPEG: of an audit frame, kept if a prediction was wrong on it; of others now and then, to show."""

    camera_id: str
    frame_index: int
    captured_at: datetime
    jpeg: bytes
    purpose: Purpose = "audit"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a worker that holds models tells the others of one, the ``position``-th of ``count``.

    So nobody else needs the weights, and all have the models in one order.
    """

    model: str
    kind: Literal["vector", "sequence", "set"]
    size: int
    task: Literal["count", "single_label", "multi_label", "regression", "box", "tokens", "detections"]
    labels: tuple[str, ...]
    max_steps: int
    scale: float
    time_ms: float
    memory_gb: float
    position: int
    count: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Everything that follows from a frame's result has been published: promotions, and what relabelling taught.

    Travels on the topic of the promotions and after them: whoever has read this has read those (docs/distributed.md).
    ``quiet_until``: no served frame captured before it will be relabelled, so nobody need wait for such frames.
    """

    camera_id: str
    frame_index: int
    captured_at: datetime
    quiet_until: datetime | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CalibratedOutput:
    """What a person would say of a frame, as the oracle node predicts it from what is served (MLink ext., Sec. 4.2).

    It stands beside the outputs of models and replaces none of them: their accuracy is agreement with themselves.
    """

    camera_id: str
    frame_index: int
    captured_at: datetime
    name: str
    value: Value
    sources: tuple[str, ...]  # models whose served outputs it was predicted from
    confidence: float  # estimated agreement with the person, 0..1


@dataclass(frozen=True, slots=True, eq=False)
class FederationRound:
    """What the coordinator of a federation sends to all sites: where its links stand, and what it asks of a site.

    ``models`` and ``targets`` say which links; ``parameters`` (all links,) and ``pooled`` (moments,) where they stand;
    ``payloads`` are ensembles by target, once there are any. ``camlink.links.federation`` describes the phases.
    """

    federation: str
    run: str  # one per federation begun anew: answers to another are out of date
    number: int
    phase: Literal["moments", "gradients", "losses", "errors", "done"]
    at: datetime
    models: tuple[ModelCard, ...]
    targets: tuple[str, ...]
    seed: int
    rounds: int
    batch: int
    parameters: NDArray[np.float32]
    pooled: NDArray[np.float64]
    payloads: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class FederationUpdate:
    """What a site answers to one round: sums or means over its frames, never an output. One of the arrays is empty."""

    federation: str
    run: str
    number: int
    site: str
    at: datetime
    samples: int
    gradient: NDArray[np.float32]
    sums: NDArray[np.float64]


Record = (
    Frame
    | FrameDropped
    | CameraEvent
    | OutputReady
    | FrameResult
    | Decision
    | RelabelRequest
    | LinkPromotion
    | AdaptationEvent
    | Picture
    | ModelCard
    | Settled
    | FederationRound
    | FederationUpdate
    | CalibratedOutput
)
