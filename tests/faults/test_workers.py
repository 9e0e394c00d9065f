"""Workers that are killed, or stopped for longer than a session lasts, at a moment chosen by a seed."""

from __future__ import annotations

import random

import pytest

from tests.faults.conftest import Report
from tests.faults.site import FaultSite

FPS = 12.0
SESSION_S = 6.0  # after which the group gives a silent member's cameras to others

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.faults]


@pytest.mark.parametrize("step", ["ingest", "inference", "linking", "adaptation", "scheduler", "results"])
def test_a_killed_worker_costs_time_and_no_result(site: FaultSite, report: Report, step: str) -> None:
    part = site.feed(100, FPS)
    site.tended_for(random.Random(step).uniform(4.0, 7.0))
    site.kill(step)
    seen = site.through(part)
    report(f"kill -9 of {step}", "taken up from the last commit; every frame accounted for once", seen)


@pytest.mark.parametrize("step", ["ingest", "inference", "linking", "adaptation", "scheduler", "results"])
def test_a_worker_frozen_past_its_session_comes_back_and_doubles_nothing(
    site: FaultSite, report: Report, step: str
) -> None:
    part = site.feed(100, FPS)
    site.tended_for(random.Random(step).uniform(4.0, 7.0))
    with site.frozen(step):
        site.tended_for(1.5 * SESSION_S)
    seen = site.through(part)
    report(f"SIGSTOP of {step} for {1.5 * SESSION_S:.0f} s", "as after a kill; what it still held is not given twice", seen)
