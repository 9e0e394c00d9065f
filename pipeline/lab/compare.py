"""Every policy on the same trace at the same budgets: the rows behind `camlink compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camlink.models.scores import RULES, has_agreement
from camlink.models.trace_arrays import CameraTrace, TraceArrays
from camlink.models.trace_files import RecordedEntry
from camlink.operators.allowance import ROUNDING
from camlink.operators.baselines.warm_links import are_chances
from camlink.operators.policy import PolicySetup
from camlink.operators.selection import Budget, Costs
from camlink.operators.zoo import Zoo
from camlink.pipeline.errors import TraceError, ZooError
from camlink.pipeline.lab.chance import chance_to_be_best, grouped
from camlink.pipeline.lab.play import Split, play, split
from camlink.pipeline.lab.policies import Candidate, find_policies
from camlink.pipeline.lab.summary import REFERENCES, budget_words, measure_of
from camlink.pipeline.lab.tally import (
    HOWS,
    Tally,
    answers_by_confidence,
    calibration_error,
    calibration_error_by_chance,
    count_scores,
    mean_average_precision,
    surest_agreement,
)
from camlink.pipeline.quantities import counted
from camlink.pipeline.suggestions import suggest

FEWEST_FRAMES = 20  # of a camera: two of warm-up, eighteen that count
LONGEST_PERIOD_S = 3600.0
LEAST_MS = 1e-6  # that executing a model costs


@dataclass(frozen=True)
class Rules:
    """What is compared. ``period_s`` None: an hour, or a tenth of the trace where that is shorter."""

    budgets: Sequence[Budget] = (Budget(time_share=0.25),)
    policies: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    period_s: float | None = None
    load_ms: float = 0.0
    zoo: Zoo | None = None  # what policy camlink starts from


@dataclass(frozen=True)
class Step:
    """Where a comparison is: what is played now, and how many of all frames of all policies and budgets are done."""

    text: str
    done: int
    total: int


@dataclass(frozen=True)
class Result:
    """One policy at one budget and seed on one trace. Of detectors that are judged by boxes, agreement is mAP."""

    trace: str
    policy: str
    budget: Budget
    seed: int
    cameras: Mapping[str, Tally]
    trace_arrays: TraceArrays = field(repr=False)
    target: float | None = None  # of agreement, that was to be met at the least cost

    def row(self) -> dict[str, Any]:
        """Return the figures as JSON has them. Agreement and shares are in 0..1, and weigh every frame alike."""
        models = list(self.trace_arrays.models)
        per_model = {m: self._mean_of_model(m) for m in models if any(m in t.models for t in self.cameras.values())}
        frames = sum(t.frames.sum() for t in self.cameras.values())
        slots = sum(t.hows.sum() for t in self.cameras.values())
        spent = sum(t.spent_ms.sum() for t in self.cameras.values())
        hows = {how: float(sum(t.hows[:, :, i].sum() for t in self.cameras.values())) for i, how in enumerate(HOWS)}
        stated = np.sum([t.stated for t in self.cameras.values()], axis=0)
        return {
            "trace": self.trace,
            "synthetic": self.trace_arrays.synthetic,
            "policy": self.policy,
            "budget_gb": self.budget.memory_gb,
            "budget_time": self.budget.time_share,
            "latency_ms": self.budget.latency_ms,
            "agreement": self.agreement(),
            "agreement_per_model": per_model,
            "measure_per_model": {m: measure_of(self.trace_arrays.models[m].spec) for m in per_model},
            "cost": float(spent / self._everything_ms()),
            "cost_ms_per_frame": float(spent / frames),
            "executions_saved": 1.0 - hows["executed"] / float(slots),
            "loads": sum(t.loads for t in self.cameras.values()),
            "seed": self.seed,
            **{f"share_{how}": count / float(slots) for how, count in hows.items()},
            **self._counts(),
            "mean_average_precision": mean_average_precision(self.cameras.values()),
            "calibration_error": calibration_error(stated),
            "calibration_error_by_chance": calibration_error_by_chance(stated),
            "agreement_of_answers": _mean(stated[:, 2].sum(), stated[:, 0].sum()),
            "agreement_of_surest_answers": surest_agreement(stated),
            "answers_by_least_confidence": answers_by_confidence(stated),
            "frames": int(frames),
            "per_camera": {c: float(t.agreed.sum() / t.hows.sum()) for c, t in self.cameras.items()},
            "per_period": self._per_period(),
        } | ({} if self.target is None else {"target": self.target, "target_met": self.agreement() >= self.target})

    def agreement(self) -> float:
        """Return the mean over models and frames, 0..1."""
        slots = sum(t.hows.sum() for t in self.cameras.values())
        return float(sum(t.agreed.sum() for t in self.cameras.values()) / slots)

    def _mean_of_model(self, model: str) -> float:
        agreed = frames = 0.0
        for tally in self.cameras.values():
            if model in tally.models:
                agreed += float(tally.agreed[:, tally.models.index(model)].sum())
                frames += float(tally.frames.sum())
        return agreed / frames

    def _everything_ms(self) -> float:
        entries = self.trace_arrays.models
        return sum(float(t.frames.sum()) * sum(_time_ms(entries[m]) for m in t.models) for t in self.cameras.values())

    def _counts(self) -> dict[str, float | None]:
        specs = {m: e.spec for m, e in self.trace_arrays.models.items()}
        scores = [count_scores(t, specs) for t in self.cameras.values()]
        weights = [float(t.frames.sum()) for t in self.cameras.values()]
        return {
            name: _weighted([s[i] for s in scores], weights) for i, name in enumerate(("within_one", "relative_error"))
        }

    def _per_period(self) -> list[float]:
        """Return the agreement of each period, counted from each camera's own start, over all cameras."""
        periods = max(len(t.frames) for t in self.cameras.values())
        agreed, slots = np.zeros(periods), np.zeros(periods)
        for tally in self.cameras.values():
            agreed[: len(tally.frames)] += tally.agreed.sum(axis=1)
            slots[: len(tally.frames)] += tally.hows.sum(axis=(1, 2))
        return [float(a / s) for a, s in zip(agreed, slots, strict=True) if s]


def compare(
    trace: TraceArrays, rules: Rules, note: Callable[[str], None], step: Callable[[Step], None] = lambda _: None
) -> Iterator[Result]:
    """Yield the result of every policy at every budget and seed, as soon as it has been played on all cameras.

    ``note`` is told what is left out and why, ``step`` every few frames where the comparison is.

    Raises `TraceError` if no camera has frames enough, `ZooError` for a zoo of other models, and `PolicyError` for a
    policy that breaks its budget.
    """
    contest = Contest.of(trace, rules, note)
    budgets = binding_budgets(trace, contest.cameras, rules.budgets, note, rules.load_ms)
    plays = [
        (candidate, budget, seed)
        for candidate in find_policies(list(rules.policies), contest.period_s)
        for budget, seed in product(budgets, rules.seeds if candidate.seeded else rules.seeds[:1])
    ]
    for place, (candidate, budget, seed) in enumerate(plays):
        words = budget_words(budget.memory_gb, budget.time_share, budget.latency_ms)
        text = f"{trace.name}: {candidate.name}, {words}"
        start = Step(text, place * contest.frames, len(plays) * contest.frames)
        found = contest.play(candidate, budget, seed, step, start)
        for named in (seed,) if candidate.seeded else rules.seeds:
            yield replace(found, seed=named)


def rows_of(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the rows of all results, in their order, and how likely each policy is as good as those beside it.

    ``chance_to_be_best`` of `camlink.pipeline.lab.chance`, among the contestants at one trace and budget, the mean over
    seeds; None without others, and for what does not compete.
    """
    agreed: dict[tuple[str, Budget], dict[str, list[NDArray[np.float64]]]] = {}
    for result in results:
        if result.policy not in REFERENCES:
            sums = grouped([tally.stretches for tally in result.cameras.values()])
            agreed.setdefault((result.trace, result.budget), {}).setdefault(result.policy, []).append(sums)
    chances = {
        place: chance_to_be_best({policy: np.mean(seeds, axis=0) for policy, seeds in policies.items()})
        for place, policies in agreed.items()
        if len(policies) > 1
    }
    none: dict[str, float] = {}
    return [r.row() | {"chance_to_be_best": chances.get((r.trace, r.budget), none).get(r.policy)} for r in results]


@dataclass(frozen=True)
class Contest:
    """One trace on which policies are played, under one set of rules."""

    trace: TraceArrays
    cameras: Sequence[CameraTrace]
    rules: Rules
    period_s: float
    cuts: Mapping[str, Split]  # by camera

    @classmethod
    def of(cls, trace: TraceArrays, rules: Rules, note: Callable[[str], None]) -> Contest:
        """Return it with the cameras that can be played; ``note`` is told of others. Raises as `compare` does."""
        cameras = usable_cameras(trace, note)
        _note_free(trace, note)
        _check_zoo(rules.zoo, trace, cameras)
        period_s = rules.period_s or default_period_s(cameras)
        return cls(trace, cameras, rules, period_s, {c.camera_id: split(c, period_s) for c in cameras})

    @property
    def frames(self) -> int:
        """Of all cameras."""
        return sum(map(len, self.cameras))

    def play(
        self,
        candidate: Candidate,
        budget: Budget,
        seed: int,
        step: Callable[[Step], None],
        start: Step,
        target: float | None = None,
    ) -> Result:
        """Play a policy on all cameras; ``target``: what it is to meet in place of a time budget."""
        tallies = {}
        for camera in self.cameras:
            tallies[camera.camera_id] = self._play(camera, candidate, budget, seed, target, _watch(step, start))
            start = replace(start, done=start.done + len(camera))
        return Result(self.trace.name, candidate.name, budget, seed, tallies, self.trace)

    def _play(
        self,
        camera: CameraTrace,
        candidate: Candidate,
        budget: Budget,
        seed: int,
        target: float | None,
        tick: Callable[[int], None],
    ) -> Tally:
        costs, cut = costs_of(self.trace, camera), self.cuts[camera.camera_id]
        setup = PolicySetup(
            camera.camera_id, camera.specs, costs, budget, seed, target, load_ms=self.rules.load_ms, zoo=self.rules.zoo
        )
        return play(
            camera,
            lambda s: candidate.make(camera, s, cut),
            setup,
            cut,
            name=candidate.name,
            bound=candidate.bound,
            tick=tick,
        )


def _watch(step: Callable[[Step], None], start: Step) -> Callable[[int], None]:
    """Return what tells ``step`` how far the play of one camera is, in frames since ``start``."""
    return lambda frames: step(replace(start, done=start.done + frames))


def binding_budgets(
    trace: TraceArrays,
    cameras: Sequence[CameraTrace],
    budgets: Sequence[Budget],
    note: Callable[[str], None],
    load_ms: float = 0.0,
) -> list[Budget]:
    """Return the budgets, each once: a memory budget that all models of every camera fit is none, and is said to be.

    The same goes for a latency limit, for which ``load_ms`` counts. A limit that no model fits is said, too.
    """
    needed = max(sum(trace.models[m].memory_gb for m in camera.specs) for camera in cameras)
    loose = [b.memory_gb for b in budgets if b.memory_gb is not None and b.memory_gb >= needed]
    if loose:
        listed = ", ".join(f"{gb:g} GB" for gb in dict.fromkeys(loose))
        note(
            f"trace {trace.name}: all models together take {needed:.2g} GB, so a memory budget of {listed} is the same "
            "as none; played and counted once, without it"
        )
    smallest = max(min(trace.models[m].memory_gb for m in camera.specs) for camera in cameras)
    for gb in dict.fromkeys(b.memory_gb for b in budgets):
        if gb is not None and gb + ROUNDING < smallest:
            note(f"trace {trace.name}: {gb:g} GB is less than the smallest model of a camera takes; none executes")
    memory = [replace(b, memory_gb=None) if b.memory_gb in loose else b for b in budgets]
    return list(dict.fromkeys(_binding_latency(trace, cameras, memory, note, load_ms)))


def _binding_latency(
    trace: TraceArrays,
    cameras: Sequence[CameraTrace],
    budgets: Sequence[Budget],
    note: Callable[[str], None],
    load_ms: float,
) -> list[Budget]:
    costs = [costs_of(trace, camera) for camera in cameras]
    longest = max(each.time(each.models) + load_ms * len(each.models) for each in costs)
    limits = [limit for limit in dict.fromkeys(b.latency_ms for b in budgets) if limit is not None]
    loose = [limit for limit in limits if limit >= longest]
    if loose:
        note(
            f"trace {trace.name}: all models together take {longest:.4g} ms at most, so a latency limit of "
            f"{', '.join(f'{limit:g} ms' for limit in loose)} is the same as none; played and counted once, without it"
        )
    for limit in limits:
        if any(not Budget(latency_ms=limit).in_time(each) for each in costs):
            note(f"trace {trace.name}: {limit:g} ms is less than the fastest model of a camera takes; none executes")
    return [replace(b, latency_ms=None) if b.latency_ms in loose else b for b in budgets]


def usable_cameras(trace: TraceArrays, note: Callable[[str], None]) -> list[CameraTrace]:
    """Return the cameras with frames enough. Raises `TraceError` if there is none."""
    usable = []
    for camera in (_scorable(c, trace.name, note) for c in trace.cameras):
        if not camera.specs:
            note(f'trace {trace.name}: camera "{camera.camera_id}" has no outputs that can be scored; left out')
        elif len(camera) < FEWEST_FRAMES:
            note(
                f'trace {trace.name}: camera "{camera.camera_id}" has '
                f"{counted(len(camera), 'frame')} with outputs, and a comparison needs {FEWEST_FRAMES}; left out"
            )
        else:
            usable.append(camera)
    if not usable:
        raise TraceError(
            f"trace {trace.name}: of its {counted(len(trace.cameras), 'camera')} none has {FEWEST_FRAMES} frames "
            "with outputs of all of its models; record more of them with `camlink record`"
        )
    return usable


def _note_free(trace: TraceArrays, note: Callable[[str], None]) -> None:
    """Say which models the trace gives no time for: to a budget of time they cost nothing, or all the same."""
    free = [name for name, entry in trace.models.items() if entry.time_ms <= 0.0]
    if len(free) == len(trace.models):
        note(f"trace {trace.name}: time_ms is 0 for every model; all are taken to cost the same")
    elif free:
        note(f"trace {trace.name}: time_ms is 0 for {', '.join(free)}: executing costs nothing there")


def _scorable(camera: CameraTrace, name: str, note: Callable[[str], None]) -> CameraTrace:
    """Return the camera without models whose task is unknown."""
    specs = {m: spec for m, spec in camera.specs.items() if has_agreement(spec)}
    for model in camera.specs:
        if model not in specs:
            task = camera.specs[model].task
            known = suggest(task, (*RULES, "detections"))
            note(f'trace {name}: camera "{camera.camera_id}": {model}: unknown task "{task}"; {known}; left out')
    for model, spec in specs.items():
        if not are_chances(spec, camera.values[model]):
            said = f"{spec.task} outputs are not all chances from 0 to 1, so links do not predict them"
            note(f'trace {name}: camera "{camera.camera_id}": {model}: {said}')
    return replace(camera, specs=specs, values={m: camera.values[m] for m in specs})


def default_period_s(cameras: Sequence[CameraTrace]) -> float:
    """Return an hour, or a tenth of the longest camera where that is shorter."""
    longest: NDArray[np.float64] = np.array([c.time_s[-1] - c.time_s[0] for c in cameras])
    return float(min(LONGEST_PERIOD_S, max(longest.max() / 10.0, 1e-3)))


def _check_zoo(zoo: Zoo | None, trace: TraceArrays, cameras: Sequence[CameraTrace]) -> None:
    for camera in cameras if zoo is not None else ():
        if zoo is not None and (wrong := zoo.misfits(camera.specs)):
            raise ZooError(f'trace {trace.name}: camera "{camera.camera_id}" cannot start from this zoo: {wrong[0]}')


def costs_of(trace: TraceArrays, camera: CameraTrace) -> Costs:
    """Return what a camera's models cost, as its trace states it."""
    entries = {m: trace.models[m] for m in camera.specs}
    return Costs({m: _time_ms(e) for m, e in entries.items()}, {m: e.memory_gb for m, e in entries.items()})


def _time_ms(entry: RecordedEntry) -> float:
    """Return what executing costs. Where a trace says nothing at all, shares need a little something."""
    return max(entry.time_ms, LEAST_MS)


def _mean(total: float, count: float) -> float | None:
    return float(total / count) if count else None


def _weighted(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    known = [(v, w) for v, w in zip(values, weights, strict=True) if v is not None]
    return sum(v * w for v, w in known) / sum(w for _, w in known) if known else None
