"""Clocks that time limits are measured by."""

from __future__ import annotations

from datetime import timedelta

from camlink.pipeline.clock import SteadyClock


def test_a_steady_clock_moves_with_the_time_that_passed_and_with_nothing_else() -> None:
    passed = [100.0]
    clock = SteadyClock(seconds=lambda: passed[0])
    start = clock.now()
    assert clock.now() == start, "the machine's clock has moved on by now; this one has not"
    passed[0] += 7.5
    assert clock.now() - start == timedelta(seconds=7.5)
