"""The steps of `camlink.links.stack` in torch, for fleets so large that a GPU is worth asking: one bmm for all links.

Samples, their order, initial weights, early stopping and folding stay those of `camlink.links.fit`, so both engines
give the same links up to float rounding. Links from sets of boxes are fitted by numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camlink.links.base import Array
from camlink.links.stack import DECAY, EPSILON, Stack, StackLoss

if TYPE_CHECKING:
    import torch


class TorchEngine:
    """Moves the parameters of a `Stack` on a device; `settle` brings them back. ``device``: None takes a GPU if any."""

    def __init__(self, links: Stack, loss: StackLoss, device: str | None = None) -> None:
        import torch

        self._links, self._loss = links, loss
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._flat = self._sent(links.flat.copy())
        self._gradient, self._squares = torch.zeros_like(self._flat), torch.zeros_like(self._flat)
        shapes = [p.shape for p in links.parameters]
        sizes = [int(np.prod(shape)) for shape in shapes]
        self._parameters, self._gradients = (
            [part.view(shape) for part, shape in zip(torch.split(flat, sizes), shapes, strict=True)]
            for flat in (self._flat, self._gradient)
        )
        self._mask, self._per_entry = self._sent(loss.mask), self._sent(loss.per_entry)

    def step(self, x: Array, y: Array, share: Array, rate: float) -> None:
        """Take one step of RMSprop on a batch: x (links, batch, in), y (links, batch, out), share (links, batch, 1)."""
        import torch

        w1, b1, w2, b2 = self._parameters
        g1, gb1, g2, gb2 = self._gradients
        xs, ys = self._sent(x), self._sent(y)
        hidden = torch.baddbmm(b1, xs, w1).clamp_(min=0.0)
        z = torch.baddbmm(b2, hidden, w2)
        slope = self._slope(z, ys) * self._sent(share)
        g2.copy_(torch.bmm(hidden.transpose(1, 2), slope))
        gb2.copy_(slope.sum(dim=1, keepdim=True))
        back = torch.bmm(slope, w2.transpose(1, 2)) * (hidden > 0)
        g1.copy_(torch.bmm(xs.transpose(1, 2), back))
        gb1.copy_(back.sum(dim=1, keepdim=True))
        self._squares.mul_(DECAY).addcmul_(self._gradient, self._gradient, value=1.0 - DECAY)
        self._flat.addcdiv_(self._gradient, self._squares.sqrt().add_(EPSILON), value=-rate)

    def settle(self) -> None:
        """Bring the parameters back to the stack."""
        self._links.flat[...] = self._flat.cpu().numpy()

    def _slope(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return d loss / d pre-activation (links, batch, out), as `StackLoss.gradient` does."""
        import torch

        slope = torch.empty_like(z)
        for kind, part in self._loss.parts:
            if kind == "mse":
                slope[part] = 2.0 * (z[part] - y[part]) * self._per_entry[part]
            elif kind == "binary_cross_entropy":
                slope[part] = (torch.sigmoid(z[part].clamp(-60.0, 60.0)) - y[part]) * self._per_entry[part]
            else:
                odds = z[part].masked_fill(self._mask[part] == 0, -torch.inf).softmax(dim=2)
                slope[part] = odds * y[part].sum(dim=2, keepdim=True) - y[part]
        return slope

    def _sent(self, array: Array) -> torch.Tensor:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self._device)
