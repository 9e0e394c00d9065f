"""What a live machine has time for: found while it works, and spent on all frames alike."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camlink.models.base import Inference
from camlink.models.pool import ModelPool
from camlink.operators.allowance import Allowance
from camlink.operators.selection import Budget, Costs
from camlink.operators.throttle import BUSY, LEAST, Throttle
from camlink.pipeline.assembly import CameraFacts, build_embedded, throttle_of
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.records import Frame, FrameDropped, FrameResult, FrameStats, Record
from camlink.pipeline.testing import TinyModel, make_frames, outputs
from tests.scenes import USUAL

COSTS = {"persons": 30.0, "bags": 10.0}


@dataclass
class Machine:
    """A machine on which executing everything takes ``full_s``, and every frame takes ``beside_s`` more."""

    full_s: float
    beside_s: float = 0.0
    frames_s: float = 10.0
    now_s: float = 0.0
    busy_ms: float = 0.0

    def __post_init__(self) -> None:
        self.throttle = Throttle(COSTS, lambda: self.busy_ms, lambda: self.now_s, 0.9)
        self.came, self.seen, self.rests = 0, 0, 0.0

    def work(self, seconds: float, *, audited: int = 0) -> Counter[str]:
        """Have a policy execute just as much as it may, and audit every ``audited``-th frame; return what frames were.

        Frames that come while one is worked on are overtaken, but for the last.
        """
        end_s, purposes = self.now_s + seconds, Counter[str]()
        while self.now_s < end_s:
            waiting = int(self.now_s * self.frames_s) - self.seen
            if not waiting:
                self.now_s = (self.seen + 1) / self.frames_s + 1e-9
                continue
            for place in range(waiting):
                self.seen += 1
                purpose = "overtaken" if place < waiting - 1 else "serve"
                purpose = "audit" if audited and self.seen % audited == 0 else purpose
                self._wave(purpose)
                purposes[purpose] += 1
        return purposes

    def _wave(self, purpose: str) -> None:
        self.throttle.choosing(int(purpose == "serve"))
        self.rests += self.throttle.share if purpose == "serve" else 0.0
        chosen = ["persons", "bags"] if self.rests >= 1.0 else []
        self.rests -= bool(chosen)
        self._take(self.full_s * bool(chosen))
        self.throttle.chose(chosen)
        self._take(self.full_s * (purpose == "audit"))
        self.throttle.see([("hall", purpose)])
        self.now_s += self.beside_s

    def _take(self, seconds: float) -> None:
        self.now_s += seconds
        self.busy_ms += 1000.0 * seconds


@pytest.mark.parametrize("full_s", [0.02, 0.09, 0.15, 0.3, 0.9])
def test_it_comes_to_the_share_that_the_machine_has_time_for(full_s: float) -> None:
    machine = Machine(full_s)
    machine.work(120.0)
    assert machine.throttle.share == pytest.approx(min(1.0, BUSY * 0.1 / full_s), rel=0.1)


def test_what_takes_time_beside_models_and_what_audits_take_is_left_out_of_it() -> None:
    machine = Machine(0.3, beside_s=0.04)
    machine.work(200.0, audited=20)
    assert machine.throttle.share == pytest.approx((BUSY * 0.1 - 0.04 - 0.3 / 20) / 0.3, rel=0.3)
    before = machine.work(100.0, audited=20)
    assert before["overtaken"] < 0.35 * before.total(), "executing takes longer than a frame: those are inherent"


def test_a_machine_that_is_freed_gives_all_again_and_one_that_cannot_keep_up_next_to_nothing() -> None:
    machine = Machine(0.4)
    machine.work(60.0)
    assert machine.throttle.share < 0.3
    machine.full_s = 0.01
    machine.work(60.0)
    assert machine.throttle.share == 1.0
    machine.beside_s, machine.full_s = 0.2, 0.3
    machine.work(300.0)
    assert machine.throttle.share == pytest.approx(LEAST)


def test_a_night_without_frames_says_nothing_of_what_there_is_time_for_by_day() -> None:
    machine = Machine(0.3)
    machine.work(60.0)
    found = machine.throttle.share
    machine.now_s += 8 * 3600.0
    machine.seen = int(machine.now_s * machine.frames_s)
    machine.work(10.0)
    assert found <= machine.throttle.share < 1.3 * found


@pytest.mark.parametrize("full_s", [0.02, 0.05])
@pytest.mark.parametrize("stall_s", [0.25, 2.0, 30.0])
def test_a_machine_that_stalls_once_gives_all_again_within_a_minute(full_s: float, stall_s: float) -> None:
    """What held it up says nothing of what frames take beside models, though frames had to wait."""
    machine = Machine(full_s)
    machine.work(60.0)
    machine.now_s += stall_s
    assert machine.work(5.0)["overtaken"] > 0
    machine.work(60.0)
    assert machine.throttle.share == 1.0


def test_while_cameras_learn_it_is_found_out_what_they_may_choose_after_that() -> None:
    machine = Machine(0.3)
    for _ in range(100):
        machine.throttle.choosing(0)
        machine.throttle.chose([])
        machine._take(0.3)
        machine.throttle.see([("hall", purpose) for purpose in ("profile", "overtaken", "overtaken")])
    assert machine.throttle.share == pytest.approx(BUSY / 3, rel=0.05)


def test_who_asked_for_all_that_there_is_time_for_is_not_told_that_it_is_less(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(0.3)
    machine.throttle = Throttle(COSTS, lambda: machine.busy_ms, lambda: machine.now_s, 1.0)
    with caplog.at_level(logging.WARNING):
        machine.work(60.0)
    assert machine.throttle.share < 0.5 and not caplog.messages


def test_that_less_executes_than_was_asked_for_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        machine = Machine(0.3)
        machine.work(120.0)
        machine.full_s = 0.01
        machine.work(60.0)
        machine.full_s = 0.3
        machine.work(60.0)
    (told,) = caplog.messages
    assert "this machine has no time for the 90 %" in told


@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(0, 20), st.integers(0, 20)), max_size=20),
    st.none() | st.floats(0.05, 1.0),
)
def test_an_allowance_under_a_limit_never_gives_more_than_budget_or_limit(
    steps: list[tuple[float, int, int]], share: float | None
) -> None:
    costs = Costs(COSTS, {"persons": 1.0, "bags": 1.0})
    purse, total, given = Allowance(costs, Budget(time_share=share)), 40.0, 0.0
    for limit, frames, wanted in steps:
        purse.limit(limit)
        given = max(given, purse.spent_ms)
        for _ in range(frames):
            purse.next_frame()
            given += min(limit, 1.0 if share is None else share) * total
            for _ in range(wanted):
                if purse.affords("persons"):
                    purse.spend("persons")
        assert purse.spent_ms <= given + total + 1e-6
        if share is not None:
            assert purse.spent_ms <= share * total * purse.frames + 1e-3
        assert purse.left_ms <= given - purse.spent_ms + total + 1e-6
    again = Allowance(costs, Budget(time_share=share))
    again.limit(0.5)
    if again.resume(purse.state()) and purse.frames:
        assert again.left_ms <= purse.left_ms + 1e-6


def test_what_was_saved_is_known_after_a_restart_whatever_there_was_time_for() -> None:
    costs = Costs(COSTS, {"persons": 1.0, "bags": 1.0})
    for share in (None, 0.5):
        purse = Allowance(costs, Budget(time_share=share))
        for _ in range(50):
            purse.next_frame()
        purse.limit(0.3)
        purse.next_frame()
        again = Allowance(costs, Budget(time_share=share))
        assert again.resume(purse.state()) and again.frames == 51
        again.limit(0.3)
        assert again.left_ms <= 40.0 + 1e-6, "a new worker may be as slow as the one before"


class Slow(TinyModel):
    """A model that takes its time, by a clock of the test's own."""

    takes: Callable[[float], None] = staticmethod(lambda ms: None)

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        self.takes(self.time_ms * len(frames))
        return super().run(frames)


def scene(count: int) -> tuple[list[Frame], list[int]]:
    """Return frames that change every now and then, as their pixels show, and how many people there are on each."""
    random, people, frames = np.random.default_rng(5), [0], list[Frame]()
    for frame in make_frames("hall", count):
        changes = random.random() < 0.06
        people.append(int(random.integers(0, 6)) if changes else people[-1])
        frames.append(replace(frame, stats=FrameStats(0.2 if changes else 0.001, 0.1, 100.0)))
    return frames, people[1:]


def live(frames: list[Frame], people: list[int], demand: float, *, throttled: bool) -> list[Record]:
    """Carry one camera's frames through the pipeline on a machine of which they ask ``demand`` seconds a second."""
    now_s, records = [0.0], list[Record]()
    models = [
        Slow.count("persons", lambda f: people[f.index], time_ms=750.0 * demand),
        Slow.count("bags", lambda f: people[f.index] // 2, time_ms=250.0 * demand),
    ]

    def take(ms: float) -> None:
        now_s[0] += ms / 1000.0

    for model in models:
        model.takes = take
    pool = ModelPool(models, clock=lambda: now_s[0])
    config = SiteConfig(models="building", **USUAL | {"policy": "camlink", "budgets": {"time_share": 1.0}})
    throttle = throttle_of(config, pool, lambda: now_s[0]) if throttled else None
    pipeline = build_embedded(config, pool, {"hall": CameraFacts(1.0)}, records.extend, throttle=throttle)

    def readings() -> Iterator[Frame | None]:
        """Frames come once a second, and wait for the one before."""
        coming, waiting = deque(frames), deque[Frame]()
        start = frames[0].captured_at
        while coming or waiting:
            while coming and (coming[0].captured_at - start).total_seconds() <= now_s[0]:
                waiting.append(coming.popleft())
            if not waiting:
                now_s[0] = (coming[0].captured_at - start).total_seconds()
                continue
            frame = waiting.popleft()
            yield replace(frame, overtaken=bool(waiting))
            yield None

    pipeline.run(readings())
    return records


def wrong(records: list[Record], people: list[int]) -> float:
    """Return the share of the persons' answers on the later half that the model would not have given."""
    late = [r for r in records if isinstance(r, FrameResult) and r.frame_index > len(people) // 2]
    answers = [(o.value, people[o.frame_index]) for o in outputs(late) if o.model == "persons"]
    return float(np.mean([value is None or abs(float(value[0]) - true) > 0.5 for value, true in answers]))


def test_a_machine_that_is_too_slow_answers_every_frame_and_better_than_by_taking_what_comes() -> None:
    frames, people = scene(1500)
    free, throttled = (live(frames, people, 3.0, throttled=throttled) for throttled in (False, True))
    for records in (free, throttled):
        results = [r.frame_index for r in records if isinstance(r, FrameResult)]
        assert sorted(results) == list(range(1500)) and not any(isinstance(r, FrameDropped) for r in records)
    overtaken = [sum(isinstance(r, FrameResult) and r.purpose == "overtaken" for r in rs) for rs in (free, throttled)]
    assert overtaken[1] < 0.7 * overtaken[0]
    assert wrong(throttled, people) < 0.7 * wrong(free, people)
