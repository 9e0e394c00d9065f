"""The same operators as separate workers give the rows of one process, however their turns fall."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camlink.models.base import Inference
from camlink.models.pool import ModelPool
from camlink.operators import paced_inference
from camlink.operators.experience import Shown, experience_of
from camlink.operators.gate import PER_FRAME_POLICIES
from camlink.operators.paced_inference import IDLE_S
from camlink.operators.pacing import HOLD_S
from camlink.operators.policy import FrameFacts
from camlink.operators.selection import Costs
from camlink.operators.zoo import Zoo
from camlink.pipeline.assembly import CameraFacts
from camlink.pipeline.bus.memory import MemoryBus
from camlink.pipeline.clock import ManualClock
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.distributed import ModelFacts, inference, without_models
from camlink.pipeline.graph import GRAPH, topic_of
from camlink.pipeline.records import Decision, Detections, Frame, FrameResult, Record
from camlink.pipeline.state.memory import MemoryState
from camlink.pipeline.testing import TinyModel, make_frames, outputs, run_frames
from camlink.pipeline.worker import Worker
from camlink.pipeline.zoo_file import save_zoo

RULES: dict[str, Any] = {
    "period": timedelta(minutes=5),
    "links": {"bootstrap_frames": 40, "min_train_frames": 40},
    "audit": {"fraction": 0.1},
    "budgets": {"time_share": 0.4},
    "policy": "mlink-exact",
}
ADAPTATION: dict[str, dict[str, Any]] = {
    "off": {"policy": "off"},
    "periodic": {"policy": "periodic", "interval": timedelta(seconds=60), "frames": 10},
    "uncertainty": {"policy": "uncertainty", "label_fraction": 0.2, "confidence_threshold": 0.99},
}
TARGETS = {"target_agreement": 1.0, "period": timedelta(seconds=150)}
SHARED = {"retrain_after_frames": 20, "shadow_frames": 10}


def people(frame: Frame) -> int:
    return people_at(frame.camera_id, frame.index)


def people_at(camera_id: str, index: int) -> int:
    return (index * 7 // 20 + len(camera_id)) % 6


def models(**more: Any) -> list[TinyModel]:
    """From frame 300 on, each person has two bags: links must relearn, so promotions and rollbacks happen."""
    return [
        TinyModel.count("objects", lambda f: [people(f), f.index % 2], size=2),
        TinyModel.count("persons", people),
        TinyModel.count("bags", lambda f: people(f) * 2 if f.index > 300 else people(f) // 2, **more),
    ]


class LossyBus(MemoryBus):
    """A memory bus whose groups outlive their members."""

    def lose(self, group: str) -> list[Record]:
        """Drop a group's member; return what it had not committed and what waited for it, of the topics it shared."""
        lost = self._groups.pop(group)
        for subscriptions in self._topics.values():
            if lost in subscriptions:
                subscriptions.remove(lost)
        lost.rewind()
        shares = next(step.shares for step in GRAPH if step.name == group)
        return [record for record in lost.waiting if topic_of(record) in shares]

    def hand_over(self, group: str, records: Sequence[Record]) -> None:
        """Give a group's new member what the old one left."""
        self._groups[group].waiting.extend(records)


class Site:
    """All workers of a site over one memory bus, each taking its turn when told."""

    def __init__(
        self, config: SiteConfig, tiny: Sequence[TinyModel], cameras: Iterable[str], state: MemoryState | None = None
    ) -> None:
        self.bus, self.state, self.clock = LossyBus(), MemoryState() if state is None else state, ManualClock()
        self.crashes = 0
        self.paced: dict[str, Any] = {}  # the operators of `workers`
        self.now_s = 0.0
        pool = ModelPool(tiny, config.budgets.memory_gb)
        self._config, self._facts = config, ModelFacts.of_pool(pool)
        self._pool, self._cameras = pool, {camera: CameraFacts(1.0) for camera in cameras}
        self.workers = {step.name: self._worker(step) for step in GRAPH if step.name not in ("ingest", "results")}
        self._results = self.bus.subscribe(GRAPH[-1].reads, "results")
        self.records: list[Record] = []

    def _worker(self, step: Any) -> Worker:
        def seconds() -> float:
            return self.now_s

        if step.name == "inference":
            operator: Any = inference(self._config, self._pool, self._cameras, self.state, seconds=seconds)
        else:
            operator = without_models(step.name, self._config, self._facts, self.state, self.clock, seconds)
        self.paced[step.name] = operator
        return Worker(step, operator, self.bus, self.state, self.clock, seconds=seconds)

    def crash(self, name: str) -> None:
        """Lose a worker with all that it holds in memory; what it had not committed comes again, to a new one."""
        (step,) = (step for step in GRAPH if step.name == name)
        lost = self.bus.lose(name)
        self.workers[name] = self._worker(step)
        self.bus.hand_over(name, lost)

    def run(self, frames: Sequence[Frame], rng: random.Random, crashes: str | None = None) -> list[Record]:
        """Publish frames in random portions and give the workers random turns, until nothing moves any more.

        The worker named by ``crashes`` is lost every now and then while frames come, just before its turn.
        """
        waiting = list(frames)
        names, found_nothing = list(self.workers), set[str]()
        idle = 0
        while waiting or idle < 60:
            if idle == 30:
                # frames that wait for models to be loaded in turn, or for what was lost in a crash, wait no longer
                self.now_s += HOLD_S + 1 if crashes else 2 * IDLE_S
            if waiting and rng.random() < 0.3:
                portion = rng.randint(1, 40)
                for frame in waiting[:portion]:
                    self.bus.publish("frames", frame)
                del waiting[:portion]
            turn = rng.choice(names)
            if turn == crashes and idle == 0 and rng.random() < 0.06:
                self.crash(turn)
                self.crashes += 1
            if crashes and rng.random() < 0.2:  # this clock stands still: without this, nothing is ever committed
                self.workers[turn].checkpoint()
            taken = self.workers[turn].once()
            found_nothing = set() if taken else {*found_nothing, turn}
            idle = idle + 1 if len(found_nothing) == len(names) else 0  # one whose turn is yet to come is not idle
            self.records.extend(self._results.poll())
        return self.records


def rows(records: Iterable[Record]) -> Counter[tuple[Any, ...]]:
    """Return all output rows and how often each came; one that came again was known from the first time on."""
    records, known = list(records), dict[tuple[Any, ...], Any]()
    for o in outputs(records, served=None):
        key, at = (o.camera_id, o.frame_index, o.model, o.how), o.known_after or o.captured_at
        known[key] = min(at, known.get(key, at))
    return Counter(
        (
            *(o.camera_id, o.frame_index, o.captured_at, o.model, o.purpose, o.how, o.served, o.sources),
            *(o.link_version, o.confidence, o.audit_probability, o.reason),
            known[o.camera_id, o.frame_index, o.model, o.how],
            None if o.value is None else o.value.tobytes(),
        )
        for o in outputs(records, served=None)
    )


def mixed(count: int, *cameras: str) -> list[Frame]:
    frames = [f for i, c in enumerate(cameras) for f in make_frames(c, count)]
    return sorted(frames, key=lambda f: (f.captured_at, f.camera_id))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "seed", "more"),
    [
        ("off", 0, {}),
        ("periodic", 1, {}),
        ("periodic", 2, {}),
        ("uncertainty", 3, {}),
        ("periodic", 4, TARGETS | {"audit": {"fraction": 0.2, "spend": "widest"}}),
    ],
)
def test_rows_are_those_of_one_process(policy: str, seed: int, more: dict[str, Any]) -> None:
    frames = mixed(600, "hall", "yard", "roof-1")
    rules = {**RULES, "adaptation": {**ADAPTATION[policy], **SHARED}, **more}
    alone = run_frames(frames, models(), tick=3, **rules)
    site = Site(SiteConfig(models="building", **rules), models(), ("hall", "yard", "roof-1"))
    apart = site.run(frames, random.Random(seed))
    assert rows(apart) == rows(alone)

    def told(records: Iterable[Record]) -> list[str]:
        said = (r for r in records if isinstance(r, Decision))
        return sorted(f"{r.camera_id} {r.start} {r.reason} {r.certificates} {r.trial} {r.audit_share}" for r in said)

    assert told(apart) == told(alone)
    assert len(told(alone)) >= 6
    versions = {o.link_version for o in outputs(alone) if o.how == "linked"}
    assert len(versions) > 1, "no promotion in mid-stream: the test would show nothing"
    if more:
        assert any("not met" in r.target_states.values() for r in alone if isinstance(r, Decision))
        assert all(r.audit_share is not None for r in alone if isinstance(r, Decision))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "policy", "seed"),
    [
        (step, policy, seed)
        for step in ("adaptation", "scheduler")
        for policy, seed in (("periodic", 4), ("uncertainty", 5))
    ],
)
def test_rows_are_those_of_one_process_though_a_worker_is_lost_again_and_again(
    step: str, policy: str, seed: int
) -> None:
    """What adaptation had collected, its trials, and the scheduler's scores: all of it is in the snapshot."""
    site, apart, alone = lose_again_and_again(step, policy, seed)
    assert site.crashes >= 5
    assert rows(apart).keys() == rows(alone).keys()
    assert set(Counter((o.camera_id, o.frame_index, o.model) for o in outputs(apart)).values()) == {1}
    assert len({o.link_version for o in outputs(alone) if o.how == "linked"}) > 1, "no promotion in mid-stream"


def lose_again_and_again(
    step: str, adaptation: str, seed: int, tiny: Sequence[TinyModel] = (), count: int = 600, **more: Any
) -> tuple[Site, list[Record], list[Record]]:
    """Run a site with a worker that crashes, and one process on the same frames."""
    frames, tiny = mixed(count, "hall", "yard"), tiny or models()
    rules = {**RULES, "adaptation": {**ADAPTATION[adaptation], **SHARED}, **more}
    alone = run_frames(frames, tiny, tick=2, **rules)
    site = Site(SiteConfig(models="building", **rules), tiny, ("hall", "yard"))
    return site, site.run(frames, random.Random(seed), crashes=step), alone


def test_audits_that_were_saved_up_outlive_the_scheduler() -> None:
    audit = {"audit": {"fraction": 0.2, "spend": "widest"}}
    site, apart, _ = lose_again_and_again("scheduler", "off", 6, period=timedelta(seconds=100), **audit)
    assert site.crashes >= 5
    for camera in ("hall", "yard"):
        chances = [r.audit_probability for r in apart if isinstance(r, FrameResult) and r.camera_id == camera]
        served = [chance for chance in chances if chance is not None]
        account = site.paced["scheduler"]._scheduler.tally(camera).told["account"]
        assert account["saved"] == pytest.approx(0.2 * len(served) - sum(served))


def test_certificates_and_targets_outlive_the_scheduler() -> None:
    more = {**TARGETS, "audit": {"fraction": 0.2, "spend": "widest"}}
    site, apart, alone = lose_again_and_again("scheduler", "off", 6, **more)
    assert site.crashes >= 5
    verdicts = decided(alone)
    assert decided(apart) == verdicts
    assert any("not met" in states for *_, states in verdicts) and any(
        "audits" in figures for *_, figures, _ in verdicts
    )


def decided(records: Iterable[Record]) -> set[tuple[str, ...]]:
    """Return what each decision went by: certificates to the last digit. After a crash one may be told twice."""
    made = (r for r in records if isinstance(r, Decision))
    return {(r.camera_id, str(r.start), r.reason, str(r.certificates), str(r.target_states)) for r in made}


def test_a_policy_that_decides_on_every_frame_goes_on_after_a_crash_as_if_there_had_been_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paced_inference, "POLICY_S", 0.0)
    site, apart, alone = lose_again_and_again("inference", "off", 2, count=300, policy="camlink")
    assert site.crashes >= 3
    assert rows(apart).keys() == rows(alone).keys()


def test_a_policy_that_lost_what_it_learnt_last_leaves_no_frame_without_an_output() -> None:
    site, apart, alone = lose_again_and_again("inference", "off", 2, count=300, policy="camlink")
    assert site.crashes >= 3
    keys = {(o.camera_id, o.frame_index, o.model) for o in outputs(alone)}
    assert {(o.camera_id, o.frame_index, o.model) for o in outputs(apart)} == keys
    assert len(keys) == 300 * 2 * 3
    assert rows(apart).keys() != rows(alone).keys(), "it forgot nothing: docs/distributed.md says that it does"


def test_rows_of_cameras_that_start_from_a_zoo_are_those_of_one_process_also_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paced_inference, "POLICY_S", 0.0)
    tiny = models()
    for model in tiny:
        model.load()
    shown = [
        Shown(FrameFacts(f.index, f.captured_at.timestamp()), {m.spec.model: m.run([f])[0].value for m in tiny})
        for f in make_frames("porch", 120)
    ]
    specs = {m.spec.model: m.spec for m in tiny}
    costs = Costs(dict.fromkeys(specs, 10.0), dict.fromkeys(specs, 1.0))
    save_zoo(Zoo(specs, (experience_of("porch", shown, specs, costs),)), tmp_path / "porch.zoo")
    policy = {"policy": "camlink", "policy_zoo": str(tmp_path / "porch.zoo")}
    site, apart, alone = lose_again_and_again("inference", "off", 2, count=300, **policy)
    assert site.crashes >= 3
    assert rows(apart).keys() == rows(alone).keys()
    _, _, without = lose_again_and_again("inference", "off", 2, count=300, policy="camlink")
    assert rows(alone).keys() != rows(without).keys()


@pytest.mark.parametrize("policy", PER_FRAME_POLICIES)
def test_rows_of_policies_that_decide_on_every_frame_are_those_of_one_process(policy: str) -> None:
    frames = mixed(300, "hall", "yard")
    rules = {**RULES, "policy": policy, "adaptation": {**ADAPTATION["periodic"], **SHARED}}
    alone = run_frames(frames, models(), tick=2, **rules)
    site = Site(SiteConfig(models="building", **rules), models(), ("hall", "yard"))
    assert rows(site.run(frames, random.Random(5))) == rows(alone)
    assert {"executed", "reused"} <= {o.how for o in outputs(alone)}


def test_models_loaded_in_turn_keep_every_promise_but_that_of_equal_rows() -> None:
    frames = mixed(500, "hall", "yard")
    rules = {**RULES, "budgets": {"memory_gb": 1.5}, "adaptation": {**ADAPTATION["periodic"], **SHARED}}
    site = Site(SiteConfig(models="building", **rules), models(), ("hall", "yard"))
    records = site.run(frames, random.Random(1))
    served = Counter((o.camera_id, o.frame_index, o.model) for o in outputs(records))
    assert len(served) == 500 * 2 * 3
    assert set(served.values()) == {1}


def test_a_scheduler_that_is_away_holds_frames_up_for_a_bounded_time_only() -> None:
    rules = {**RULES, "adaptation": {"policy": "off"}}
    site = Site(SiteConfig(models="building", **rules), models(), ("hall",))
    del site.workers["scheduler"]
    for frame in make_frames("hall", 100):
        site.bus.publish("frames", frame)

    def round_trip() -> int:
        for _ in range(5):
            for worker in site.workers.values():
                worker.once()
        return len({r.frame_index for r in site._results.poll() if isinstance(r, FrameResult)})

    until_profile_ends = round_trip()
    assert until_profile_ends == 50  # 40 bootstrap and 10 profile frames
    assert round_trip() == 0
    site.now_s += HOLD_S + 0.1
    assert round_trip() == 50


class DoubtfulDetector(TinyModel):
    """Counts nobody, and shows everybody in boxes too doubtful to count: from frame ``twice_from`` on in two each."""

    twice_from: float = inf

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        counted = zip(super().run(frames), frames, strict=True)
        return [replace(inference, detections=_crowd(self._boxes(frame))) for inference, frame in counted]

    def _boxes(self, frame: Frame) -> int:
        return people(frame) * (2 if frame.index >= self.twice_from else 1)


def _crowd(count: int) -> Detections:
    corners = np.tile(np.float32([0.1, 0.1, 0.2, 0.4]), (count, 1))
    return Detections(corners, np.full(count, 0.15, np.float32), np.zeros(count, np.int32))


SET_LINKS = {**RULES["links"], "kind": "set", "context": ["frame_statistics"]}


def doubtful_and_persons(twice_from: float = inf) -> list[TinyModel]:
    doubtful = DoubtfulDetector.count("doubtful", lambda f: 0, time_ms=1.0)
    doubtful.twice_from = twice_from
    return [doubtful, TinyModel.count("persons", people)]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["adaptation", "scheduler"])
def test_what_links_read_of_boxes_outlives_a_worker(step: str) -> None:
    """Frames to learn from, scores, and the frame that is just being relabelled."""
    site, apart, alone = lose_again_and_again(step, "uncertainty", 3, doubtful_and_persons(120), 600, links=SET_LINKS)
    assert site.crashes >= 3
    assert rows(apart).keys() == rows(alone).keys()
    assert len({o.link_version for o in outputs(alone) if o.how == "linked"}) > 1, "no promotion in mid-stream"


@pytest.mark.parametrize("policy", ["off", "uncertainty"])
def test_boxes_reach_links_in_one_process_and_between_processes(policy: str) -> None:
    frames = mixed(260, "hall", "yard")
    rules = {**RULES, "links": SET_LINKS, "adaptation": {**ADAPTATION[policy], **SHARED}}
    tiny = doubtful_and_persons()
    alone = run_frames(frames, tiny, tick=2, **rules)
    linked = [o for o in outputs(alone) if o.how == "linked"]
    right = np.mean([o.value == people_at(o.camera_id, o.frame_index) for o in linked])
    assert right > 0.9, "only the boxes tell how many there are"
    apart = Site(SiteConfig(models="building", **rules), tiny, ("hall", "yard")).run(frames, random.Random(5))
    assert rows(apart) == rows(alone)


def test_a_target_without_a_time_budget_is_met_at_less_than_the_cost_of_everything_in_either_way() -> None:
    frames = mixed(600, "hall", "yard")
    rules = {**RULES, "policy": "camlink", "budgets": {}, "target_agreement": 0.8, "adaptation": {"policy": "off"}}
    alone = run_frames(frames, models(), tick=2, **rules)
    site = Site(SiteConfig(models="building", **rules), models(), ("hall", "yard"))
    assert rows(site.run(frames, random.Random(5))) == rows(alone)
    served = [o for o in outputs(alone) if o.purpose == "serve"]
    executed = sum(o.how == "executed" for o in served)
    assert 0.1 * len(served) < executed < 0.9 * len(served)
