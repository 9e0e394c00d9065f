"""Fits links, one or ten thousand, through the same code: RMSprop on soft labels (MLink Eq. 2, Sec. 6.3).

Links with the same number of batches per epoch are stacked into one computation (`camlink.links.stack`). Inputs, and
the targets of linear tasks, are standardised while fitting; the scaling is folded into the first and the last layer
afterwards, so the link that is served is exactly the paper's perceptron.

`PAPER` is the authors' recipe. `RECIPE`, the default, changes three things that measurably matter on real traces
(`benchmarks/links/accuracy.py`): at least 16 hidden units, because the paper's "twice the outputs" leaves two for a
single count and both often die; a learning rate that falls to zero; and a start at the constant prediction, so that
stopping early means trusting the source less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array
from camlink.links.scaling import FittedLink, Scaled, scale, unfold
from camlink.links.set_stack import UNITS, Layout, SetStack
from camlink.links.set_to_vec import POOLS
from camlink.links.stack import RmsProp, Stack, StackLoss, pad
from camlink.links.torch_engine import TorchEngine
from camlink.links.vec_to_vec import VecToVec
from camlink.models.base import OutputSpec
from camlink.models.scores import rules
from camlink.pipeline.errors import LinkError

Rows = NDArray[np.bool_]
Keep = Literal["best", "last"]
Backend = Literal["numpy", "torch"]
STACK_LINKS: dict[Backend, int] = {"numpy": 64, "torch": 4096}  # beyond 64 a stack outgrows a processor's caches


@dataclass(frozen=True)
class Recipe:
    """How a link is fitted. ``min_hidden`` is a floor under the paper's width of twice the outputs (Sec. 3.4).

    ``max_hidden`` bounds that width, though never below the number of outputs: the thresholds of counts are many.
    ``max_steps`` bounds the work for long histories, where as many steps see each sample less often.
    """

    epochs: int = 100
    batch: int = 32
    rate: float = 0.01
    min_hidden: int = 16
    max_hidden: int = 32
    falling_rate: bool = True
    start_at_constant: bool = True
    max_steps: int | None = 3200

    def epochs_for(self, samples: int) -> int:
        """Return the number of epochs for so many samples: all of them, unless ``max_steps`` is reached before."""
        if self.max_steps is None:
            return self.epochs
        return min(self.epochs, max(1, self.max_steps // -(-samples // self.batch)))

    def hidden(self, target: OutputSpec) -> int:
        """Return the number of hidden units of a link to ``target``."""
        return min(max(self.min_hidden, 2 * target.size), max(self.max_hidden, target.size))


PAPER = Recipe(min_hidden=1, max_hidden=2**31, falling_rate=False, start_at_constant=False, max_steps=None)
RECIPE = Recipe()


@dataclass(frozen=True, eq=False)
class FitJob:
    """One link to be fitted: x (n, source.size), y (n, target.size), both in the models' own output spaces.

    ``watched`` (n,) marks samples that are never fitted; the loss on them is followed, and the parameters of the epoch
    where it is lowest are kept. ``stop_after`` ends the fitting after so many epochs (0: the link as it starts).
    """

    source: OutputSpec
    target: OutputSpec
    x: Array
    y: Array
    seed: int
    watched: Rows | None = None
    stop_after: int | None = None

    def fitted_rows(self) -> int:
        """Return the number of samples that are fitted."""
        return len(self.x) if self.watched is None else int((~self.watched).sum())


@dataclass(frozen=True, eq=False)
class Fitted:
    """A link, the epoch it was taken from, and the watched loss before the first and after each epoch, if watched."""

    link: FittedLink
    epoch: int
    losses: NDArray[np.float64] | None  # (epochs + 1,)


def fit_links(jobs: Sequence[FitJob], recipe: Recipe = RECIPE, backend: Backend = "numpy") -> list[VecToVec]:
    """Fit many links between vectors at once and return them in the order of ``jobs``. Raises `LinkError`."""
    sets = [job.source.model for job in jobs if job.source.kind == "set"]
    if sets:
        raise LinkError(f"links from sets of boxes ({', '.join(sets)}) come from `fit`, this is for vectors")
    return [fitted.link for fitted in fit(jobs, recipe, backend=backend) if isinstance(fitted.link, VecToVec)]


def fit(
    jobs: Sequence[FitJob], recipe: Recipe = RECIPE, keep: Keep = "best", backend: Backend = "numpy"
) -> list[Fitted]:
    """Fit many links at once: results in the order of ``jobs``, each as if it had been fitted alone.

    Of watched links the ``best`` epoch is kept, or the ``last``. ``backend`` torch fits links between vectors on a GPU
    where there is one, up to float rounding the same. Raises `LinkError` for samples that do not fit.
    """
    done: dict[int, Fitted] = {}
    for job in jobs:
        _check(job)

    scaled = [scale(job) for job in jobs]

    def steps(i: int) -> tuple[int, bool, tuple[Layout, ...]]:
        layout = scaled[i].layout
        sets = () if layout is None else (layout,)  # links between vectors come first
        return -(-jobs[i].fitted_rows() // recipe.batch), jobs[i].watched is not None, sets

    order = sorted(range(len(jobs)), key=lambda i: (steps(i), rules(jobs[i].target).loss, _width(jobs[i]), i))
    for _, group in groupby(order, key=steps):
        indexes = list(group)
        most = STACK_LINKS[backend]
        for start in range(0, len(indexes), most):
            part = sorted(indexes[start : start + most], key=lambda i: (rules(jobs[i].target).loss, i))
            for i, fitted in zip(part, _fit_stack([scaled[i] for i in part], recipe, keep, backend), strict=True):
                done[i] = fitted
    return [done[i] for i in range(len(jobs))]


def _check(job: FitJob) -> None:
    name = f"link {job.source.model} -> {job.target.model}"
    for what, values, size in (("source", job.x, job.source.size), ("target", job.y, job.target.size)):
        if values.shape != (len(job.x), size):
            raise LinkError(f"{name}: {what} samples have shape {values.shape}, expected ({len(job.x)}, {size})")
        if not np.isfinite(values).all():
            raise LinkError(f"{name}: {what} samples hold values that are not finite")
    if job.watched is not None and job.watched.shape != (len(job.x),):
        raise LinkError(f"{name}: watched has shape {job.watched.shape}, expected ({len(job.x)},)")
    if job.fitted_rows() == 0 or (job.watched is not None and not job.watched.any()):
        raise LinkError(f"{name}: needs at least one sample to fit, and one to watch if it watches; got {len(job.x)}")


def _width(job: FitJob) -> int:
    return max(job.source.size, job.target.size)


def constant_prediction(target: OutputSpec, y: Array) -> Array:
    """Return the pre-activation of the best constant: y (n, size) -> (size,)."""
    loss, count = rules(target).loss, len(y)
    if loss == "mse":
        return np.asarray(y.mean(axis=0), dtype=np.float32)
    if loss == "cross_entropy":
        return np.asarray(np.log((y.sum(axis=0) + 0.5) / (count + 0.5 * target.size)), dtype=np.float32)
    ones = y.sum(axis=0)
    return np.asarray(np.log((ones + 0.5) / (count - ones + 0.5)), dtype=np.float32)


def _glorot(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Return uniform weights, the default of the authors' framework (Glorot and Bengio, AISTATS 2010)."""
    bound = np.sqrt(6.0 / (rows + columns))
    return rng.uniform(-bound, bound, (rows, columns)).astype(np.float32)


def _initial(scaled: Scaled, recipe: Recipe) -> tuple[Array, Array, Array]:
    """Return the weights of both layers and the last biases (1, out)."""
    job = scaled.job
    rng = np.random.default_rng(job.seed)
    hidden, size = recipe.hidden(job.target), job.target.size
    layout = scaled.layout
    glorot = partial(_glorot, rng)
    first = glorot(job.source.size if layout is None else layout.plain + POOLS * UNITS, hidden)
    if not recipe.start_at_constant:
        return first, glorot(hidden, size), np.zeros((1, size), np.float32)
    return first, np.zeros((hidden, size), np.float32), constant_prediction(job.target, scaled.y)[None]


def _stacked(stack: Sequence[Scaled], recipe: Recipe) -> Stack | SetStack:
    """Return the links as they start."""
    first, second, offsets = zip(*(_initial(s, recipe) for s in stack), strict=True)
    layout = stack[0].layout
    if layout is None:
        return Stack(first, second, offsets)
    encoders = [_glorot(np.random.default_rng([s.job.seed, 2]), layout.features, UNITS) for s in stack]
    return SetStack(layout, encoders, first, second, offsets, [s.x for s in stack])


class _NumpyEngine:
    """Moves a stack's parameters in place."""

    def __init__(self, links: Stack | SetStack, loss: StackLoss) -> None:
        self._links, self._loss = links, loss
        self._optimizer = RmsProp(links.flat)

    def step(self, x: Array, y: Array, share: Array, rate: float) -> None:
        self._optimizer.step(self._links.gradient(x, partial(self._loss.gradient, y=y, share=share)), rate)

    def settle(self) -> None:
        """Nothing to bring back."""


def _engine(links: Stack | SetStack, loss: StackLoss, backend: Backend) -> _NumpyEngine | TorchEngine:
    if backend == "torch" and isinstance(links, Stack):
        return TorchEngine(links, loss)
    return _NumpyEngine(links, loss)


def _fit_stack(stack: Sequence[Scaled], recipe: Recipe, keep: Keep, backend: Backend) -> list[Fitted]:
    """Fit links that share a number of batches and are sorted by kind of loss."""
    links = _stacked(stack, recipe)
    width = max(s.job.target.size for s in stack)
    loss = StackLoss([s.job.target for s in stack], width)
    engine = _engine(links, loss, backend)
    epochs = recipe.epochs_for(max(len(s.x) for s in stack))
    keeper = _Keeper(stack, links, loss, epochs, keep)
    keeper.look(0)
    samples = _Samples(stack, recipe.batch)
    for epoch in range(epochs):
        for step, (xb, yb, share) in enumerate(samples.epoch()):
            done = (epoch + step / samples.steps) / epochs
            rate = recipe.rate * (1.0 - done) if recipe.falling_rate else recipe.rate
            engine.step(xb, yb, share, rate)
        engine.settle()
        keeper.look(epoch + 1)
        if keeper.finished(epoch + 1):
            break
    return keeper.result(recipe)


class _Samples:
    """Batches of all links at once; each link shuffles its samples by its own seed, every epoch anew."""

    def __init__(self, stack: Sequence[Scaled], batch: int) -> None:
        self._x, self._y = pad([s.x for s in stack]), pad([s.y for s in stack])  # (links, n, in), (links, n, out)
        self._counts = np.array([len(s.x) for s in stack])
        self._rngs = [np.random.default_rng([s.job.seed, 1]) for s in stack]
        self._batch = batch
        self.steps = -(-int(self._counts.max()) // batch)

    def epoch(self) -> Iterator[tuple[Array, Array, Array]]:
        """Yield x (links, batch, in), y (links, batch, out) and each sample's share of its link's mean."""
        longest = self._x.shape[1]
        order = np.stack(  # (links, n); rows that are only padding come last
            [
                np.concatenate([rng.permutation(n), np.arange(n, longest)])
                for rng, n in zip(self._rngs, self._counts, strict=True)
            ]
        )
        rows = np.arange(len(order))[:, None]
        xe, ye = self._x[rows, order], self._y[rows, order]
        for start in range(0, longest, self._batch):
            end = min(start + self._batch, longest)
            real = np.clip(self._counts - start, 0, end - start)[:, None]  # samples that are not padding
            share = (np.arange(end - start) < real) / np.maximum(real, 1)
            yield xe[:, start:end], ye[:, start:end], share[:, :, None].astype(np.float32)


class _Keeper:
    """Keeps each link's parameters of the epoch it should be taken from: early stopping, one link at a time."""

    def __init__(
        self, stack: Sequence[Scaled], links: Stack | SetStack, loss: StackLoss, epochs: int, keep: Keep
    ) -> None:
        self._stack, self._links, self._loss = stack, links, loss
        stops = (epochs if s.job.stop_after is None else min(epochs, s.job.stop_after) for s in stack)
        self._stop = np.fromiter(stops, np.intp, len(stack))
        self._keep_best = keep == "best" and stack[0].job.watched is not None
        self._best = np.full(len(stack), np.inf)
        self._epoch = self._stop.copy()
        self._kept: list[list[Array] | None] = [None] * len(stack)
        self._losses: list[NDArray[np.float64]] = []
        self._watches = stack[0].job.watched is not None
        if self._watches:
            self._x, self._y = pad([s.watched_x for s in stack]), pad([s.watched_y for s in stack])
            counts = np.array([len(s.watched_x) for s in stack])[:, None]
            share = (np.arange(self._x.shape[1]) < counts) / counts
            self._share = share[:, :, None].astype(np.float32)

    def look(self, epoch: int) -> None:
        """Take note of the links as they stand after ``epoch`` epochs."""
        if self._watches:
            now = self._loss.value(self._links.forward(self._x)[1], self._y, self._share)
            self._losses.append(now)
        if not self._keep_best:
            for i in np.flatnonzero(self._stop == epoch):
                self._keep(i)
            return
        for i in np.flatnonzero((now < self._best) & (epoch <= self._stop)):
            self._best[i], self._epoch[i] = now[i], epoch
            self._keep(i)

    def finished(self, epoch: int) -> bool:
        """Say whether no link would change any more."""
        return bool((self._stop <= epoch).all())

    def result(self, recipe: Recipe) -> list[Fitted]:
        losses = np.stack(self._losses) if self._watches else None  # (epochs + 1, links)
        return [
            Fitted(self._unfolded(i, kept, recipe), int(epoch), None if losses is None else losses[:, i])
            for i, (kept, epoch) in enumerate(zip(self._kept, self._epoch, strict=True))
            if kept is not None
        ]

    def _unfolded(self, i: int, kept: Sequence[Array], recipe: Recipe) -> FittedLink:
        scaled, links = self._stack[i], self._links
        pools = (links.pool_mean[i, 0], links.pool_std[i, 0]) if isinstance(links, SetStack) else None
        return unfold(scaled, kept, recipe.hidden(scaled.job.target), pools)

    def _keep(self, i: np.intp) -> None:
        self._kept[i] = [p[i].copy() for p in self._links.parameters]
