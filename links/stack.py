"""Many two-layer perceptrons as one computation: their parameters, their losses, their gradients, their optimiser.

Shapes are padded with zeros, which neither receive nor pass gradients, so each link ends where it would have ended
alone (up to float rounding). The gradients of a two-layer perceptron fit on one page; written out, a step costs a
fraction of what an autograd engine needs to plan it. `camlink.links.fit` feeds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array
from camlink.models.base import OutputSpec
from camlink.models.scores import Loss, rules

DECAY = 0.9  # of the running mean of squared gradients, the default of the authors' framework
EPSILON = 1e-7


class RmsProp:
    """RMSprop on one flat array, in place (Tieleman and Hinton, 2012)."""

    def __init__(self, parameters: Array) -> None:
        self._parameters = parameters
        self.squares = np.zeros_like(parameters)  # running mean of squared gradients: all that it remembers
        self._scratch = np.empty_like(parameters)

    def step(self, gradient: Array, rate: float) -> None:
        """Move against ``gradient``, which has the shape of the parameters."""
        np.multiply(gradient, gradient, out=self._scratch)
        self.squares *= DECAY
        self._scratch *= 1.0 - DECAY
        self.squares += self._scratch
        np.sqrt(self.squares, out=self._scratch)
        self._scratch += EPSILON
        np.divide(gradient, self._scratch, out=self._scratch)
        self._scratch *= rate
        self._parameters -= self._scratch


class StackLoss:
    """Each link's own mean loss and its gradient with respect to the pre-activations; padding gets none.

    ``targets`` must be sorted by kind of loss. ``width`` is the padded number of outputs. ``share`` (links, batch, 1)
    is what a sample counts in its link's mean: 1 / samples, and 0 for padding.
    """

    def __init__(self, targets: Sequence[OutputSpec], width: int) -> None:
        sizes = np.array([t.size for t in targets])
        self.mask: Array = (np.arange(width) < sizes[:, None])[:, None, :].astype(np.float32)  # (links, 1, out)
        self.per_entry: Array = np.asarray(self.mask / sizes[:, None, None], dtype=np.float32)
        kinds: list[Loss] = [rules(t).loss for t in targets]
        self.parts = [(kind, slice(kinds.index(kind), kinds.index(kind) + kinds.count(kind))) for kind in set(kinds)]

    def gradient(self, z: Array, y: Array, share: Array) -> Array:
        """Return d loss / d z: z, y (links, batch, out) -> (links, batch, out)."""
        slope = np.empty_like(z)
        for kind, part in self.parts:
            if kind == "mse":
                slope[part] = 2.0 * (z[part] - y[part]) * self.per_entry[part]
            elif kind == "binary_cross_entropy":
                slope[part] = (1.0 / (1.0 + np.exp(-np.clip(z[part], -60, 60))) - y[part]) * self.per_entry[part]
            else:
                odds = np.exp(self._log_share(z[part], part))
                slope[part] = odds * y[part].sum(axis=2, keepdims=True) - y[part]
        slope *= share
        return slope

    def value(self, z: Array, y: Array, share: Array) -> NDArray[np.float64]:
        """Return the loss of each link: (links,)."""
        loss = np.empty(len(z))
        for kind, part in self.parts:
            if kind == "mse":
                each: Array = np.square(z[part] - y[part]) * self.per_entry[part]
            elif kind == "binary_cross_entropy":
                each = (np.logaddexp(0.0, z[part]) - z[part] * y[part]) * self.per_entry[part]
            else:
                shares = np.where(self.mask[part] > 0, self._log_share(z[part], part), 0.0)
                each = -shares * y[part]
            loss[part] = (each * share[part]).sum(axis=(1, 2))
        return loss

    def _log_share(self, z: Array, part: slice) -> Array:
        """Log of the softmax over a link's own outputs; minus infinity at padding."""
        shifted = np.where(self.mask[part] > 0, z, -np.inf)
        shifted -= shifted.max(axis=2, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True)), dtype=np.float32)


class Stack:
    """The parameters of many perceptrons in one flat array, their gradients in another."""

    def __init__(
        self,
        first: Sequence[Array],
        second: Sequence[Array],
        offsets: Sequence[Array] | None = None,
        extra: Sequence[Array] = (),
    ) -> None:
        """``first``, ``second``: initial weights of each link's layers; ``offsets`` (1, out): of the last biases.

        ``extra``: parameters (links, ...) of what stands before the perceptrons; its gradients are for it to write.
        """
        w1, w2 = pad(first), pad(second)
        shapes = [w1.shape, (len(w1), 1, w1.shape[2]), w2.shape, (len(w2), 1, w2.shape[2]), *(e.shape for e in extra)]
        self.flat = np.zeros(sum(int(np.prod(s)) for s in shapes), dtype=np.float32)
        self.flat_gradient = np.zeros_like(self.flat)
        self.parameters = _views(self.flat, shapes)  # w1 (L, in, h), b1 (L, 1, h), w2 (L, h, out), b2 (L, 1, out), ...
        self.gradients = _views(self.flat_gradient, shapes)
        self.parameters[0][...] = w1
        self.parameters[2][...] = w2
        for place, values in zip(self.parameters[4:], extra, strict=True):
            place[...] = values
        if offsets is not None:
            self.parameters[3][...] = pad(offsets)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """x (L, batch, in) -> hidden (L, batch, h), pre-activation (L, batch, out)."""
        w1, b1, w2, b2 = self.parameters[:4]
        hidden = np.matmul(x, w1)
        hidden += b1
        np.maximum(hidden, 0.0, out=hidden)
        z = np.matmul(hidden, w2)
        z += b2
        return hidden, z

    def backward(self, x: Array, hidden: Array, slope: Array) -> Array:
        """Return the flat gradient, given d loss / d pre-activation (L, batch, out)."""
        g1, gb1, g2, gb2 = self.gradients[:4]
        np.matmul(hidden.transpose(0, 2, 1), slope, out=g2)
        slope.sum(axis=1, keepdims=True, out=gb2)
        back = self.hidden_slope(hidden, slope)
        np.matmul(x.transpose(0, 2, 1), back, out=g1)
        back.sum(axis=1, keepdims=True, out=gb1)
        return self.flat_gradient

    def gradient(self, x: Array, slope_at: Callable[[Array], Array]) -> Array:
        """Return the flat gradient at samples x, ``slope_at`` being d loss / d pre-activation at a pre-activation."""
        seen, z = self.forward(x)
        return self.backward(x, seen, slope_at(z))

    def hidden_slope(self, hidden: Array, slope: Array) -> Array:
        """Return d loss / d what enters the hidden units (L, batch, h)."""
        back: Array = np.matmul(slope, self.parameters[2].transpose(0, 2, 1))
        back *= hidden > 0
        return back


def pad(arrays: Sequence[Array]) -> Array:
    """Stack 2-D arrays of different shapes: -> (links, max rows, max columns), zeros where there was nothing."""
    rows, columns = (max(a.shape[axis] for a in arrays) for axis in (0, 1))
    stacked = np.zeros((len(arrays), rows, columns), dtype=np.float32)
    for row, array in zip(stacked, arrays, strict=True):
        row[: array.shape[0], : array.shape[1]] = array
    return stacked


def _views(flat: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    ends = np.cumsum([int(np.prod(s)) for s in shapes])
    return [flat[end - int(np.prod(s)) : end].reshape(s) for s, end in zip(shapes, ends, strict=True)]
