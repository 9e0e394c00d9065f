"""Opens a state store by URL. The contract is `camlink.operators.base.StateStore`."""

from __future__ import annotations

from camlink.operators.base import StateStore
from camlink.pipeline.errors import StateError
from camlink.pipeline.urls import open_backend

BACKENDS = {"memory": "camlink.pipeline.state.memory:MemoryState", "redis": "camlink.pipeline.state.redis:RedisState"}
BACKENDS["rediss"] = BACKENDS["redis"]  # with TLS


def open_state(url: str) -> StateStore:
    """Open a state store by URL: ``memory://`` or ``redis://HOST:PORT/DB``. Raises `StateError` for other schemes."""
    store: StateStore = open_backend(url, BACKENDS, StateError, "state store")
    return store
