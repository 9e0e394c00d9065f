"""What a policy is: it decides, frame by frame, which models of one camera execute, and answers for the others.

One interface for everything that can be compared: the live pipeline runs the same objects as `camlink compare`. A
policy sees a frame's cheap statistics, then what it chose to execute, model by model; it never sees pixels, nor the
outputs of models that it did not pay for.

A policy for `camlink compare --policy mypackage.policies:RoundRobin`:

>>> class RoundRobin:
...     '''Execute one model per frame in turn; the others repeat what they said last.'''
...     def __init__(self, setup: PolicySetup) -> None:
...         self.models, self.last, self.turn = list(setup.specs), {}, 0
...     def begin(self, frame: FrameFacts) -> None:
...         self.turn += 1
...     def choose(self, executed: Mapping[str, Value]) -> str | None:
...         return None if executed else self.models[self.turn % len(self.models)]
...     def answer(self, executed: Mapping[str, Value]) -> dict[str, Answer]:
...         return {m: Answer(v, "reused") for m, v in self.last.items() if m not in executed}
...     def learn(self, executed: Mapping[str, Value], *, chosen: bool) -> None:
...         self.last.update(executed)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from camlink.models.base import OutputSpec
from camlink.operators.selection import Budget, Costs
from camlink.operators.shares import Demand
from camlink.pipeline.records import Detections, FrameStats, Prospect, Value

if TYPE_CHECKING:
    from camlink.operators.zoo import Zoo


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """What is known of a frame before any model ran on it."""

    index: int
    time_s: float  # event time; falls from frame to frame of one camera only where a clock was set back for good
    stats: FrameStats | None = None


class Answer(NamedTuple):
    """What is served in place of an execution. ``confidence``: the chance or share of agreement, 0..1, if known."""

    value: Value
    how: Literal["linked", "reused"]
    confidence: float | None = None
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class PolicySetup:
    """What a policy is made from: one camera's models, what they cost, and what may be spent.

    ``budget.time_share`` holds over every span that starts with the first frame for which `FramePolicy.choose` was
    asked: what the policy chose may never have cost more than that share of executing everything on the frames so far.
    ``budget.latency_ms`` holds on each frame: what the policy chose on it may never cost more than that together.
    ``load_ms`` is what bringing a model into memory costs on top, each time (`camlink.operators.allowance`).
    """

    camera_id: str
    specs: Mapping[str, OutputSpec]
    costs: Costs
    budget: Budget
    seed: int = 0
    # In place of a time budget, the least cost that is expected to meet a target: for the mean over models and frames,
    # executions included; or by model, for its answers, executions not included, as a site asks it (docs/accuracy.md).
    target_agreement: float | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    load_ms: float = 0.0
    zoo: Zoo | None = None  # what the policies of other cameras have learnt; for `PerFrame`


class FramePolicy(Protocol):
    """One camera's policy. Per frame, in order: `begin`; `choose` until it says None; `answer`; `learn`.

    On bootstrap and profile frames, where every model runs anyway, only `begin` and `learn` are called. An audit frame
    goes as any other, so that what the policy would have said can be judged, and then `learn` is told everything.
    """

    def begin(self, frame: FrameFacts) -> None:
        """Take in the next frame."""
        ...

    def choose(self, executed: Mapping[str, Value]) -> str | None:
        """Return the model to execute next on this frame, given what was executed on it, or None to stop."""
        ...

    def answer(self, executed: Mapping[str, Value]) -> Mapping[str, Answer]:
        """Answer for models that are not in ``executed``; one that is left out abstains."""
        ...

    def learn(self, executed: Mapping[str, Value], *, chosen: bool) -> None:
        """Learn from the frame's executed values; ``chosen``: the policy chose them, so they are no random sample."""
        ...


@runtime_checkable
class ReadsDetections(Protocol):
    """A policy that also wants to see the boxes behind counts, those too that were not sure enough to count."""

    def found(self, detections: Mapping[str, Detections]) -> None:
        """Take in the boxes of models that executed on this frame, of those that have any; before `learn`."""
        ...


@runtime_checkable
class Expects(Protocol):
    """A policy that can say what led it to execute: what it expected of answering without."""

    def expected(self) -> Mapping[str, float]:
        """Return by model, 0..1, how far the best answer without executing it on this frame is expected to disagree.

        Before `learn`; of models that never executed nothing is known.
        """
        ...


@runtime_checkable
class GoesOn(Protocol):
    """A policy that chooses among the models that are loaded, and goes on from its snapshot after a restart."""

    def allow(self, models: Collection[str], required: Collection[str] = ()) -> None:
        """Say which models may be chosen, and which of them must be on every frame."""
        ...

    def snapshot(self) -> bytes:
        """Return all that is known, between frames."""
        ...

    def resume(self, snapshot: bytes, *, account: bool = True) -> None:
        """Take up what `snapshot` told; ``account``: also what was spent and saved.

        Raises `StateError`; the policy is then to be thrown away.
        """
        ...

    def put_off(self) -> Any:
        """Return what `learn_late` has to know of this frame; after `answer`."""
        ...

    def learn_late(self, frame: Any, executed: Mapping[str, Value], detections: Mapping[str, Detections]) -> None:
        """Learn from an earlier frame that was put off, now that all models have executed on it."""
        ...


@runtime_checkable
class LooksAhead(Protocol):
    """A policy that can say what it expects of its models, so that those with most to gain are held in memory."""

    def prospects(self) -> Mapping[str, Prospect]:
        """Return what is expected of each model that ever executed; between frames."""
        ...


@runtime_checkable
class MindsLatency(Protocol):
    """A policy that is told how long live frames have waited; others keep to ``latency_ms`` by the models' costs."""

    def within(self, left_ms: float) -> None:
        """Say how long the models may still take on this frame, by the clock; before each `choose`."""
        ...


@runtime_checkable
class MindsTime(Protocol):
    """A policy that is told how much a live machine has time for; others choose by their budget alone."""

    def limit(self, share: float) -> None:
        """Say that no more than ``share`` of executing everything is to be chosen from here on; between frames."""
        ...

    def demand(self) -> Demand | None:
        """Return what share of executing everything it would choose at which price per ms; None if it cannot say."""
        ...


@runtime_checkable
class MindsFailures(Protocol):
    """A policy that is told which models it chose in vain; of others, models that go on failing are kept away."""

    def failed(self, models: Iterable[str]) -> None:
        """Say which models gave nothing on this frame; after `learn`."""
        ...


MakePolicy = Callable[[PolicySetup], FramePolicy]
