"""From the outputs of all models on the same frames to links and ensembles (MLink Eq. 2 and 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array
from camlink.links.ensemble import Ensemble
from camlink.links.stack import EPOCHS, FitJob, RmsProp, StackLoss, fit_links
from camlink.links.vec_to_vec import VecToVec
from camlink.models.base import OutputSpec
from camlink.models.scores import agreement, rules
from camlink.pipeline.errors import LinkError

HOLD_OUT_EVERY = 5  # each fifth frame measures the spread of the errors and is never fitted


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


def _weigh(
    target: OutputSpec, links: Mapping[str, VecToVec], samples: Mapping[str, Array], held_out: NDArray[np.bool_]
) -> Ensemble:
    """Fit the ensemble weights on the fitted frames, and the spread of the errors on the held-out ones."""
    y = samples[target.model]
    z = {s: link.predict(samples[s]) for s, link in links.items()}
    weights = _fit_weights(target, np.stack([z[s][~held_out] for s in links]), y[~held_out])
    draft = Ensemble(target, dict(links), dict(zip(links, weights, strict=True)), np.ones(target.size, np.float32), 0.0)
    predicted = draft.combine({s: v[held_out] for s, v in z.items()})
    scored = agreement(target, draft.finish(predicted), y[held_out])
    spread = np.sqrt(((predicted - y[held_out]) ** 2).mean(axis=0) + 1e-4).astype(np.float32)
    return Ensemble(target, draft.links, draft.weights, spread, float(scored.mean()))


def _fit_weights(target: OutputSpec, z: Array, y: Array) -> list[float]:
    """Learn one weight per source (Eq. 3): z (sources, n, out), y (n, out) -> positive weights that sum to 1.

    The weights are a softmax of free numbers, so that any subset of them can be renormalised and served.
    """
    if len(z) == 1:
        return [1.0]
    scale = np.maximum(y.std(axis=0), 1e-3) if rules(target).loss == "mse" else np.float32(1.0)
    z, y = z / scale, y / scale  # weigh all entries of a linear output alike
    loss = StackLoss([target], target.size)
    free = np.zeros(len(z), dtype=np.float32)
    optimizer = RmsProp(free)
    for _ in range(EPOCHS):
        weights = _softmax(free)
        slope = loss.gradient(np.tensordot(weights, z, axes=1)[None], y[None])[0]  # (n, out)
        by_weight = np.tensordot(z, slope, axes=2)  # (sources,)
        optimizer.step(np.asarray(weights * (by_weight - weights @ by_weight), dtype=np.float32))
    return [float(w) for w in _softmax(free)]


def _softmax(free: Array) -> Array:
    odds = np.exp(free - free.max())
    return np.asarray(odds / odds.sum(), dtype=np.float32)
