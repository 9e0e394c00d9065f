"""`abstain_below`: an answer that is less sure than is asked is not given, and all else stays as it was."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from camlink.operators.certificates import ON_TRIAL
from camlink.operators.linking import LinkingOperator
from camlink.operators.relabelling import UncertaintyRelabelling
from camlink.pipeline.records import FrameResult, ModelOutput, OutputReady, Record
from camlink.pipeline.state.memory import MemoryState
from camlink.pipeline.testing import START, TinyModel, make_frames, outputs, run_frames

ASKED = 0.9
REASON = f"less sure than asked (abstain_below: {ASKED})"
SPECS = {model.spec.model: model.spec for model in (TinyModel.count("objects", lambda _: 0),)}
RULES = {
    "budgets": {"time_share": 0.5},
    "links": {"bootstrap_frames": 40, "min_train_frames": 40},
    "period": "120s",
    "profile": {"min_frames": 2},
    "audit": {"fraction": 0.1},
}


def noisy(frame_index: int, every: int) -> int:
    """Return a count that changes every so many frames, to no plan that could be learnt."""
    return int(np.random.default_rng(frame_index // every).integers(0, 3))


def played(policy: str, **more: object) -> list[Record]:
    models = [TinyModel.count(name, lambda f, e=every: noisy(f.index, e)) for name, every in (("a", 3), ("b", 40))]
    return run_frames(make_frames("hall", 500), models, policy=policy, **(RULES | more))  # type: ignore[arg-type]


play_camlink = partial(played, "camlink")


def one(answer: ModelOutput, **more: object) -> ModelOutput:
    """Return what becomes of an answer."""
    ready = OutputReady("hall", 7, START, "serve", (), predict=("objects",), answers=(answer,))
    operator = LinkingOperator(("objects",), MemoryState(), least_confidence=lambda model: {"objects": ASKED}[model])
    (result,) = operator.on_records([replace(ready, **more)])  # type: ignore[arg-type]
    assert isinstance(result, FrameResult)
    (row,) = [o for o in result.outputs if o.served == answer.served]
    return row


def answered(confidence: float | None, **more: object) -> ModelOutput:
    row = ModelOutput("hall", 7, START, "objects", np.ones(1, np.float32), "serve", "reused", confidence=confidence)
    return replace(row, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("confidence", [0.9, 0.95, None])
def test_an_answer_that_is_sure_enough_or_states_nothing_stands(confidence: float | None) -> None:
    row = answered(confidence)
    assert one(row) is row


def test_an_unsure_answer_abstains_and_still_says_how_unsure_it_was() -> None:
    row = one(answered(0.89))
    assert (row.how, row.value, row.confidence, row.reason) == ("abstained", None, 0.89, REASON)


def test_what_is_on_trial_abstains_as_it_would_if_served_and_stays_on_trial() -> None:
    row = one(answered(0.5, purpose="audit", served=False, reason=ON_TRIAL), purpose="audit", audit_probability=0.1)
    assert (row.how, row.reason) == ("abstained", f"{ON_TRIAL}: {REASON}")


@pytest.mark.parametrize("policy", ["camlink", "mlink-exact"])
def test_in_a_run_exactly_the_unsure_answers_are_left_out_and_what_executes_stays_the_same(policy: str) -> None:
    adaptation = {"adaptation": {"policy": "off"}}
    free, asked = played(policy, **adaptation), played(policy, abstain_below=ASKED, **adaptation)
    before, after = outputs(free, served=None), outputs(asked, served=None)
    unsure = [o.confidence is not None and o.confidence < ASKED for o in before]
    assert 20 < sum(unsure) < len(before) - 20
    for one_, other, abstains in zip(before, after, unsure, strict=True):
        assert (other.how == "abstained" and other.value is None) == (abstains or one_.how == "abstained")
        if not abstains:
            assert (one_.model, one_.how, one_.served) == (other.model, other.how, other.served)
            assert np.array_equal(one_.value, other.value)  # type: ignore[arg-type]


def test_by_model_only_those_named_abstain() -> None:
    rows = outputs(play_camlink(abstain_below={"a": 0.99}))
    assert {o.model for o in rows if o.how == "abstained" and o.confidence is not None} == {"a"}
    assert any(o.model == "b" and o.confidence is not None and o.confidence < 0.99 for o in rows)


def test_a_policy_that_decides_on_every_frame_executes_nothing_for_links_that_it_does_not_read() -> None:
    rules = {"adaptation": {"policy": "periodic", "interval": "60s", "frames": 5}}
    purposes = {o.purpose for o in outputs(play_camlink(**rules), served=None)}
    assert purposes == {"profile", "serve", "audit"}
    assert "relabel" in {o.purpose for o in outputs(played("mlink-exact", **rules), served=None)}


def test_a_frame_on_which_a_link_abstained_for_want_of_confidence_is_still_worth_relabelling() -> None:
    policy = UncertaintyRelabelling(SPECS, 1.0, threshold=0.4)
    frame = FrameResult("hall", 7, START, "serve", (one(answered(0.5)),))
    assert policy.wants(frame) == "unsure of objects (0.50)"
    assert policy.wants(replace(frame, outputs=(one(answered(0.8)),))) is None
    given_up = answered(None, how="abstained", value=None)
    assert policy.wants(replace(frame, outputs=(given_up,))) is None
