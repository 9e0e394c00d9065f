"""A global link from many sites whose outputs never leave them (MLink extended, Sec. 4.3 and Algorithm 1).

Per round the server sends the link's parameters, each site answers with the gradient of its own mean loss and its
number of samples, and the server steps along their mean, weighted by samples. Before the first round sites send sums
and sums of squares once, so that all scale alike. What is exchanged is `Moments` and `Update`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array
from camlink.links.fit import RECIPE, Recipe
from camlink.links.stack import RmsProp, Stack, StackLoss
from camlink.links.train import fit_weights
from camlink.links.vec_to_vec import VecToVec
from camlink.models.base import OutputSpec
from camlink.models.scores import rules
from camlink.pipeline.errors import LinkError

ROUNDS = 400


@dataclass(frozen=True, eq=False)
class Moments:
    """What a site tells once: its number of samples, and sums and sums of squares of inputs and targets."""

    samples: int
    x_sum: NDArray[np.float64]
    x_squares: NDArray[np.float64]
    y_sum: NDArray[np.float64]
    y_squares: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Update:
    """What a site tells in a round: the gradient of its mean loss (parameters,), and its number of samples."""

    samples: int
    gradient: Array


@dataclass(frozen=True, eq=False)
class Scaling:
    """Means and deviations over all sites."""

    x_mean: Array
    x_std: Array
    y_mean: Array
    y_std: Array


@dataclass(frozen=True, eq=False)
class GlobalLink:
    """The result, with the bytes that one full round moves: parameters out to every site, gradients back."""

    link: VecToVec
    bytes_per_round: int


def moments_of(x: Array, y: Array) -> Moments:
    """Sum up one site: x (n, in), y (n, out)."""
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    return Moments(
        len(x), wide_x.sum(axis=0), np.square(wide_x).sum(axis=0), wide_y.sum(axis=0), np.square(wide_y).sum(axis=0)
    )


def pool(sites: Sequence[Moments], target: OutputSpec) -> Scaling:
    """Return the scaling over all sites, as if their samples lay together. Raises `LinkError` without samples."""
    count = sum(site.samples for site in sites)
    if count == 0:
        raise LinkError(f"a global link to {target.model} needs samples at one site at least")

    def scale(total: NDArray[np.float64], squares: NDArray[np.float64], constant: float) -> tuple[Array, Array]:
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
        return mean.astype(np.float32), np.where(std > 1e-6, std, constant).astype(np.float32)

    x_mean, x_std = scale(sum_of([s.x_sum for s in sites]), sum_of([s.x_squares for s in sites]), np.inf)
    y_mean, y_std = scale(sum_of([s.y_sum for s in sites]), sum_of([s.y_squares for s in sites]), 1.0)
    if rules(target).loss != "mse":
        y_mean, y_std = np.zeros_like(y_mean), np.ones_like(y_std)
    return Scaling(x_mean, x_std, y_mean, y_std)


def sum_of(arrays: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Add arrays of one shape."""
    return np.asarray(np.sum(arrays, axis=0), dtype=np.float64)


def aggregate(updates: Sequence[Update], clip_norm: float | None = None) -> Array:
    """Return the mean gradient, weighted by samples (Algorithm 1, line "average"); sites that are away do not count.

    ``clip_norm`` bounds the length of each site's gradient, so that no single site can carry the link away.
    Raises `LinkError` when no site answered, or when gradients are of different sizes or not finite.
    """
    total = sum(update.samples for update in updates)
    if total == 0:
        raise LinkError("no site sent an update: nothing to aggregate")
    sizes = {update.gradient.shape for update in updates}
    if len(sizes) != 1 or not all(np.isfinite(update.gradient).all() for update in updates):
        raise LinkError(f"updates must be finite and of one size, got sizes {sorted(sizes)}")
    mean = np.zeros_like(updates[0].gradient)
    for update in updates:
        length = float(np.linalg.norm(update.gradient))
        clip = 1.0 if clip_norm is None or length <= clip_norm else clip_norm / length
        mean += np.float32(clip * update.samples / total) * update.gradient
    return mean


class Site:
    """One site's side: it holds samples, and gives away moments and gradients only."""

    def __init__(self, target: OutputSpec, x: Array, y: Array) -> None:
        if not len(x):
            raise LinkError(f"a site without samples cannot take part in a global link to {target.model}")
        self._target, self._x, self._y = target, x, y

    def moments(self) -> Moments:
        """Sum up the site's samples."""
        return moments_of(self._x, self._y)

    def update(self, stack: Stack, scaling: Scaling, batch: int, rng: np.random.Generator) -> Update:
        """Return the gradient at the parameters in ``stack``, over a random batch of the site's samples."""
        rows = rng.permutation(len(self._x))[:batch]
        x = ((self._x[rows] - scaling.x_mean) / scaling.x_std)[None]
        y = ((self._y[rows] - scaling.y_mean) / scaling.y_std)[None]
        share = np.full((1, len(rows), 1), 1.0 / len(rows), np.float32)
        hidden, z = stack.forward(x)
        slope = StackLoss([self._target], self._target.size).gradient(z, y, share)
        return Update(len(self._x), stack.backward(x, hidden, slope).copy())


def train_global(
    source: OutputSpec,
    target: OutputSpec,
    sites: Mapping[str, tuple[Array, Array]],
    *,
    seed: int,
    rounds: int = ROUNDS,
    recipe: Recipe = RECIPE,
    drop_out: float = 0.0,
    clip_norm: float | None = 1.0,
) -> GlobalLink:
    """Run server and sites in one process: site -> x (n, source.size), y (n, target.size).

    In each round every site is away with probability ``drop_out``; a round without any site changes nothing.
    """
    members = {name: Site(target, x, y) for name, (x, y) in sites.items()}
    scaling = pool([site.moments() for site in members.values()], target)
    rng = np.random.default_rng(seed)
    hidden = recipe.hidden(target)
    bound = np.sqrt(6.0 / (source.size + hidden))
    first = rng.uniform(-bound, bound, (source.size, hidden)).astype(np.float32)
    stack = Stack([first], [np.zeros((hidden, target.size), np.float32)])
    optimizer = RmsProp(stack.flat)
    for number in range(rounds):
        present = [site for site in members.values() if rng.random() >= drop_out]
        updates = [site.update(stack, scaling, recipe.batch, rng) for site in present]
        if updates:
            optimizer.step(aggregate(updates, clip_norm), recipe.rate * (1.0 - number / rounds))
    link = unscale(source, target, [p[0] for p in stack.parameters], scaling)
    return GlobalLink(link, 2 * len(members) * stack.flat.nbytes)


def fuse(links: Sequence[VecToVec], x: Array, y: Array) -> VecToVec:
    """Weigh links of one source and one target, local and global say, by samples: local-global fusion (Sec. 4.3).

    A weighted sum of perceptrons is a perceptron with their hidden units side by side, so one link comes back.
    ``x`` (n, source.size), ``y`` (n, target.size). Raises `LinkError` for links between different spaces.
    """
    spaces = {(link.source, link.target) for link in links}
    if len(spaces) != 1:
        raise LinkError(f"can only fuse links of one source and one target, got {[link.name for link in links]}")
    shares = np.asarray(fit_weights(links[0].target, np.stack([link.predict(x) for link in links]), y), np.float32)
    return replace(
        links[0],
        w1=np.concatenate([link.w1 for link in links], axis=1),
        b1=np.concatenate([link.b1 for link in links]),
        w2=np.concatenate([share * link.w2 for share, link in zip(shares, links, strict=True)]),
        b2=np.sum([share * link.b2 for share, link in zip(shares, links, strict=True)], axis=0, dtype=np.float32),
    )


def unscale(source: OutputSpec, target: OutputSpec, parameters: Sequence[Array], scaling: Scaling) -> VecToVec:
    """Return the link in the models' own spaces: w1 (in, h), b1 (1, h), w2 (h, out), b2 (1, out)."""
    w1 = parameters[0] / scaling.x_std[:, None]
    b1 = parameters[1][0] - scaling.x_mean @ w1
    w2 = parameters[2] * scaling.y_std
    b2 = parameters[3][0] * scaling.y_std + scaling.y_mean
    return VecToVec(source, target, *(np.ascontiguousarray(p, dtype=np.float32) for p in (w1, b1, w2, b2)))
