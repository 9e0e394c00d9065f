"""Training of links and ensemble weights (MLink Eq. 2 and 3): RMSprop 0.01, 100 epochs, batch 32, soft labels.

Many links are fitted at once as one stacked computation: shapes are padded with zeros, which neither receive nor
pass gradients, so each link ends where it would have ended alone (up to float rounding). Inputs, and the targets of
linear tasks, are standardised while fitting; the scaling is folded into the first and last layer afterwards, so the
served link is exactly the paper's perceptron.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from camlink.links.base import Array
from camlink.links.ensemble import Ensemble
from camlink.links.vec_to_vec import VecToVec, hidden_units
from camlink.models.base import OutputSpec
from camlink.models.scores import agreement, rules
from camlink.pipeline.errors import LinkError

if TYPE_CHECKING:
    import torch

LEARNING_RATE = 0.01
EPOCHS = 100
BATCH = 32
DECAY = 0.9  # of RMSprop's running mean of squared gradients, as in Keras, which the authors used
HOLD_OUT_EVERY = 5  # each fifth sample measures the spread of the errors and is never fitted


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


def train_ensembles(
    specs: Mapping[str, OutputSpec], samples: Mapping[str, Array], *, seed: int, targets: Sequence[str] | None = None
) -> dict[str, Ensemble]:
    """Return, for each target, links from all other models and their ensemble weights.

    ``samples`` maps each model to its outputs (n, size) on the same n frames, oldest first. Each fifth frame is held
    out to measure the spread of the errors. Raises `LinkError` for fewer than 10 frames, uneven lengths or NaN.
    """
    frames = _check_samples(specs, samples)
    held_out = np.arange(frames) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
    wanted = [t for t in (targets or list(specs)) if len(specs) > 1]
    jobs = [
        FitJob(specs[s], specs[t], samples[s][~held_out], samples[t][~held_out], _pair_seed(seed, s, t))
        for t in wanted
        for s in specs
        if s != t
    ]
    links: dict[str, dict[str, VecToVec]] = {t: {} for t in wanted}
    for job, link in zip(jobs, fit_links(jobs), strict=True):
        links[job.target.model][job.source.model] = link
    return {t: _weigh(specs[t], links[t], samples, held_out) for t in wanted}


def fit_links(jobs: Sequence[FitJob], epochs: int = EPOCHS) -> list[VecToVec]:
    """Fit many links at once and return them in the order of ``jobs``."""
    fitted: dict[int, VecToVec] = {}
    order = sorted(range(len(jobs)), key=lambda i: (len(jobs[i].x), rules(jobs[i].target).loss, i))
    for _, group in groupby(order, key=lambda i: len(jobs[i].x)):
        indexes = list(group)
        for i, link in zip(indexes, _fit_stack([_scale(jobs[i]) for i in indexes], epochs), strict=True):
            fitted[i] = link
    return [fitted[i] for i in range(len(jobs))]


def _check_samples(specs: Mapping[str, OutputSpec], samples: Mapping[str, Array]) -> int:
    lengths = {name: len(samples[name]) for name in specs}
    if len(set(lengths.values())) != 1:
        raise LinkError(f"samples must cover the same frames, got {lengths}")
    for name, spec in specs.items():
        if samples[name].shape[1:] != (spec.size,):
            raise LinkError(f'samples of "{name}" have shape {samples[name].shape}, expected (n, {spec.size})')
        if not np.isfinite(samples[name]).all():
            raise LinkError(f'samples of "{name}" hold values that are not finite')
    frames = next(iter(lengths.values()))
    if frames < 2 * HOLD_OUT_EVERY:
        raise LinkError(f"links need at least {2 * HOLD_OUT_EVERY} frames to learn from, got {frames}")
    return frames


def _pair_seed(seed: int, source: str, target: str) -> int:
    return int(np.random.SeedSequence([seed, *f"{source}>{target}".encode()]).generate_state(1)[0])


def _scale(job: FitJob) -> _Scaled:
    x_mean, x_std = _moments(job.x)
    x_std = np.where(x_std > 0, x_std, np.inf).astype(np.float32)  # an input that never varied gets no weight at all
    if rules(job.target).loss == "mse":
        y_mean, y_std = _moments(job.y)
        y_std = np.where(y_std > 0, y_std, 1.0).astype(np.float32)
    else:
        y_mean, y_std = np.zeros(job.target.size, np.float32), np.ones(job.target.size, np.float32)
    return _Scaled(job, (job.x - x_mean) / x_std, (job.y - y_mean) / y_std, x_mean, x_std, y_mean, y_std)


def _moments(values: Array) -> tuple[Array, Array]:
    std = values.std(axis=0)
    return values.mean(axis=0), np.where(std > 1e-6, std, 0.0).astype(np.float32)


def _initial(job: FitJob) -> tuple[Array, Array]:
    """Glorot-uniform weights, the default of the authors' framework; biases start at zero."""
    rng = np.random.default_rng(job.seed)
    hidden = hidden_units(job.target)

    def glorot(rows: int, columns: int) -> Array:
        bound = np.sqrt(6.0 / (rows + columns))
        return rng.uniform(-bound, bound, (rows, columns)).astype(np.float32)

    return glorot(job.source.size, hidden), glorot(hidden, job.target.size)


def _pad(arrays: Sequence[Array]) -> torch.Tensor:
    """Stack 2-D arrays of different widths: -> (links, max rows, max columns), zeros where there was nothing."""
    import torch

    rows, columns = (max(a.shape[axis] for a in arrays) for axis in (0, 1))
    stacked = np.zeros((len(arrays), rows, columns), dtype=np.float32)
    for row, array in zip(stacked, arrays, strict=True):
        row[: array.shape[0], : array.shape[1]] = array
    return torch.from_numpy(stacked)


def _fit_stack(stack: Sequence[_Scaled], epochs: int) -> list[VecToVec]:
    """Fit links that share a number of samples: one batched matrix product per layer and step."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the products are tiny, and one thread makes results repeatable
    try:
        x, y = _pad([s.x for s in stack]), _pad([s.y for s in stack])  # (links, n, in), (links, n, out)
        initial = [_initial(s.job) for s in stack]
        w1, w2 = _pad([i[0] for i in initial]), _pad([i[1] for i in initial])
        b1 = torch.zeros(len(stack), 1, w1.shape[2])
        b2 = torch.zeros(len(stack), 1, w2.shape[2])
        parameters = [p.requires_grad_() for p in (w1, b1, w2, b2)]
        optimizer = torch.optim.RMSprop(parameters, lr=LEARNING_RATE, alpha=DECAY, eps=1e-7)
        loss = _StackLoss([s.job.target for s in stack], w2.shape[2])
        for pick in _batches([s.job.seed for s in stack], x.shape[1], epochs):
            xb, yb = (torch.take_along_dim(t, pick, dim=1) for t in (x, y))
            z = torch.baddbmm(b2, torch.relu(torch.baddbmm(b1, xb, w1)), w2)  # (links, batch, out)
            optimizer.zero_grad()
            loss(z, yb).backward()
            optimizer.step()
        return [_unfold(s, [p.detach().numpy()[i] for p in parameters]) for i, s in enumerate(stack)]
    finally:
        torch.set_num_threads(threads)


def _batches(seeds: Sequence[int], samples: int, epochs: int) -> Iterator[torch.Tensor]:
    """Yield sample numbers (links, batch, 1); each link shuffles by its own seed."""
    import torch

    rngs = [np.random.default_rng([seed, 1]) for seed in seeds]
    for _ in range(epochs):
        order = torch.from_numpy(np.stack([rng.permutation(samples) for rng in rngs]))
        for start in range(0, samples, BATCH):
            yield order[:, start : start + BATCH, None]


class _StackLoss:
    """Sum over links of each link's own mean loss; padded outputs are left out. Links are sorted by kind of loss."""

    def __init__(self, targets: Sequence[OutputSpec], width: int) -> None:
        import torch

        sizes = torch.tensor([t.size for t in targets])
        self._mask = (torch.arange(width)[None, None, :] < sizes[:, None, None]).float()  # (links, 1, out)
        self._sizes = sizes.float()
        kinds = [rules(t).loss for t in targets]
        self._slices = {kind: slice(kinds.index(kind), kinds.index(kind) + kinds.count(kind)) for kind in set(kinds)}

    def __call__(self, z: torch.Tensor, y: torch.Tensor) -> Any:
        import torch.nn.functional as nn

        total: Any = 0.0
        for kind, part in sorted(self._slices.items()):
            mask, sizes, zp, yp = self._mask[part], self._sizes[part], z[part], y[part]
            if kind == "cross_entropy":
                each = -(yp * nn.log_softmax(zp.masked_fill(mask == 0, -1e9), dim=2) * mask).sum(2)  # (links, batch)
            elif kind == "binary_cross_entropy":
                each = (nn.binary_cross_entropy_with_logits(zp, yp, reduction="none") * mask).sum(2) / sizes[:, None]
            else:
                each = ((zp - yp) ** 2 * mask).sum(2) / sizes[:, None]
            total = total + each.mean(1).sum()
        return total


def _unfold(scaled: _Scaled, padded: Sequence[Array]) -> VecToVec:
    """Cut the padding off and fold the standardisation into the layers."""
    job = scaled.job
    hidden, size = hidden_units(job.target), job.target.size
    w1 = padded[0][: job.source.size, :hidden] / scaled.x_std[:, None]
    b1 = padded[1][0, :hidden] - scaled.x_mean @ w1
    w2 = padded[2][:hidden, :size] * scaled.y_std
    b2 = padded[3][0, :size] * scaled.y_std + scaled.y_mean
    return VecToVec(job.source, job.target, *(np.ascontiguousarray(p, dtype=np.float32) for p in (w1, b1, w2, b2)))


def _weigh(target: OutputSpec, links: Mapping[str, VecToVec], samples: Mapping[str, Array], held_out: Any) -> Ensemble:
    """Fit the ensemble weights on the fitted frames, and the spread of the errors on the held-out ones."""
    y = samples[target.model]
    z = {s: link.predict(samples[s]) for s, link in links.items()}
    weights = _fit_weights(target, np.stack([z[s][~held_out] for s in links]), y[~held_out])
    draft = Ensemble(target, dict(links), dict(zip(links, weights, strict=True)), np.ones(target.size, np.float32), 0.0)
    error = draft.combine({s: v[held_out] for s, v in z.items()}) - y[held_out]
    scored = agreement(target, draft.finish(draft.combine({s: v[held_out] for s, v in z.items()})), y[held_out])
    spread = np.sqrt((error**2).mean(axis=0) + 1e-4).astype(np.float32)
    return Ensemble(target, draft.links, draft.weights, spread, float(scored.mean()))


def _fit_weights(target: OutputSpec, z: Array, y: Array) -> list[float]:
    """Learn one weight per source (MLink Eq. 3): z (sources, n, out), y (n, out) -> positive weights that sum to 1."""
    import torch

    if len(z) == 1:
        return [1.0]
    logits = torch.zeros(len(z), requires_grad=True)
    optimizer = torch.optim.RMSprop([logits], lr=LEARNING_RATE, alpha=DECAY, eps=1e-7)
    spread = torch.from_numpy(np.maximum(y.std(axis=0), 1e-3))  # weigh all entries of a linear output alike
    zt, yt = torch.from_numpy(z), torch.from_numpy(y)
    loss = _StackLoss([target], target.size)
    linear = rules(target).loss == "mse"
    for _ in range(EPOCHS):
        mixed = torch.einsum("s,sno->no", torch.softmax(logits, 0), zt)[None]
        optimizer.zero_grad()
        (loss(mixed / spread, yt[None] / spread) if linear else loss(mixed, yt[None])).backward()
        optimizer.step()
    return [float(w) for w in torch.softmax(logits, 0).detach()]
