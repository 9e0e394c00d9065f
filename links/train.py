"""From the outputs of all models on the same frames to links and ensembles (MLink Eq. 2 and 3).

Kinds of links stand side by side (`LinkKind`): ``vec_to_vec`` is the paper's, ``count_distribution`` (the
default) predicts distributions of counts, stops each link where held-out frames say so, calibrates, and remembers
what the target said last; ``set`` does the same from boxes, where `SourceSamples` hold them; ``auto`` takes, target by
target, whichever of the first two agrees better with frames held out from training. Held-out frames are short
stretches, not single frames: neighbours of a fitted frame look so much like it that they would vouch for anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array
from camlink.links.counts import CountCode, code_for
from camlink.links.ensemble import Belief, Ensemble, Trust, log_odds
from camlink.links.fit import PAPER, RECIPE, Backend, FitJob, Fitted, Recipe, constant_prediction, fit
from camlink.links.inputs import SourceSamples
from camlink.links.memory import Times, earlier_frames, fit_memory
from camlink.links.scaling import FittedLink, moments
from camlink.links.set_to_vec import SetToVec
from camlink.links.sets import plain_size
from camlink.links.stack import RmsProp, StackLoss
from camlink.links.vec_to_vec import VecToVec
from camlink.models.base import OutputSpec
from camlink.models.scores import agreement, rules
from camlink.pipeline.errors import LinkError

LinkKind = Literal["count_distribution", "vec_to_vec", "set", "auto"]
CANDIDATES: tuple[LinkKind, ...] = ("count_distribution", "vec_to_vec")  # of auto; the first has it where both tie
FOLDS = 4
STRETCHES = 20  # the frames are cut into so many stretches in time, dealt to the folds in turn
MIN_FRAMES = 10
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # how much of the links' evidence may be believed
WEIGHT_STEPS = 100
WEIGHT_RATE = 0.01


@dataclass(frozen=True, eq=False)
class _Target:
    """One target of the training: its samples as its links see them, and what has been learnt."""

    spec: OutputSpec
    output: OutputSpec
    code: CountCode | None
    samples: Array  # (n, spec.size)
    coded: Array  # (n, output.size)
    sources: tuple[str, ...]


def train_ensembles(
    specs: Mapping[str, OutputSpec],
    samples: Mapping[str, Array],
    *,
    seed: int,
    targets: Sequence[str] | None = None,
    times_s: Times | None = None,
    kind: LinkKind = "count_distribution",
    read: SourceSamples | None = None,
    backend: Backend = "numpy",
) -> dict[str, Ensemble]:
    """Return, for each target, links from all other models and their ensemble weights.

    ``samples`` maps each model to its outputs (n, size) on the same n frames, oldest first; ``times_s`` (n,) are the
    frames' times in seconds, without which nothing is remembered. ``read`` is what links read of the sources, where
    that is more than their outputs. Every frame is held out once from a trial fit, and only those predictions set
    weights, calibration and confidence; the links that are served are then fitted on all. Raises `LinkError` for
    fewer than 10 frames, uneven lengths or values that are not finite.
    """
    if kind == "auto":
        tried = [
            train_ensembles(
                specs, samples, seed=seed, targets=targets, times_s=times_s, kind=one, read=read, backend=backend
            )
            for one in CANDIDATES
        ]
        return {target: max((t[target] for t in tried), key=lambda e: e.held_out_agreement) for target in tried[0]}
    frames = _check_samples(specs, samples, times_s)
    wanted = [t for t in (targets or list(specs)) if len(specs) > 1]
    recipe = PAPER if kind == "vec_to_vec" else RECIPE
    plans = [_plan(specs, samples, t, kind) for t in wanted]
    folds = (np.arange(frames) * min(STRETCHES, frames // 2) // frames) % FOLDS
    read = read or SourceSamples(specs, samples)
    jobs = {
        (plan.spec.model, s): FitJob(
            read.specs[s], plan.output, read.samples[s], plan.coded, _pair_seed(seed, s, plan.spec.model)
        )
        for plan in plans
        for s in plan.sources
    }
    trials = _cross_fit_pairs(jobs, folds, recipe, kind != "vec_to_vec", backend)
    held_out = {key: trial.held_out for key, trial in trials.items()}
    links = {key: trial.link for key, trial in trials.items()}
    return {plan.spec.model: _assemble(plan, links, held_out, kind, times_s) for plan in plans}


def _cross_fit_pairs(
    jobs: Mapping[tuple[str, str], FitJob],
    folds: NDArray[np.intp],
    recipe: Recipe,
    early_stopping: bool,
    backend: Backend,
) -> dict[tuple[str, str], CrossFitted]:
    """Fit all links; one from a set is fitted with a plain one beside it, weighed by what held-out frames say of both.

    Boxes tell more than counts and are easier to learn by heart: where they mislead, the plain link has the weight.
    """
    plain = {key: _without_boxes(job) for key, job in jobs.items() if job.source.kind == "set"}
    fitted = cross_fit([*jobs.values(), *plain.values()], folds, recipe, early_stopping=early_stopping, backend=backend)
    trials = dict(zip(jobs, fitted, strict=False))
    for key, beside in zip(plain, fitted[len(jobs) :], strict=True):
        trials[key] = _fused(jobs[key], trials[key], beside)
    return trials


def _without_boxes(job: FitJob) -> FitJob:
    size = plain_size(job.source)
    return replace(job, source=OutputSpec(job.source.model, "vector", size, "regression"), x=job.x[:, :size])


def _fused(job: FitJob, boxes: CrossFitted, plain: CrossFitted) -> CrossFitted:
    assert isinstance(boxes.link, SetToVec)
    assert isinstance(plain.link, VecToVec)
    share, rest = fit_weights(job.target, np.stack([boxes.held_out, plain.held_out]), job.y)
    held_out = np.float32(share) * boxes.held_out + np.float32(rest) * plain.held_out
    return CrossFitted(boxes.link.beside(plain.link, share), held_out, boxes.epoch)


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """A link fitted on all frames, and what trial fits without a frame said of it: ``held_out`` (n, output size)."""

    link: FittedLink
    held_out: Array
    epoch: int


def cross_fit(
    jobs: Sequence[FitJob],
    folds: NDArray[np.intp],
    recipe: Recipe,
    *,
    early_stopping: bool = True,
    backend: Backend = "numpy",
) -> list[CrossFitted]:
    """Fit every link once per fold without that fold, then on all frames, as long as served the trial fits best.

    ``folds`` (n,) is the fold of each frame, the same for all jobs. All fits of all links are stacked.
    """
    count = int(folds.max()) + 1
    trial_jobs = [replace(job, watched=folds == fold, seed=job.seed + fold) for job in jobs for fold in range(count)]
    stop = None if early_stopping else recipe.epochs
    fitted = fit(trial_jobs, recipe, keep="best" if early_stopping else "last", backend=backend)
    trials = [fitted[i * count : (i + 1) * count] for i in range(len(jobs))]
    epochs = [_best_epoch(trial) if stop is None else stop for trial in trials]
    final = fit(
        [replace(job, stop_after=epoch) for job, epoch in zip(jobs, epochs, strict=True)], recipe, backend=backend
    )
    result = []
    for job, trial, last, epoch in zip(jobs, trials, final, epochs, strict=True):
        held_out = np.empty_like(job.y, dtype=np.float32)
        for fold, part in enumerate(trial):
            held_out[folds == fold] = part.link.predict(job.x[folds == fold])
        result.append(CrossFitted(last.link, held_out, epoch))
    return result


def _best_epoch(trial: Sequence[Fitted]) -> int:
    curves = [fitted.losses for fitted in trial if fitted.losses is not None]
    return int(np.mean(curves, axis=0).argmin())


def _plan(specs: Mapping[str, OutputSpec], samples: Mapping[str, Array], target: str, kind: LinkKind) -> _Target:
    spec, y = specs[target], samples[target]
    code = code_for(spec, y) if kind != "vec_to_vec" else None
    sources = tuple(s for s in specs if s != target)
    if code is None:
        return _Target(spec, spec, None, y, y, sources)
    return _Target(spec, code.spec(spec), code, y, code.encode(y), sources)


def _check_samples(specs: Mapping[str, OutputSpec], samples: Mapping[str, Array], times_s: Times | None) -> int:
    lengths = {name: len(samples[name]) for name in specs}
    if len(set(lengths.values())) != 1:
        raise LinkError(f"samples must cover the same frames, got {lengths}")
    for name, spec in specs.items():
        if samples[name].shape[1:] != (spec.size,):
            raise LinkError(f'samples of "{name}" have shape {samples[name].shape}, expected (n, {spec.size})')
        if not np.isfinite(samples[name]).all():
            raise LinkError(f'samples of "{name}" hold values that are not finite')
    frames = next(iter(lengths.values()))
    if frames < MIN_FRAMES:
        raise LinkError(f"links need at least {MIN_FRAMES} frames to learn from, got {frames}")
    if times_s is not None and (times_s.shape != (frames,) or (np.diff(times_s) < 0).any()):
        raise LinkError(f"times must be {frames} ascending numbers of seconds, got an array of shape {times_s.shape}")
    return frames


def _pair_seed(seed: int, source: str, target: str) -> int:
    return int(np.random.SeedSequence([seed, *f"{source}>{target}".encode()]).generate_state(1)[0])


def _assemble(
    plan: _Target,
    links: Mapping[tuple[str, str], FittedLink],
    held_out: Mapping[tuple[str, str], Array],
    kind: LinkKind,
    times_s: Times | None,
) -> Ensemble:
    """Find weights, calibration and expected agreement from what was predicted of held-out frames."""
    name = plan.spec.model
    z = {s: held_out[name, s] for s in plan.sources}
    weights = dict(zip(z, fit_weights(plan.output, np.stack(list(z.values())), plan.coded), strict=True))
    spread = np.ones(plan.spec.size, np.float32)
    draft = Ensemble(plan.spec, {s: links[name, s] for s in z}, weights, spread, 0.0, plan.code)
    if kind != "vec_to_vec" and rules(plan.output).loss != "mse":
        draft = replace(draft, trust=_fit_trust(plan, draft, draft.mix(z), times_s))
    value = draft.combine(z)
    served = draft.finish(value)
    error = (served if plan.code is not None else value) - plan.samples
    spread = np.sqrt((error**2).mean(axis=0) + 1e-4).astype(np.float32)
    return replace(draft, spread=spread, held_out_agreement=float(agreement(plan.spec, served, plan.samples).mean()))


def _fit_trust(plan: _Target, draft: Ensemble, mixed: Array, times_s: Times | None) -> Trust:
    """Choose how much of the held-out predictions (n, width) to believe, without and with memory."""
    constant = constant_prediction(plan.output, plan.coded)
    evidence = mixed - constant
    alone = _belief(plan, draft, constant, evidence, plan.coded, plan.samples)
    if times_s is None:
        return Trust(constant, alone, alone)
    memory = fit_memory(plan.coded, times_s)
    later, earlier = earlier_frames(len(plan.coded))
    chances = memory.chances(plan.coded[earlier], times_s[later] - times_s[earlier])
    ground = log_odds(chances, plan.output)
    coded, executed = plan.coded[later], plan.samples[later]
    with_memory = _belief(plan, draft, ground, evidence[later], coded, executed)
    memory_alone = _belief(plan, draft, ground, np.zeros_like(ground), coded, executed)
    return Trust(constant, alone, with_memory, memory, memory_alone)


def _belief(plan: _Target, draft: Ensemble, ground: Array, evidence: Array, coded: Array, executed: Array) -> Belief:
    """Return the share of ``evidence`` (n, width) that fits ``coded`` best on top of ``ground``, and its honesty."""
    each = np.full((1, len(coded), 1), 1.0 / len(coded), np.float32)
    loss = StackLoss([plan.output], plan.output.size)
    tried = [ground + np.float32(share) * evidence for share in SHARES]
    best = int(np.argmin([loss.value(z[None], coded[None], each)[0] for z in tried]))
    activated = rules(plan.output).activate(tried[best])
    agreed = float(agreement(plan.spec, draft.finish(activated), executed).mean())
    stated = float(draft.confidence(activated).mean())
    return Belief(SHARES[best], min(1.0, agreed / max(stated, 1e-6)))


def fit_weights(target: OutputSpec, z: Array, y: Array) -> list[float]:
    """Learn one weight per source (Eq. 3): z (sources, n, out), y (n, out) -> positive weights that sum to 1.

    The weights are a softmax of free numbers, so that any subset of them can be renormalised and served.
    """
    if len(z) == 1:
        return [1.0]
    # All entries of a linear output weigh alike, but for those that never vary: links are hardly off there.
    scale = moments(y, constant=1.0)[1] if rules(target).loss == "mse" else np.float32(1.0)
    z, y = z / scale, y / scale
    loss = StackLoss([target], target.size)
    share = np.full((1, len(y), 1), 1.0 / len(y), np.float32)
    free = np.zeros(len(z), dtype=np.float32)
    optimizer = RmsProp(free)
    for _ in range(WEIGHT_STEPS):
        weights = _softmax(free)
        slope = loss.gradient(np.tensordot(weights, z, axes=1)[None], y[None], share)[0]  # (n, out)
        by_weight = np.tensordot(z, slope, axes=2)  # (sources,)
        optimizer.step(np.asarray(weights * (by_weight - weights @ by_weight), dtype=np.float32), WEIGHT_RATE)
    return [float(w) for w in _softmax(free)]


def _softmax(free: Array) -> Array:
    odds = np.exp(free - free.max())
    return np.asarray(odds / odds.sum(), dtype=np.float32)
