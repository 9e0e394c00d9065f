"""The results disk full: nothing is committed that is not on disk."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Report
from tests.faults.disk import full_disk
from tests.faults.site import FaultSite

FPS = 12.0
FULL_S = 12.0

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.mark.parametrize("killed", [False, True], ids=["patient", "killed meanwhile"])
def test_a_full_disk_delays_rows_and_loses_none(site: FaultSite, report: Report, killed: bool) -> None:
    site.feed(100, FPS)
    site.tended_for(5.0)
    site.struck(first_reported=site.says("results", "trying again, nothing is lost"))
    with full_disk(site.out, site.running["results"].pid, site.own_disk):
        site.tended_for(FULL_S / 2)
        if killed:
            site.kill("results")
        site.tended_for(FULL_S / 2)
    how = "a file system without room" if site.own_disk else "a limit on file sizes"
    fault = f"results disk full for {FULL_S:.0f} s ({how})" + (", and the results worker killed meanwhile" * killed)
    report(fault, "rows wait on the bus and are written once there is room", site.through())
