"""What the distributed benchmark counts."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.distributed import site
from camlink.pipeline.bus.base import open_bus
from camlink.pipeline.records import FrameResult


def test_a_result_that_comes_again_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = open_bus("memory://")
    monkeypatch.setattr(site, "open_bus", lambda _: bus)
    watched: Any = SimpleNamespace(bus="memory://")
    watch = site.Watch(watched)
    at = datetime.now(UTC)
    for index, purpose in ((1, "serve"), (1, "serve"), (1, "relabel"), (2, "audit")):
        bus.publish("results", FrameResult("hall", index, at, purpose, ()))  # type: ignore[arg-type]
    ages_ms: list[float] = []
    watch.poll(ages_ms)
    assert len(ages_ms) == 2
    watch.close()
