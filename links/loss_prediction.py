"""Which predictions will be wrong? A small network reads a link's hidden layer and ranks the loss (MLink Sec. 4.1).

After Yoo and Kweon, "Learning loss for active learning" (CVPR 2019): only the order of losses is learnt, from pairs,
because their scale shrinks while a link trains. The highest ranked frames are the ones worth labelling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camlink.links.base import Array
from camlink.links.stack import RmsProp, Stack, StackLoss
from camlink.links.vec_to_vec import VecToVec
from camlink.pipeline.errors import LinkError

HIDDEN = 16
EPOCHS, BATCH, RATE = 100, 32, 0.01
MARGIN = 1.0  # predicted losses of a pair should differ by at least this much


@dataclass(frozen=True, eq=False)
class LossPredictor:
    """Ranks the loss of ``link``: the scale means nothing, the order does."""

    link: VecToVec
    mean: Array  # (hidden units of the link,)
    std: Array
    w1: Array  # (hidden units of the link, HIDDEN)
    b1: Array
    w2: Array  # (HIDDEN, 1)
    b2: Array

    def predict(self, batch: Array) -> Array:
        """Source values (..., source.size) -> the higher, the more likely wrong: (...,)."""
        hidden = np.maximum(((_hidden(self.link, batch) - self.mean) / self.std) @ self.w1 + self.b1, 0.0)
        return np.asarray((hidden @ self.w2 + self.b2)[..., 0], dtype=np.float32)


def losses_of(link: VecToVec, x: Array, y: Array) -> Array:
    """Return the training loss of each sample (Eq. 2): x (n, source.size), y (n, target.size) -> (n,)."""
    loss, one = StackLoss([link.target], link.target.size), np.ones((1, 1, 1), np.float32)
    z = link.predict(x)
    return np.array([loss.value(z[None, i : i + 1], y[None, i : i + 1], one)[0] for i in range(len(x))], np.float32)


def fit_loss_predictor(link: VecToVec, x: Array, y: Array, *, seed: int) -> LossPredictor:
    """Learn from samples that ``link`` was *not* fitted on, whose losses are those of serving.

    ``x`` (n, source.size), ``y`` (n, target.size), n two or more. Raises `LinkError`.
    """
    if len(x) < 2 or len(x) != len(y):
        raise LinkError(f"link {link.name}: ranking losses needs two samples at least, got {len(x)} and {len(y)}")
    hidden, losses = _hidden(link, x), losses_of(link, x, y)
    mean, std = hidden.mean(axis=0), hidden.std(axis=0)
    std = np.where(std > 1e-6, std, np.inf).astype(np.float32)
    rng = np.random.default_rng(seed)
    bound = np.sqrt(6.0 / (hidden.shape[1] + HIDDEN))
    first = rng.uniform(-bound, bound, (hidden.shape[1], HIDDEN)).astype(np.float32)
    stack = Stack([first], [rng.uniform(-0.5, 0.5, (HIDDEN, 1)).astype(np.float32)])
    optimizer, scaled = RmsProp(stack.flat), (hidden - mean) / std
    for epoch in range(EPOCHS):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - 1, BATCH):
            rows = order[start : start + BATCH]
            inner, z = stack.forward(scaled[None, rows])
            gradient = stack.backward(scaled[None, rows], inner, ranking_slope(z[0, :, 0], losses[rows])[None, :, None])
            optimizer.step(gradient, RATE * (1.0 - epoch / EPOCHS))
    w1, b1, w2, b2 = (p[0].copy() for p in stack.parameters)
    return LossPredictor(link, mean, std, w1, b1[0], w2, b2[0])


def ranking_slope(predicted: Array, losses: Array) -> Array:
    """Return d/d predicted of the mean hinge over all pairs: both (n,) -> (n,).

    A pair costs max(0, MARGIN - (p_i - p_j)) where loss i is above loss j; equal losses cost nothing.
    """
    above = losses[:, None] > losses[None, :]  # (i, j): i should come out higher
    short = above & (predicted[:, None] - predicted[None, :] < MARGIN)
    return np.asarray((short.sum(axis=0) - short.sum(axis=1)) / max(1, int(above.sum())), dtype=np.float32)


def _hidden(link: VecToVec, batch: Array) -> Array:
    return np.asarray(np.maximum(batch @ link.w1 + link.b1, 0.0), dtype=np.float32)
