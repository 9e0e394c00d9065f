"""The scheduler: at the start of each period, per camera, which models execute and which are predicted.

It judges links from the outputs of profile and audit frames, never from pixels (MLink Algorithm 1, lines 3-5). Where a
policy decides on every frame, no links are judged: what is loaded follows from what the policies expect, and all that
is left to decide is which models have to execute for their targets.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from camlink.links.ensemble import Ensemble
from camlink.links.inputs import LinkInputs
from camlink.models.base import OutputSpec
from camlink.operators.base import Operator
from camlink.operators.gate import PER_FRAME_POLICIES, TRIES
from camlink.operators.profiling import LinkScorer
from camlink.operators.sampling import SamplingRules
from camlink.operators.selection import (
    IN_VAIN,
    Budget,
    CameraScores,
    Costs,
    Selection,
    expected_agreement,
    select,
)
from camlink.operators.snapshots import EnsembleBytes, Snapshot, get_time, put_time, reading
from camlink.operators.spending import AuditAccount
from camlink.operators.targets import Standing, TargetOf, TargetWatch, no_targets, spared, trials
from camlink.pipeline.records import JUDGED, Decision, FrameResult, LinkPromotion, Prospect, Record

if TYPE_CHECKING:
    from camlink.operators.loaded_set import LoadedSet

logger = logging.getLogger(__name__)


@dataclass
class _Camera:
    scorer: LinkScorer
    watch: TargetWatch
    audits: AuditAccount
    ensembles: dict[str, Ensemble] = field(default_factory=dict)
    scores: CameraScores | None = None
    scored: datetime | None = None  # event time up to which frames count in `scores`
    decided: datetime | None = None  # start of the period that the last decision is for
    standings: Mapping[str, Standing] = field(default_factory=dict)  # towards targets, when last decided
    audit_share: float | None = None
    prospects: Mapping[str, Prospect] = field(default_factory=dict)  # by model, of a per-frame policy
    failures: Counter[str] = field(default_factory=Counter)  # by model, in a row, on frames that every model runs on

    def not_met(self) -> tuple[str, ...]:
        """Return the models whose predictions are proven to fall short of their targets."""
        return tuple(model for model, standing in self.standings.items() if standing.state == "not met")

    def failing(self) -> tuple[str, ...]:
        """Return the models that gave nothing of late, which to execute again and again would be in vain."""
        return tuple(model for model, times in self.failures.items() if times >= TRIES)


class SchedulerOperator(Operator):
    """Results and link promotions in, decisions out. One instance decides for the cameras of one inference worker."""

    def __init__(
        self,
        specs: Mapping[str, OutputSpec],
        costs: Costs,
        budget: Budget,
        rules: SamplingRules,
        policy: str,
        target_of: TargetOf = no_targets,
        inputs: LinkInputs | None = None,
    ) -> None:
        """``inputs``: what links read of a frame, where that is more than the executed values."""
        self._specs = specs
        self._inputs = inputs or LinkInputs(specs)
        self._target_of = target_of
        self._costs = costs
        self._budget = budget
        self._rules = rules
        self._per_frame = policy in PER_FRAME_POLICIES  # then only what is loaded is decided per period
        self._loading = loaded_set_of(costs, budget) if self._per_frame else None
        self._policy = policy if len(specs) > 1 or self._per_frame else "all"  # one model cannot be predicted by links
        self._cameras: dict[str, _Camera] = {}
        self._loaded: tuple[str, ...] | None = None
        self._payloads = EnsembleBytes()

    def on_records(self, records: Sequence[Record]) -> Iterable[Record]:
        for record in records:
            if isinstance(record, LinkPromotion) and not self._per_frame:
                ensemble = self._payloads.read(record.payload)
                if not ensemble.strangers(self._inputs.sources, self._specs):  # else they are learnt anew
                    self._camera(record.camera_id).ensembles[record.target] = ensemble
            elif isinstance(record, FrameResult):
                yield from self._on_result(record)

    def resume(self, decision: Decision) -> None:
        """Know of a decision that another worker made: its period needs no other until it is profiled anew."""
        camera = self._camera(decision.camera_id)
        if camera.decided is None:
            camera.decided = self._rules.period_start(decision.start)
            camera.watch.resume(decision)
        if self._loaded is None:
            self._loaded = decision.loaded

    def snapshot(self, camera_id: str) -> bytes:
        """Return what is known of a camera's links, and what its policy expects, for `restore`."""
        camera, parts = self._camera(camera_id), {}
        for target, ensemble in camera.ensembles.items():
            parts[f"in force/{target}"] = self._payloads.of(ensemble)
        told: dict[str, Any] = {"scored": put_time(camera.scored), "decided": put_time(camera.decided)}
        scorer = camera.scorer.put_state(parts, self._payloads)
        told["prospects"] = {m: asdict(p) for m, p in camera.prospects.items()}
        return Snapshot({**told, "scorer": scorer, "in force": list(camera.ensembles)}, parts).to_bytes()

    def restore(self, camera_id: str, snapshot: bytes) -> None:
        """Take up a camera from its snapshot. Raises `StateError`, and begins anew, for one that cannot be read."""
        found = Snapshot.from_bytes(snapshot)
        told, camera, scorer = found.told, self._camera(camera_id), LinkScorer(self._specs)
        with reading():
            scored = get_time(told["scored"])
            ensembles = {t: self._payloads.read(found.parts[f"in force/{t}"]) for t in told["in force"]}
            ensembles = {t: e for t, e in ensembles.items() if not e.strangers(self._inputs.sources, self._specs)}
            scorer.get_state(told["scorer"], found.parts, self._payloads)
            prospects = {str(m): Prospect(**p) for m, p in told.get("prospects", {}).items()}
        # When it last decided is known from the topic of decisions, or that is empty: then a decision is due at once.
        camera.scorer, camera.scored, camera.ensembles, camera.prospects = scorer, scored, ensembles, prospects
        camera.scores = None if scored is None else scorer.scores(scored)

    def tally(self, camera_id: str) -> Snapshot:
        """Return what every frame adds to: a camera's certificates, and what its audits have saved and spend."""
        camera, parts = self._camera(camera_id), dict[str, bytes]()
        told = {"account": camera.audits.state(), "share": camera.audit_share, "watch": camera.watch.put_state(parts)}
        return Snapshot({**told, "failures": dict(camera.failures)}, parts)

    def resume_tally(self, camera_id: str, tally: Snapshot) -> None:
        """Go on with another worker's `tally`. Raises `StateError`."""
        camera, told = self._camera(camera_id), tally.told
        with reading():
            share = None if told["share"] is None else float(told["share"])
            failures = Counter({str(m): int(times) for m, times in told.get("failures", {}).items()})
            camera.watch.get_state(told["watch"], tally.parts)
            camera.audits.resume(told["account"])
        spends = self._rules.audit_spend == "widest"  # else the share is that of the rules, which may have changed
        camera.audit_share, camera.failures = share if spends else None, failures

    def forget(self, camera_id: str) -> None:
        """Drop a camera that another worker has now."""
        self._cameras.pop(camera_id, None)

    def _camera(self, camera_id: str) -> _Camera:
        if camera_id not in self._cameras:
            spends = self._rules.audit_spend == "widest"
            watch = TargetWatch(camera_id, self._specs, self._target_of, self._rules.period, every_model=spends)
            self._cameras[camera_id] = _Camera(LinkScorer(self._specs), watch, AuditAccount(self._rules.audit_fraction))
        return self._cameras[camera_id]

    def _on_result(self, result: FrameResult) -> Iterable[Record]:
        camera = self._camera(result.camera_id)
        if result.prospects:
            camera.prospects = result.prospects
        if result.purpose in ("profile", "audit") and not self._per_frame:
            values = result.executed()
            for model in self._specs:
                camera.failures[model] = 0 if model in values else camera.failures[model] + 1
            if values:
                read = self._inputs.of_outputs(result.outputs, result.captured_at, result.stats)
                camera.scorer.observe(result.captured_at, values, camera.ensembles, read)
        if result.purpose in JUDGED:
            camera.watch.observe(result)
            camera.audits.observe(result.audit_probability or 0.0)
        period = self._rules.period_start(result.captured_at)
        if camera.decided is None:
            overdue = result.purpose == "serve"  # while a camera learns, frames may be overtaken, and audited
        else:
            overdue = camera.decided < period and result.purpose in ("serve", "audit")
        if result.profile_ends or overdue:
            camera.decided = period
            camera.scorer.forget_before(period - self._rules.period)
            camera.scored, camera.scores = result.captured_at, camera.scorer.scores()
            camera.standings = camera.watch.standings()
            if self._rules.audit_spend == "widest":
                camera.audit_share = camera.audits.next_share(camera.watch.certificates().values())
            yield from self._decide(result.camera_id, result.captured_at)

    def _decide(self, camera_id: str, now: datetime) -> Iterable[Record]:
        """Choose anew for all cameras with scores; tell this one, and the others whose choice has changed."""
        scored = {c: s.scores for c, s in self._cameras.items() if s.scores is not None and self._active(s, now)}
        urgent = {c: forced for c in scored if (forced := self._cameras[c].not_met())}
        failing = {c: self._cameras[c].failing() for c in scored}
        if self._per_frame:
            selection = otherwise = self._select_loaded(scored, urgent)
        else:
            choose = partial(select, self._policy, scored, self._costs, self._budget, failing=failing)
            selection = choose(urgent)
            otherwise = choose() if urgent else selection
        changed_set = selection.loaded != self._loaded
        if changed_set:
            logger.info("loaded set: %s", ", ".join(selection.loaded) or "nothing")
        self._loaded = selection.loaded
        for camera in scored:
            if camera == camera_id or changed_set:
                yield self._decision(camera, now, selection, otherwise)

    def _select_loaded(self, cameras: Iterable[str], urgent: Mapping[str, Sequence[str]]) -> Selection:
        """Choose what is loaded by what the cameras' policies expect; what executes, these decide for themselves."""
        loaded = self._costs.models
        if self._loading is not None:
            prospects = {c: self._cameras[c].prospects for c in cameras}
            loaded = self._loading.choose(prospects, urgent, self._loaded)
        return Selection(loaded, dict.fromkeys(cameras, loaded), {c: {} for c in cameras}, dict.fromkeys(cameras, 0.0))

    def _active(self, camera: _Camera, now: datetime) -> bool:
        """Cameras that were silent for more than two periods have no say in what is loaded."""
        return camera.decided is not None and abs(now - camera.decided) <= 2 * self._rules.period

    def _decision(self, camera_id: str, now: datetime, selection: Selection, otherwise: Selection) -> Decision:
        camera = self._cameras[camera_id]
        assert camera.scores is not None
        assert camera.decided is not None
        chosen, expected = selection.execute[camera_id], selection.expected[camera_id]
        if self._policy in ("mlink", "mlink-exact") and camera.standings:
            chosen = spared(chosen, camera.standings, camera.scores, self._costs)
            expected = expected_agreement(chosen, self._costs.models, camera.scores.subset)
        execute, predict, reason = self._applied(camera, chosen, expected)
        other = self._costs.models if self._per_frame else otherwise.execute[camera_id]
        allowed_ms, total_ms = self._budget.long_run_ms(self._costs), self._costs.time(self._costs.models)
        budget = {
            "time_share_used": self._costs.time(execute) / total_ms if total_ms else 0.0,
            "memory_gb_used": self._costs.memory(selection.loaded),
        }
        if self._budget.time_share is not None:
            budget["time_share"] = allowed_ms / total_ms if total_ms else self._budget.time_share
        if self._budget.memory_gb is not None:
            budget["memory_gb"] = self._budget.memory_gb
        if self._budget.latency_ms is not None:
            budget["latency_ms"] = self._budget.latency_ms
        decision = Decision(
            camera_id=camera_id,
            start=now,
            end=max(camera.decided, self._rules.period_start(now)) + self._rules.period,
            execute=execute,
            predict=predict,
            loaded=selection.loaded,
            activation=selection.activation[camera_id],
            budget=budget,
            link_scores={} if self._per_frame else camera.scores.pairs,
            expected_agreement=None if self._per_frame else expected,
            reason=reason,
            target_states={m: standing.state for m, standing in camera.standings.items()},
            certificates={m: standing.figures() for m, standing in camera.standings.items()},
            trial=trials(camera.not_met(), execute, other),
            audit_share=camera.audit_share,
            per_frame=self._per_frame,
        )
        logger.info('camera "%s": %s', camera_id, reason)
        return decision

    def _applied(
        self, camera: _Camera, chosen: tuple[str, ...], expected: float
    ) -> tuple[tuple[str, ...], tuple[str, ...], str]:
        """Turn a selection into execute, predict and a sentence that a person can read."""
        models = self._costs.models
        if self._per_frame:
            return self._gated(camera, chosen)
        share = self._costs.time(chosen) / (self._costs.time(models) or 1.0)
        cost = f"{share:.0%} of the time of executing everything"
        if self._policy == "standalone":
            told = f"standalone: executes {_names(chosen)} ({cost}); nothing is predicted"
            return chosen, (), f"{told}{_in_vain(camera.failing())}"
        left = tuple(m for m in models if m not in chosen)
        if not left:
            return chosen, (), f"executes all models ({cost})"
        if not chosen:
            why = "no model has answered" if len(camera.failing()) == len(models) else "no model fits the budget"
            told = f"{why}: nothing can be executed, so nothing can be predicted"
            return chosen, left, f"{told}{_in_vain(camera.failing())}"
        frames = camera.scorer.frames([m for m in left if m not in camera.failing()])
        guesses = ", ".join(f"{m} {camera.scores.subset(chosen, m):.0%}" for m in left) if camera.scores else ""
        return (
            chosen,
            left,
            f"executes {_names(chosen)} ({cost}) and predicts {guesses}, "
            f"{expected:.0%} over all models, judged on {frames} frame{'' if frames == 1 else 's'}"
            f"{_in_vain(camera.failing())}{_below(camera.not_met(), chosen)}",
        )

    def _gated(self, camera: _Camera, chosen: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...], str]:
        """Leave everything to the policy that decides on every frame, except what has to execute for its target."""
        forced: tuple[str, ...] = ()
        for model in camera.not_met():
            if model in chosen and self._costs.time((*forced, model)) <= self._budget.time_ms(self._costs):
                forced = (*forced, model)
        left = tuple(m for m in self._costs.models if m not in forced)
        aim = self._budget.time_share
        share = _aimed_at(camera.watch.targets) if aim is None else f" within {aim:.0%} of the time"
        limit = "" if self._budget.latency_ms is None else f", each done within {self._budget.latency_ms:g} ms"
        return forced, left, f"decides on every frame{share}{limit}{_below(camera.not_met(), forced)}"


def _aimed_at(targets: Mapping[str, float]) -> str:
    """Say what a policy without a time budget executes for."""
    if not targets:
        return ""
    same = len(set(targets.values())) == 1
    told = f"{max(targets.values()):g}" if same else ", ".join(f"{m} {t:g}" for m, t in targets.items())
    return f", to meet the target{'' if len(targets) == 1 else 's'} ({told}) at the least cost"


def _below(not_met: Sequence[str], executed: Sequence[str]) -> str:
    """Say which targets are not met, and plainly if the budget leaves no room to do anything about it."""
    left = [m for m in not_met if m not in executed]
    kept = [m for m in not_met if m in executed]
    told = f"; target not met, so executed: {_names(kept)}" if kept else ""
    return told + (f"; target not met, but the budgets leave no room: {_names(left)}" if left else "")


def _in_vain(failing: Sequence[str]) -> str:
    return f"; not executed, {IN_VAIN}: {_names(failing)}" if failing else ""


def _names(models: Sequence[str]) -> str:
    return ", ".join(models) if models else "nothing"


def loaded_set_of(costs: Costs, budget: Budget) -> LoadedSet | None:
    """Return what chooses the models in memory, or None where all fit.

    It brings a compiler with it, of 60 MB, which no scheduler should have to load that has nothing to choose.
    """
    if costs.memory(costs.models) <= budget.memory_limit() + 1e-9:
        return None
    from camlink.operators.loaded_set import LoadedSet

    return LoadedSet(costs, budget)
