"""What a camera's policy has learnt from recorded frames, as a zoo keeps it (`camlink.operators.zoo`).

The frames are played to policies as a live camera would show them: once with every frame an audit frame, so that
freshness, usual values and links are learnt from all outputs, and at a few budgets, for how far stated confidence was
to be believed. Policies forget, a zoo should not: what they know is gathered every `CHUNK` frames, and averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from camlink.models.base import OutputSpec
from camlink.operators.freshness import most_probable, told
from camlink.operators.known_model import BACK
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import FrameFacts, PolicySetup
from camlink.operators.policy_state import unpack
from camlink.operators.selection import Budget, Costs
from camlink.operators.zoo import Array, Experience, ModelExperience, PairExperience, leveled
from camlink.pipeline.records import Detections, Value

CHUNK = 100  # frames, or a little less; as many as the samples of freshness reach back, where every model executes
WARM_UP = 25  # frames
SHARES = (1 / 6, 1 / 4, 1 / 2)  # of the time of executing everything, at which confidence is learnt
MOST_SAMPLES = 3000.0  # of freshness that count in full: neighbours are alike, and no camera should be beyond doubt
FIT_STEPS = 40
States = list[dict[str, Any]]


class Shown(NamedTuple):
    """A recorded frame: what is known beforehand, what all models said, and the boxes behind counts, where known."""

    facts: FrameFacts
    values: Mapping[str, Value]
    detections: Mapping[str, Detections] = MappingProxyType({})


def experience_of(camera_id: str, frames: Sequence[Shown], specs: Mapping[str, OutputSpec], costs: Costs) -> Experience:
    """Return what is learnt from ``frames``, oldest first, on each of which all models were executed; 4 ms a frame."""
    setup = PolicySetup(camera_id, specs, costs, Budget(time_share=SHARES[1]))
    states = list(_played(setup, frames, audited=True))
    chosen = [
        state
        for share in SHARES
        for state in _played(PolicySetup(camera_id, specs, costs, Budget(time_share=share)), frames, audited=False)
    ]
    shared = set(leveled(specs))
    newest = _chunk(len(frames)) * len(BACK)
    models = {name: _of_model(name, states, chosen, newest, has_levels=name in shared) for name in specs}
    links = states[-1]["links"]
    # A pair may have been asked while choosing, and never learnt from: of a whole frame few sources are heard.
    told = [(source, target) for source, target, tables in links["pairs"] if tables["level"].any()]
    learnt = [pair for pair in told if shared.issuperset(pair)]
    pairs = {pair: _of_pair(_parts(states, "pairs", *pair)) for pair in learnt}
    pools = {
        (target, *sources): _of_pool(_parts(states, "pools", target, *sources))
        for target, *sources, _ in links["pools"]
        if pairs.keys() >= {(source, target) for source in sources}
    }
    return Experience(camera_id, len(frames), models, pairs, pools)


def _played(setup: PolicySetup, frames: Sequence[Shown], *, audited: bool) -> Iterator[dict[str, Any]]:
    """Play ``frames``, all or only those that are chosen learnt from, and yield the policy's state now and then."""
    policy, chunk = PerFrame(setup), _chunk(len(frames))
    for number, (facts, values, detections) in enumerate(frames, start=1):
        policy.begin(facts)
        executed: dict[str, Value] = {}
        if number > WARM_UP:
            while (model := policy.choose(executed)) is not None:
                executed[model] = values[model]
            policy.answer(executed)
        everything = audited or number <= WARM_UP
        policy.found({m: boxes for m, boxes in detections.items() if everything or m in executed})
        policy.learn(values if everything else executed, chosen=not everything)
        if number % chunk == 0 or number == len(frames):
            yield unpack(policy.snapshot())


def _chunk(frames: int) -> int:
    """Return into pieces of how many frames, at most `CHUNK`, they part evenly."""
    return ceil(frames / ceil(frames / CHUNK))


def _of_model(name: str, states: States, chosen: States, newest: int, *, has_levels: bool) -> ModelExperience:
    """``newest``: samples of freshness that are new in each state."""
    known = [state["known"][name] for state in states]
    samples = np.concatenate([of["freshness"]["samples"][-newest:] for of in known])
    weights = samples[:, 6] * min(1.0, MOST_SAMPLES / max(len(samples), 1))
    theta, _, certainty = told(most_probable(samples, weights, FIT_STEPS), samples, weights)
    seen = known[-1]["belief"]["seen"]
    usual = seen["seen"][1] / seen["totals"][1] if has_levels else np.zeros((0, 0))
    recalibrations = [state["known"][name]["recalibration"] for state in chosen]
    mean = np.mean([[told["shift"], told["slope"]] for told in recalibrations], axis=0)
    return ModelExperience(theta, certainty, usual, mean)


def _of_pair(tables: Sequence[Mapping[str, Array]]) -> PairExperience:
    return PairExperience(*(_per_frame([of[name] for of in tables]) for name in ("level", "apart", "moved")))


def _per_frame(tables: Sequence[Array]) -> Array:
    """Return the sum of tables (entries, ...) that may have grown, scaled so that each entry sums to 1."""
    total = np.zeros(tables[-1].shape)
    for table in tables:
        total[tuple(slice(size) for size in table.shape)] += table
    return np.asarray(total / total[0].sum())


def _of_pool(told: Sequence[Mapping[str, Array]]) -> Array:
    """Return the mean weights of the later half, when they had been learnt."""
    return np.asarray(np.mean([of["weights"] for of in told[len(told) // 2 :]], axis=0))


def _parts(states: States, kind: str, *names: str) -> list[Mapping[str, Array]]:
    """Return what the states say of one pair or pool, from the first on that has it."""
    return [told for state in states for *of, told in state["links"][kind] if tuple(of) == names]
