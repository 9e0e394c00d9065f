"""The vec-to-vec link of MLink (Sec. 3.4): a ReLU-activated perceptron with twice as many hidden units as outputs.

Serving is plain numpy: a link is a few hundred multiplications, less than the call overhead of a tensor library.
Training lives in `camlink.links.train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Self

import numpy as np

from camlink.links.base import Array
from camlink.links.parameters import check_parameters, named_parameters
from camlink.models.base import OutputSpec
from camlink.pipeline.errors import LinkError

_ZERO = np.zeros(1, np.float32)  # numpy is faster with an array of one number than with a number
PARAMETERS = ("w1", "b1", "w2", "b2")


def hidden_units(target: OutputSpec) -> int:
    """Return the paper's default width: twice the length of the output (Sec. 3.4)."""
    return 2 * target.size


@dataclass(frozen=True, eq=False)
class VecToVec:
    """``relu(x @ w1 + b1) @ w2 + b2``: x (..., source.size) -> pre-activation (..., target.size)."""

    source: OutputSpec
    target: OutputSpec
    w1: Array  # (source.size, hidden)
    b1: Array  # (hidden,)
    w2: Array  # (hidden, target.size)
    b2: Array  # (target.size,)

    def __post_init__(self) -> None:
        hidden = self.b1.shape[0]
        expected = {
            "w1": (self.source.size, hidden),
            "b1": (hidden,),
            "w2": (hidden, self.target.size),
            "b2": (self.target.size,),
        }
        check_parameters(self.name, self.weights(), expected)

    @property
    def name(self) -> str:
        """How messages call this link."""
        return f"{self.source.model} -> {self.target.model}"

    def predict(self, batch: Array) -> Array:
        """Map source values (..., source.size) to pre-activations (..., target.size). Raises `LinkError`."""
        if batch.shape[-1] != self.source.size:
            raise LinkError(f"link {self.name}: got values of size {batch.shape[-1]}, expected {self.source.size}")
        hidden: Array = batch.dot(self.w1)
        hidden += self.b1
        np.maximum(hidden, _ZERO, out=hidden)
        out: Array = hidden.dot(self.w2)
        out += self.b2
        if not isfinite(np.vdot(out, out)):  # one number tells of every inf and nan
            raise LinkError(f"link {self.name}: got values that are not finite")
        return out

    def weights(self) -> Mapping[str, Array]:
        """Return the learned parameters by name."""
        return {name: getattr(self, name) for name in PARAMETERS}

    def replace_weights(self, weights: Mapping[str, Array]) -> Self:
        """Return a link of the same spaces with other parameters. Raises `LinkError` where shapes do not fit."""
        return type(self)(self.source, self.target, **named_parameters(self.name, PARAMETERS, weights))
