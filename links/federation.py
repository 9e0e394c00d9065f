"""What server and sites of a federation compute: links between all models, from outputs that never leave a site.

MLink extended, Sec. 4.3 and Algorithm 1: the server broadcasts parameters, sites answer with gradients, the server
steps along their mean. Around that stand three shorter exchanges, in this order of ``phase``:

    moments    sums and sums of squares per model, once, so that all sites scale alike
    gradients  Algorithm 1, ``rounds`` times
    losses     how well each link does on frames its site held out: weighs the sources of a target (cross-task fusion)
    errors     how far off the ensembles are on those frames: their spread and agreement
    done       the ensembles

No answer holds an output of a single frame: all are sums or means over a site's frames. Transport is elsewhere
(`camlink.operators.federation`); here are pure computations, and state that can be saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array
from camlink.links.ensemble import Ensemble
from camlink.links.federated import Moments, Scaling, Site, Update, aggregate, fuse, pool, unscale
from camlink.links.fit import RECIPE, FitJob, fit_links
from camlink.links.stack import RmsProp, Stack, StackLoss
from camlink.links.train import FOLDS, MIN_FRAMES, STRETCHES, fit_weights
from camlink.links.vec_to_vec import VecToVec
from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.pipeline.errors import LinkError

Phase = Literal["moments", "gradients", "losses", "errors", "done"]
Sums = NDArray[np.float64]
MOST_SUM = 1e15  # beyond this, float64 no longer tells means from squares
LEAST_LOSS = 1e-3  # a link without any loss on few frames does not get all the weight


@dataclass(frozen=True)
class Plan:
    """What is to be learnt: links from every other model to each of ``targets``, in ``rounds`` rounds of gradients."""

    specs: Mapping[str, OutputSpec]
    targets: tuple[str, ...]
    seed: int = 0
    rounds: int = 400
    batch: int = RECIPE.batch

    def __post_init__(self) -> None:
        unknown = [t for t in self.targets if t not in self.specs]
        if unknown or not self.targets or len(self.specs) < 2:
            raise LinkError(f"targets {list(self.targets)} must be some of two models or more, got {list(self.specs)}")
        if self.rounds < 1 or self.batch < 1:
            raise LinkError(f"rounds and batch must be at least 1, got {self.rounds} and {self.batch}")
        odd = [m for m, spec in self.specs.items() if spec.kind != "vector"]
        if odd:
            raise LinkError(f"a federation links models that give vectors; {', '.join(odd)} does not")

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All (source, target), target by target."""
        return tuple((s, t) for t in self.targets for s in self.specs if s != t)

    def stack(self, source: str, target: str) -> Stack:
        """Return the link of a pair as it starts, in standardised space."""
        x, y = self.specs[source], self.specs[target]
        hidden = RECIPE.hidden(y)
        bound = np.sqrt(6.0 / (x.size + hidden))
        rng = np.random.default_rng([self.seed, *f"{source}>{target}".encode()])
        first = rng.uniform(-bound, bound, (x.size, hidden)).astype(np.float32)
        return Stack([first], [np.zeros((hidden, y.size), np.float32)])

    @cached_property
    def slices(self) -> dict[tuple[str, str], slice]:
        """Where each pair's parameters lie among all."""
        ends = np.cumsum([self.stack(*pair).flat.size for pair in self.pairs])
        starts = [0, *ends[:-1]]
        return {pair: slice(int(a), int(b)) for pair, a, b in zip(self.pairs, starts, ends, strict=True)}

    @property
    def parameters(self) -> int:
        """Number of parameters of all links."""
        return int(self.slices[self.pairs[-1]].stop)

    def stacks(self, parameters: Array) -> dict[tuple[str, str], Stack]:
        """Return all links at these parameters (parameters,)."""
        stacks = {}
        for pair, part in self.slices.items():
            stacks[pair] = self.stack(*pair)
            stacks[pair].flat[:] = parameters[part]
        return stacks

    def scaling(self, pooled: Sums, source: str, target: str) -> Scaling:
        """Return how a pair is scaled, given the pooled moments (1 + 2 * all entries,)."""
        sums, squares = (dict(zip(self.specs, part, strict=True)) for part in self._parts(pooled))
        moments = Moments(int(pooled[0]), sums[source], squares[source], sums[target], squares[target])
        return pool([moments], self.specs[target])

    def links(self, parameters: Array, pooled: Sums) -> dict[tuple[str, str], VecToVec]:
        """Return the links at these parameters, in the models' own spaces."""
        return {
            (s, t): unscale(self.specs[s], self.specs[t], [p[0] for p in stack.parameters], self.scaling(pooled, s, t))
            for (s, t), stack in self.stacks(parameters).items()
        }

    def width(self, phase: Phase) -> int:
        """Return how many numbers a site's answer has in a phase."""
        if phase == "moments":
            return 1 + 2 * sum(spec.size for spec in self.specs.values())
        if phase == "gradients":
            return self.parameters
        if phase == "losses":
            return len(self.pairs)
        return sum(self.specs[t].size + 1 for t in self.targets)

    def _parts(self, pooled: Sums) -> tuple[list[Sums], list[Sums]]:
        sizes = [spec.size for spec in self.specs.values()]
        sums, squares = np.split(pooled[1:], 2)
        return np.split(sums, np.cumsum(sizes)[:-1]), np.split(squares, np.cumsum(sizes)[:-1])


@dataclass(frozen=True, eq=False)
class Answer:
    """What a site says in a phase: over how many frames, and `Plan.width` numbers."""

    samples: int
    numbers: NDArray[np.floating]


class SiteLearner:
    """One site's side. It holds the outputs of all models on the same frames; a quarter, in stretches, is held out."""

    def __init__(self, plan: Plan, samples: Mapping[str, Array]) -> None:
        """``samples``: model -> (n, size), oldest first. Raises `LinkError` for too few frames or uneven lengths."""
        frames = min((len(samples[m]) for m in plan.specs), default=0)
        if frames < MIN_FRAMES or any(samples[m].shape != (frames, plan.specs[m].size) for m in plan.specs):
            shapes = {m: samples[m].shape for m in plan.specs}
            raise LinkError(f"a site needs at least {MIN_FRAMES} frames with the output of every model, got {shapes}")
        held = (np.arange(frames) * min(STRETCHES, frames // 2) // frames) % FOLDS == FOLDS - 1
        self.plan, self.held_out = plan, held  # (n,) of the site's frames
        self._fitted = {m: samples[m][~held] for m in plan.specs}
        self._held = {m: samples[m][held] for m in plan.specs}
        self._counts = int((~held).sum()), int(held.sum())
        self._sites = {(s, t): Site(plan.specs[t], self._fitted[s], self._fitted[t]) for s, t in plan.pairs}

    def moments(self) -> Answer:
        """Sum up each model's outputs."""
        wide = [values.astype(np.float64) for values in self._fitted.values()]
        sums = [w.sum(axis=0) for w in wide] + [np.square(w).sum(axis=0) for w in wide]
        count = self._counts[0]
        return Answer(count, np.concatenate([[float(count)], *sums]))

    def gradients(self, parameters: Array, pooled: Sums, rng: np.random.Generator) -> Answer:
        """Return the gradient of each link's mean loss over a random batch of the site's frames."""
        plan = self.plan
        parts = [
            self._sites[pair].update(stack, plan.scaling(pooled, *pair), plan.batch, rng).gradient
            for pair, stack in plan.stacks(parameters).items()
        ]
        return Answer(self._counts[0], np.concatenate(parts))

    def losses(self, parameters: Array, pooled: Sums) -> Answer:
        """Return each link's mean loss on the frames that were held out."""
        links = self.plan.links(parameters, pooled)
        losses = [
            _loss(link, self._held[s], self._held[t], self.plan.scaling(pooled, s, t).y_std)
            for (s, t), link in links.items()
        ]
        return Answer(self._counts[1], np.array(losses))

    def errors(self, ensembles: Mapping[str, Ensemble]) -> Answer:
        """Return per target the mean squared error of each entry, and the mean agreement, on held-out frames."""
        parts = [_judged(ensembles[t], self._held) for t in self.plan.targets]
        return Answer(self._counts[1], np.concatenate(parts))

    def fused(self, ensembles: Mapping[str, Ensemble]) -> dict[str, Ensemble]:
        """Fuse each global link with one learnt here alone, and weigh sources anew: local-global fusion (Sec. 4.3).

        Weights come from the frames that were held out, as do spread and agreement; the links have not seen those.
        """
        fused = {}
        for (s, t), local in self._local.items():
            shared = ensembles[t].links[s]
            assert isinstance(shared, VecToVec)
            fused[s, t] = fuse([local, shared], self._held[s], self._held[t])
        return self._weighed(fused, ensembles)

    def alone(self, ensembles: Mapping[str, Ensemble]) -> dict[str, Ensemble]:
        """Return what this site could have learnt by itself, weighed as `fused` weighs: what federating is held to."""
        return self._weighed(self._local, ensembles)

    @cached_property
    def _local(self) -> dict[tuple[str, str], VecToVec]:
        """The links learnt on this site's frames alone, but for those that are held out."""
        specs, fitted, seed = self.plan.specs, self._fitted, self.plan.seed
        jobs = [FitJob(specs[s], specs[t], fitted[s], fitted[t], seed) for s, t in self.plan.pairs]
        return dict(zip(self.plan.pairs, fit_links(jobs), strict=True))

    def _weighed(
        self, found: Mapping[tuple[str, str], VecToVec], ensembles: Mapping[str, Ensemble]
    ) -> dict[str, Ensemble]:
        specs, held = self.plan.specs, self._held
        result = {}
        for target in self.plan.targets:
            links = {s: link for (s, t), link in found.items() if t == target}
            z = np.stack([link.predict(held[s]) for s, link in links.items()])
            weights = dict(zip(links, fit_weights(specs[target], z, held[target]), strict=True))
            draft = replace(ensembles[target], links=links, weights=weights)
            result[target] = _with_errors(draft, _judged(draft, held))
        return result

    def agreement(self, ensembles: Mapping[str, Ensemble]) -> dict[str, float]:
        """Return the mean agreement per target on the frames that were held out."""
        return {t: float(_judged(ensembles[t], self._held)[-1]) for t in self.plan.targets}


class Server:
    """The server's side: where the exchange stands, and what follows from a phase's answers."""

    def __init__(self, plan: Plan, clip_norm: float | None = 1.0) -> None:
        self.plan = plan
        self.phase: Phase = "moments"
        self.number = 0  # of exchanges that are done
        self.parameters: Array = np.concatenate([plan.stack(*pair).flat for pair in plan.pairs])
        self.pooled: Sums = np.zeros(0)
        self.ensembles: dict[str, Ensemble] = {}
        self._clip_norm = clip_norm
        self._optimizer = RmsProp(self.parameters)

    def advance(self, answers: Sequence[Answer]) -> None:
        """Take the answers of the sites that were there, at least one, and go on to the next exchange."""
        if not answers:
            raise LinkError("no site answered: nothing to aggregate")
        if self.phase == "moments":
            self.pooled = np.sum([a.numbers for a in answers], axis=0, dtype=np.float64)
            self.phase = "gradients"
        elif self.phase == "gradients":
            self._step(answers)
            if self.number >= self.plan.rounds:  # the moments were one exchange, and this one is not counted yet
                self.phase = "losses"
        elif self.phase == "losses":
            self.ensembles = self._weighed(_mean(answers))
            self.phase = "errors"
        elif self.phase == "errors":
            parts = np.split(_mean(answers), np.cumsum([self.plan.specs[t].size + 1 for t in self.plan.targets])[:-1])
            self.ensembles = {
                t: _with_errors(self.ensembles[t], part) for t, part in zip(self.plan.targets, parts, strict=True)
            }
            self.phase = "done"
        self.number += 1

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return all that changes, as arrays by name, for `resume`."""
        payloads = {f"ensemble/{t}": np.frombuffer(e.to_bytes(), np.uint8) for t, e in self.ensembles.items()}
        return {
            "phase": np.array(self.phase),
            "number": np.array(self.number),
            "parameters": self.parameters,
            "squares": self._optimizer.squares,
            "pooled": self.pooled,
            **payloads,
        }

    def resume(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        """Go on where another server stood. Raises `LinkError` if that had another plan."""
        if state["parameters"].shape != self.parameters.shape:
            got, own = state["parameters"].size, self.parameters.size
            raise LinkError(f"a saved federation of {got} parameters; this plan has {own}: choose another folder")
        self.phase = str(state["phase"])  # type: ignore[assignment]
        self.number = int(state["number"])
        self.parameters[:] = state["parameters"]
        self._optimizer.squares[:] = state["squares"]
        self.pooled = np.asarray(state["pooled"], np.float64)
        saved = {n.removeprefix("ensemble/"): a for n, a in state.items() if n.startswith("ensemble/")}
        self.ensembles = {target: Ensemble.from_bytes(array.tobytes()) for target, array in saved.items()}

    def _step(self, answers: Sequence[Answer]) -> None:
        gradients = [
            aggregate([Update(a.samples, a.numbers[part].astype(np.float32)) for a in answers], self._clip_norm)
            for part in self.plan.slices.values()
        ]
        done = (self.number - 1) / self.plan.rounds
        self._optimizer.step(np.concatenate(gradients), RECIPE.rate * (1.0 - done))

    def _weighed(self, losses: Sums) -> dict[str, Ensemble]:
        links = self.plan.links(self.parameters, self.pooled)
        worth = {pair: 1.0 / max(float(loss), LEAST_LOSS) for pair, loss in zip(self.plan.pairs, losses, strict=True)}
        ensembles = {}
        for target in self.plan.targets:
            sources = [s for s, t in self.plan.pairs if t == target]
            total = sum(worth[s, target] for s in sources)
            weights = {s: worth[s, target] / total for s in sources}
            spec = self.plan.specs[target]
            own = {s: links[s, target] for s in sources}
            ensembles[target] = Ensemble(spec, own, weights, np.ones(spec.size, np.float32), 0.0)
        return ensembles


def implausible(phase: Phase, answer: Answer) -> str | None:
    """Say what no frames could have given, in an answer of the right size and finite; None if all is well.

    It keeps out broken and clumsy sites. One that lies within bounds is only held back by clipping.
    """
    numbers = answer.numbers
    if phase == "moments":
        sums, squares = np.split(numbers[1:], 2)
        if numbers[0] != answer.samples or np.abs(numbers).max() > MOST_SUM:
            return f"moments of {numbers[0]:g} frames, up to {np.abs(numbers).max():g}, for {answer.samples} samples"
        if (squares * answer.samples < sums**2 * (1 - 1e-9) - 1e-6).any():
            return "sums of squares that are too small for its sums"
    if phase in ("losses", "errors") and ((numbers < 0).any() or numbers.max() > MOST_SUM):
        return f"{phase} from {numbers.min():g} to {numbers.max():g}"
    return None


def _mean(answers: Sequence[Answer]) -> Sums:
    total = sum(a.samples for a in answers)
    return np.asarray(sum(a.samples / total * a.numbers.astype(np.float64) for a in answers))


def _loss(link: VecToVec, x: Array, y: Array, scale: Array) -> float:
    """Return the mean loss in units of ``scale`` (target.size,), the same at all sites, so that none drowns others."""
    spec = link.target
    share = np.full((1, len(y), 1), 1.0 / len(y), np.float32)
    return float(StackLoss([spec], spec.size).value((link.predict(x) / scale)[None], (y / scale)[None], share)[0])


def _judged(ensemble: Ensemble, held: Mapping[str, Array]) -> Sums:
    """Return mean squared error per entry and mean agreement (size + 1,)."""
    executed = held[ensemble.target.model]
    z = {s: link.predict(held[s]) for s, link in ensemble.links.items()}
    value = ensemble.combine(z)
    agreed = agreement(ensemble.target, ensemble.finish(value), executed).mean()
    return np.concatenate([np.square(value - executed).mean(axis=0), [agreed]])


def _with_errors(ensemble: Ensemble, errors: Sums) -> Ensemble:
    spread = np.sqrt(errors[:-1] + 1e-4).astype(np.float32)
    return replace(ensemble, spread=spread, held_out_agreement=float(errors[-1]))
