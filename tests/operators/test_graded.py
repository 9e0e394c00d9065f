"""Outputs that agree by degrees: repeated, but known to be of a kind, and linked by it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camlink.models.base import OutputSpec
from camlink.operators.belief import Belief
from camlink.operators.graded import MOST_KINDS, Graded
from camlink.operators.known_model import belief_of
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import FrameFacts, PolicySetup
from camlink.operators.selection import Budget, Costs
from camlink.pipeline.records import FrameStats, Value

SPEED = OutputSpec("speed", "vector", 1, "regression", scale=10.0)
SPECS = {
    "regression": SPEED,
    "box": OutputSpec("where", "vector", 4, "box"),
    "tokens": OutputSpec("caption", "sequence", 9, "tokens", max_steps=4),
}


def value(*numbers: float) -> Value:
    return np.array(numbers, np.float32)


def taught(*numbers: float) -> Graded:
    belief = Graded(SPEED)
    for number in numbers:
        belief.take(value(number))
    return belief


def test_the_last_output_is_repeated_and_it_is_learnt_how_far_outputs_wander() -> None:
    belief = taught(*(float(i % 2) for i in range(200)))
    guess = belief.guess(0.0)
    assert guess.value.tolist() == [1.0] and guess.stays
    assert 0.03 <= belief.stale <= 0.1  # half of the outputs of long ago are 1 of 10 away
    assert belief.guess(1.0).wrong == 0.0
    assert guess.wrong <= belief.stale


def test_a_rare_output_is_more_wrong_once_gone_than_the_usual_one() -> None:
    usual, rare = taught(*[0.0] * 100), taught(*[0.0] * 99, 9.0)
    assert rare.stale > usual.stale + 0.15


def test_outputs_are_of_a_kind_with_the_first_that_they_are_near() -> None:
    belief = taught(0.0, 1.0, 8.0, 2.0, 20.0)
    kinds = [int(belief.levels(belief.read(value(n)))[0]) for n in (0.5, 7.0, 21.0, 60.0)]
    assert kinds == [0, 1, 2, 3]  # 60 is unlike all: the next number
    for n in range(100):
        belief.take(value(100.0 * n))
    assert belief.usual.shape == (1, MOST_KINDS)
    assert int(belief.levels(belief.read(value(1e6)))[0]) == MOST_KINDS - 1  # all else


@pytest.mark.parametrize("task", SPECS)
@given(
    seen=st.lists(st.lists(st.integers(0, 8), min_size=4, max_size=4), min_size=1, max_size=40), fresh=st.floats(0, 1)
)
def test_what_is_believed_are_chances(task: str, seen: list[list[int]], fresh: float) -> None:
    spec = SPECS[task]
    belief: Belief = belief_of(spec)
    shown = [value(*(n / 8 for n in numbers)) if task == "box" else value(*numbers) for numbers in seen]
    shown = [one[: spec.size] if spec.kind == "vector" else one for one in shown]
    for one in shown:
        before = belief.read(one)
        belief.take(one)
        assert belief.disagreement(before, belief.read(one)) == pytest.approx(0.0, abs=1e-6)
    assert belief.chances(fresh).sum() == pytest.approx(1.0)
    guess = belief.guess(fresh)
    assert guess.value is shown[-1]
    assert 0.0 <= guess.wrong <= 1.0
    assert 0.0 <= belief.stale <= 1.0 and 0.0 <= belief.renewed <= 1.0
    told = belief.put_readings([belief.read(one) for one in shown])
    other = belief_of(spec)
    other.resume(belief.state())
    assert [int(k.levels[0]) for k in other.get_readings(told)] == [int(belief.read(one).levels[0]) for one in shown]
    assert other.guess(fresh)[1:3] == guess[1:3]


PEOPLE = OutputSpec("people", "vector", 1, "count", ("person",))
NOISE = OutputSpec("noise", "vector", 1, "regression", scale=20.0)


def shown_to(policy: PerFrame, frames: int) -> list[int]:
    """Show a hall that fills and empties, where noise follows from people; return how many were there."""
    rng, people, there = np.random.default_rng(3), 0, []
    for index in range(frames):
        people = (0 if people else 4) if rng.random() < 0.1 else people
        there.append(people)
        policy.begin(FrameFacts(index, float(index), FrameStats(0.1, 0.1, 100.0)))
        policy.learn(outputs(people, rng), chosen=False)
    return there


def outputs(people: int, rng: np.random.Generator) -> dict[str, Value]:
    return {"people": value(people), "noise": value(30.0 + 10.0 * people + rng.normal())}


def hall() -> tuple[PerFrame, list[int]]:
    specs = {"people": PEOPLE, "noise": NOISE}
    costs = Costs(dict.fromkeys(specs, 10.0), dict.fromkeys(specs, 1.0))
    policy = PerFrame(PolicySetup("hall", specs, costs, Budget(time_share=0.5)))
    return policy, shown_to(policy, 300)


def answer_beside(policy: PerFrame, executed: Mapping[str, Value]) -> dict[str, tuple[Value, str, float]]:
    policy.begin(FrameFacts(300, 300.0, FrameStats(0.1, 0.1, 100.0)))
    policy.choose({})
    answers = policy.answer(executed)
    return {n: (a.value, a.how, a.confidence or 0.0) for n, a in answers.items() if a.value is not None}


def test_counts_are_linked_from_numbers() -> None:
    policy, there = hall()
    other = 0 if there[-1] else 4
    said, how, confidence = answer_beside(policy, {"noise": value(30.0 + 10.0 * other)})["people"]
    assert said.tolist() == [other] and how == "linked" and confidence > 0.8


@pytest.mark.parametrize("same", [True, False])
def test_others_tell_whether_a_number_still_holds(same: bool) -> None:
    policy, there = hall()
    people = there[-1] if same else 4 - there[-1]
    said, how, confidence = answer_beside(policy, {"people": value(people)})["noise"]
    assert how == "reused" and abs(float(said[0]) - 30.0 - 10.0 * there[-1]) < 5.0
    assert confidence > 0.8 if same else confidence < 0.6
