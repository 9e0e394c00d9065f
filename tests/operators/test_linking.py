"""Linking where models failed or executed outputs were lost: one served row each, with the reason where it abstains."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from camlink.links.train import train_ensembles
from camlink.models.base import OutputSpec
from camlink.operators.linking import LinkingOperator
from camlink.pipeline.records import FrameResult, LinkPromotion, ModelOutput, OutputReady, Purpose
from camlink.pipeline.state.memory import MemoryState
from camlink.pipeline.testing import START

MODELS = ("objects", "persons")


def answer(purpose: Purpose, *, served: bool) -> ModelOutput:
    return ModelOutput("hall", 7, START, "objects", None, purpose, "reused", served=served)


def without_outputs(ready: OutputReady) -> FrameResult:
    """Return what becomes of a frame whose outputs are never found."""
    operator = LinkingOperator(MODELS, MemoryState())
    assert list(operator.on_records([ready])) == []
    (result,) = operator.on_end()
    assert isinstance(result, FrameResult)
    return result


@pytest.mark.parametrize(
    ("purpose", "ran", "shown"),
    [
        (
            "serve",
            ("persons",),
            {("objects", "reused", True), ("persons", "abstained", True), ("persons", "failed", False)},
        ),
        (
            "audit",
            MODELS,
            {
                *(("objects", "abstained", True), ("persons", "abstained", True)),
                *(("objects", "failed", False), ("persons", "failed", False)),
            },
        ),
    ],
)
def test_answers_of_a_policy_stand_though_executed_outputs_were_lost(
    purpose: Purpose, ran: tuple[str, ...], shown: set[tuple[str, str, bool]]
) -> None:
    answers = (answer(purpose, served=purpose == "serve"),)
    result = without_outputs(OutputReady("hall", 7, START, purpose, ran, predict=("objects",), answers=answers))
    rows = [(o.model, o.how, o.served) for o in result.outputs]
    assert (set(rows), len(rows)) == (shown, len(shown))
    assert {o.reason for o in result.outputs if o.how in ("abstained", "failed")} == {
        "executed output was lost before it could be used"
    }


def test_a_prediction_names_the_models_that_it_was_made_from() -> None:
    """Links that were learnt while a model failed know nothing of it when it answers again."""
    specs = {name: OutputSpec(name, "vector", 1, "count") for name in ("objects", "persons", "bags")}
    samples = {name: np.arange(60, dtype=np.float32)[:, None] % 4 for name in ("objects", "persons")}
    (ensemble,) = train_ensembles({m: specs[m] for m in samples}, samples, seed=0, targets=["objects"]).values()
    ran = tuple(
        ModelOutput("hall", 7, START, m, np.ones(1, np.float32), "serve", "executed") for m in ("persons", "bags")
    )
    operator = LinkingOperator(tuple(specs), MemoryState())
    assert not list(operator.on_records([LinkPromotion("hall", "objects", 1, START, ensemble.to_bytes())]))
    ready = OutputReady("hall", 7, START, "serve", ("persons", "bags"), predict=("objects",), outputs=ran)
    (result,) = operator.on_records([ready])
    assert isinstance(result, FrameResult)
    (linked,) = (o for o in result.outputs if o.how == "linked")
    assert (linked.model, linked.sources) == ("objects", ("persons",))


def test_a_model_that_failed_on_an_audit_frame_is_answered_for_as_on_any_other() -> None:
    ready = OutputReady(
        *("hall", 7, START, "audit", (), ("objects",)),
        failed={"objects": "out of memory"},
        answers=(replace(answer("audit", served=False), value=np.ones(1, np.float32)),),
    )
    (result,) = LinkingOperator(MODELS[:1], MemoryState()).on_records([ready])
    assert isinstance(result, FrameResult)
    assert [(o.how, o.served, o.reason) for o in result.outputs] == [
        ("reused", True, None),
        ("failed", False, "out of memory"),
    ]


def test_a_model_that_failed_on_an_audit_frame_abstains_where_nothing_answers_for_it() -> None:
    ready = OutputReady(
        *("hall", 7, START, "audit", (), ("objects",)),
        failed={"objects": "out of memory"},
        answers=(answer("audit", served=False),),
    )
    (result,) = LinkingOperator(MODELS[:1], MemoryState()).on_records([ready])
    assert isinstance(result, FrameResult)
    assert [(o.how, o.served, o.reason) for o in result.outputs] == [
        ("abstained", True, "out of memory"),
        ("failed", False, "out of memory"),
    ], "one row of each kind: two that abstain would be one fact to the results log"


def test_a_relabelled_output_says_which_frames_were_answered_before_it_was_known() -> None:
    """Between processes an alert that is to be confirmed asks for a frame when later ones have long been answered."""
    operator = LinkingOperator(MODELS[:1], MemoryState())

    def told(index: int, purpose: Purpose, known_after: datetime | None = None) -> datetime | None:
        at = START + timedelta(seconds=index)
        ran = ModelOutput("hall", index, at, "objects", np.ones(1, np.float32), purpose, "executed")
        ran = replace(ran, served=purpose != "relabel", known_after=known_after)
        (result,) = operator.on_records([OutputReady("hall", index, at, purpose, ("objects",), (), outputs=(ran,))])
        assert isinstance(result, FrameResult)
        (row,) = result.outputs
        return row.known_after

    assert [told(index, "serve") for index in range(4)] == [None] * 4
    assert told(1, "relabel") == START + timedelta(seconds=3)
    assert told(3, "relabel") is None, "the next frame knows of it, as in one process"
    assert told(4, "serve") is None
    loaded = START + timedelta(seconds=2)
    assert told(2, "relabel", loaded) == loaded, "of models that are loaded in turn inference knows"
