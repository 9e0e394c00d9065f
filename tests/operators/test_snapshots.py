"""Snapshots: what is read back is what was written, and what is none is refused."""

from __future__ import annotations

import json
from collections import deque
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from camlink.links.inputs import LinkInputs
from camlink.links.train import train_ensembles
from camlink.models.base import OutputSpec
from camlink.models.pool import ModelPool
from camlink.operators.adaptation import AdaptationOperator, LearningRules
from camlink.operators.inference import InferenceOperator
from camlink.operators.learning import (
    CameraLearning,
    Duel,
    Learnt,
    TargetLinks,
    Version,
    relabelling_of,
    restore,
    resume_relabelling,
    to_snapshot,
)
from camlink.operators.paced_inference import PacedInference
from camlink.operators.relabelling import NoRelabelling, PeriodicRelabelling, RelabelPolicy, UncertaintyRelabelling
from camlink.operators.sampling import FramePlanner, SamplingRules
from camlink.operators.snapshots import EnsembleBytes, Snapshot, array_bytes, array_of
from camlink.pipeline.clock import WallClock
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.distributed import ModelFacts, without_models
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Detections, FrameResult, FrameStats, LinkPromotion
from camlink.pipeline.state.memory import MemoryState
from camlink.pipeline.testing import START, TinyModel, make_frames, run_frames

SPECS = {name: OutputSpec(name, "vector", size, "count") for name, size in {"objects": 2, "persons": 1}.items()}
PLAIN = LinkInputs(SPECS)
RICH = LinkInputs(SPECS, boxes=True, context=("time_of_day", "frame_statistics"))


def learnt(frames: int = 30) -> CameraLearning:
    """A camera in the middle of a trial, with a promotion under watch."""
    rng = np.random.default_rng(0)
    rows = [{m: rng.integers(0, 4, spec.size).astype(np.float32) for m, spec in SPECS.items()} for _ in range(frames)]
    samples = {m: np.stack([row[m] for row in rows]) for m in SPECS}
    first, second = ({m: Version(n, e) for m, e in train_ensembles(SPECS, samples, seed=n).items()} for n in (1, 2))
    targets = {m: TargetLinks(first[m], Duel(first[m], second[m], [0.5], [1.0]), None, 2, ("objects",)) for m in SPECS}
    history = deque((Learnt(START + timedelta(seconds=i), row, row) for i, row in enumerate(rows)), maxlen=100)
    return CameraLearning(NoRelabelling(), history, targets, fresh=7)


def empty() -> CameraLearning:
    return CameraLearning(NoRelabelling(), deque(maxlen=100), {m: TargetLinks() for m in SPECS})


def test_a_camera_goes_on_in_the_middle_of_a_trial() -> None:
    before, after, payloads = learnt(), empty(), EnsembleBytes()
    restore(after, to_snapshot(before, SPECS, PLAIN, payloads), SPECS, PLAIN, payloads)
    assert to_snapshot(after, SPECS, PLAIN, payloads) == to_snapshot(before, SPECS, PLAIN, payloads)
    trial = after.targets["persons"].trial
    assert trial is not None
    assert trial.old is after.targets["persons"].current, "one version is one object, whoever names it"
    assert (trial.new.number, trial.new_scores, after.fresh) == (2, [1.0], 7)


def read_in_full(index: int, *models: str) -> Learnt:
    """A frame of which links read boxes and context, too."""
    at, rng = START + timedelta(seconds=index), np.random.default_rng(index)
    values = {m: rng.integers(0, 4, SPECS[m].size).astype(np.float32) for m in models}
    boxes = Detections(rng.random((3, 4), np.float32), rng.random(3, np.float32), np.arange(3, dtype=np.int32))
    return Learnt(at, values, RICH.read(values, dict.fromkeys(models, boxes), at, FrameStats(0.1, 0.2, index)))


def test_boxes_and_context_of_frames_to_learn_from_are_kept() -> None:
    before, after, payloads = empty(), empty(), EnsembleBytes()
    before.history.extend(read_in_full(i, *SPECS) for i in range(5))
    snapshot = to_snapshot(before, SPECS, RICH, payloads)
    restore(after, snapshot, SPECS, RICH, payloads)
    assert [frame.captured_at for frame in after.history] == [frame.captured_at for frame in before.history]
    for one, other in zip(before.history, after.history, strict=True):
        for model in SPECS:
            np.testing.assert_array_equal(other.values[model], one.values[model])
            np.testing.assert_array_equal(other.read[model], one.read[model])
    with pytest.raises(StateError, match="read/objects"):
        restore(empty(), to_snapshot(learnt(), SPECS, PLAIN, payloads), SPECS, RICH, payloads)


def test_a_frame_that_is_being_relabelled_is_joined_with_what_comes_after_a_crash() -> None:
    before, after = empty(), empty()
    before.pending[3] = read_in_full(3, "objects")
    resume_relabelling(after, json.loads(json.dumps(relabelling_of(before))), SPECS, RICH)
    joined, alone = (camera.pending[3].joined(read_in_full(3, "persons")) for camera in (after, before))
    assert joined.captured_at == alone.captured_at
    assert set(joined.values) == set(joined.read) == set(SPECS)
    for model in SPECS:
        np.testing.assert_array_equal(joined.values[model], alone.values[model])
        np.testing.assert_array_equal(joined.read[model], alone.read[model])
    with pytest.raises(StateError, match="shape"):
        resume_relabelling(empty(), relabelling_of(before), SPECS, PLAIN)


def test_links_that_were_promoted_after_the_snapshot_stand() -> None:
    first, second = (AdaptationOperator(dict(SPECS), LearningRules(20, 20, 8, 100), NoRelabelling) for _ in range(2))
    before = first._cameras["hall"] = learnt()
    ensemble = before.targets["persons"].current.ensemble  # type: ignore[union-attr]
    second.restore("hall", first.snapshot("hall"))
    second.resume(LinkPromotion("hall", "persons", 3, START, ensemble.to_bytes()))
    after = second._cameras["hall"].targets
    assert after["persons"].current.number == 3  # type: ignore[union-attr]
    assert after["persons"].trial is None, "its rival is no longer in force"
    assert after["objects"].trial is not None
    second.resume(LinkPromotion("hall", "persons", 1, START, ensemble.to_bytes()))
    assert after["persons"].current.number == 3, "what is older says nothing"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"", "not a snapshot"),
        (lambda data: data[:-1], "bytes"),
        (lambda data: b'\x80\x04\x95"' + data, "not a snapshot"),
        (lambda data: data.replace(b'"format":1', b'"format":9'), "format 9"),
        (lambda data: data.replace(b'"persons"', b'"parsons"'), "other models"),
        (lambda data: data.replace(b'"times":[17', b'"times":[9e'), "not a snapshot"),
        (lambda data: data.replace(b"[1,2,[0.5],[1.0]]", b"[1,2,[0.5],[1,0]]"), "1 and 2 scores of the same frames"),
    ],
)
def test_what_is_no_snapshot_is_refused_and_changes_nothing(damage: Any, said: str) -> None:
    payloads, camera = EnsembleBytes(), empty()
    with pytest.raises(StateError, match=said):
        restore(camera, damage(to_snapshot(learnt(), SPECS, PLAIN, payloads)), SPECS, PLAIN, payloads)
    assert (camera.targets, list(camera.history), camera.fresh) == (empty().targets, [], 0)


def test_a_worker_goes_on_without_a_snapshot_that_it_cannot_read(caplog: pytest.LogCaptureFixture) -> None:
    models = [TinyModel.count("objects", lambda f: 1), TinyModel.count("persons", lambda f: 2)]
    facts = ModelFacts.of_pool(ModelPool(models))
    for step in ("adaptation", "scheduler"):
        worker = without_models(step, SiteConfig(models="building"), facts, MemoryState(), WallClock())
        worker.resume("hall", {"place": b"\x80\x04garbage", "learnt": b""})
        assert worker.knows("hall")
        assert 'camera "hall": not a snapshot' in caplog.text
        caplog.clear()


@pytest.mark.parametrize("plan", [{}, {"bootstrap_left": 1, "profile_left": 1, "period_us": 10**30}])
def test_inference_goes_on_without_a_plan_that_it_cannot_read(plan: dict[str, int]) -> None:
    pool = ModelPool([TinyModel.count("objects", lambda f: 1)])
    rules = SamplingRules(timedelta(hours=1), 0.0, 5, 0.1, 10)
    operator = InferenceOperator(pool, lambda camera: FramePlanner(camera, rules, 1.0), MemoryState())
    worker = PacedInference(operator, lambda: 0.0, in_step=False)
    worker.resume("hall", {"place": Snapshot({"seen": {}, "awaits": None, "plan": plan}, {}).to_bytes()})
    assert worker.knows("hall") and operator.plan_of("hall")["bootstrap_left"] == 10


def test_an_array_must_have_the_shape_and_the_numbers_it_is_said_to_have() -> None:
    data = array_bytes([np.array([1.0, 2.0], np.float32)], (2,))
    assert array_of(data, 1, (2,)).tolist() == [[1.0, 2.0]]
    assert array_of(array_bytes([], (2,)), 0, (2,)).shape == (0, 2)
    for count, shape in ((2, (2,)), (1, (3,))):
        with pytest.raises(StateError, match="shape"):
            array_of(data, count, shape)
    with pytest.raises(StateError, match="shape"):
        array_of(array_bytes([np.array([np.nan, 0.0])], (2,)), 1, (2,))


@pytest.mark.parametrize(
    "policy",
    [
        lambda: PeriodicRelabelling(timedelta(seconds=20), 3),
        lambda: UncertaintyRelabelling(SPECS, 0.3, -1.0),
    ],
)
def test_a_policy_goes_on_where_another_stood(policy: Any) -> None:
    models = [TinyModel.count("objects", lambda f: 1)]
    results = [r for r in run_frames(make_frames("hall", 60), models) if isinstance(r, FrameResult)]
    alone: RelabelPolicy = policy()
    wanted = [alone.wants(result) for result in results]
    first, second = policy(), policy()
    wanted_before = [first.wants(result) for result in results[:35]]
    second.resume(first.state())
    assert wanted_before + [second.wants(result) for result in results[35:]] == wanted
    policy().resume({})  # another policy's state says nothing, and harms nothing


def test_links_that_the_bus_has_lost_are_published_again() -> None:
    specs = {m: SPECS[m] for m in SPECS}
    rules = LearningRules(20, 20, 8, 100)
    first, second = (AdaptationOperator(specs, rules, NoRelabelling) for _ in range(2))
    first._cameras["hall"] = learnt()
    snapshot = first.snapshot("hall")
    second.restore("hall", snapshot)
    owed = second.owed()
    assert [(p.target, p.version) for p in owed] == [("objects", 1), ("persons", 1)]
    assert second.owed() == []
    third = AdaptationOperator(specs, rules, NoRelabelling)
    third.restore("hall", snapshot)
    for promotion in owed:
        third.resume(promotion)
    assert third.owed() == [], "the topic has them"
