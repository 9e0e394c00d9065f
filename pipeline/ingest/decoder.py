"""What runs in a decoding process: reads one camera, keeps up with it, and hands over the sampled pictures.

Its loop waits for nothing but the camera. A picture lies in one of two places of a shared memory until camlink has
taken it; where both are still to be taken, the sampled picture counts as lost ("overload"), is not even converted, and
the loop goes on. So a slow camlink sees fewer frames, and never old ones.

Messages (JSON, one per packet of the socket): ``opened``, ``frame`` (with the memory's descriptor where it is a new
one), ``lost``, ``beat``, ``failed``, ``ended``. camlink answers each frame with its place, one byte.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from camlink.pipeline.ingest.framing import SampleGrid
from camlink.pipeline.ingest.masking import mask_url
from camlink.pipeline.ingest.order import Order
from camlink.pipeline.records import Pixels

if TYPE_CHECKING:
    from camlink.pipeline.ingest.keyframes import KeyCapture
    from camlink.pipeline.ingest.opencv import Capture

PLACES = 2
BEAT_EVERY_S = 0.25
LAST_WORDS = 2000  # characters of what FFmpeg says that are kept
NO_CONNECTION = "no connection"
TOO_SELDOM = "too seldom"  # no last word: key frames do not suffice, so all frames are read
KEYFRAMES_FROM = 1.0  # frames per second and fewer, for which "auto" tries key frames


class Outlet:
    """The decoder's end of the socket and of the shared memory. Never waits for camlink.

    Raises `OSError` from any method once camlink is gone.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._free = deque(range(PLACES))
        self._memory: mmap.mmap | None = None
        self._descriptor = -1
        self._is_new = False
        self._lost: Counter[str] = Counter()
        self._beat_at = 0.0
        self._spent_s = time.process_time()

    def has_room(self) -> bool:
        """Say whether a picture could be handed over now."""
        while not self._free:
            try:
                taken = self._connection.recv(PLACES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            if not taken:
                raise ConnectionError("camlink is gone")
            self._free.extend(taken)
        return True

    def frame(self, pixels: Pixels) -> None:
        """Hand over a picture (H, W, 3) BGR; there must be room for one."""
        at = time.time()
        self._fit(pixels.nbytes)
        assert self._memory is not None
        place = self._free.popleft()
        target = np.frombuffer(self._memory, np.uint8, pixels.nbytes, place * pixels.nbytes)
        np.copyto(target.reshape(pixels.shape), pixels)
        self._tell_losses()
        message = {"is": "frame", "at": at, "place": place, "shape": pixels.shape, "decode_s": self._decode_s()}
        if self._say(message, [self._descriptor] if self._is_new else []):
            self._is_new = False
        else:
            self._free.append(place)
            self.lost("overload")

    def lost(self, reason: str) -> None:
        """Tell of a sampled picture that could not be handed over, now or as soon as there is room for the words."""
        self._decode_s()
        self._lost[reason] += 1
        self._tell_losses()

    def _decode_s(self) -> float:
        """Return the processor time since the last sampled picture: here little else is done than decoding.

        Not the time that passed: most of that is waiting for the camera.
        """
        before, self._spent_s = self._spent_s, time.process_time()
        return self._spent_s - before

    def beat(self) -> None:
        """Tell, now and then, that pictures come."""
        now = time.monotonic()
        if now - self._beat_at >= BEAT_EVERY_S:
            self._beat_at = now
            self._say({"is": "beat"})

    def last(self, kind: str, **more: Any) -> None:
        """Say a word that must arrive, waiting for room if need be."""
        self._connection.setblocking(True)
        for reason, count in self._lost.items():
            self._connection.send(_packed({"is": "lost", "at": time.time(), "reason": reason, "count": count}))
        self._lost.clear()
        self._connection.send(_packed({"is": kind, **more}))

    def _tell_losses(self) -> None:
        for reason, count in list(self._lost.items()):
            if self._say({"is": "lost", "at": time.time(), "reason": reason, "count": count}):
                del self._lost[reason]

    def _fit(self, size: int) -> None:
        """Make the memory that both sides see hold two pictures of ``size`` bytes."""
        if self._memory is not None and len(self._memory) == PLACES * size:
            return
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = os.memfd_create("camlink-pictures")
        os.ftruncate(self._descriptor, PLACES * size)
        self._memory = mmap.mmap(self._descriptor, PLACES * size)
        self._is_new = True

    def _say(self, message: dict[str, Any], descriptors: list[int] | None = None) -> bool:
        """Send without waiting; return whether there was room."""
        try:
            socket.send_fds(self._connection, [_packed(message)], descriptors or [], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        return True


def decode(order: Order, connection: socket.socket) -> None:
    """Read a camera until it fails, its file ends or camlink is gone. Runs in a process of its own."""
    words = _LastWords()
    outlet = Outlet(connection)
    try:
        kind, why = _read(order, outlet)
        outlet.last(kind, why=why, cause=_cause(words.text(), order.address) if why == NO_CONNECTION else "")
    except (BrokenPipeError, ConnectionError):  # camlink closed its end: that is how it says that it wants no more
        return


def _read(order: Order, outlet: Outlet) -> tuple[str, str]:
    """Read until the end; return the last word to say and why."""
    kind, why = TOO_SELDOM, ""
    if _tries_key_frames(order):
        kind, why = _read_from(_open_key_frames, order, outlet)
    if kind == TOO_SELDOM:
        kind, why = _read_from(_open, order, outlet)
    return kind, why


def _read_from(open_capture: Callable[[Order, Outlet], Capture], order: Order, outlet: Outlet) -> tuple[str, str]:
    from camlink.pipeline.ingest.opencv import codec

    try:
        capture = open_capture(order, outlet)
    except Exception as cause:  # drivers raise what they like; any failure to open is retried and reported alike
        return "failed", f"opening failed ({mask_url(cause)})"
    if not capture.isOpened():
        return "failed", NO_CONNECTION
    outlet.last("opened", codec=codec(capture))
    try:
        return _read_on(capture, order, outlet)
    finally:
        capture.release()


def _read_on(capture: Capture, order: Order, outlet: Outlet) -> tuple[str, str]:
    from camlink.pipeline.ingest.keyframes import KeyCapture
    from camlink.pipeline.ingest.opencv import grab

    grid, opened_at = SampleGrid(order.fps), time.monotonic()
    while True:
        began = time.monotonic()
        is_there = grab(capture)
        silent_s = time.monotonic() - began
        if order.is_file and not is_there:
            return "ended", ""
        # When its time is up FFmpeg first gives the pictures that it held back, as if they had just come.
        is_late = silent_s >= 0.95 * order.read_timeout_s and not isinstance(capture, KeyCapture)
        if is_late and not order.is_file:
            return "failed", f"no frame for {silent_s:.1f} s"
        if not is_there:
            why = capture.why if isinstance(capture, KeyCapture) else ""
            return "failed", why or "the stream ended or cannot be decoded"
        outlet.beat()
        if isinstance(capture, KeyCapture) and _is_too_seldom(capture, order):
            return TOO_SELDOM, ""
        if grid.is_due(time.monotonic()):
            _sample(capture, outlet)
        if order.is_file:
            _rest(capture, opened_at, outlet)


def _sample(capture: Capture, outlet: Outlet) -> None:
    from camlink.pipeline.ingest.opencv import retrieve

    if not outlet.has_room():
        outlet.lost("overload")
        return
    pixels = retrieve(capture)
    if pixels is None:
        outlet.lost("corrupt")
    else:
        outlet.frame(pixels)


def _rest(capture: Capture, opened_at: float, outlet: Outlet) -> None:
    """Play a file at its own speed."""
    from camlink.pipeline.ingest.opencv import position_s

    due = opened_at + position_s(capture)
    while (rest_s := due - time.monotonic()) > 0:
        time.sleep(min(rest_s, BEAT_EVERY_S))
        outlet.beat()


def _is_too_seldom(capture: KeyCapture, order: Order) -> bool:
    return order.decode == "auto" and order.fps is not None and capture.gap_s > 1 / order.fps * 1.05


def _tries_key_frames(order: Order) -> bool:
    """Say whether to read key frames: where that is wanted, or may do, for cameras send one a second or fewer."""
    from camlink.pipeline.ingest.keyframes import is_installed

    may_do = order.decode == "auto" and order.fps is not None and order.fps <= KEYFRAMES_FROM
    return order.decode == "keyframes" or (may_do and is_installed())


def _open_key_frames(order: Order, outlet: Outlet) -> Capture:
    from camlink.pipeline.ingest.keyframes import open_key_frames

    capture = open_key_frames(str(order.address), order.open_timeout_s, order.read_timeout_s, outlet.beat)
    print(capture.why, file=sys.stderr, flush=True)  # where `_LastWords` hears it
    return capture


def _open(order: Order, outlet: Outlet) -> Capture:
    from camlink.pipeline.ingest.opencv import open_live

    return open_live(order.address, order.open_timeout_s, order.read_timeout_s)


class _LastWords:
    """Keeps the end of what this process prints: there FFmpeg says why it cannot open a camera.

    OpenCV prints it on the C library's standard output, which is flushed before the words are looked at. Where the user
    has set ``OPENCV_FFMPEG_LOGLEVEL`` the words are the user's, and are left alone.
    """

    def __init__(self) -> None:
        from camlink.pipeline.ingest.opencv import ERRORS_ONLY, LOG_LEVEL, QUIET

        self._thread: threading.Thread | None = None
        self._end = b""
        if os.environ.get(LOG_LEVEL, QUIET) != QUIET:
            return
        os.environ[LOG_LEVEL] = ERRORS_ONLY
        reading, writing = os.pipe()
        for descriptor in (1, 2):
            os.dup2(writing, descriptor)
        os.close(writing)
        self._thread = threading.Thread(target=self._listen, args=(reading,), daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Return the last words; what is printed from now on is lost."""
        if self._thread is None:
            return ""
        ctypes.CDLL(None).fflush(None)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        self._thread.join(1.0)
        return self._end.decode(errors="replace")

    def _listen(self, reading: int) -> None:
        while said := os.read(reading, 4096):
            self._end = (self._end + said)[-LAST_WORDS:]


# What FFmpeg says -> what a person should look at. FFmpeg's own words may hold addresses, so they are never passed on.
_MEANINGS = {
    "401": "the camera refuses the user name or password",
    "403": "the camera forbids this user to see the stream",
    "404": "the camera has no stream of that name",
    "Connection refused": "nothing listens at that address and port",
    "No route to host": "there is no route to that host",
    "Network is unreachable": "the network is unreachable",
    "Name or service not known": "the host name is not known",
    "Failed to resolve hostname": "the host name is not known",
    "Connection timed out": "the host does not answer",
    "Immediate exit requested": "the host does not answer in time",
}


def _cause(said: str, address: str | int) -> str:
    """Return what FFmpeg's words mean, or nothing where that is not known.

    Words stand by themselves: a port may be 8401, and a camera's fourth channel is often called 401.
    """
    meanings = (meaning for words, meaning in _MEANINGS.items() if re.search(rf"(?<!\S){words}(?!\w)", said))
    meaning = next(meanings, "")
    if not meaning.endswith("password"):
        return meaning
    return meaning + ("" if isinstance(address, str) and "@" in address else "; its source gives none")


def _packed(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()
