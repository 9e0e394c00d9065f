"""An optional shortcut through `camlink.operators.policy`: a run of frames at once, where the policy knows its mind.

A policy whose choice does not depend on the outputs of the coming frames may say so, and answer for all of them in one
computation. It must decide and answer exactly as it would frame by frame; the lab uses the shortcut where it is there,
and tests hold the two ways equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Times = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BlockAnswer:
    """What is served for one model on n frames: ``values`` (n, size); ``confidence`` (n,) if known."""

    values: Array
    how: Literal["linked", "reused"]
    confidence: Times | None = None


@runtime_checkable
class BlockPolicy(Protocol):
    """A policy that can go through frames by the block."""

    def hold(self, times_s: Times) -> tuple[tuple[str, ...], int]:
        """Return what executes on each of the next frames, and on how many of them (0: ask frame by frame).

        ``times_s`` (n,): their event times. What it returns must be within the budget on each of them.
        """
        ...

    def pass_block(self, times_s: Times, executed: Mapping[str, Array]) -> Mapping[str, BlockAnswer]:
        """Go through the frames just held: ``executed`` model -> (n, size); a model that is left out abstains."""
        ...
