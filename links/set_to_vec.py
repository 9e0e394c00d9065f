"""A link from a detector's whole list of boxes: permutation-invariant, by deep sets (Zaheer et al., NeurIPS 2017).

Each box goes through one layer of rectified units; their sum, mean and maximum over the boxes describe the list,
however long it is and whatever its order. That description, beside the source's plain numbers, enters the same
perceptron as in `camlink.links.vec_to_vec`. Boxes below the source's own threshold are read
too: what one detector half sees, another may count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Self

import numpy as np

from camlink.links.base import Array
from camlink.links.parameters import check_parameters, named_parameters
from camlink.links.sets import PLAIN_FEATURES, features_of, places_of, plain_size
from camlink.links.vec_to_vec import VecToVec
from camlink.models.base import OutputSpec
from camlink.pipeline.errors import LinkError

POOLS = 3  # sum, mean, maximum
PARAMETERS = ("we", "be", "w1", "b1", "w2", "b2")


@dataclass(frozen=True, eq=False)
class SetToVec:
    """Source values (..., source.size) -> pre-activation (..., target.size).

    ``relu([plain, pool(relu(features @ we + be))] @ w1 + b1) @ w2 + b2``
    """

    source: OutputSpec  # kind "set"
    target: OutputSpec
    we: Array  # (4 + classes, units)
    be: Array  # (units,)
    w1: Array  # (plain + 3 * units, hidden)
    b1: Array  # (hidden,)
    w2: Array  # (hidden, target.size)
    b2: Array  # (target.size,)

    def __post_init__(self) -> None:
        units, hidden = self.be.shape[0], self.b1.shape[0]
        expected = {
            "we": (max(self.we.shape[0], PLAIN_FEATURES), units),
            "be": (units,),
            "w1": (plain_size(self.source) + POOLS * units, hidden),
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
        x = np.concatenate([batch[..., : plain_size(self.source)], self._described(batch)], axis=-1)
        hidden = np.maximum(x @ self.w1 + self.b1, 0.0)
        out = np.asarray(hidden @ self.w2 + self.b2, dtype=np.float32)
        if not isfinite(float(out.sum()) + float(batch.sum())):
            raise LinkError(f"link {self.name}: got values that are not finite")
        return out

    def weights(self) -> Mapping[str, Array]:
        """Return the learned parameters by name."""
        return {name: getattr(self, name) for name in PARAMETERS}

    def replace_weights(self, weights: Mapping[str, Array]) -> Self:
        """Return a link of the same spaces with other parameters. Raises `LinkError` where shapes do not fit."""
        arrays = named_parameters(self.name, PARAMETERS, weights)
        if arrays["we"].shape != self.we.shape:
            raise LinkError(f"link {self.name}: we has shape {arrays['we'].shape}, expected {self.we.shape}")
        return type(self)(self.source, self.target, **arrays)

    def beside(self, plain: VecToVec, share: float) -> Self:
        """Return ``share`` of this link plus the rest of one that reads the plain numbers only, as one link.

        A weighted sum of two perceptrons is one perceptron with the hidden units of both.
        """
        own, other = np.float32(share), np.float32(1.0 - share)
        unread = np.zeros((len(self.w1) - len(plain.w1), plain.w1.shape[1]), np.float32)
        return replace(
            self,
            w1=np.concatenate([self.w1, np.concatenate([plain.w1, unread])], axis=1),
            b1=np.concatenate([self.b1, plain.b1]),
            w2=np.concatenate([own * self.w2, other * plain.w2]),
            b2=own * self.b2 + other * plain.b2,
        )

    def _described(self, batch: Array) -> Array:
        """Pool the boxes of each frame: (..., source.size) -> (..., 3 * units)."""
        places = places_of(batch, self.source)
        features = features_of(places, self.we.shape[0] - PLAIN_FEATURES)
        units = np.maximum(features @ self.we + self.be, 0.0)
        return pooled(units, (places[..., 5] > 0).astype(np.float32))


def pooled(units: Array, present: Array) -> Array:
    """Pool over boxes: units (..., places, k), not negative; present (..., places) -> sum, mean, maximum (..., 3 k)."""
    units = units * present[..., None]
    total = units.sum(axis=-2)
    count = np.maximum(present.sum(axis=-1), 1)[..., None]
    return np.concatenate([total, total / count, units.max(axis=-2)], axis=-1, dtype=np.float32)
