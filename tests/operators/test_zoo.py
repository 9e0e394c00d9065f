"""A new camera starts from a zoo as far as that is alike, and goes on from its snapshot as if nothing had happened."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from camlink.models.base import OutputSpec
from camlink.models.trace_arrays import CameraTrace
from camlink.operators.experience import experience_of
from camlink.operators.freshness import PRIOR, SPREAD, Freshness, Passed, half_life
from camlink.operators.newcomer import UNSURE, Newcomer
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import FrameFacts, PolicySetup
from camlink.operators.policy_state import pack, unpack
from camlink.operators.selection import Budget, Costs
from camlink.operators.zoo import Array, Zoo
from camlink.pipeline.errors import StateError
from camlink.pipeline.lab.zoo import shown
from tests.lab_traces import random_trace
from tests.operators.test_policy_state import go_on

SPECS = {m: OutputSpec(m, "vector", 1, "count") for m in ("near", "far")} | {
    "level": OutputSpec("level", "vector", 1, "regression", scale=4.0)
}
COSTS = Costs(dict.fromkeys(SPECS, 10.0), dict.fromkeys(SPECS, 1.0))


def camera(seed: int, frames: int, stay: float) -> CameraTrace:
    """A scene whose number of people changes with a chance of 1 - ``stay`` per frame; three models count them."""
    rng = np.random.default_rng(seed)
    people = np.zeros(frames)
    for i in range(1, frames):
        people[i] = people[i - 1] if rng.random() < stay else rng.integers(0, 4)
    values = {m: people.astype(np.float32)[:, None] for m in SPECS}
    return CameraTrace(f"cam-{seed}", SPECS, np.arange(frames), 1e9 + np.arange(frames), {}, values)


@cache
def zoo_of(*stays: float, frames: int = 200) -> Zoo:
    """Cameras whose scenes stay as they are that likely."""
    taught = [camera(i, frames, stay) for i, stay in enumerate(stays)]
    return Zoo(SPECS, tuple(experience_of(c.camera_id, shown(c), SPECS, COSTS) for c in taught))


def setup_of(zoo: Zoo | None, share: float = 0.25) -> PolicySetup:
    return PolicySetup("new", SPECS, COSTS, Budget(time_share=share), zoo=zoo)


def test_experience_tells_apart_a_scene_that_changes_slowly_from_one_that_changes_fast() -> None:
    slow, fast = zoo_of(0.98, 0.7).cameras
    for model in ("near", "far"):
        assert half_life(slow.models[model].freshness) > 4 * half_life(fast.models[model].freshness)
        assert slow.models[model].usual.sum() == pytest.approx(1.0)
    assert slow.pairs.keys() == {("near", "far"), ("far", "near")} and not slow.models["level"].usual.size
    level = slow.pairs["near", "far"].level[0]
    assert np.trace(level) == pytest.approx(level.sum()) == pytest.approx(1.0)  # they always say the same


def test_of_many_models_only_pairs_are_kept_that_something_was_learnt_of() -> None:
    made = random_trace(3, 60, 4)
    (seen,) = made.cameras
    costs = Costs({m: e.time_ms for m, e in made.models.items()}, {m: e.memory_gb for m, e in made.models.items()})
    learnt = experience_of("cam", shown(seen), seen.specs, costs)
    for pair in learnt.pairs.values():
        for table in vars(pair).values():
            np.testing.assert_allclose(table.reshape(len(table), -1).sum(axis=1), 1.0)
    assert learnt.pairs.keys() >= {(s, t) for t, *sources in learnt.pools for s in sources}
    zoo = Zoo(seen.specs, (learnt,))
    assert Zoo.from_bytes(zoo.to_bytes()).to_bytes() == zoo.to_bytes()


def test_a_zoo_is_read_back_as_it_was_written_and_anything_else_is_refused() -> None:
    zoo = zoo_of(0.98, 0.7)
    read = Zoo.from_bytes(zoo.to_bytes())
    assert read.specs == zoo.specs and read.to_bytes() == zoo.to_bytes()
    policy = PerFrame(setup_of(None))
    for wrong in (b"", b"no zoo", zoo.to_bytes()[:-1], policy.snapshot(), Zoo(SPECS, ()).to_bytes()):
        with pytest.raises(StateError):
            Zoo.from_bytes(wrong)
    told = unpack(zoo.to_bytes())
    told["cameras"][0]["models"]["near"]["freshness"] = np.zeros(4)
    with pytest.raises(StateError, match=r"expected float64 of \(5,\)"):
        Zoo.from_bytes(pack(told))


def test_a_zoo_of_other_models_says_which_and_one_of_more_models_fits() -> None:
    zoo = zoo_of(0.98)
    assert zoo.misfits({"near": SPECS["near"]}) == []
    two = {"near": replace(SPECS["near"], size=2), "gone": replace(SPECS["far"], model="gone")}
    wrong = zoo.misfits(two)
    assert wrong[0] == 'model "near" is not in it as it is deployed, count of 2; it has count of 1'
    assert wrong[1].startswith('model "gone" is not in it') and wrong[1].endswith("it has near, far, level")


def test_without_a_frame_the_prior_is_drawn_to_the_zoo_and_is_less_sure_than_any_of_its_cameras() -> None:
    zoo = zoo_of(0.98, 0.98, 0.97)
    policy = PerFrame(setup_of(zoo))
    freshness = policy._models["near"].freshness
    Newcomer(zoo, "new").centre("near", freshness)
    mean, firm = freshness._prior
    taught = np.mean([c.models["near"].freshness for c in zoo.cameras], axis=0)
    np.testing.assert_allclose(mean, (UNSURE * PRIOR + 3 * taught) / (UNSURE + 3))
    assert (np.linalg.inv(firm).diagonal() > 0.5 * SPREAD**2).all()


def test_a_new_camera_is_taken_for_the_camera_of_the_zoo_that_it_resembles() -> None:
    zoo = zoo_of(0.985, 0.5)
    for alike, stay in enumerate((0.985, 0.5)):
        policy = PerFrame(setup_of(zoo))
        for facts, values, _ in shown(camera(7, 100, stay)):
            policy.begin(facts)
            policy.learn(values, chosen=False)
        newcomer = Newcomer(zoo, "new")
        newcomer.centre("near", policy._models["near"].freshness)
        likeness = newcomer._likeness["near"]
        assert likeness[1 + alike] > 2 * likeness[2 - alike]


def test_a_count_beyond_all_that_any_camera_of_the_zoo_has_seen_is_no_obstacle() -> None:
    policy = PerFrame(setup_of(zoo_of(0.98, 0.9)))
    (first, *_) = shown(camera(7, 1, 0.9))
    policy.begin(first.facts)
    policy.learn(dict(first.values) | {"near": np.array([40.0], np.float32)}, chosen=False)
    policy.begin(FrameFacts(1, 2e9))
    chosen = policy.choose({})
    assert chosen is None or policy.answer({}).keys() == SPECS.keys()


AGES = np.arange(1.0, 20.0)


def fresh(freshness: Freshness) -> Array:
    """Return how likely an output still holds at each of `AGES`."""
    return np.array([freshness.steady * (1.0 - freshness.gone(Passed(age, age))) for age in AGES])


@cache
def truth() -> Array:
    """What a camera of many frames knows of how long outputs stay fresh."""
    (well_known,) = zoo_of(0.95, frames=900).cameras
    freshness = Freshness()
    freshness.start_from(well_known.models["near"].freshness, np.eye(5))
    return fresh(freshness)


def off(zoo: Zoo | None, seed: int) -> float:
    """Return how far off a new camera is, after 10 frames, about how long its outputs stay fresh."""
    new = PerFrame(setup_of(zoo))
    for facts, values, _ in shown(camera(seed, 10, 0.95)):
        new.begin(facts)
        new.learn(values, chosen=False)
    new.begin(FrameFacts(10, 2e9))
    new.choose({})
    return float(np.abs(fresh(new._models["near"].freshness) - truth()).mean())


def test_a_zoo_of_such_scenes_tells_a_new_camera_much_and_one_of_others_misleads_it_little() -> None:
    alike, others = Zoo(SPECS, zoo_of(0.95, 0.96, 0.94, frames=300).cameras * 4), zoo_of(0.6, 0.5)
    none, good, bad = (float(np.mean([off(zoo, 20 + i) for i in range(12)])) for zoo in (None, alike, others))
    assert good < 0.9 * none and bad < 1.4 * none


@pytest.mark.parametrize("cut", [5, 30, 60, 120])
def test_a_restored_policy_decides_as_one_that_was_never_interrupted(cut: int) -> None:
    zoo, frames = zoo_of(0.98, 0.7), shown(camera(3, 160, 0.9))
    before, after = (PerFrame(setup_of(zoo)) for _ in range(2))
    told = go_on(before, frames[:cut])
    after.resume(before.snapshot())
    uninterrupted = go_on(PerFrame(setup_of(zoo)), frames)
    assert told + go_on(after, frames[cut:]) == uninterrupted
    assert uninterrupted != go_on(PerFrame(setup_of(None)), frames)


def test_a_policy_takes_a_zoo_over_once_also_when_it_is_restored() -> None:
    zoo, frames = zoo_of(0.98, 0.7), shown(camera(3, 120, 0.9))
    policy = PerFrame(setup_of(zoo))
    go_on(policy, frames[:60])
    restored = PerFrame(setup_of(zoo))
    restored.resume(policy.snapshot())
    assert restored._newcomer is not None and restored._newcomer.settled
    new = PerFrame(setup_of(zoo))
    assert new._newcomer is not None and not new._newcomer.settled
