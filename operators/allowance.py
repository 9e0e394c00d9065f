"""What a policy may still spend: a time budget without debt, what fits into a frame, and a memory budget.

The lab judges policies with this, and policies keep to their budget with the very same object.

>>> costs = Costs({"small": 10.0, "large": 30.0}, {"small": 1.0, "large": 3.0})
>>> allowance = Allowance(costs, Budget(time_share=0.25))
>>> allowance.next_frame(); allowance.affords("small"), allowance.affords("large")
(True, False)
>>> allowance.spend("small"); allowance.affords("small")
False
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import inf, isinf
from typing import Any

from camlink.operators.selection import Budget, Costs
from camlink.pipeline.records import Value

ROUNDING = 1e-6  # of executing everything once: sums of floats may miss a limit by this much


class Allowance:
    """Spending of one camera since its first frame that counts: never more than share x frames x everything.

    Under a latency limit, besides, never more on one frame than that, whatever was saved before.
    ``load_ms`` is charged for each model brought into memory. Where the memory budget is tight, loading a model puts
    out those that were used longest ago, so what is loaded never exceeds the budget.
    """

    def __init__(self, costs: Costs, budget: Budget, load_ms: float = 0.0) -> None:
        self.costs, self.budget, self.load_ms = costs, budget, load_ms
        self.frames = 0
        self.spent_ms = 0.0
        self.loads = 0
        self._budget_ms = self._per_frame = self._given = budget.long_run_ms(costs)
        self._forgone_ms = 0.0  # of what the budget allowed, kept back by `limit`
        self._latency = budget.latency_limit()
        self._on_frame_ms = 0.0  # spent on this frame
        self._measured_ms: float | None = None  # what is left of this frame by the clock
        self._memory = budget.memory_limit()
        self._slack = ROUNDING * costs.time(costs.models)
        self._loaded: dict[str, None] = {}  # in order of last use

    def state(self) -> dict[str, Any]:
        """Return what was spent, and of which budget, for a snapshot."""
        return {
            "per_frame_ms": None if isinf(self._budget_ms) else self._budget_ms,
            "time_ms": dict(self.costs.time_ms),
            "frames": self.frames,
            "spent_ms": self.spent_ms,
            "forgone_ms": self._forgone_ms,
            "loads": self.loads,
            "loaded": list(self._loaded),
        }

    def resume(self, state: Mapping[str, Any]) -> bool:
        """Take up what `state` told, and say so; what was spent of another budget, or at other costs, says nothing."""
        if any(state[key] != self.state()[key] for key in ("per_frame_ms", "time_ms")):
            return False
        self.frames, self.spent_ms, self.loads = int(state["frames"]), float(state["spent_ms"]), int(state["loads"])
        self._forgone_ms = float(state.get("forgone_ms", 0.0))
        self._loaded = dict.fromkeys(map(str, state["loaded"]))
        return True

    def limit(self, share: float) -> None:
        """Give no more than ``share`` of executing everything per frame from here on, whatever the budget allows.

        When that becomes less than the budget, no more stays of what was saved than executing everything once takes.
        """
        everything_ms, was_limited = self.costs.time(self.costs.models), self._given < self._per_frame
        self._per_frame = min(self._per_frame, everything_ms)  # more there is not to execute
        self._given = min(self._per_frame, share * everything_ms)
        if self._given < self._per_frame and not was_limited:
            self._forgone_ms += max(0.0, self.left_ms - everything_ms)

    @property
    def per_frame_ms(self) -> float:
        """What may be spent per frame in the long run, in ms, from here on."""
        return self._given

    @property
    def left_ms(self) -> float:
        """What may be spent now in the long run, in ms."""
        return self._per_frame * self.frames - self._forgone_ms - self.spent_ms

    @property
    def room_ms(self) -> float:
        """What may still be spent on this frame, in ms: by the clock, once `within` has said so, else by the costs."""
        return self._latency - self._on_frame_ms if self._measured_ms is None else self._measured_ms

    @property
    def loaded(self) -> tuple[str, ...]:
        """The models in memory, the one used longest ago first."""
        return tuple(self._loaded)

    def next_frame(self) -> None:
        """Add what one more frame allows."""
        self.frames += 1
        self._on_frame_ms = 0.0
        if self._given < self._per_frame:
            self._forgone_ms += self._per_frame - self._given

    def within(self, left_ms: float) -> None:
        """Say what is left of this frame by the clock: waiting before counts, and what models took in truth."""
        self._measured_ms = left_ms

    def price(self, model: str) -> float:
        """Return what executing ``model`` costs now, in ms: its time, and its loading if it is not in memory."""
        return self.costs.time_ms[model] + (0.0 if model in self._loaded else self.load_ms)

    def fits(self, model: str) -> bool:
        """Say whether ``model`` alone stays within the memory budget."""
        return self.costs.memory_gb[model] <= self._memory + ROUNDING

    def has_room(self, model: str) -> bool:
        """Say whether ``model`` can be expected to finish within what is left of this frame."""
        return self.price(model) <= self.room_ms + self._slack

    def affords(self, model: str) -> bool:
        """Say whether ``model`` may be executed now."""
        return self.price(model) <= self.left_ms + self._slack and self.has_room(model) and self.fits(model)

    def choices(self, models: Iterable[str]) -> list[str]:
        """Return those of ``models`` that have room on this frame; none where not one of them is afforded."""
        room, left = self.room_ms + self._slack, self.left_ms + self._slack
        prices = {m: self.price(m) for m in models} if self.load_ms else self.costs.time_ms
        found = [m for m in models if prices[m] <= room]
        return found if any(prices[m] <= left and self.fits(m) for m in found) else []

    def affords_all(self, models: tuple[str, ...]) -> bool:
        """Say whether all of ``models`` may be executed on this frame; loading is priced for all not in memory."""
        price = sum(self.price(m) for m in models)
        return price <= min(self.left_ms, self.room_ms) + self._slack and all(self.fits(m) for m in models)

    def frames_held(self, models: tuple[str, ...], frames: int) -> int:
        """Return on how many of the next ``frames`` all of ``models`` can be executed, once they are in memory."""
        if any(m not in self._loaded for m in models) or self.costs.time(models) > self._latency + self._slack:
            return 0
        gain = self._per_frame - self.costs.time(models)
        if gain >= 0.0:
            return frames
        return min(frames, int((self.left_ms + self._slack / 2) / -gain))

    def frames_until(self, price_ms: float, models: tuple[str, ...]) -> float:
        """Return after how many frames of executing ``models`` on each, ``price_ms`` can be paid on the next one."""
        if price_ms > self._latency + self._slack:
            return inf
        missing = price_ms - self._slack - self.left_ms - self._per_frame
        gain = self._per_frame - self.costs.time(models)
        return 0.0 if missing <= 0.0 else missing / gain if gain > 0.0 else inf

    def spend_block(self, models: tuple[str, ...], frames: int) -> None:
        """Execute ``models``, which are all in memory, on each of the next ``frames``."""
        self.frames += frames
        self.spent_ms += frames * self.costs.time(models)
        for model in models:
            self._loaded[model] = self._loaded.pop(model)

    def spend(self, model: str) -> None:
        """Execute ``model``: pay, and load it if need be. Whether it is afforded is the caller's to ask before."""
        price = self.price(model)
        self.spent_ms += price
        self._on_frame_ms += price
        if self._measured_ms is not None:
            self._measured_ms -= price
        if model in self._loaded:
            del self._loaded[model]
        else:
            self.loads += 1
            self._make_room(self.costs.memory_gb[model])
        self._loaded[model] = None

    def _make_room(self, memory_gb: float) -> None:
        while self._loaded and self.costs.memory(self.loaded) + memory_gb > self._memory + ROUNDING:
            del self._loaded[next(iter(self._loaded))]


class Turns:
    """Models in the order in which they are to execute on a frame, as far as they can be paid.

    One that does not fit into what is left of the frame is passed over, and is first on the next one; what the budget
    does not pay for yet is waited for.
    """

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._todo: list[str] = []
        self._passed: set[str] = set()  # over, on this frame

    def next(self, executed: Mapping[str, Value], order: Callable[[], Iterable[str]]) -> str | None:
        """Pay for the next model and return it, or None to stop; ``order`` is asked once, at the start of a frame."""
        if not executed:
            self._allowance.next_frame()
            passed, self._passed = self._passed, set()
            self._todo = sorted(order(), key=lambda m: m not in passed)
        while self._todo and not self._allowance.has_room(self._todo[0]):
            self._passed.add(self._todo.pop(0))
        if self._todo and self._allowance.affords(self._todo[0]):
            self._allowance.spend(self._todo[0])
            return self._todo.pop(0)
        return None

    def within(self, left_ms: float) -> None:
        """Say what is left of this frame by the clock."""
        self._allowance.within(left_ms)
