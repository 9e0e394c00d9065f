"""A hundred live cameras that send three times as much as the models can take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Report
from tests.faults.site import MODELS, FaultSite, burning_site, write_trace
from tests.integration.processes import STEPS

CAMERAS = tuple(f"cam-{number:02}" for number in range(100))
FPS = 1.0
MODEL_MS = 10.0  # a frame that every model runs on takes 30 ms, so that 33 of the 100 a second can be run
SECONDS = 60

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture
def crowd(client: str, tmp_path: Path) -> Iterator[FaultSite]:
    trace = tmp_path / "trace"
    trace.mkdir()
    write_trace(trace, CAMERAS, frames=SECONDS)
    behind = {"inference": {"CAMLINK_WHEN_BEHIND": "drop-oldest", "FAULT_MODEL_MS": str(MODEL_MS)}}
    with burning_site(tmp_path, trace, client, CAMERAS, behind, policy="all", adaptation={"policy": "off"}) as site:
        yield site


def test_overload_drops_frames_with_the_reason_and_no_memory_grows(crowd: FaultSite, report: Report) -> None:
    crowd.feed(SECONDS, FPS, FAULT_LIVE="1")
    memory: dict[str, list[int]] = {step: [] for step in STEPS}
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        crowd.tended_for(2.0)
        for step, sizes in memory.items():
            sizes.append(resident_mb(crowd.running[step].pid))
    seen = crowd.through()
    grown = {step: max(sizes) - max(sizes[: len(sizes) // 2]) for step, sizes in memory.items()}
    seen.facts += [
        f"{step} {max(sizes)} MB at most, {grown[step]:+} MB in the second half" for step, sizes in memory.items()
    ]
    seen.facts.append(f"{seen.ledger.total('executed') // len(MODELS)} of {len(CAMERAS) * SECONDS} frames run")
    promised = "each camera's newest frames are run, the others counted as dropped; memory does not grow"
    report("3x overload: 100 live cameras", promised, seen)
    assert set(seen.ledger.reasons()) == {"dropped: overload"}
    served = [account.fates["executed"] for account in seen.ledger.accounts.values()]
    assert min(served) > 0, "no camera may starve"
    assert max(grown.values()) < 100


def resident_mb(pid: int) -> int:
    """Return a process's resident memory in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) // 1000
