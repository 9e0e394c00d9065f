"""The state store of the embedded pipeline: a dictionary whose entries expire."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from camlink.operators.base import Outputs


class MemoryState:
    """Entries expire by ``now_s`` (seconds, monotonic); expired ones are freed as others are put."""

    def __init__(self, url: str = "memory://", now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._entries: dict[str, tuple[float, Outputs]] = {}
        self._blobs: dict[str, tuple[float, bytes]] = {}
        self._expiry: deque[tuple[float, str]] = deque()  # in order of putting, so roughly in order of expiry

    def put(self, key: str, value: Outputs, ttl_s: float) -> None:
        now = self._now_s()
        self._entries[key] = (now + ttl_s, value)
        self._expiry.append((now + ttl_s, key))
        while self._expiry[0][0] <= now:
            due, old = self._expiry.popleft()
            if old in self._entries and self._entries[old][0] <= due:
                del self._entries[old]

    def get_many(self, keys: Sequence[str]) -> list[Outputs | None]:
        now = self._now_s()
        found = (self._entries.get(key) for key in keys)
        return [entry[1] if entry and entry[0] > now else None for entry in found]

    def put_blob(self, key: str, value: bytes, ttl_s: float) -> None:
        self._blobs[key] = (self._now_s() + ttl_s, value)

    def get_blobs(self, keys: Sequence[str]) -> list[bytes | None]:
        now = self._now_s()
        found = (self._blobs.get(key) for key in keys)
        return [entry[1] if entry and entry[0] > now else None for entry in found]

    def flush(self) -> None:
        """Everything is kept at once."""

    def untaken(self) -> dict[str, Outputs]:
        return {}

    def close(self) -> None:
        """Nothing to give back."""

    def __len__(self) -> int:
        return len(self._entries)
