"""Addresses of brokers and stores that cannot be are told in one line, before anything is tried."""

from __future__ import annotations

import pytest

from camlink.pipeline.bus.base import open_bus
from camlink.pipeline.errors import BusError, StateError
from camlink.pipeline.state.base import open_state


@pytest.mark.parametrize("url", ["redis://store:abc", "redis://store:99999", "redis://[::1", "rediss://store:x"])
def test_a_store_that_cannot_be_is_an_error(url: str) -> None:
    with pytest.raises(StateError, match="is no address"):
        open_state(url)


@pytest.mark.parametrize(
    "url", ["kafka://a:9092,b:abc/site", "kafka://a:99999/site", "kafka://[::1/site", "kafka://,/s"]
)
def test_a_broker_that_cannot_be_is_an_error(url: str) -> None:
    with pytest.raises(BusError, match="is no"):
        open_bus(url)
