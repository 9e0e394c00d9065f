"""camlink's end of a decoding process: one connection to a camera as a stream of items, with a bound on every wait."""

from __future__ import annotations

import json
import mmap
import os
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np

from camlink.pipeline.ingest.nursery import MESSAGE_MOST, NURSERY, Nursery
from camlink.pipeline.ingest.order import Order
from camlink.pipeline.records import Pixels


@dataclass(frozen=True, slots=True)
class Opened:
    """The camera answered."""

    codec: str


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """A picture (H, W, 3) BGR, the caller's own. ``decode_s``: processor time since the sampled picture before it."""

    pixels: Pixels
    at: datetime
    decode_s: float | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """Sampled pictures that could not be had, and why."""

    count: int
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Beat:
    """Pictures come; none of them was to be sampled."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The connection is over. ``cause``: what a person should look at, where that is known."""

    why: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The file that stood in for a camera has been played."""


Item = Opened | Sampled | Lost | Beat | Failed | Ended


class Feed(Protocol):
    """One connection to a camera. After `Failed` or `Ended` nothing more comes."""

    def next(self, timeout_s: float) -> Item | None:
        """Return the next item, or None if none comes within ``timeout_s``. Never waits longer."""
        ...

    def close(self) -> None:
        """Let go of the camera at once, even if its driver hangs. Closing twice is harmless."""
        ...


FeedFactory = Callable[[Order], Feed]


class ChildFeed:
    """A feed from a decoding process. Raises `OSError` when none can be started."""

    def __init__(self, order: Order, nursery: Nursery = NURSERY) -> None:
        self._nursery = nursery
        self._number, self._connection = nursery.start(order)
        self._readable = select.poll()  # unlike select.select it takes any descriptor, of a thousand cameras too
        self._readable.register(self._connection, select.POLLIN)
        self._memory: mmap.mmap | None = None
        self._is_closed = False

    def next(self, timeout_s: float) -> Item | None:
        """Return the next item, or None if none comes within ``timeout_s``."""
        if not self._readable.poll(timeout_s * 1000):
            return None
        try:
            message, descriptors, _, _ = socket.recv_fds(self._connection, MESSAGE_MOST, 1)
        except ConnectionResetError:  # the decoder ended before it had read all answers; its last words come yet
            message, descriptors, _, _ = socket.recv_fds(self._connection, MESSAGE_MOST, 1)
        if not message:
            return Failed("the decoding process ended")
        for descriptor in descriptors:
            self._memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size, prot=mmap.PROT_READ)
            os.close(descriptor)
        return self._item(json.loads(message))

    def close(self) -> None:
        """Kill the process, whatever it is doing."""
        if not self._is_closed:
            self._is_closed = True
            self._nursery.stop(self._number)
            self._connection.close()
            self._memory = None

    def _item(self, told: dict[str, Any]) -> Item:
        kind = told["is"]
        if kind == "frame":
            pixels = self._taken(told["place"], tuple(told["shape"]))
            return Sampled(pixels, _moment(told["at"]), told["decode_s"])
        if kind == "lost":
            return Lost(told["count"], _moment(told["at"]), told["reason"])
        if kind == "opened":
            return Opened(told["codec"])
        if kind == "failed":
            return Failed(told["why"], told["cause"])
        return Beat() if kind == "beat" else Ended()

    def _taken(self, place: int, shape: tuple[int, ...]) -> Pixels:
        """Copy a picture out of the shared memory and give its place back."""
        assert self._memory is not None
        size = int(np.prod(shape))
        pixels = np.frombuffer(self._memory, np.uint8, size, place * size).reshape(shape).copy()
        try:
            self._connection.send(bytes([place]), socket.MSG_DONTWAIT)
        except OSError:  # the decoder ended after this picture; its last word or end of file comes next
            return pixels
        return pixels


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
