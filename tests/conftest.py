"""What all tests share: where the recorded footage lies, a skip that says why, and no clock on property tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from camlink.pipeline.bus.kafka_topics import CLIENTS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
REPOSITORY = Path(__file__).resolve().parent.parent

# A busy machine may take its time over an example: how long one takes is no finding of a property test.
settings.register_profile("camlink", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("camlink")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of all tests must be known here: what lies deeper is found too late."""
    parser.addoption("--client", choices=CLIENTS, default=CLIENTS[0], help="Kafka client of the fault suite.")


def footage_folder() -> Path | None:
    """Return the folder of recorded footage, or None where there is none."""
    named = os.environ.get("CAMLINK_FOOTAGE")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "footage"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder of this checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def footage() -> Path:
    """The folder of recorded footage; tests that ask for it bear the mark `footage`."""
    folder = footage_folder()
    if folder is None:
        pytest.fail("asks for footage without the mark: add @pytest.mark.footage")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs footage, servers or a browser where there are none, and say so."""
    no_servers = _why_no_broker()
    reasons: dict[str, str | None] = {"footage": None, "broker": no_servers, "faults": no_servers, "browser": None}
    if not CHROMIUM:
        reasons["browser"] = "no chromium: apt-get install chromium"
    if footage_folder() is None:
        reasons["footage"] = "no recorded footage: set CAMLINK_FOOTAGE to its folder, or put it at ../shared/footage"
    for item in items:
        for mark, reason in reasons.items():
            if reason is not None and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def broker_address() -> Iterator[str]:
    """``127.0.0.1:PORT`` of a broker; use another site name per test."""
    from camlink.pipeline import testbed

    with testbed.broker() as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    from camlink.pipeline import testbed

    with testbed.redis_server() as server:
        yield f"redis://127.0.0.1:{server.port}"


def _why_no_broker() -> str | None:
    from camlink.pipeline import testbed

    return testbed.missing_servers()
