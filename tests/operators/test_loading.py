"""What is loaded where not all models fit into memory, and how the others are answered from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from camlink.models.base import OutputSpec
from camlink.operators.loaded_set import CameraProspects, choose_loaded
from camlink.operators.loading import MOST_FRAMES, FullFrames
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import FrameFacts, PolicySetup
from camlink.operators.policy_state import pack, unpack
from camlink.operators.selection import Budget, Costs
from camlink.operators.worth import Outlook
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Value

WARM_UP, FRAMES = 60, 240


def outputs(models: int) -> dict[str, list[Value]]:
    """Return counts of which the last model's is what all others' follow from, and a first one on its own."""
    rng = np.random.default_rng(5)
    crowd, alone = rng.integers(0, 4, FRAMES), rng.integers(0, 4, FRAMES)
    said = {"alone": alone} | {f"m{i}": crowd + i % 3 for i in range(1, models)}
    return {name: [np.array([n], np.float32) for n in levels] for name, levels in said.items()}


def setup_of(said: dict[str, list[Value]], memory_gb: float, share: float | None = None) -> PolicySetup:
    specs = {name: OutputSpec(name, "vector", 1, "count") for name in said}
    costs = Costs({name: 10.0 + i for i, name in enumerate(said)}, dict.fromkeys(said, 1.0))
    return PolicySetup("hall", specs, costs, Budget(memory_gb, share))


def warmed(setup: PolicySetup, said: dict[str, list[Value]]) -> PerFrame:
    policy = PerFrame(setup)
    for i in range(WARM_UP):
        policy.begin(FrameFacts(i, float(i)))
        policy.learn({name: values[i] for name, values in said.items()}, chosen=False)
    return policy


def go_on(policy: PerFrame, said: dict[str, list[Value]], first: int = WARM_UP) -> tuple[list[list[str]], float]:
    """Return what executed on each frame from ``first`` on, and the agreement over all models."""
    ran, right = [], 0
    for i in range(first, FRAMES):
        policy.begin(FrameFacts(i, float(i)))
        executed: dict[str, Value] = {}
        while (model := policy.choose(executed)) is not None:
            executed[model] = said[model][i]
        served = {name: answer.value for name, answer in policy.answer(executed).items()} | executed
        right += sum(bool((served[name] == said[name][i]).all()) for name in said)
        policy.learn(executed, chosen=True)
        ran.append(list(executed))
    return ran, right / len(said) / (FRAMES - first)


@pytest.mark.parametrize("models", [6, 16], ids=["every set tried", "grown"])
@pytest.mark.parametrize("share", [None, 0.5])
def test_two_loaded_models_answer_for_all_that_follow_from_them(models: int, share: float | None) -> None:
    said = outputs(models)
    ran, agreement = go_on(warmed(setup_of(said, 2.0, share), said), said)
    assert "alone" in ran[-1], "nothing tells of it"
    assert len(set().union(*ran)) == 2, "what fits, and nothing else ever executes"
    assert agreement > 0.95


def test_what_takes_time_from_better_models_is_not_loaded() -> None:
    said = outputs(16)
    full = FullFrames(setup_of(said, 2.0).specs)
    for i in range(WARM_UP):
        full.add({name: values[i].astype(np.intp) for name, values in said.items()})
    costs = setup_of(said, 12.0).costs
    outlooks = {name: Outlook(0.75, 0.75, 0.99, 1.0, costs.time_ms[name]) for name in said}
    usual = dict.fromkeys(said, 0.25)
    budget = Budget(12.0, 0.2)
    camera = CameraProspects(full.telling().prospects(outlooks, usual), costs, budget)
    loaded = choose_loaded({"hall": camera}, costs, budget)
    assert "alone" in loaded
    assert costs.time(tuple(loaded)) <= 0.2 * costs.time(costs.models) < costs.time(tuple(said)[:12])


def test_what_each_model_tells_of_another() -> None:
    said = outputs(3)
    full = FullFrames(setup_of(said, 2.0).specs)
    for i in range(WARM_UP):
        full.add({name: values[i].astype(np.intp) for name, values in said.items()})
    telling = full.telling()
    assert telling.by["m1", "m2"] == 1.0 > telling.usually["m2"]
    assert telling.by["alone", "m2"] < 0.6
    assert telling.guides("m2", {"m1", "alone"})[0] == "m1"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s["unloaded"]["full"]["levels"].pop("m1"), "KeyError: 'm1'"),
        (lambda s: s["unloaded"]["full"]["levels"].update(m1=np.zeros((3, 2), np.intp)), "expected int64"),
        (lambda s: s["unloaded"].update(guides={"m2": ["cat"]}), r"guides that are no counts or labels: \['cat'\]"),
    ],
    ids=["a model is missing", "another shape", "a guide that is not there"],
)
def test_a_snapshot_with_wrong_frames_or_guides_is_refused(
    change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    said = outputs(4)
    state = unpack(warmed(setup_of(said, 2.0), said).snapshot())
    change(state)
    with pytest.raises(StateError, match=reason):
        PerFrame(setup_of(said, 2.0)).resume(pack(state))


@pytest.mark.parametrize("after", [WARM_UP, WARM_UP + 20], ids=["before the choice", "after it"])
def test_a_snapshot_goes_on_with_the_same_models_and_links(after: int) -> None:
    said = outputs(16)
    setup = setup_of(said, 2.0, 0.5)
    policy = warmed(setup, said)
    for i in range(WARM_UP, after):
        policy.begin(FrameFacts(i, float(i)))
        executed: dict[str, Value] = {}
        while (model := policy.choose(executed)) is not None:
            executed[model] = said[model][i]
        policy.learn(executed, chosen=True)
    resumed = PerFrame(setup)
    resumed.resume(policy.snapshot())
    assert go_on(resumed, said, after) == go_on(policy, said, after)


def test_frames_of_a_damaged_snapshot_are_refused() -> None:
    full = FullFrames(setup_of(outputs(3), 2.0).specs)
    full.add({name: np.array([2]) for name in ("alone", "m1", "m2")})
    state = unpack(pack(full.state()))
    state["levels"]["m1"][0, 0] = -5
    with pytest.raises(StateError, match="levels below zero"):
        full.resume(state)


@pytest.mark.parametrize(("frames", "usual"), [(40, 0.9), (80, 0.0)])
def test_what_is_usual_is_learnt_on_one_half_of_the_full_frames_and_tried_on_the_other(
    frames: int, usual: float
) -> None:
    full = FullFrames({"label": OutputSpec("label", "vector", 3, "single_label")})
    for i in range(frames):
        full.add({"label": np.array([2 * i // frames])})
    outlook = Outlook(0.1, 0.1, 0.99, 0.1, 10.0)
    prospects = full.telling().prospects({"label": outlook, "numbers": outlook}, {"label": 0.9, "numbers": 0.3})
    assert prospects["label"].usual == usual, "of too few frames halves tell nothing: the policy is believed"
    assert prospects["numbers"].usual == 0.3


def test_of_very_many_full_frames_fewer_are_kept_the_longer_ago_they_are() -> None:
    full = FullFrames({"count": OutputSpec("count", "vector", 1, "count")})
    for i in range(3000):
        full.add({"count": np.array([i])})
    kept = [int(frame["count"][0]) for frame in full]
    apart = np.diff(kept)
    assert 256 < len(kept) < MOST_FRAMES and kept[-1] == 2999
    assert (apart[:-1] >= apart[1:]).all() and apart[0] > 8 and apart[-1] == 1
