"""`standalone` and `all`: a fixed set of models executes; the others repeat what they said last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from camlink.operators.allowance import Allowance, Turns
from camlink.operators.baselines.repeating import LastValues
from camlink.operators.policy import Answer, FrameFacts, PolicySetup
from camlink.operators.selection import Budget, greedy
from camlink.pipeline.records import Value


class Fixed:
    """Execute ``models`` on every frame; where the budget does not pay for that, as often as it does."""

    def __init__(self, setup: PolicySetup, models: tuple[str, ...]) -> None:
        self._models = models
        self._turns = Turns(Allowance(setup.costs, setup.budget, setup.load_ms))
        self._last = LastValues()

    def begin(self, frame: FrameFacts) -> None:
        """Take in the next frame."""

    def choose(self, executed: Mapping[str, Value]) -> str | None:
        """Return the next model of the set, as long as it can be paid."""
        return self._turns.next(executed, lambda: self._models)

    def answer(self, executed: Mapping[str, Value]) -> dict[str, Answer]:
        """Repeat the last executed values."""
        return self._last.answer(executed)

    def learn(self, executed: Mapping[str, Value], *, chosen: bool) -> None:
        """Keep what was executed."""
        self._last.update(executed)


def standalone(setup: PolicySetup) -> Fixed:
    """Return the papers' baseline: the cheapest models that fit (MLink Sec. 6.5), or the very cheapest, paced."""
    costs, budget = setup.costs, setup.budget
    cheap = {m: -costs.time_ms[m] for m in costs.models}
    loaded = greedy(cheap, costs.memory_gb, budget.memory_limit())
    chosen = greedy({m: cheap[m] for m in loaded}, costs.time_ms, budget.time_ms(costs))
    return Fixed(setup, chosen or tuple(sorted(loaded, key=lambda m: costs.time_ms[m])[:1]))


def everything(setup: PolicySetup) -> Fixed:
    """Return the reference: all models on every frame, whatever the budget."""
    unlimited = replace(setup, budget=Budget())
    return Fixed(unlimited, setup.costs.models)
