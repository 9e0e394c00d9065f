"""Redis emptied, restarted, read-only, full, slow, silent or gone. It is a cache: losing it costs answers, not rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from camlink.pipeline.bus.kafka_topics import CLIENTS
from camlink.pipeline.testbed import free_port
from tests.faults.conftest import Report
from tests.faults.site import FaultSite

FPS = 12.0
FAULT_S = 5.0
PROMISED = (
    "frames whose outputs were lost abstain with the reason, 10 s after they were announced; "
    "every frame is accounted for once; work goes on by itself"
)
LOST = "abstained: executed output was lost before it could be used"

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def emptied(site: FaultSite) -> Callable[[], None]:
    command(site, "FLUSHALL")
    return lambda: None


def restarted(site: FaultSite) -> Callable[[], None]:
    site.servers["redis"].restart()
    return lambda: None


def read_only(site: FaultSite) -> Callable[[], None]:
    command(site, "REPLICAOF", "127.0.0.1", str(free_port()))
    return lambda: command(site, "REPLICAOF", "NO", "ONE")


def full(site: FaultSite) -> Callable[[], None]:
    command(site, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    command(site, "CONFIG", "SET", "maxmemory", "100kb")  # less than an empty server takes
    return lambda: command(site, "CONFIG", "SET", "maxmemory", "0")


def slow(site: FaultSite) -> Callable[[], None]:
    site.proxies["redis"].slow(delay_s=0.4, bytes_per_s=50_000)
    return site.proxies["redis"].heal


def silent(site: FaultSite) -> Callable[[], None]:
    site.proxies["redis"].stall()
    return site.proxies["redis"].heal


def gone(site: FaultSite) -> Callable[[], None]:
    site.proxies["redis"].cut()
    return site.proxies["redis"].heal


FAULTS = [emptied, restarted, read_only, slow, silent, gone, pytest.param(full, marks=pytest.mark.quick(CLIENTS[0]))]


@pytest.mark.parametrize("strike", FAULTS, ids=lambda fault: fault.__name__)
def test_redis_may_fail_in_any_way(
    site: FaultSite, report: Report, strike: Callable[[FaultSite], Callable[[], None]]
) -> None:
    part = site.feed(160, FPS)
    site.tended_for(4.0)
    site.struck(first_reported=site.says("inference", "redis://"))
    heal = strike(site)
    site.tended_for(FAULT_S)
    heal()
    seen = site.through()
    name = f"Redis {strike.__name__.replace('_', '-')}"
    report(name if strike in (emptied, restarted) else f"{name} for {FAULT_S:.0f} s", PROMISED, seen)
    assert not seen.restarts, "no worker may die of its cache"
    assert set(seen.ledger.reasons()) <= {LOST}
    at_last = [account.fate_of[part[-1]] for account in seen.ledger.accounts.values()]
    assert "abstained" not in at_last, "work must go on as before once Redis is back"


def command(site: FaultSite, *words: str) -> None:
    with redis.Redis(port=site.servers["redis"].port) as client:
        client.execute_command(*words)
