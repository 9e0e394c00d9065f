"""A policy goes on from its snapshot as if nothing had happened, and refuses what is not its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.policy.speed import frames_of
from camlink.operators.allowance import Allowance
from camlink.operators.gate import Gate
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import FrameFacts, PolicySetup
from camlink.operators.policy_state import VERSION, pack, unpack
from camlink.operators.selection import Budget
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Detections, Value
from tests.lab_traces import random_trace, setup_of

WARM_UP = 40
TASKS = ("count", "single_label", "multi_label", "regression")
Frames = list[tuple[FrameFacts, dict[str, Value], dict[str, Detections]]]


def scene(task: str, frames: int = 160) -> tuple[PolicySetup, Frames]:
    trace = random_trace(11, frames, 3, task=task, with_detections=True)
    (camera,) = trace.cameras
    long = replace(camera, time_s=camera.time_s[0] + 1800.0 * (camera.time_s - camera.time_s[0]))  # some days
    trace = replace(trace, cameras=(long,))
    return setup_of(trace, Budget(time_share=0.4)), list(frames_of(trace.cameras[0]))


def go_on(policy: PerFrame, frames: Frames) -> list[Any]:
    """Return what the policy executes and answers, and with which confidence, to the last bit."""
    told = []
    for facts, values, found in frames:
        policy.begin(facts)
        if facts.index < WARM_UP:
            policy.found(found)
            policy.learn(values, chosen=False)
            continue
        executed: dict[str, Value] = {}
        while (model := policy.choose(executed)) is not None:
            executed[model] = values[model]
        answers = policy.answer(executed)
        told.append((list(executed), {m: (a.value.tolist(), a.how, a.confidence) for m, a in answers.items()}))
        policy.found({m: boxes for m, boxes in found.items() if m in executed})
        policy.learn(executed, chosen=True)
    return told


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("cut", [25, 100])
def test_a_restored_policy_decides_as_one_that_was_never_interrupted(task: str, links: bool, cut: int) -> None:
    setup, frames = scene(task)
    before, after = (PerFrame(setup, links=links) for _ in range(2))
    told = go_on(before, frames[:cut])
    after.resume(before.snapshot())
    uninterrupted = go_on(PerFrame(setup, links=links), frames)
    assert told + go_on(after, frames[cut:]) == uninterrupted
    assert any(answers for _, answers in uninterrupted)


def test_under_another_budget_it_knows_what_it_knew_and_spends_anew() -> None:
    setup, frames = scene("count")
    before = PerFrame(setup)
    go_on(before, frames[:110])
    less = replace(setup, budget=Budget(time_share=0.2))
    after = PerFrame(less)
    after.resume(before.snapshot())
    told = go_on(after, frames[110:])
    assert told[0][1].keys() == setup.specs.keys() - set(told[0][0]), "it can answer before it executes"
    purse = Allowance(less.costs, less.budget)
    for executed, _ in told:
        purse.next_frame()
        for model in executed:
            assert purse.affords(model)
            purse.spend(model)


def test_without_its_account_it_still_knows_how_far_its_answers_missed_their_target() -> None:
    setup, frames = scene("count")
    setup = replace(setup, budget=Budget(), targets=dict.fromkeys(setup.specs, 0.9))
    before, after, anew = PerFrame(setup), PerFrame(setup), PerFrame(setup)
    go_on(before, frames[:110])
    after.resume(before.snapshot(), account=False)
    told, known, unknown = (unpack(policy.snapshot())["aims"]["each"] for policy in (before, after, anew))
    assert told == known != unknown


def damaged(change: Any) -> Any:
    def damage(state: dict[str, Any]) -> bytes:
        change(state)
        return pack(state)

    return damage


DAMAGES: Mapping[str, tuple[Any, str]] = {
    "other models": (damaged(lambda s: s["models"].popitem()), "of other models"),
    "no links": (damaged(lambda s: s.update(links=None)), "without"),
    "nothing of one model": (damaged(lambda s: s["known"].popitem()), "not a snapshot: KeyError"),
    "too few numbers": (
        damaged(lambda s: s["known"]["m0"]["freshness"].update(theta=np.zeros(3))),
        r"shape \(3,\), expected float64 of \(5,\)",
    ),
    "numbers that are none": (
        damaged(lambda s: s["known"]["m0"]["freshness"].update(theta=np.full(5, np.nan))),
        "not finite",
    ),
    "a level beyond its table": (damaged(lambda s: s["known"]["m0"]["belief"]["last"].fill(99)), "level 99"),
    "told of levels that are not there": (
        damaged(lambda s: s["known"]["m0"].update(told={"at": [0.0] * 6, "chances": np.ones((1, 99))})),
        r"shape \(1, 99\)",
    ),
    "another version": (
        lambda s: pack(s).replace(b'"version":%d' % VERSION, b'"version":%d' % (VERSION + 1)),
        "of version .*; this",
    ),
    "half of it": (lambda s: pack(s)[:-9], "bytes"),
    "a pickle": (lambda s: b"\x80\x04K\x01.", "not a snapshot"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_snapshot_that_does_not_fit_is_refused_with_the_reason_and_the_policy_starts_anew(name: str) -> None:
    damage, said = DAMAGES[name]
    setup, frames = scene("count", 60)
    policy = PerFrame(setup)
    go_on(policy, frames)
    gate = Gate(lambda camera_id: PerFrame(setup))
    with pytest.raises(StateError, match=said):
        gate.resume("cam", damage(unpack(policy.snapshot())))
    assert gate.snapshot("cam") is None
    gate.resume("cam", policy.snapshot())
    assert gate.snapshot("cam") == policy.snapshot()
