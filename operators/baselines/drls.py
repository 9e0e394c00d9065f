"""`drls`: a deep-Q agent picks the next model of a frame from what was executed on it; the others repeat themselves.

After Yuan et al., "Comprehensive and efficient data labeling via adaptive model scheduling" (ICDE 2020), the MLink
paper's third baseline. The state is the outputs executed on this frame (zeros for the rest) and which those are, an
action is the next model, its reward the value that executing it adds. Their value is the confidence of new labels;
here, where models that do not execute repeat their last value, it is the agreement that this would have lacked. The
agent learns by Q-learning with replay and a target network on the warm-up, all of whose outputs are known. Of the
models that can be paid it executes the one with the highest Q per ms, until none can be: the paper's greedy algorithm,
with what earlier frames left of the budget in the place of a deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camlink.links.stack import RmsProp, Stack
from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.operators.allowance import Allowance
from camlink.operators.baselines.repeating import LastValues
from camlink.operators.baselines.warmup import Array, WarmUp
from camlink.operators.policy import Answer, FrameFacts, PolicySetup
from camlink.operators.selection import greedy
from camlink.pipeline.records import Value

HIDDEN = 32
STEPS, BATCH, RATE = 1500, 64, 0.003
DISCOUNT = 0.9
TARGET_EVERY = 50  # steps after which the target network follows
TAUGHT_BY = 2000  # newest frames of the warm-up


@dataclass(frozen=True, eq=False)
class Encoder:
    """Executed outputs as one state: each entry standardised on the warm-up, then which models those are."""

    specs: Mapping[str, OutputSpec]
    mean: Mapping[str, Array]
    std: Mapping[str, Array]

    @classmethod
    def of(cls, specs: Mapping[str, OutputSpec], samples: Mapping[str, Array]) -> Encoder:
        """Learn the scaling from warm-up samples, model -> (n, size)."""
        std = {m: np.where(v.std(axis=0) > 1e-6, v.std(axis=0), 1.0).astype(np.float32) for m, v in samples.items()}
        return cls(specs, {m: v.mean(axis=0) for m, v in samples.items()}, std)

    def parts(self, samples: Mapping[str, Array]) -> list[Array]:
        """Return each model's entries scaled: (n, size) each."""
        return [np.asarray((samples[m] - self.mean[m]) / self.std[m], np.float32) for m in self.specs]

    def state(self, parts: list[Array], executed: NDArray[np.bool_]) -> Array:
        """Return states (n, width) from scaled entries and a mask (n, models) of what was executed."""
        shown = [part * executed[:, [i]] for i, part in enumerate(parts)]
        return np.concatenate([*shown, executed.astype(np.float32)], axis=1)

    def one(self, executed: Mapping[str, Value]) -> Array:
        """Return the state (1, width) of one frame."""
        shown, mask = [], []
        for m, mean in self.mean.items():
            there = m in executed
            value = _fitted(executed[m], len(mean)) if there else mean
            shown.append((value - mean) / self.std[m])
            mask.append(float(there))
        return np.concatenate([*shown, np.array(mask, np.float32)])[None].astype(np.float32)


def _fitted(value: Value, width: int) -> Value:
    """Cut or pad a sequence to the width that the warm-up had."""
    return value if len(value) == width else np.resize(np.pad(value, (0, max(0, width - len(value)))), width)


@dataclass(frozen=True, eq=False)
class Agent:
    """The learnt network: Q of every model (n, models) from states (n, width)."""

    encoder: Encoder
    parameters: tuple[Array, Array, Array, Array]

    def q(self, state: Array) -> Array:
        """Return the value of executing each model next."""
        w1, b1, w2, b2 = self.parameters
        return np.asarray(np.maximum(state @ w1 + b1, 0.0) @ w2 + b2, np.float32)


class Drls:
    """One camera's agent."""

    def __init__(self, setup: PolicySetup) -> None:
        self._setup = setup
        self._models = tuple(setup.specs)
        self._allowance = Allowance(setup.costs, setup.budget, setup.load_ms)
        self._warm_up = WarmUp(self._models)
        self._last = LastValues()
        self._frame = FrameFacts(-1, 0.0)
        self._agent: Agent | None = None
        self._allowed: NDArray[np.bool_] = np.ones(len(self._models), np.bool_)
        self._time_ms = np.array([setup.costs.time_ms[m] for m in self._models])

    def begin(self, frame: FrameFacts) -> None:
        """Take in the next frame."""
        self._frame = frame

    def choose(self, executed: Mapping[str, Value]) -> str | None:
        """Return the model with the highest Q per ms among those that can be paid; None where none can."""
        agent = self._agent or self._learn_agent()
        if not executed:
            self._allowance.next_frame()
        affords = self._allowance.affords
        open_to = self._allowed & np.array([m not in executed and affords(m) for m in self._models])
        if not open_to.any():
            return None
        worth = np.where(open_to, agent.q(agent.encoder.one(executed))[0] / self._time_ms, -np.inf)
        model = self._models[int(worth.argmax())]
        self._allowance.spend(model)
        return model

    def answer(self, executed: Mapping[str, Value]) -> dict[str, Answer]:
        """Repeat the last executed values."""
        return self._last.answer(executed)

    def learn(self, executed: Mapping[str, Value], *, chosen: bool) -> None:
        """Keep what was executed."""
        self._last.update(executed)
        if self._agent is None and not chosen:
            self._warm_up.add(self._frame, executed)

    def _learn_agent(self) -> Agent:
        setup = self._setup
        samples = {m: v[-TAUGHT_BY:] for m, v in self._warm_up.samples().items()}
        encoder = Encoder.of(setup.specs, samples)
        lacking = missing_agreement(setup.specs, samples, reuse_age(setup))
        self._agent = train(encoder, encoder.parts(samples), lacking, setup.seed)
        self._allowed = np.array([m in loadable(setup) for m in self._models])
        self._warm_up.clear()
        return self._agent


def reuse_age(setup: PolicySetup) -> int:
    """Return how old a repeated value typically is under the budget, in frames."""
    share = setup.budget.latency_limit() / setup.costs.time(setup.costs.models)
    return max(1, round(0.5 / min(setup.budget.time_share or 1.0, share)))


def loadable(setup: PolicySetup) -> tuple[str, ...]:
    """Return the models that are kept in memory: as many as fit, the cheapest in time first."""
    cheap = {m: -setup.costs.time_ms[m] for m in setup.costs.models}
    return greedy(cheap, setup.costs.memory_gb, setup.budget.memory_limit())


def missing_agreement(specs: Mapping[str, OutputSpec], samples: Mapping[str, Array], age: int) -> NDArray[np.float64]:
    """Return the reward of executing each model on each frame (n, models): 1 minus the agreement of an old value."""
    columns = []
    for m, spec in specs.items():
        old = samples[m][np.maximum(np.arange(len(samples[m])) - age, 0)]
        columns.append(1.0 - agreement(spec, old, samples[m]))
    return np.stack(columns, axis=1).astype(np.float64)


def train(encoder: Encoder, parts: list[Array], reward: NDArray[np.float64], seed: int) -> Agent:
    """Learn Q by replaying random states of the warm-up; ``parts`` and ``reward`` as `Encoder` and above give them."""
    rng = np.random.default_rng(seed)
    frames, models = reward.shape
    width = sum(part.shape[1] for part in parts) + models
    bounds = [np.sqrt(6.0 / (width + HIDDEN)), np.sqrt(6.0 / (HIDDEN + models))]
    first = rng.uniform(-bounds[0], bounds[0], (width, HIDDEN)).astype(np.float32)
    stack = Stack([first], [rng.uniform(-bounds[1], bounds[1], (HIDDEN, models)).astype(np.float32)])
    optimizer, target = RmsProp(stack.flat), _agent(encoder, stack)
    for step in range(STEPS):
        if step % TARGET_EVERY == 0:
            target = _agent(encoder, stack)
        rows = rng.integers(frames, size=BATCH)
        executed = rng.random((BATCH, models)) < rng.random((BATCH, 1))
        action = rng.integers(models, size=BATCH)
        executed[np.arange(BATCH), action] = False
        scaled = [part[rows] for part in parts]
        state = encoder.state(scaled, executed)
        wanted = reward[rows, action] + DISCOUNT * _best_next(target, encoder, scaled, executed, action)
        inner, q = stack.forward(state[None])
        slope = np.zeros_like(q)
        taken = q[0, np.arange(BATCH), action]
        slope[0, np.arange(BATCH), action] = np.clip(taken - wanted, -1.0, 1.0) / BATCH  # Huber
        optimizer.step(stack.backward(state[None], inner, slope), RATE * (1.0 - step / STEPS))
    return _agent(encoder, stack)


def _agent(encoder: Encoder, stack: Stack) -> Agent:
    w1, b1, w2, b2 = (p[0].copy() for p in stack.parameters)
    return Agent(encoder, (w1, b1, w2, b2))


def _best_next(
    target: Agent, encoder: Encoder, scaled: list[Array], executed: NDArray[np.bool_], action: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the value of the best model after the action, or 0 for stopping: (batch,)."""
    after = executed.copy()
    after[np.arange(len(action)), action] = True
    q = target.q(encoder.state(scaled, after)).astype(np.float64)
    return np.asarray(np.maximum(np.where(after, 0.0, q).max(axis=1), 0.0))
