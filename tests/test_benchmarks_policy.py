"""What the benchmark of the per-frame policy measures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from benchmarks.policy.speed import PARTS, Timed
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import Answer, FrameFacts
from camlink.operators.selection import Budget
from camlink.pipeline.records import Value
from tests.lab_traces import random_trace, setup_of


class Counting(PerFrame):
    """Counts the calls, and how often the models that it chose executed."""

    calls: Counter[str]

    def begin(self, frame: FrameFacts) -> None:
        self.calls["begin"] += 1
        super().begin(frame)

    def answer(self, executed: Mapping[str, Value]) -> dict[str, Answer]:
        self.calls["answer"] += 1
        return super().answer(executed)

    def learn(self, executed: Mapping[str, Value], *, chosen: bool) -> None:
        self.calls["learn" if chosen else "warm-up"] += 1
        self.calls["executed"] += len(executed) if chosen else 0
        super().learn(executed, chosen=chosen)


def test_the_benchmark_times_a_policy_that_decides_on_every_frame_after_warm_up() -> None:
    trace = random_trace(3, 60, 3)
    policy = Counting(setup_of(trace, Budget(time_share=0.4)))
    policy.calls = Counter()
    run = Timed(trace.cameras[0], policy)
    executed = policy.calls.pop("executed")
    assert policy.calls == {"begin": 60, "warm-up": 6, "answer": 54, "learn": 54}
    assert 0 < executed < 3 * 54
    assert run.warm_up == 6
    assert tuple(run.spent_s) == ("warm-up", *PARTS) and min(run.spent_s.values()) >= 0.0
