"""A federation as two operators: the coordinator broadcasts rounds, each site answers them (MLink extended, Sec. 4.3).

A round ends when every site that is expected has answered, or at its deadline with those that have; a site that was
silent for `SILENT` rounds is not waited for until it answers again. Whatever does not fit is refused, with its
sender's name, and changes nothing. Both are restarted by being told the same again: rounds are numbered, an answer
counts once, and a site's answer to a round depends on nothing but its frames and that round.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zlib import crc32

import numpy as np

from camlink.links.base import Array
from camlink.links.ensemble import Ensemble
from camlink.links.federation import Answer, Plan, Server, SiteLearner, implausible
from camlink.models.base import OutputSpec
from camlink.operators.base import Operator
from camlink.pipeline.clock import Clock
from camlink.pipeline.errors import LinkError
from camlink.pipeline.records import FederationRound, FederationUpdate, ModelCard, Record

logger = logging.getLogger(__name__)

SILENT = 3  # rounds
MOST_SAMPLES = 100_000_000  # more than a site could ever have: a weight that would drown all others
NO_GRADIENT, NO_SUMS = np.zeros(0, np.float32), np.zeros(0)
Refusal = tuple[Record, str]


@dataclass(frozen=True)
class RoundRules:
    """When a round ends. ``sites``: those expected from the start, and the only ones heard; empty: whoever answers."""

    deadline: timedelta = timedelta(seconds=10)
    min_sites: int = 1
    sites: tuple[str, ...] = ()


class CoordinatorOperator(Operator):
    """Updates in, rounds out. ``counts``: rounds, answers, late and refused ones, and waits beyond a deadline."""

    def __init__(self, name: str, run: str, server: Server, rules: RoundRules, clock: Clock) -> None:
        self.server = server
        self.counts: Counter[str] = Counter()
        self.run = run
        self._name, self._rules, self._clock = name, rules, clock
        self._answers: dict[str, Answer] = {}
        self._silent: dict[str, int] = dict.fromkeys(rules.sites, 0)
        self._deadline: datetime | None = None
        self._begun = False
        self._refused: list[Refusal] = []

    @property
    def is_done(self) -> bool:
        """Whether the result has been broadcast."""
        return self._begun and self.server.phase == "done"

    def on_records(self, records: Sequence[Record]) -> Iterable[Record]:
        for record in records:
            if isinstance(record, FederationUpdate) and record.federation != self._name:
                continue  # another coordinator's, on the same topic
            why = self._fault(record)
            if why is not None:
                self._refuse(record, why)
            elif isinstance(record, FederationUpdate) and not self._is_awaited(record):
                self.counts["late"] += 1
            elif isinstance(record, FederationUpdate):
                self._answers[record.site] = _answer_of(record)
                self._silent[record.site] = 0
                self.counts["answers"] += 1
        if self._begun and not self.is_done and self._is_complete():
            yield self._close()

    def on_time(self, now: datetime) -> Iterable[Record]:
        if not self._begun:
            self._begun = True
            yield self._round()
        elif self._deadline is not None and now >= self._deadline and not self.is_done:
            if len(self._answers) >= self._rules.min_sites:
                yield self._close()
                return
            self.counts["waits"] += 1
            names = ", ".join(self._answers) or "nobody"
            logger.warning(
                'federation "%s": round %d: %s answered, %d sites are needed; asking again',
                *(self._name, self.server.number, names, self._rules.min_sites),
            )
            yield self._round()

    def next_time(self) -> datetime | None:
        return self._deadline if self._begun else self._clock.now()

    def refused(self) -> list[Refusal]:
        """Return records that were refused since the last call, and why."""
        refused, self._refused = self._refused, []
        return refused

    def _fault(self, record: Record) -> str | None:
        """Say why a record cannot be an update of this federation; None if it can. Raises nothing."""
        if not isinstance(record, FederationUpdate):
            return f"{type(record).__name__} where updates of sites belong"
        who = f'site "{record.site}"'
        if self._rules.sites and record.site not in self._rules.sites:
            return f"{who} is not one of {', '.join(self._rules.sites)}"
        if not 0 < record.samples <= MOST_SAMPLES:
            return f"{who} says that it has {record.samples} samples"
        if not np.isfinite(record.gradient).all() or not np.isfinite(record.sums).all():
            return f"{who} sends numbers that are not finite"
        return self._fault_of_size(record, who) if self._is_awaited(record) else None

    def _fault_of_size(self, update: FederationUpdate, who: str) -> str | None:
        phase = self.server.phase
        wanted = self.server.plan.width(phase)
        shape, other = update.sums.shape, update.gradient.shape
        if phase == "gradients":
            shape, other = other, shape
        if shape == (wanted,) and other == (0,):
            why = implausible(phase, _answer_of(update))
            return None if why is None else f"{who} sends {why}"
        return f"{who} sends arrays {update.gradient.shape} and {update.sums.shape}; {phase} are {wanted} numbers"

    def _is_awaited(self, update: FederationUpdate) -> bool:
        return (update.run, update.number) == (self.run, self.server.number) and self.server.phase != "done"

    def _refuse(self, record: Record, why: str) -> None:
        self.counts["refused"] += 1
        logger.error('federation "%s": refused: %s', self._name, why)
        self._refused.append((record, why))

    def _is_complete(self) -> bool:
        """Whether all that can be expected have answered. Who will come is not known in the first round."""
        if len(self._answers) < self._rules.min_sites or (self.server.number == 0 and not self._rules.sites):
            return False
        return all(site in self._answers for site, silent in self._silent.items() if silent < SILENT)

    def _close(self) -> Record:
        for site in self._silent:
            self._silent[site] += site not in self._answers
        self.server.advance([self._answers[site] for site in sorted(self._answers)])
        self._answers = {}
        self.counts["rounds"] += 1
        return self._round()

    def _round(self) -> Record:
        server, plan, now = self.server, self.server.plan, self._clock.now()
        self._deadline = None if server.phase == "done" else now + self._rules.deadline
        return FederationRound(
            *(self._name, self.run, server.number, server.phase, now),
            tuple(_card(spec, i, len(plan.specs)) for i, spec in enumerate(plan.specs.values())),
            *(plan.targets, plan.seed, plan.rounds, plan.batch),
            server.parameters.copy(),
            server.pooled,
            {target: ensemble.to_bytes() for target, ensemble in server.ensembles.items()},
        )


class SiteOperator(Operator):
    """Rounds in, updates out: holds one site's outputs, and lets none of them out. ``result`` comes with the end."""

    def __init__(self, site: str, federation: str, specs: Mapping[str, OutputSpec], samples: Mapping[str, Array]):
        """``samples``: model -> (n, size), oldest first."""
        self.result: dict[str, Ensemble] | None = None
        self.learner: SiteLearner | None = None
        self._site, self._federation, self._specs, self.samples = site, federation, dict(specs), samples
        self._refused: list[Refusal] = []

    @property
    def is_done(self) -> bool:
        """Whether the coordinator has sent its result."""
        return self.result is not None

    def on_records(self, records: Sequence[Record]) -> Iterable[Record]:
        rounds = [r for r in records if isinstance(r, FederationRound) and r.federation == self._federation]
        if not rounds:
            return
        latest = rounds[-1]  # what was asked before is out of date
        try:
            answer = self._answer(latest)
        except LinkError as error:
            logger.error('federation "%s": round %d refused: %s', latest.federation, latest.number, error)
            self._refused.append((latest, f'site "{self._site}": {error}'))
            return
        if answer is not None:
            gradients = latest.phase == "gradients"
            yield FederationUpdate(
                *(latest.federation, latest.run, latest.number, self._site, latest.at, answer.samples),
                gradient=answer.numbers.astype(np.float32) if gradients else NO_GRADIENT,
                sums=NO_SUMS if gradients else answer.numbers.astype(np.float64),
            )

    def refused(self) -> list[Refusal]:
        """Return rounds that were refused since the last call, and why."""
        refused, self._refused = self._refused, []
        return refused

    def _answer(self, asked: FederationRound) -> Answer | None:
        learner = self._learner(_plan_of(asked))
        if not np.isfinite(asked.parameters).all() or not np.isfinite(asked.pooled).all():
            raise LinkError("the coordinator sends numbers that are not finite")
        if asked.phase == "moments":
            return learner.moments()
        if asked.phase in ("gradients", "losses"):
            _check_sizes(asked, learner.plan)
        if asked.phase == "gradients":
            rng = np.random.default_rng([asked.seed, asked.number, crc32(self._site.encode())])
            return learner.gradients(asked.parameters, asked.pooled, rng)
        if asked.phase == "losses":
            return learner.losses(asked.parameters, asked.pooled)
        ensembles = {target: Ensemble.from_bytes(payload) for target, payload in asked.payloads.items()}
        ours = {t: {s for s in self._specs if (s, t) in learner.plan.pairs} for t in asked.targets}
        if {t: set(e.links) for t, e in ensembles.items()} != ours:
            raise LinkError(f"the coordinator sends links to {', '.join(ensembles) or 'nothing'}, not from all to all")
        if asked.phase == "errors":
            return learner.errors(ensembles)
        self.result = ensembles
        return None

    def _learner(self, plan: Plan) -> SiteLearner:
        if self.learner is None or plan != self.learner.plan:
            theirs = {name: spec for name, spec in plan.specs.items() if self._specs.get(name) != spec}
            if theirs:
                ours = [self._specs.get(name, f"no {name}") for name in theirs]
                raise LinkError(f"the coordinator's models differ from those here: {list(theirs.values())}, not {ours}")
            self.learner = SiteLearner(plan, self.samples)
        return self.learner


def _check_sizes(asked: FederationRound, plan: Plan) -> None:
    wanted = plan.parameters, plan.width("moments")
    if (asked.parameters.shape, asked.pooled.shape) != ((wanted[0],), (wanted[1],)) or asked.pooled[0] < 1:
        got = asked.parameters.shape, asked.pooled.shape
        raise LinkError(f"the coordinator sends arrays {got}; parameters and moments are {wanted} numbers")


def _answer_of(update: FederationUpdate) -> Answer:
    return Answer(update.samples, update.gradient if update.gradient.size else update.sums)


def _card(spec: OutputSpec, position: int, count: int) -> ModelCard:
    fields = (spec.model, spec.kind, spec.size, spec.task, spec.labels, spec.max_steps, spec.scale)
    return ModelCard(*fields, time_ms=0.0, memory_gb=0.0, position=position, count=count)


def _plan_of(asked: FederationRound) -> Plan:
    try:
        specs = {
            c.model: OutputSpec(c.model, c.kind, c.size, c.task, c.labels, c.max_steps, c.scale) for c in asked.models
        }
    except ValueError as error:
        raise LinkError(f"the coordinator's models are not well formed: {error}") from error
    return Plan(specs, asked.targets, asked.seed, asked.rounds, asked.batch)
