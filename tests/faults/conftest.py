"""One site for all faults, one after another, and the ledgers at the end of pytest's own report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from camlink.pipeline.bus.kafka_topics import CLIENTS
from tests.faults.site import FaultSite, Seen, burning_site, write_trace

REPORTS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REPORTS] = []


@pytest.fixture(scope="session")
def long_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trace(tmp_path_factory.mktemp("fault-trace"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let every fault of a site meet both Kafka clients, one after the other."""
    if "client" in metafunc.fixturenames:
        metafunc.parametrize("client", CLIENTS, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out of a default run what is only of the fault suite; `-m faults` and scripts/faults run all of it.

    All of it with one client, that is: ``--client``.
    """
    whole, client = "faults" in (config.getoption("markexpr") or ""), config.getoption("--client")
    left = [
        item
        for item in items
        if item.get_closest_marker("faults") and not (_is_with(item, client) if whole else _is_of_default_run(item))
    ]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


def _is_with(item: pytest.Item, client: str) -> bool:
    return _client_of(item) in (client, None)


def _is_of_default_run(item: pytest.Item) -> bool:
    quick = item.get_closest_marker("quick")
    return item.get_closest_marker("rtsp") is not None or (quick is not None and _client_of(item) in quick.args)


def _client_of(item: pytest.Item) -> str | None:
    """Return the Kafka client of a test's site; None if it has no site."""
    return (
        item.callspec.params.get("client") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
    )


@pytest.fixture(scope="package")
def site(client: str, long_trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSite]:
    """A site that has learnt its links and serves. It lives through all faults but those that need another."""
    with burning_site(tmp_path_factory.mktemp("burning"), long_trace, client) as running:
        running.feed(60, fps=0.0)
        assert running.through().ledger.balances
        yield running


class Report:
    """Keeps what was promised and what was seen of each fault, for the end of the run."""

    def __init__(self, stash: list[str]) -> None:
        self._stash = stash

    def __call__(self, fault: str, promised: str, seen: Seen) -> None:
        self.add(fault, promised, "\n".join(seen.lines()))
        assert seen.ledger.balances, self._stash[-1]

    def add(self, fault: str, promised: str, seen: str) -> None:
        """Add what was seen of a fault that strikes one camera only, whose account the caller checks."""
        self._stash.append(f"fault:    {fault}\npromised: {promised}\nseen:     {seen}")


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    return Report(request.config.stash[REPORTS])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for text in config.stash.get(REPORTS, []):
        terminalreporter.write_line("")
        terminalreporter.write_line(text)
