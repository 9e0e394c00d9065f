"""The broker out of reach, for less and for more than workers wait; and a broker that has forgotten everything."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Report
from tests.faults.site import FaultSite

FPS = 12.0
SESSION_S = 6.0
DELIVERY_S = 60.0  # `camlink.pipeline.bus.kafka.DELIVERY_S`: after it workers end, to be started again

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.mark.parametrize(
    ("away_s", "how"),
    [
        pytest.param(SESSION_S / 2, "gone", marks=pytest.mark.faults),
        (10.0, "gone"),
        pytest.param(4 * SESSION_S, "gone", marks=pytest.mark.faults),
        pytest.param(10.0, "silent", marks=pytest.mark.faults),
        pytest.param(DELIVERY_S + 30.0, "gone", marks=pytest.mark.faults),
    ],
)
def test_a_broker_that_comes_back_has_everything(site: FaultSite, report: Report, away_s: float, how: str) -> None:
    proxy = site.proxies["broker"]
    site.feed(120, FPS)
    site.tended_for(5.0)
    site.struck()
    proxy.cut() if how == "gone" else proxy.stall()
    site.tended_for(away_s)
    proxy.heal()
    promised = "nothing is missing; work goes on by itself" + (
        "" if away_s < DELIVERY_S else "; workers end after 60 s and are started again until it is back"
    )
    report(f"broker {how} for {away_s:.0f} s, then back with all it had", promised, site.through(most_s=200.0))
