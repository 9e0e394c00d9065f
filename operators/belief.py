"""What a model would say now, given what it said last, how fresh that is, and what it usually says.

Outputs are read as levels per entry. Per entry,

    P(level) = fresh * [level executed last] + (1 - fresh) * usual(level)

where ``usual`` are frequencies, recent and long-run. What is served is the answer that is expected to disagree least.
So an output that has gone stale gives way to the usual one, and a rare value goes stale sooner than a common one.
`camlink.operators.leveled` reads counts and labels, `camlink.operators.graded` whatever agrees by degrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.operators.compiled import compiled
from camlink.operators.policy_state import State
from camlink.pipeline.records import Value

Frequencies = NDArray[np.float64]  # (entries, levels), rows sum to 1
Levels = NDArray[np.intp]  # (entries,)
Reading = Any  # of an output, by its belief: what it compares


class Guess(NamedTuple):
    """An answer without executing: ``wrong``, its expected disagreement; ``stays``: it is what was executed last."""

    value: Value
    wrong: float
    stays: bool
    reading: Reading  # of the value


class Belief(Protocol):
    """One model on one camera."""

    repeats: bool  # whether it never answers anything but what was executed last
    last: Levels  # executed last
    usual: Frequencies  # P(level) in general
    stale: float  # expected disagreement of the last output once it has nothing but the usual on its side
    renewed: float  # the same for an output that would be executed when all is gone

    def read(self, value: Value) -> Reading:
        """Return what `disagreement` compares."""
        ...

    def levels(self, reading: Reading) -> Levels:
        """Return the level of each entry (entries,) of an output that was `read`."""
        ...

    def disagreement(self, old: Reading, new: Reading) -> float:
        """Return how far two outputs of the model disagree, 0..1."""
        ...

    def take(self, value: Value) -> None:
        """Take in an executed output."""
        ...

    def guess(self, fresh: float) -> Guess:
        """Answer without executing, where the last output is so ``fresh``."""
        ...

    def chances(self, fresh: float) -> Frequencies:
        """Return P(level) (entries, levels)."""
        ...

    def settle(self, chances: Frequencies, fresh: float) -> Guess:
        """Answer with what is expected to disagree least by ``chances`` (entries, levels); if in doubt, the last.

        ``fresh``: as it entered these.
        """
        ...

    def put_readings(self, readings: Sequence[Reading]) -> State:
        """Return readings for a snapshot."""
        ...

    def get_readings(self, state: State) -> list[Reading]:
        """Read what `put_readings` wrote. Raises `StateError`."""
        ...

    def state(self) -> State:
        """Return what was learnt, for a snapshot."""
        ...

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        ...


def entries_of(spec: OutputSpec) -> int:
    """Return how many entries of an output have levels of their own."""
    return spec.size if spec.task in ("count", "multi_label") else 1


@compiled
def blended(holds: float, told: Frequencies, alone: Frequencies) -> Frequencies:
    """Return P(level) (entries, levels), which is ``told`` as far as that ``holds``, and else what it is ``alone``."""
    chances = np.empty(told.shape)
    for e in range(told.shape[0]):
        for level in range(told.shape[1]):
            chances[e, level] = holds * told[e, level] + (1.0 - holds) * alone[e, level]
    return chances


@compiled
def believed(usual: Frequencies, last: Levels, fresh: float) -> Frequencies:
    """Return P(level) (entries, levels), where what was executed last (entries,) is so ``fresh``."""
    chances = np.empty(usual.shape)
    for e in range(len(last)):
        for level in range(usual.shape[1]):
            chances[e, level] = (1.0 - fresh) * usual[e, level]
        if last[e] < usual.shape[1]:
            chances[e, last[e]] += fresh
    return chances
