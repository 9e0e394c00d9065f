"""`mlink` and `mlink-exact`: per period, some models execute and links predict the others (MLink AAAI'22, Algorithm 1).

Links are learnt on the warm-up. What executes is chosen by `camlink.operators.selection`, from link scores of held-out
warm-up frames and, from then on, of each period's profile frames, which are executed in full and paid like any other.
Two things that the paper leaves open are decided in its favour. Where the budget does not pay for even one model on
every frame, the best single one executes as often as it pays. Where no link can answer, the last answer is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from math import ceil, inf

import numpy as np

from camlink.links.ensemble import Ensemble
from camlink.links.memory import Recall
from camlink.links.train import LinkKind
from camlink.operators.allowance import Allowance, Turns
from camlink.operators.baselines.warm_links import Array, LinkTrainer, Times
from camlink.operators.baselines.warmup import WarmUp
from camlink.operators.blocks import BlockAnswer
from camlink.operators.policy import Answer, FrameFacts, PolicySetup
from camlink.operators.profiling import LinkScorer
from camlink.operators.selection import Budget, CameraScores, Costs, expected_agreement, select
from camlink.pipeline.records import Value

Choose = Callable[[CameraScores, Costs, Budget], tuple[str, ...]]
PROFILE_SHARE = 0.01  # of a period's frames, as in the paper (Sec. 6.5)
RECHOOSE_SHARE = 0.01  # of the scored frames must be new, or choosing again would say the same


class MLink:
    """One camera's period-wise selection over links."""

    def __init__(
        self,
        setup: PolicySetup,
        *,
        choose: Choose,
        period_s: float,
        kind: LinkKind = "count_distribution",
        trainer: LinkTrainer | None = None,
    ) -> None:
        self._setup, self._choose_models, self._period_s, self._kind = setup, choose, period_s, kind
        self._trainer = trainer or LinkTrainer()
        self._allowance = Allowance(setup.costs, setup.budget, setup.load_ms)
        self._turns = Turns(self._allowance)
        self._warm_up = WarmUp(tuple(setup.specs))
        self._frame = FrameFacts(-1, 0.0)
        self._ensembles: Mapping[str, Ensemble] = {}
        self._scorer: LinkScorer | None = None  # None until the warm-up is over
        self._execute: tuple[str, ...] = ()
        self._start_s, self._period, self._period_frames = 0.0, -1, 0
        self._to_profile = 0
        self._choose_again, self._newly_scored = True, 0
        self._executed_last: dict[str, tuple[Value, float]] = {}  # value, event time
        self._answered: dict[str, Answer] = {}

    def begin(self, frame: FrameFacts) -> None:
        """Take in the next frame."""
        self._frame = frame

    def choose(self, executed: Mapping[str, Value]) -> str | None:
        """Return the next model of the period's set, or of all models on profile frames."""
        return self._turns.next(executed, self._plan)

    def answer(self, executed: Mapping[str, Value]) -> dict[str, Answer]:
        """Predict by links from what was executed; repeat the last answer where no link can."""
        answers = {}
        for target in self._setup.specs:
            if target in executed:
                continue
            linked = self._linked(target, executed)
            if linked is not None:
                answers[target] = linked
            elif target in self._answered:
                answers[target] = self._answered[target]
        self._answered |= {m: Answer(a.value, "reused") for m, a in answers.items()}
        return answers

    def learn(self, executed: Mapping[str, Value], *, chosen: bool) -> None:
        """Keep what was executed; score links on frames that all models ran on, before anything else knows them."""
        if self._scorer is None:
            if not chosen:
                self._warm_up.add(self._frame, executed)
        elif len(executed) == len(self._setup.specs):
            self._scorer.observe(datetime.fromtimestamp(self._frame.time_s, UTC), executed, self._ensembles)
        for model, value in executed.items():
            self._executed_last[model] = (value, self._frame.time_s)
            self._answered[model] = Answer(value, "reused")

    def hold(self, times_s: Times) -> tuple[tuple[str, ...], int]:
        """Return the period's set, and for how long nothing else will be executed."""
        models, everything = self._execute, tuple(self._setup.specs)
        if self._scorer is None or self._choose_again or not models or self._latest_s() >= times_s[0]:
            return (), 0
        same_period = (times_s - self._start_s) // self._period_s == self._period
        frames = len(times_s) if same_period.all() else int(same_period.argmin())
        if self._to_profile and models != everything:
            price = sum(self._allowance.price(m) for m in everything)
            frames = int(min(frames, self._allowance.frames_until(price, models)))
        return models, self._allowance.frames_held(models, frames)

    def pass_block(self, times_s: Times, executed: Mapping[str, Array]) -> dict[str, BlockAnswer]:
        """Go through frames on which the period's set executed; the same as one by one."""
        self._allowance.spend_block(tuple(executed), len(times_s))
        self._period_frames += len(times_s)
        answers = {}
        for target in self._setup.specs:
            if target not in executed:
                answer = self._answer_block(target, times_s, executed)
                if answer is not None:
                    answers[target] = answer
                    self._answered[target] = Answer(answer.values[-1], "reused")
        for model, values in executed.items():
            self._executed_last[model] = (values[-1], float(times_s[-1]))
            self._answered[model] = Answer(values[-1], "reused")
        return answers

    def _answer_block(self, target: str, times_s: Times, executed: Mapping[str, Array]) -> BlockAnswer | None:
        ensemble, last = self._ensembles.get(target), self._executed_last.get(target)
        if ensemble is not None and any(s in executed for s in ensemble.links):
            recall = Recall(last[0], times_s - last[1]) if last else None
            values, confidence = ensemble.predict(executed, recall)
            return BlockAnswer(values, "linked", confidence)
        if target not in self._answered:
            return None
        return BlockAnswer(np.tile(self._answered[target].value, (len(times_s), 1)), "reused")

    def _latest_s(self) -> float:
        return max((time_s for _, time_s in self._executed_last.values()), default=-inf)

    def _plan(self) -> tuple[str, ...]:
        """Return what executes on this frame: the period's set, or all models on its profile frames."""
        scorer = self._scorer or self._start()
        self._enter_period()
        everything = tuple(self._setup.specs)
        if self._to_profile and self._execute != everything and self._allowance.affords_all(everything):
            self._to_profile -= 1
            self._newly_scored += 1
            fresh = self._newly_scored >= RECHOOSE_SHARE * scorer.frames()
            self._choose_again = self._to_profile == 0 and fresh
            return everything
        if self._choose_again:
            self._choose_again, self._newly_scored = False, 0
            self._execute = self._choose_models(scorer.scores(), self._setup.costs, self._setup.budget)
        return self._execute

    def _enter_period(self) -> None:
        """Ask for profile frames at the start of every period but the first, which the warm-up was for."""
        period = int((self._frame.time_s - self._start_s) // self._period_s)
        if period != self._period:
            if self._period >= 0:
                self._to_profile = ceil(PROFILE_SHARE * self._period_frames)
            self._period, self._period_frames = period, 0
        self._period_frames += 1

    def _start(self) -> LinkScorer:
        samples, specs = self._warm_up.samples(), self._setup.specs
        times_s, seed = self._warm_up.times_s(), self._setup.seed
        links = self._trainer.train(specs, samples, times_s, seed=seed, kind=self._kind)
        self._ensembles, self._scorer = links.ensembles, links.scorer(specs)
        self._warm_up.clear()
        self._start_s = self._frame.time_s
        return self._scorer

    def _linked(self, target: str, executed: Mapping[str, Value]) -> Answer | None:
        ensemble = self._ensembles.get(target)
        sources = tuple(s for s in ensemble.links if s in executed) if ensemble else ()
        if ensemble is None or not sources:
            return None
        last = self._executed_last.get(target)
        recall = Recall(last[0], self._frame.time_s - last[1]) if last and last[1] < self._frame.time_s else None
        value, confidence = ensemble.predict({s: executed[s] for s in sources}, recall)
        return Answer(value, "linked", float(confidence), sources)


def choose_by(policy: str) -> Choose:
    """Return the choice of ``mlink`` or ``mlink-exact`` (`select`), or the best single model where nothing fits."""

    def choose(scores: CameraScores, costs: Costs, budget: Budget) -> tuple[str, ...]:
        selection = select(policy, {"camera": scores}, costs, budget)
        if selection.execute["camera"]:
            return selection.execute["camera"]
        fitting = [m for m in budget.in_time(costs) if costs.memory_gb[m] <= budget.memory_limit()]
        if policy == "mlink":
            rank = selection.activation["camera"]
            return tuple(sorted(fitting, key=lambda m: (-rank[m], m))[:1])
        gain = {m: expected_agreement((m,), costs.models, scores.subset) / costs.time_ms[m] for m in fitting}
        return tuple(sorted(fitting, key=lambda m: (-gain[m], m))[:1])

    return choose


def always(models: tuple[str, ...]) -> Choose:
    """Return the choice that is always ``models``: how the oracle is played once hindsight has found it."""

    def choose(scores: CameraScores, costs: Costs, budget: Budget) -> tuple[str, ...]:
        return models

    return choose
