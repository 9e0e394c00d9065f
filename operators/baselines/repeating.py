"""What `periodic` and `reducto` share: execute a model when it is due, and repeat its last value until then."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from camlink.operators.allowance import Allowance, Turns
from camlink.operators.baselines.warmup import WarmUp
from camlink.operators.policy import Answer, FrameFacts, PolicySetup
from camlink.pipeline.records import Value

logger = logging.getLogger(__name__)

How = TypeVar("How")  # when a model is due: an interval, or a feature and its threshold


class LastValues:
    """The last executed value of each model: the answer of all who reuse."""

    def __init__(self) -> None:
        self._last: dict[str, Answer] = {}

    def update(self, executed: Mapping[str, Value]) -> None:
        """Take in a frame's executed values."""
        for model, value in executed.items():
            self._last[model] = Answer(value, "reused")

    def answer(self, executed: Mapping[str, Value]) -> dict[str, Answer]:
        """Answer for all models that were executed before and not now."""
        return {m: a for m, a in self._last.items() if m not in executed}


class Repeating(ABC, Generic[How]):
    """One camera's policy that repeats last values; tuned once, on the first frames, as soon as it has to choose."""

    def __init__(self, setup: PolicySetup) -> None:
        self._setup = setup
        self._turns = Turns(Allowance(setup.costs, setup.budget, setup.load_ms))
        self._warm_up = WarmUp(tuple(setup.specs))
        self._last = LastValues()
        self._frame = FrameFacts(-1, 0.0)
        self._how: dict[str, How] | None = None
        self._since: dict[str, float] = {}  # frames, or change, since the model executed

    @abstractmethod
    def begin(self, frame: FrameFacts) -> None:
        """Take in the next frame: add to what has come together since each model executed."""

    @abstractmethod
    def _tune(self) -> dict[str, How]:
        """Return when each model is due, and set ``_since`` to where they start."""

    @abstractmethod
    def _is_ever(self, how: How) -> bool:
        """Say whether a model that is due so is ever due."""

    @abstractmethod
    def _due(self) -> Mapping[str, float]:
        """Return the models that are due, and by how much."""

    def choose(self, executed: Mapping[str, Value]) -> str | None:
        """Return the model that is furthest beyond its due, as long as that can be paid."""
        return self._turns.next(executed, self._order)

    def within(self, left_ms: float) -> None:
        """Say how long the models may still take on this frame, by the clock; before each `choose`."""
        self._turns.within(left_ms)

    def answer(self, executed: Mapping[str, Value]) -> dict[str, Answer]:
        """Repeat the last executed values."""
        return self._last.answer(executed)

    def learn(self, executed: Mapping[str, Value], *, chosen: bool) -> None:
        """Keep what was executed."""
        self._last.update(executed)
        for model in executed:
            self._since[model] = 0.0
        if self._how is None and not chosen:
            self._warm_up.add(self._frame, executed)

    def failed(self, models: Iterable[str]) -> None:
        """Have them wait for their turn again, as if they had executed."""
        for model in self._since.keys() & set(models):
            self._since[model] = 0.0

    def _tuned(self) -> dict[str, How]:
        if self._how is None:
            self._how = self._tune()
            self._warm_up.clear()
            held = min(self._setup.costs.memory_gb.values(), default=0.0) <= self._setup.budget.memory_limit()
            if held and not any(map(self._is_ever, self._how.values())):
                logger.warning(
                    'camera "%s": %s executes no model any more, and repeats what its first frames said: as rarely as '
                    "the time budget asks is beyond what they tell of; raise it, or give more frames to learn from",
                    *(self._setup.camera_id, type(self).__name__),
                )
        return self._how

    def _order(self) -> list[str]:
        due = self._due()
        return sorted(due, key=lambda m: -due[m])
