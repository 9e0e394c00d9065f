"""The graph between processes: the operators of `assembly`, each behind its pacing, built from a site's configuration.

Only the inference worker holds models. It publishes a card of each, and the others work from the cards: what outputs
look like, and what they cost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from camlink.models.base import OutputSpec
from camlink.models.pool import ModelPool
from camlink.operators.adaptation import AdaptationOperator
from camlink.operators.base import StateStore
from camlink.operators.gate import PER_FRAME_POLICIES
from camlink.operators.inference import InferenceOperator
from camlink.operators.linking import LinkingOperator
from camlink.operators.paced_inference import PacedInference
from camlink.operators.paced_learning import PacedAdaptation, PacedScheduler
from camlink.operators.paced_linking import PacedLinking
from camlink.operators.pacing import HOLD_S, PacedOperator
from camlink.operators.previews import Encode
from camlink.operators.sampling import FramePlanner
from camlink.operators.scheduler import SchedulerOperator
from camlink.operators.selection import Costs
from camlink.operators.throttle import Throttle
from camlink.pipeline.assembly import (
    CameraFacts,
    budget_of,
    costs_of,
    gate_of,
    learning_rules,
    link_inputs,
    relabel_policy,
    relabels,
    sampling_rules,
)
from camlink.pipeline.bus.base import Bus
from camlink.pipeline.clock import Clock, WallClock
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.errors import BusError
from camlink.pipeline.learnt_elsewhere import oracle_node, starting_links
from camlink.pipeline.records import ModelCard

Seconds = Callable[[], float]


@dataclass(frozen=True)
class ModelFacts:
    """What workers without models know of them."""

    specs: Mapping[str, OutputSpec]
    costs: Costs

    @classmethod
    def of_pool(cls, pool: ModelPool) -> ModelFacts:
        """Return the facts of models that are here."""
        return cls(pool.specs, costs_of(pool))

    @classmethod
    def of_cards(cls, cards: Sequence[ModelCard]) -> ModelFacts:
        """Return the facts that cards state, in the order of the worker that holds the models."""
        cards = sorted(cards, key=lambda card: card.position)
        specs = {
            c.model: OutputSpec(c.model, c.kind, c.size, c.task, c.labels, max_steps=c.max_steps, scale=c.scale)
            for c in cards
        }
        return cls(specs, Costs({c.model: c.time_ms for c in cards}, {c.model: c.memory_gb for c in cards}))

    def cards(self) -> list[ModelCard]:
        """Return a card of each model."""
        return [
            ModelCard(
                name,
                spec.kind,
                spec.size,
                spec.task,
                spec.labels,
                spec.max_steps,
                spec.scale,
                self.costs.time_ms[name],
                self.costs.memory_gb[name],
                position,
                len(self.specs),
            )
            for position, (name, spec) in enumerate(self.specs.items())
        ]


def is_in_step(config: SiteConfig, facts: ModelFacts) -> bool:
    """Say whether operators keep in step: not where models are loaded in turn, for then frames overtake each other."""
    return facts.costs.memory(facts.costs.models) <= budget_of(config).memory_limit() + 1e-9


def inference(
    config: SiteConfig,
    pool: ModelPool,
    cameras: Mapping[str, CameraFacts],
    state: StateStore,
    encode_picture: Encode | None = None,
    seconds: Seconds = time.monotonic,
    hold_s: float = HOLD_S,
    behind: Literal["block", "drop-oldest"] = "block",
    clock: Clock | None = None,
    recorded: bool = False,
    throttle: Throttle | None = None,
) -> PacedInference:
    """Return inference for one process with its own models; ``hold_s`` bounds what it waits for others.

    ``behind``: whether frames that it does not keep up with wait, or models run on each camera's newest, as for live
    ones; by ``clock``, this machine's where none is given, a latency limit then counts their waiting, unless they are
    ``recorded``: since when these were captured says nothing of how long they have waited.
    ``throttle``: what the machine has time for, where frames do not wait.
    """
    rules, unknown = sampling_rules(config), CameraFacts(fps=None)

    def planner(camera_id: str) -> FramePlanner:
        return FramePlanner(camera_id, rules, cameras.get(camera_id, unknown).fps)

    drops = behind == "drop-oldest"
    gate = gate_of(config, pool, (clock or WallClock()) if drops and not recorded else None)
    operator = InferenceOperator(pool, planner, state, encode_picture, gate, throttle)
    waits = not drops or config.policy not in PER_FRAME_POLICIES  # what these learn, they learn here
    in_step = waits and is_in_step(config, ModelFacts.of_pool(pool))
    return PacedInference(operator, seconds, in_step=in_step, hold_s=hold_s, drops_oldest=drops)


def without_models(
    step: str,
    config: SiteConfig,
    facts: ModelFacts,
    state: StateStore,
    clock: Clock,
    seconds: Seconds = time.monotonic,
    hold_s: float = HOLD_S,
) -> PacedOperator:
    """Return linking, adaptation or the scheduler for one process. Raises `ValueError` for another name."""
    in_step, specs = is_in_step(config, facts), facts.specs
    inputs = link_inputs(config, specs)
    if step == "linking":
        oracle = oracle_node(config, specs)
        operator = LinkingOperator(tuple(specs), state, clock, inputs, oracle, config.least_confidence)
        return PacedLinking(operator, seconds, in_step=in_step, relabels=relabels(config), hold_s=hold_s)
    if step == "adaptation":
        start = starting_links(config, specs)
        learns = learning_rules(config)
        learning = AdaptationOperator(specs, learns, relabel_policy(config, specs), inputs, start)
        return PacedAdaptation(learning, seconds, in_step=in_step, hold_s=hold_s)
    if step == "scheduler":
        rules = sampling_rules(config)
        scheduler = SchedulerOperator(
            specs, facts.costs, budget_of(config), rules, config.policy, config.target_of, inputs
        )
        return PacedScheduler(scheduler, seconds, in_step=in_step, hold_s=hold_s)
    raise ValueError(f'"{step}" is no step without models; there are linking, adaptation and scheduler')


def await_cards(bus: Bus, stop: Callable[[], bool], wait: Callable[[float], object] = time.sleep) -> ModelFacts:
    """Return the facts of the site's models, once an inference worker has told of all of them.

    Raises `BusError` when told to stop before.
    """
    while not stop():
        cards = [card for card in bus.read_all("models") if isinstance(card, ModelCard)]
        if cards:
            told = [card for card in cards if card.count == cards[-1].count]
            if len(told) == told[0].count:
                return ModelFacts.of_cards(told)
        wait(0.5)
    raise BusError("stopped before any inference worker had told of its models")
