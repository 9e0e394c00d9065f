"""Workers that are killed, or stopped for longer than a session lasts, at a moment chosen by a seed."""

from __future__ import annotations

import random

import pytest

from camlink.pipeline.bus.kafka_topics import CLIENTS
from tests.faults.conftest import Report
from tests.faults.site import FaultSite
from tests.integration.processes import STEPS

FPS = 12.0
FROZEN_S = 10.0  # after 6 s without a word the group gives a member's cameras to others
TAKEN_UP = "its cameras are taken up from the last commit; every frame is accounted for once"
QUICK = ("inference", "adaptation")  # part of the default run too

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.mark.parametrize(
    "step",
    [pytest.param(step, marks=[pytest.mark.quick(CLIENTS[0])] if step in QUICK else []) for step in ("ingest", *STEPS)],
)
def test_a_killed_worker_costs_time_and_no_result(site: FaultSite, report: Report, step: str) -> None:
    site.feed(100, FPS)
    site.tended_for(random.Random(step).uniform(4.0, 7.0))
    site.struck(**({} if step == "ingest" else {"at_work_again": site.joins(step)}))
    site.kill(step)
    report(f"kill -9 of {step}", TAKEN_UP, site.through())


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_that_wakes_after_its_cameras_went_to_another_doubles_nothing(
    site: FaultSite, report: Report, step: str
) -> None:
    with site.second(step) as other:
        site.feed(140, FPS)
        site.tended_for(random.Random(step).uniform(4.0, 7.0))
        site.struck(taken_over=site.joins(other))
        with site.frozen(step):
            site.tended_for(FROZEN_S)
        report(f"SIGSTOP of one of two {step} workers for {FROZEN_S:.0f} s", TAKEN_UP, site.through())
