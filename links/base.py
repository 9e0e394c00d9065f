"""What a model link is: a learned mapping g_ij from a source model's output space to a target's (MLink, Sec. 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec

Array = NDArray[np.float32]


class Link(Protocol):
    """One source, one target. ``predict`` gives pre-activations, which an ensemble weighs before it activates them."""

    source: OutputSpec
    target: OutputSpec

    def predict(self, batch: Array) -> Array:
        """Map source values (..., source.size) to pre-activations (..., target.size). Raises `LinkError`."""
        ...

    def weights(self) -> Mapping[str, Array]:
        """Return the learned parameters by name, to save, ship or average them."""
        ...

    def replace_weights(self, weights: Mapping[str, Array]) -> Self:
        """Return a link of the same shape with other parameters. Raises `LinkError` where shapes differ."""
        ...
