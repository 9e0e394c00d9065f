"""The clock that live frames are stamped by, set forward and back by an hour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Report
from tests.faults.site import FaultSite, burning_site
from tests.integration.processes import STEPS

FPS = 12.0

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture(scope="module")
def clocked(client: str, long_trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSite]:
    """A site whose workers' clocks are off by what the file ``clock`` says."""
    folder = tmp_path_factory.mktemp("clocked")
    (folder / "clock").write_text("0")
    clock = {"FAULT_CLOCK": str(folder / "clock")}
    with burning_site(folder, long_trace, client, extra=dict.fromkeys((*STEPS, "ingest"), clock)) as site:
        site.feed(60, fps=20.0, FAULT_LIVE="1")
        assert site.through().ledger.balances
        yield site


@pytest.mark.parametrize("step_s", [3600, 0, -3600], ids=["an hour forward", "an hour back", "another hour back"])
@pytest.mark.parametrize("restarted", [False, True], ids=["", "and ingest restarted"])
def test_a_step_of_the_clock_loses_no_frame(clocked: FaultSite, report: Report, step_s: int, restarted: bool) -> None:
    clocked.feed(100, FPS, FAULT_LIVE="1")
    clocked.tended_for(5.0)
    clocked.struck()
    (clocked.folder / "clock").write_text(str(step_s))
    if restarted:
        clocked.kill("ingest")
    seen = clocked.through()
    fault = f"clock set to {step_s:+} s under live cameras" + (", and ingest killed" * restarted)
    report(fault, "no limit runs out early or late; no frame is taken for a repeat", seen)
    assert not seen.ledger.reasons(), "nothing may be abstained or dropped because of a clock"
