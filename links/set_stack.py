"""Many set links as one computation: encoders of boxes in front of a `Stack`, with the same interface.

All links of a stack share a layout (`Layout`). x (links, batch, plain + places * (features + 1)): the plain numbers,
then per place its features and whether there is a box at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from camlink.links.base import Array
from camlink.links.set_to_vec import POOLS, pooled
from camlink.links.stack import Stack

UNITS = 16  # rectified units per box


@dataclass(frozen=True, order=True)
class Layout:
    """How many plain numbers, places for boxes and features per box the samples of a set link have."""

    plain: int
    places: int
    features: int

    def flat(self, plain: Array, features: Array, present: Array) -> Array:
        """Lay samples out: (n, plain), (n, places, features), (n, places) -> (n, size)."""
        boxes = np.concatenate([features * present[..., None], present[..., None]], axis=-1, dtype=np.float32)
        return np.concatenate([plain, boxes.reshape(len(plain), -1)], axis=1, dtype=np.float32)

    def split(self, x: Array) -> tuple[Array, Array, Array]:
        """Take samples apart: (..., size) -> (..., plain), (..., places, features), (..., places)."""
        boxes = x[..., self.plain :].reshape(*x.shape[:-1], self.places, self.features + 1)
        return x[..., : self.plain], boxes[..., :-1], boxes[..., -1]


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a forward pass leaves for the backward pass."""

    hidden: Array
    inputs: Array  # (links, batch, plain + 3 units)
    units: Array  # (links, batch, places, units), 0 where there is no box
    features: Array
    present: Array


class SetStack:
    """The parameters of many set links in one flat array, their gradients in another.

    What is pooled is brought to mean 0 and deviation 1, as it is over ``samples`` at the start; that scaling stays.
    """

    def __init__(
        self,
        layout: Layout,
        encoders: Sequence[Array],
        first: Sequence[Array],
        second: Sequence[Array],
        offsets: Sequence[Array],
        samples: Sequence[Array],
    ) -> None:
        """``encoders``: initial weights (features, units) of each link's boxes; the rest as in `Stack`."""
        self._layout = layout
        spread = np.linspace(0.0, 1.0, encoders[0].shape[1], dtype=np.float32)  # some units see every box: they count
        biases = [spread[None] for _ in encoders]
        self._head = Stack(first, second, offsets, extra=[np.stack(encoders), np.stack(biases)])
        self.flat, self.parameters = self._head.flat, self._head.parameters  # w1, b1, w2, b2, we, be
        described = [self._described(x, e, b) for x, e, b in zip(samples, encoders, biases, strict=True)]
        deviations = [d.std(axis=0) for d in described]
        self.pool_mean = np.stack([d.mean(axis=0, keepdims=True) for d in described])  # (links, 1, 3 units)
        self.pool_std = np.stack([np.where(d > 1e-6, d, np.inf)[None] for d in deviations]).astype(np.float32)

    def _described(self, x: Array, encoder: Array, bias: Array) -> Array:
        _, features, present = self._layout.split(x)
        return pooled(np.maximum(features @ encoder + bias, 0.0), present)

    def forward(self, x: Array) -> tuple[_Seen, Array]:
        """x (links, batch, size) -> what `backward` needs, pre-activation (links, batch, out)."""
        plain, features, present = self._layout.split(x)
        we, be = self.parameters[4:]
        links, batch, places, width = features.shape
        units = np.matmul(features.reshape(links, batch * places, width), we)
        units += be
        np.maximum(units, 0.0, out=units)
        units = units.reshape(links, batch, places, -1)
        units *= present[..., None]
        described = (pooled(units, present) - self.pool_mean) / self.pool_std
        inputs = np.concatenate([plain, described], axis=2)
        hidden, z = self._head.forward(inputs)
        return _Seen(hidden, inputs, units, features, present), z

    def backward(self, seen: _Seen, slope: Array) -> Array:
        """Return the flat gradient, given d loss / d pre-activation (links, batch, out)."""
        gradient = self._head.backward(seen.inputs, seen.hidden, slope)
        back = self._head.hidden_slope(seen.hidden, slope)
        into_pools = self.parameters[0][:, self._layout.plain :].transpose(0, 2, 1)
        by_pool = np.split(np.matmul(back, into_pools) / self.pool_std, POOLS, axis=2)  # each (links, batch, units)
        by_unit = self._by_unit(seen, *by_pool)
        links, batch, places, width = seen.features.shape
        by_unit = by_unit.reshape(links, batch * places, -1)
        features = seen.features.reshape(links, batch * places, width)
        np.matmul(features.transpose(0, 2, 1), by_unit, out=self._head.gradients[4])
        by_unit.sum(axis=1, keepdims=True, out=self._head.gradients[5])
        return gradient

    def gradient(self, x: Array, slope_at: Callable[[Array], Array]) -> Array:
        """Return the flat gradient at samples x, ``slope_at`` being d loss / d pre-activation at a pre-activation."""
        seen, z = self.forward(x)
        return self.backward(seen, slope_at(z))

    @staticmethod
    def _by_unit(seen: _Seen, by_sum: Array, by_mean: Array, by_max: Array) -> Array:
        """Lead the slopes of the three pools back to each box's units: -> (links, batch, places, units)."""
        count = np.maximum(seen.present.sum(axis=2), 1.0)[..., None]
        slope = np.repeat((by_sum + by_mean / count)[:, :, None], seen.units.shape[2], axis=2)
        best = seen.units.argmax(axis=2)[:, :, None]
        there = np.take_along_axis(slope, best, axis=2) + by_max[:, :, None]
        np.put_along_axis(slope, best, there, axis=2)
        slope *= seen.units > 0  # units that are off, and places without a box
        return slope
