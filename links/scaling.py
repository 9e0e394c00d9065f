"""Samples brought to mean 0 and deviation 1 for fitting, and links brought back to the models' own spaces after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from camlink.links.base import Array
from camlink.links.set_stack import Layout
from camlink.links.set_to_vec import SetToVec
from camlink.links.sets import features_of, places_of, plain_size
from camlink.links.vec_to_vec import VecToVec
from camlink.models.base import OutputSpec
from camlink.models.scores import rules

if TYPE_CHECKING:
    from camlink.links.fit import FitJob

FittedLink = VecToVec | SetToVec
_PLACES_STEP = 8  # sets of about as many boxes share a layout, and so a stack


@dataclass(frozen=True, eq=False)
class Scaled:
    """A job in standardised space, with what is needed to fold the scaling back. ``layout``: of links from sets."""

    job: FitJob
    x: Array  # (n, inputs), fitted samples
    y: Array  # (n, target.size)
    watched_x: Array  # (m, inputs)
    watched_y: Array
    x_mean: Array  # of the plain numbers
    x_std: Array
    y_mean: Array
    y_std: Array
    layout: Layout | None = None
    box_mean: Array | None = None  # (features,)
    box_std: Array | None = None


def scale(job: FitJob) -> Scaled:
    """Standardise by the samples that are fitted, and set the watched ones apart."""
    rows = np.ones(len(job.x), np.bool_) if job.watched is None else ~job.watched
    y = job.y[rows]
    if rules(job.target).loss == "mse":
        y_mean, y_std = moments(y, constant=1.0)
    else:
        y_mean, y_std = np.zeros(job.target.size, np.float32), np.ones(job.target.size, np.float32)
    plain = job.x if job.source.kind != "set" else job.x[:, : plain_size(job.source)]
    x_mean, x_std = moments(plain[rows], constant=np.inf)  # an input that never varied gets no weight at all
    x = _standard(plain, x_mean, x_std)
    layout, box_mean, box_std = None, None, None
    if job.source.kind == "set":
        features, present = _boxes(job.x, job.source)
        layout = Layout(x.shape[1], *features.shape[1:])
        box_mean, box_std = _box_moments(features, present * rows[:, None])
        x = layout.flat(x, _standard(features, box_mean, box_std), present)
    fitted, watched = (_standard(part, y_mean, y_std) for part in (y, job.y[~rows]))
    return Scaled(job, x[rows], fitted, x[~rows], watched, x_mean, x_std, y_mean, y_std, layout, box_mean, box_std)


def moments(values: Array, constant: float) -> tuple[Array, Array]:
    """Return mean and standard deviation per entry; ``constant`` stands for the deviation of what does not vary."""
    std = values.std(axis=0)
    return values.mean(axis=0), np.where(std > 1e-6, std, constant).astype(np.float32)


def unfold(scaled: Scaled, padded: Sequence[Array], hidden: int, pools: tuple[Array, Array] | None) -> FittedLink:
    """Cut the padding off and fold the standardisation into the layers.

    ``pools``: mean and deviation (3 units,) of what links from sets pool.
    """
    job, size = scaled.job, scaled.job.target.size
    mean, std = scaled.x_mean, scaled.x_std
    if pools is not None:
        mean, std = np.concatenate([mean, pools[0]]), np.concatenate([std, pools[1]])
    w1 = padded[0][: len(std), :hidden] / std[:, None]
    b1 = padded[1][0, :hidden] - mean @ w1
    w2 = padded[2][:hidden, :size] * scaled.y_std
    b2 = padded[3][0, :size] * scaled.y_std + scaled.y_mean
    head = [np.ascontiguousarray(p, dtype=np.float32) for p in (w1, b1, w2, b2)]
    if scaled.box_mean is None or scaled.box_std is None:
        return VecToVec(job.source, job.target, *head)
    we = padded[4] / scaled.box_std[:, None]
    be = padded[5][0] - scaled.box_mean @ we
    return SetToVec(job.source, job.target, we.astype(np.float32), be.astype(np.float32), *head)


def _standard(values: Array, mean: Array, std: Array) -> Array:
    return ((values - mean) / std).astype(np.float32)


def _boxes(x: Array, source: OutputSpec) -> tuple[Array, Array]:
    """Return features (n, places, features) and presence (n, places), with places for the fullest frame."""
    places = places_of(x, source)
    count = min(-(-places.shape[1] // _PLACES_STEP) * _PLACES_STEP, source.max_steps)
    places = np.pad(places, ((0, 0), (0, count - places.shape[1]), (0, 0)))
    classes = max(int(places[..., 5].max()), 1)
    features = features_of(places, classes)
    return features, (places[..., 5] > 0).astype(np.float32)


def _box_moments(features: Array, present: Array) -> tuple[Array, Array]:
    boxes = features[present > 0]
    if not len(boxes):
        return np.zeros(features.shape[2], np.float32), np.full(features.shape[2], np.inf, np.float32)
    return moments(boxes, constant=np.inf)
