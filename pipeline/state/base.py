"""Opens a state store by URL. The contract is `camlink.operators.base.StateStore`."""

from __future__ import annotations

from camlink.operators.base import StateStore
from camlink.pipeline.errors import StateError
from camlink.pipeline.urls import open_backend

BACKENDS = {"memory": "camlink.pipeline.state.memory:MemoryState"}


def open_state(url: str) -> StateStore:
    """Open a state store by URL: ``memory://``. Raises `StateError` for other schemes."""
    store: StateStore = open_backend(url, BACKENDS, StateError, "state store")
    return store
