"""From a site's configuration to a pipeline that is ready to run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from camlink.links.inputs import LinkInputs
from camlink.models.base import Model, OutputSpec
from camlink.models.pool import ModelPool
from camlink.operators.adaptation import AdaptationOperator, LearningRules
from camlink.operators.base import Operator, StateStore
from camlink.operators.baselines.periodic import Periodic
from camlink.operators.baselines.reducto import Reducto
from camlink.operators.gate import PER_FRAME_POLICIES, Gate
from camlink.operators.inference import InferenceOperator
from camlink.operators.linking import LinkingOperator
from camlink.operators.policy import FramePolicy, MakePolicy, PolicySetup
from camlink.operators.previews import Encode
from camlink.operators.relabelling import (
    NoRelabelling,
    PeriodicRelabelling,
    RelabelPolicy,
    UncertaintyRelabelling,
)
from camlink.operators.sampling import FramePlanner, SamplingRules
from camlink.operators.scheduler import SchedulerOperator
from camlink.operators.selection import Budget, Costs
from camlink.operators.throttle import Throttle
from camlink.pipeline.bus.memory import MemoryBus
from camlink.pipeline.clock import Clock, StreamClock
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.config.checks import WITH_LINKS, Found
from camlink.pipeline.embedded import EmbeddedPipeline, Sink
from camlink.pipeline.errors import ConfigError
from camlink.pipeline.learnt_elsewhere import oracle_node, policy_zoo, starting_links
from camlink.pipeline.state.memory import MemoryState


@dataclass(frozen=True)
class CameraFacts:
    """What the operators need to know of a camera before its first frame."""

    fps: float | None


def build_embedded(
    config: SiteConfig,
    pool: ModelPool,
    cameras: Mapping[str, CameraFacts],
    sink: Sink,
    *,
    encode_picture: Encode | None = None,
    tick: int = 1,
    live_clock: Clock | None = None,
    throttle: Throttle | None = None,
) -> EmbeddedPipeline:
    """Return the whole graph in one process, over memory.

    For live frames, ``live_clock``: that by which they are captured; ``throttle``: what the machine has time for.
    """
    clock = StreamClock()
    state = MemoryState(now_s=lambda: clock.now().timestamp())
    operators = build_operators(config, pool, cameras, state, encode_picture, live_clock, throttle)
    return EmbeddedPipeline(operators, MemoryBus(), sink, clock, tick)


def build_operators(
    config: SiteConfig,
    pool: ModelPool,
    cameras: Mapping[str, CameraFacts],
    state: StateStore,
    encode_picture: Encode | None = None,
    live_clock: Clock | None = None,
    throttle: Throttle | None = None,
) -> dict[str, Operator]:
    """Return the operators of the graph by the names of its steps."""
    rules = sampling_rules(config)
    unknown = CameraFacts(fps=None)
    inputs = link_inputs(config, pool.specs)

    def planner(camera_id: str) -> FramePlanner:
        return FramePlanner(camera_id, rules, cameras.get(camera_id, unknown).fps)

    return {
        "inference": InferenceOperator(
            pool, planner, state, encode_picture, gate_of(config, pool, live_clock), throttle
        ),
        "linking": LinkingOperator(
            tuple(pool.specs),
            state,
            inputs=inputs,
            oracle=oracle_node(config, pool.specs),
            least_confidence=config.least_confidence,
        ),
        "adaptation": AdaptationOperator(
            pool.specs,
            learning_rules(config),
            relabel_policy(config, pool.specs),
            inputs,
            starting_links(config, pool.specs),
        ),
        "scheduler": SchedulerOperator(
            pool.specs, costs_of(pool), budget_of(config), rules, config.policy, config.target_of, inputs
        ),
    }


def gate_of(config: SiteConfig, pool: ModelPool, live_clock: Clock | None = None) -> Gate | None:
    """Return the policies that decide on every frame, or None where the decisions of a period say it all.

    ``live_clock``: that by which live frames are captured; None for recorded ones, on which waiting counts for nothing.
    """
    if config.policy not in PER_FRAME_POLICIES:
        return None
    costs, budget, specs = costs_of(pool), budget_of(config), pool.specs
    policy, zoo = _per_frame(config.policy), policy_zoo(config, specs)

    def make(camera_id: str) -> FramePolicy:
        setup = PolicySetup(
            camera_id, specs, costs, budget, config.seed, targets=targets_of(config, camera_id, specs), zoo=zoo
        )
        return policy(setup)

    return Gate(make, latency_ms=budget.latency_ms, clock=live_clock)


def throttle_of(config: SiteConfig, pool: ModelPool, seconds: Callable[[], float] = time.monotonic) -> Throttle | None:
    """Return what finds out how much of executing everything this machine has time for, where that is minded."""
    costs = costs_of(pool)
    if config.policy != "camlink" or not costs.time(costs.models):
        return None
    return Throttle(costs.time_ms, lambda: sum(pool.busy_ms.values()), seconds, config.budgets.time_share)


def _per_frame(name: str) -> MakePolicy:
    """Return one of the policies that decide on every frame, ready for the first.

    That of camlink brings a compiler with it, of 60 MB, which no worker but inference should have to load.
    """
    if name != "camlink":
        return Reducto if name == "reducto" else Periodic
    from camlink.operators.per_frame import PerFrame
    from camlink.operators.warm_up import warm_up

    warm_up()
    return PerFrame


def targets_of(config: SiteConfig, camera_id: str, models: Iterable[str]) -> dict[str, float]:
    """Return the targets that a policy is to meet at the least cost: those of a site without a time budget."""
    if config.budgets.time_share is not None:
        return {}
    return {model: target for model in models if (target := config.target_of(camera_id, model)) is not None}


def sampling_rules(config: SiteConfig) -> SamplingRules:
    """Return which frames are profiled and audited. Links cannot be judged, nor are they needed, for one model."""
    fraction, least = config.profile_frames
    return SamplingRules(
        period=config.period,
        profile_fraction=fraction,
        profile_min_frames=least,
        audit_fraction=config.audit.fraction,
        audit_spend=config.audit.spend,
        bootstrap_frames=config.links.bootstrap_frames,
        seed=config.seed,
    )


def learning_rules(config: SiteConfig) -> LearningRules:
    """Return when links are trained and how long they are watched."""
    return LearningRules(
        first_train_frames=max(config.links.min_train_frames, config.links.bootstrap_frames),
        retrain_after_frames=config.adaptation.retrain_after_frames,
        shadow_frames=config.adaptation.shadow_frames,
        history_frames=max(config.links.history_frames, config.links.bootstrap_frames),
        seed=config.seed,
        kind=config.links.kind,
        trains=config.policy in WITH_LINKS,
    )


def link_inputs(config: SiteConfig, specs: Mapping[str, OutputSpec]) -> LinkInputs:
    """Return what links read of a frame."""
    return LinkInputs(specs, boxes=config.links.kind == "set", context=config.links.context)


def relabels(config: SiteConfig) -> bool:
    """Say whether models are run on extra frames for links to learn from: where answers come from these links."""
    return config.adaptation.policy != "off" and config.policy in WITH_LINKS


def relabel_policy(config: SiteConfig, specs: Mapping[str, OutputSpec]) -> Callable[[], RelabelPolicy]:
    """Return a factory of one camera's relabel policy."""
    rules = config.adaptation
    if not relabels(config):
        return NoRelabelling
    if rules.policy == "periodic":
        return lambda: PeriodicRelabelling(rules.interval, rules.frames)
    return lambda: UncertaintyRelabelling(specs, rules.label_fraction, 1.0 - rules.confidence_threshold)


def pool_of(config: SiteConfig, models: Iterable[Model]) -> ModelPool:
    """Return the models under the site's memory budget. Raises `ConfigError` where that is too small for them."""
    kept = list(models)
    memory_gb = {model.spec.model: model.memory_gb for model in kept}
    if faults := list(_memory_faults(config, Costs(dict.fromkeys(memory_gb, 0.0), memory_gb))):
        raise ConfigError([config.problem_at(path, message) for path, message in faults])
    return ModelPool(kept, config.budgets.memory_gb)


def check_budgets(config: SiteConfig, pool: ModelPool) -> None:
    """Raise `ConfigError` where the budgets leave nothing that could be executed, before anything is run."""
    faults = list(budget_faults(config, costs_of(pool)))
    if faults:
        raise ConfigError([config.problem_at(path, message) for path, message in faults])


def budget_faults(config: SiteConfig, costs: Costs) -> Iterator[Found]:
    """Yield by key where the budgets leave nothing that could be executed with models of these costs."""
    budget, total_ms = budget_of(config), costs.time(costs.models)
    cheapest, allowed_ms = min(costs.models, key=lambda m: costs.time_ms[m]), budget.long_run_ms(costs)
    # what decides on every frame saves up for a model
    kept = len(costs.models) == 1 or config.policy == "all" or config.policy in PER_FRAME_POLICIES
    if not kept and costs.time_ms[cheapest] > allowed_ms:
        share = costs.time_ms[cheapest] / total_ms
        yield (
            ("budgets", "time_share"),
            f"{budget.time_share:.2f} allows {allowed_ms:.1f} ms a frame, but the cheapest model, "
            f"{cheapest}, takes {costs.time_ms[cheapest]:.1f} of {total_ms:.1f} ms; give at least "
            f"{share + 0.005:.2f}, or more models to share the time with",
        )
    yield from _latency_faults(config.policy, cheapest, costs, budget)
    yield from _memory_faults(config, costs)


def _memory_faults(config: SiteConfig, costs: Costs) -> Iterator[Found]:
    budget, needed = budget_of(config), costs.memory(costs.models)
    largest = max(costs.models, key=lambda m: costs.memory_gb[m])
    if costs.memory_gb[largest] > budget.memory_limit():
        message = f"the largest model, {largest}, takes {costs.memory_gb[largest]:.3g} GB by itself"
        yield (
            ("budgets", "memory_gb"),
            f"{message}, but {budget.memory_gb} is allowed; raise it, or leave the model out",
        )
    elif config.policy in ("all", "reducto", "periodic") and needed > budget.memory_limit():
        message = f"policy {config.policy} holds all models at once, {needed:.2f} GB"
        yield ("budgets", "memory_gb"), f"{message}, but {budget.memory_gb} is allowed; raise it, or change the policy"


def _latency_faults(policy: str, cheapest: str, costs: Costs, budget: Budget) -> Iterator[Found]:
    limit, least_ms, key = budget.latency_limit(), costs.time_ms[cheapest], ("budgets", "latency_ms")
    total_ms = costs.time(costs.models)
    if policy == "all" and total_ms > limit:
        message = f"policy all executes all models on every frame, {total_ms:.1f} ms, but {limit:g} ms is allowed"
        yield key, f"{message}; raise it, or change the policy"
    elif least_ms > limit:
        message = f"{limit:g} ms leaves no model time: the cheapest, {cheapest}, takes {least_ms:.1f} ms a frame"
        yield key, f"{message}; give more than that, and some for what a frame waits"


def costs_of(pool: ModelPool) -> Costs:
    """Return the models' costs, as measured or as the configuration states them."""
    return Costs({m: pool.time_ms(m) for m in pool.specs}, {m: pool.memory_gb(m) for m in pool.specs})


def budget_of(config: SiteConfig) -> Budget:
    """Return the site's budgets."""
    return Budget(config.budgets.memory_gb, config.budgets.time_share, config.budgets.latency_ms)
