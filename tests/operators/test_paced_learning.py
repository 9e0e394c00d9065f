"""What adaptation and the scheduler say and keep between turns, where they are processes of their own."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from camlink.links.train import train_ensembles
from camlink.models.base import OutputSpec
from camlink.models.pool import ModelPool
from camlink.operators.snapshots import Snapshot
from camlink.pipeline.clock import ManualClock
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.distributed import ModelFacts, without_models
from camlink.pipeline.records import Decision, FrameResult, LinkPromotion, Settled
from camlink.pipeline.state.memory import MemoryState
from camlink.pipeline.testing import START, make_frames, outputs, run_frames
from tests.integration.test_in_step import RULES, models


def paced(step: str) -> Any:
    config = SiteConfig(models="building", **RULES, adaptation={"policy": "off"})
    facts = ModelFacts.of_pool(ModelPool(models()))
    return without_models(step, config, facts, MemoryState(), ManualClock(), seconds=lambda: 0.0)


def result(index: int, camera: str = "hall", at: datetime | None = None) -> FrameResult:
    return FrameResult(camera, index, at or START + timedelta(seconds=index), "serve", ())


def test_of_several_results_at_once_the_last_is_marked_as_settled_and_that_says_all() -> None:
    operator = paced("adaptation")
    given = list(operator.on_records([result(0), result(0, "yard"), result(1), result(2)]))
    assert sorted((r.camera_id, r.frame_index) for r in given if isinstance(r, Settled)) == [("hall", 2), ("yard", 0)]


def test_where_the_clock_was_set_back_the_frame_before_is_marked_too() -> None:
    """Who waits for the later time would not take the earlier one for an answer."""
    back = START - timedelta(hours=1)
    given = list(paced("adaptation").on_records([result(0), result(1), result(2, at=back)]))
    assert [r.frame_index for r in given if isinstance(r, Settled)] == [1, 2]


def test_links_that_come_into_force_between_full_frames_are_in_the_schedulers_snapshot() -> None:
    """The topic of promotions keeps the latest version only: one that was overtaken would be missing after a crash."""
    config: dict[str, Any] = {**RULES, "adaptation": {"policy": "off"}}
    records = run_frames(make_frames("hall", 120), models(), **config)
    promotion = next(r for r in records if isinstance(r, LinkPromotion))
    assert outputs(records)
    operator = paced("scheduler")
    operator.resume("hall", {})
    list(operator.on_records([result(150)]))  # it decides
    operator.snapshots()
    assert list(operator.on_records([promotion, result(200), result(201)])) == []
    learnt = operator.snapshots()["hall", "learnt"]
    assert Snapshot.from_bytes(learnt).told["in force"] == [promotion.target]


def test_links_of_another_version_of_camlink_are_learnt_anew(caplog: pytest.LogCaptureFixture) -> None:
    """The topic of promotions keeps them: whoever ended over them would end again at each start."""
    records = run_frames(make_frames("hall", 120), models(), **RULES, adaptation={"policy": "off"})
    promotion = next(r for r in records if isinstance(r, LinkPromotion))
    unread = replace(promotion, version=7, at=START - timedelta(hours=1), payload=b"links of before")
    operator = paced("adaptation")
    operator.resume("hall", {})
    full = [r for r in records if isinstance(r, FrameResult) and r.purpose != "serve"]
    made = [r for r in operator.on_records([unread, *full]) if isinstance(r, LinkPromotion)]
    assert f'camera "hall": links to {promotion.target}: not a saved ensemble' in caplog.text
    assert {r.version for r in made if r.target == promotion.target} == {8}


@pytest.mark.parametrize("step", ["adaptation", "scheduler"])
def test_links_of_another_model_of_the_same_name_are_learnt_anew(step: str) -> None:
    """Who put another detector in the place of one left its links on the topic."""
    config: dict[str, Any] = {**RULES, "adaptation": {"policy": "off"}}
    records = run_frames(make_frames("hall", 120), models(), **config)
    name = models()[0].spec.model
    specs = {m.spec.model: m.spec for m in models()}
    specs[name] = OutputSpec(name, "vector", specs[name].size + 1, "count")
    rng = np.random.default_rng(0)
    samples = {m: rng.poisson(2, (40, spec.size)).astype(np.float32) for m, spec in specs.items()}
    before = START - timedelta(hours=1)
    learnt = train_ensembles(specs, samples, seed=0, kind="vec_to_vec")
    promotions = [LinkPromotion("hall", target, 7, before, links.to_bytes()) for target, links in learnt.items()]
    operator = paced(step)
    operator.resume("hall", {})
    made = list(operator.on_records(promotions))
    for frame in (r for r in records if isinstance(r, FrameResult)):
        made += operator.on_records([frame, Settled("hall", frame.frame_index, frame.captured_at)])
    assert not operator.refused()
    assert any(isinstance(r, LinkPromotion if step == "adaptation" else Decision) for r in made)
