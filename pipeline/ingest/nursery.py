"""Decoding processes, one for each connection to a live camera: cheap to start, and none outlives camlink.

A decoder may hang inside a driver for good, and then only killing it helps; so each camera is read in a process of its
own. A process that imports OpenCV afresh takes 0.2 s of a core and 21 MiB; so they are forked from one, the nursery,
that has imported it once (benchmarks/ingest.py measures both). The nursery is told what to do over a socket:

    camlink ── start 7 {address, ...} + socket ──> nursery ── fork ─────> decoder 7 ── pictures over that socket ──>
            ── stop 7 ───────────────────────────>         ── SIGKILL ──>

Addresses, which hold passwords, travel over that socket and never as arguments. When camlink ends, however it ends, the
nursery kills its decoders; when the nursery dies, the kernel does (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path
from typing import NoReturn

import camlink
from camlink.pipeline.ingest.order import Order

REAP_EVERY_S = 1.0
MESSAGE_MOST = 65_536
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # a decoder shares its core with others
PROGRAM = "from camlink.pipeline.ingest.nursery import main; main()"
_PR_SET_PDEATHSIG = 1


class Nursery:
    """Starts and kills decoding processes through a process of its own, which is started on first use."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self, order: Order) -> tuple[int, socket.socket]:
        """Start a decoder; return its number and our end of its socket. Raises `OSError` if there is no room for one.

        Does not wait: a decoder that could not be forked shows as an end of file on the socket.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._lock:
            number = next(self._numbers)
            message = json.dumps({"start": number, "order": order.plain()}).encode()
            try:
                self._send(message, theirs.fileno())
            except OSError:
                ours.close()
                raise
        return number, ours

    def stop(self, number: int) -> None:
        """Kill a decoder, whatever it is doing; one that has ended by itself is no error."""
        with self._lock, contextlib.suppress(OSError):  # no nursery: then its decoders are dead as well
            if self._control is not None:
                self._control.send(json.dumps({"stop": number}).encode())

    def close(self) -> None:
        """Kill all decoders. A later `start` brings up another nursery."""
        with self._lock:
            control, process = self._control, self._process
            self._control = self._process = None
        if control is not None and process is not None:
            control.close()
            process.wait()

    def _send(self, message: bytes, descriptor: int) -> None:
        for _ in range(2):  # a nursery that was killed is replaced once
            control = self._control or self._open()
            try:
                socket.send_fds(control, [message], [descriptor])
                return
            except (BrokenPipeError, ConnectionResetError):
                self._forget()
        raise ConnectionError("the process that starts decoders ends as soon as it is started")

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        place = str(Path(camlink.__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (place, os.environ.get("PYTHONPATH"))))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **dict.fromkeys(ONE_THREAD, "1"), "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is for camlink alone, which then lets go of its cameras
            )
        self._control = ours
        return ours

    def _forget(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.wait()
        self._control = self._process = None


NURSERY = Nursery()
atexit.register(NURSERY.close)


def _serve(control: socket.socket) -> NoReturn:
    """Fork and kill as told, until camlink is gone; then kill all and end."""
    running: dict[int, int] = {}  # number -> process id
    while True:
        readable, _, _ = select.select([control], [], [], REAP_EVERY_S)
        _reap(running)
        if not readable:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_MOST, 1)
        if not message:
            break
        told = json.loads(message)
        if "start" in told:
            connection = socket.socket(fileno=descriptors[0])
            with contextlib.suppress(OSError), connection:  # no room to fork: the socket's end says so
                running[told["start"]] = _fork(Order.of(told["order"]), connection, control)
        elif told.get("stop") in running:  # not yet reaped, so that its id is nobody else's
            os.kill(running[told["stop"]], signal.SIGKILL)
    for pid in running.values():
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _reap(running: dict[int, int]) -> None:
    for number, pid in list(running.items()):
        if os.waitpid(pid, os.WNOHANG)[0]:
            del running[number]


def _fork(order: Order, connection: socket.socket, control: socket.socket) -> int:
    """Return the process id of a new decoder, which never comes back from here."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        control.close()
        _die_with(parent)
        from camlink.pipeline.ingest.decoder import decode

        decode(order, connection)
        code = 0
    finally:
        os._exit(code)


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere the closed socket ends it)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died just before
        os._exit(1)


def main() -> NoReturn:
    """Be the nursery, on the socket whose number is the first argument."""
    import cv2

    import camlink.pipeline.ingest.decoder  # noqa: F401  imported once, for all that will be forked

    cv2.setNumThreads(1)
    _serve(socket.socket(fileno=int(sys.argv[1])))
