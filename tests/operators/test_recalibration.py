"""Stated chances are held against what came of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camlink.operators.per_frame import PerFrame
from camlink.operators.recalibration import Recalibration
from tests.operators.test_per_frame import camera, setup, value


@pytest.mark.parametrize(("true", "seed"), [(lambda p: 0.5 * p, 0), (lambda p: p**0.5, 1), (lambda p: p, 2)])
def test_it_finds_how_far_stated_chances_are_off(true, seed: int) -> None:  # type: ignore[no-untyped-def]
    rng, known = np.random.default_rng(seed), Recalibration()
    before, after = [], []
    for stated in rng.uniform(0.02, 0.8, 3000).tolist():
        before.append(abs(stated - true(stated)))
        after.append(abs(known(stated) - true(stated)))
        known.learn(stated, float(rng.random() < true(stated)))
    assert np.mean(after[500:]) < max(0.06, 0.5 * np.mean(before[500:]))


def test_a_few_executions_move_it_little_and_what_has_changed_is_forgotten() -> None:
    known = Recalibration()
    before = known(0.1)
    known.learn(0.1, 1.0)
    assert before < known(0.1) < 0.3
    for outcome in (1.0, 0.0):
        for _ in range(1000):
            known.learn(0.3, outcome)
        assert abs(known(0.3) - outcome) < 0.2


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=60))
def test_it_stays_a_probability_that_rises_with_what_was_stated(seen: list[tuple[float, float]]) -> None:
    known = Recalibration()
    for stated, disagreed in seen:
        known.learn(stated, disagreed)
    told = [known(p) for p in (0.0, 0.01, 0.3, 0.9, 1.0)]
    assert told == sorted(told) and told[0] >= 0.0 and told[-1] <= 1.0


def test_answers_on_audit_frames_are_learnt_from_without_a_model_being_chosen() -> None:
    """Of the two cameras only what the audits say differs: the label that was answered is right, or it is not."""
    stated = {}
    for right in (True, False):
        policy = PerFrame(setup(0.2))
        policy.allow(["people"])  # `weather` is never chosen
        facts, outputs = camera(200)
        for i, frame in enumerate(facts):
            policy.begin(frame)
            everything = {m: v[i] for m, v in outputs.items()}
            if i < 20:
                policy.learn(everything, chosen=False)
                continue
            executed = {}
            while (model := policy.choose(executed)) is not None:
                executed[model] = everything[model]
            stated[right] = policy.answer(executed)["weather"].confidence
            audited = everything | ({} if right else {"weather": value(0, i // 10 % 2, (i // 10 + 1) % 2)})
            policy.learn(audited if i % 10 == 0 else executed, chosen=i % 10 != 0)
    assert stated[True] is not None and stated[False] is not None
    assert stated[True] > 0.95 > 0.7 > stated[False]
