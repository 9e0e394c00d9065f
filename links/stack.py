"""Fits many vec-to-vec links at once: RMSprop 0.01, 100 epochs, batch 32, soft labels (MLink Eq. 2, Sec. 6.3).

Links that share a number of samples are stacked into one batched computation. Shapes are padded with zeros, which
neither receive nor pass gradients, so each link ends where it would have ended alone (up to float rounding). Inputs,
and the targets of linear tasks, are standardised while fitting; the scaling is folded into the first and the last
layer afterwards, so the link that is served is exactly the paper's perceptron. The gradients of a two-layer
perceptron fit on one page; written out, a step costs a fraction of what an autograd engine needs to plan it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from camlink.links.base import Array
from camlink.links.vec_to_vec import VecToVec, hidden_units
from camlink.models.base import OutputSpec
from camlink.models.scores import Loss, rules

LEARNING_RATE = 0.01
EPOCHS = 100
BATCH = 32
DECAY = 0.9  # of the running mean of squared gradients, the default of the authors' framework
EPSILON = 1e-7


@dataclass(frozen=True, eq=False)
class FitJob:
    """One link to be fitted: x (n, source.size), y (n, target.size), both in the models' own output spaces."""

    source: OutputSpec
    target: OutputSpec
    x: Array
    y: Array
    seed: int


@dataclass(frozen=True, eq=False)
class _Scaled:
    """A job in standardised space, with what is needed to fold the scaling back."""

    job: FitJob
    x: Array
    y: Array
    x_mean: Array
    x_std: Array
    y_mean: Array
    y_std: Array


def fit_links(jobs: Sequence[FitJob], epochs: int = EPOCHS) -> list[VecToVec]:
    """Fit many links at once and return them in the order of ``jobs``."""
    fitted: dict[int, VecToVec] = {}
    order = sorted(range(len(jobs)), key=lambda i: (len(jobs[i].x), rules(jobs[i].target).loss, i))
    for _, group in groupby(order, key=lambda i: len(jobs[i].x)):
        indexes = list(group)
        for i, link in zip(indexes, _fit_stack([_scale(jobs[i]) for i in indexes], epochs), strict=True):
            fitted[i] = link
    return [fitted[i] for i in range(len(jobs))]


class RmsProp:
    """RMSprop on one flat array, in place (Tieleman and Hinton, 2012)."""

    def __init__(self, parameters: Array) -> None:
        self._parameters = parameters
        self._squares = np.zeros_like(parameters)
        self._scratch = np.empty_like(parameters)

    def step(self, gradient: Array) -> None:
        """Move against ``gradient``, which has the shape of the parameters."""
        np.multiply(gradient, gradient, out=self._scratch)
        self._squares *= DECAY
        self._scratch *= 1.0 - DECAY
        self._squares += self._scratch
        np.sqrt(self._squares, out=self._scratch)
        self._scratch += EPSILON
        np.divide(gradient, self._scratch, out=self._scratch)
        self._scratch *= LEARNING_RATE
        self._parameters -= self._scratch


class StackLoss:
    """The gradient of each link's own mean loss with respect to its pre-activations; padding gets none.

    ``targets`` must be sorted by kind of loss. ``width`` is the padded number of outputs.
    """

    def __init__(self, targets: Sequence[OutputSpec], width: int) -> None:
        sizes = np.array([t.size for t in targets])
        self._mask = (np.arange(width) < sizes[:, None])[:, None, :].astype(np.float32)  # (links, 1, out)
        self._per_entry = self._mask / sizes[:, None, None].astype(np.float32)
        kinds: list[Loss] = [rules(t).loss for t in targets]
        self._parts = [(kind, slice(kinds.index(kind), kinds.index(kind) + kinds.count(kind))) for kind in set(kinds)]

    def gradient(self, z: Array, y: Array) -> Array:
        """Return d loss / d z: z, y (links, batch, out) -> (links, batch, out), for the mean over the batch."""
        slope = np.empty_like(z)
        for kind, part in self._parts:
            if kind == "mse":
                slope[part] = 2.0 * (z[part] - y[part]) * self._per_entry[part]
            elif kind == "binary_cross_entropy":
                slope[part] = (1.0 / (1.0 + np.exp(-np.clip(z[part], -60, 60))) - y[part]) * self._per_entry[part]
            else:
                shifted = np.where(self._mask[part] > 0, z[part], -np.inf)
                odds = np.exp(shifted - shifted.max(axis=2, keepdims=True))
                share = odds / odds.sum(axis=2, keepdims=True)
                slope[part] = share * y[part].sum(axis=2, keepdims=True) - y[part]
        slope /= np.float32(z.shape[1])
        return slope


class Stack:
    """The parameters of many perceptrons in one flat array, their gradients in another."""

    def __init__(self, first: Sequence[Array], second: Sequence[Array]) -> None:
        """``first`` and ``second``: initial weights of each link's layers; biases start at zero."""
        w1, w2 = pad(first), pad(second)
        shapes = [w1.shape, (len(w1), 1, w1.shape[2]), w2.shape, (len(w2), 1, w2.shape[2])]
        self.flat = np.zeros(sum(int(np.prod(s)) for s in shapes), dtype=np.float32)
        self.flat_gradient = np.zeros_like(self.flat)
        self.parameters = _views(self.flat, shapes)  # w1 (L, in, h), b1 (L, 1, h), w2 (L, h, out), b2 (L, 1, out)
        self._gradients = _views(self.flat_gradient, shapes)
        self.parameters[0][...] = w1
        self.parameters[2][...] = w2

    def forward(self, x: Array) -> tuple[Array, Array]:
        """x (L, batch, in) -> hidden (L, batch, h), pre-activation (L, batch, out)."""
        w1, b1, w2, b2 = self.parameters
        hidden = np.matmul(x, w1)
        hidden += b1
        np.maximum(hidden, 0.0, out=hidden)
        z = np.matmul(hidden, w2)
        z += b2
        return hidden, z

    def backward(self, x: Array, hidden: Array, slope: Array) -> Array:
        """Return the flat gradient, given d loss / d pre-activation (L, batch, out)."""
        g1, gb1, g2, gb2 = self._gradients
        np.matmul(hidden.transpose(0, 2, 1), slope, out=g2)
        slope.sum(axis=1, keepdims=True, out=gb2)
        back = np.matmul(slope, self.parameters[2].transpose(0, 2, 1))
        back *= hidden > 0
        np.matmul(x.transpose(0, 2, 1), back, out=g1)
        back.sum(axis=1, keepdims=True, out=gb1)
        return self.flat_gradient


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


def _scale(job: FitJob) -> _Scaled:
    x_mean, x_std = _moments(job.x, constant=np.inf)  # an input that never varied gets no weight at all
    if rules(job.target).loss == "mse":
        y_mean, y_std = _moments(job.y, constant=1.0)
    else:
        y_mean, y_std = np.zeros(job.target.size, np.float32), np.ones(job.target.size, np.float32)
    return _Scaled(job, (job.x - x_mean) / x_std, (job.y - y_mean) / y_std, x_mean, x_std, y_mean, y_std)


def _moments(values: Array, constant: float) -> tuple[Array, Array]:
    """Return mean and standard deviation per entry; ``constant`` stands for the deviation of what does not vary."""
    std = values.std(axis=0)
    return values.mean(axis=0), np.where(std > 1e-6, std, constant).astype(np.float32)


def _initial(job: FitJob) -> tuple[Array, Array]:
    """Glorot-uniform weights, the default of the authors' framework."""
    rng = np.random.default_rng(job.seed)
    hidden = hidden_units(job.target)

    def glorot(rows: int, columns: int) -> Array:
        bound = np.sqrt(6.0 / (rows + columns))
        return rng.uniform(-bound, bound, (rows, columns)).astype(np.float32)

    return glorot(job.source.size, hidden), glorot(hidden, job.target.size)


def _fit_stack(stack: Sequence[_Scaled], epochs: int) -> list[VecToVec]:
    """Fit links that share a number of samples and are sorted by kind of loss."""
    x, y = pad([s.x for s in stack]), pad([s.y for s in stack])  # (links, n, in), (links, n, out)
    initial = [_initial(s.job) for s in stack]
    links = Stack([i[0] for i in initial], [i[1] for i in initial])
    loss = StackLoss([s.job.target for s in stack], y.shape[2])
    optimizer = RmsProp(links.flat)
    for xb, yb in _batches(x, y, [s.job.seed for s in stack], epochs):
        hidden, z = links.forward(xb)
        optimizer.step(links.backward(xb, hidden, loss.gradient(z, yb)))
    return [_unfold(s, [p[i] for p in links.parameters]) for i, s in enumerate(stack)]


def _batches(x: Array, y: Array, seeds: Sequence[int], epochs: int) -> Iterator[tuple[Array, Array]]:
    """Yield batches (links, batch, ...); each link shuffles its samples by its own seed, every epoch anew."""
    rngs = [np.random.default_rng([seed, 1]) for seed in seeds]
    rows = np.arange(len(seeds))[:, None]
    for _ in range(epochs):
        order = np.stack([rng.permutation(x.shape[1]) for rng in rngs])  # (links, n)
        xe, ye = x[rows, order], y[rows, order]
        for start in range(0, x.shape[1], BATCH):
            yield xe[:, start : start + BATCH], ye[:, start : start + BATCH]


def _unfold(scaled: _Scaled, padded: Sequence[Array]) -> VecToVec:
    """Cut the padding off and fold the standardisation into the layers."""
    job = scaled.job
    hidden, size = hidden_units(job.target), job.target.size
    w1 = padded[0][: job.source.size, :hidden] / scaled.x_std[:, None]
    b1 = padded[1][0, :hidden] - scaled.x_mean @ w1
    w2 = padded[2][:hidden, :size] * scaled.y_std
    b2 = padded[3][0, :size] * scaled.y_std + scaled.y_mean
    return VecToVec(job.source, job.target, *(np.ascontiguousarray(p, dtype=np.float32) for p in (w1, b1, w2, b2)))
