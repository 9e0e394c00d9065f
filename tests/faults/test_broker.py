"""The broker out of reach, for less and for more than workers wait; and a broker that has forgotten everything."""

from __future__ import annotations

import re

import pytest

from tests.faults.conftest import Report
from tests.faults.site import FaultSite
from tests.integration.processes import STEPS

FPS = 12.0
SESSION_S = 6.0
LOOK_S = 3.0 + 5.0  # how often a worker looks whether the broker is there, and how long a look may take
CLIENTS_NEWS = re.compile(r" (?:ERROR|WARNING) (?:kafka|confluent_kafka)\b")
DELIVERY_S = 60.0  # `camlink.pipeline.bus.kafka.DELIVERY_S`: after it workers end, to be started again

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.mark.parametrize(
    ("away_s", "how"),
    [
        (SESSION_S / 2, "gone"),
        pytest.param(10.0, "gone", marks=pytest.mark.quick("confluent")),
        (4 * SESSION_S, "gone"),
        (10.0, "silent"),
        (DELIVERY_S + 30.0, "gone"),
    ],
)
def test_a_broker_that_comes_back_has_everything(site: FaultSite, report: Report, away_s: float, how: str) -> None:
    proxy = site.proxies["broker"]
    site.feed(120, FPS)
    site.tended_for(5.0)
    site.struck(first_reported=site.says("inference", "the broker does not answer"))
    proxy.cut() if how == "gone" else proxy.stall()
    site.tended_for(away_s)
    proxy.heal()
    promised = "nothing is missing; work goes on by itself" + (
        "" if away_s < DELIVERY_S else "; who cannot deliver for 60 s ends and is started again until it is back"
    )
    seen = site.through()
    report(f"broker {how} for {away_s:.0f} s, then back with all it had", promised, seen)
    assert "first_reported" in seen.marks or away_s < LOOK_S
    chatty = [step for step in STEPS if CLIENTS_NEWS.search(site.log(step))]
    assert not chatty, "a client tells of each failed connection, hundreds in a minute"


@pytest.mark.quick("confluent")
def test_a_broker_that_has_forgotten_everything_is_reported_and_begun_anew_with(
    site: FaultSite, report: Report
) -> None:
    site.feed(240, FPS)
    site.tended_for(5.0)
    told = [site.says(step, "has lost its topics") for step in STEPS]
    site.struck(reported_by_all=lambda: all(says() for says in told), at_work_again=site.joins("results"))
    site.servers["broker"].restart()
    promised = (
        "within seconds every worker says so and ends; started again, they make the topics anew and go on with the "
        "links and plans of their snapshots; a replay is replayed, of live cameras the gap is counted as lost"
    )
    seen = site.through()
    report("broker restarted empty", promised, seen)
    assert "reported_by_all" in seen.marks
    site.feed(40, FPS)
    after = site.through()
    report("the frames after that", "as ever", after)
    assert not after.restarts
    assert after.ledger.total("linked") > 0, "links are known again"
