"""Serves the dashboard: in a thread beside a pipeline, or as a process of its own."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from camlink.pipeline.dashboard.auth import Door, is_local
from camlink.pipeline.errors import DashboardError

if TYPE_CHECKING:
    from camlink.pipeline.dashboard.app import Metrics

logger = logging.getLogger(__name__)

PORT = 8765
EVERY_ADDRESS = ("0.0.0.0", "::")


class DashboardMissing(DashboardError):
    """The libraries that serve it are not installed."""


class Dashboard:
    """A dashboard that listens. ``url`` is what to open in a browser.

    Raises `DashboardError` when the port is taken, or a host other than this machine is given without a token, and
    `DashboardMissing` when the libraries are not installed.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        token: str | None = None,
        metrics: Metrics | None = None,
        days: int = 7,
    ) -> None:
        """``port`` None: `PORT`, or a free one if that is taken."""
        app_module, uvicorn = _libraries()
        self.door = door_to(host, token)
        from camlink.pipeline.dashboard.library import Library

        self._socket = _listen(host, port)
        self.port = int(self._socket.getsockname()[1])
        self.url = f"http://{_reachable(host)}:{self.port}/"
        self.library = Library(folders, days=days)
        app = app_module.build_app(self.library, self.door, metrics)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=3
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def run(self) -> None:
        """Serve in this thread until interrupted."""
        self.library.follow()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self.library.close()

    def start(self) -> None:
        """Serve in a thread of its own; a pipeline's frames never wait for it."""
        self._thread = threading.Thread(target=self.run, name="dashboard-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving. Closing one that was never started is harmless."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(10)
        self._socket.close()


def door_to(host: str, token: str | None) -> Door:
    """Return who is let in. Raises `DashboardError` for a token that is too short, or missing where others come."""
    if token is None and not is_local(host):
        raise DashboardError(
            f"the dashboard shows cameras, so bound to {host} it needs a token: set CAMLINK_DASHBOARD_TOKEN"
        )
    try:
        return Door(token)
    except ValueError as error:
        raise DashboardError(str(error)) from error


def _reachable(host: str) -> str:
    """Return what a browser takes for the address ``host`` that is listened on; every address: this machine's name."""
    if host in EVERY_ADDRESS:
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int | None) -> socket.socket:
    tried = [PORT, 0] if port is None else [port]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in tried:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen(128)
            return listener
        except OSError as error:
            listener.close()
            problem = error
    where = host if port is None else f"{host}:{port}"
    other = "--port" if problem.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
    raise DashboardError(f"the dashboard cannot listen on {where}: {problem.strerror}; choose another {other}")


def _libraries() -> tuple[ModuleType, ModuleType]:
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise DashboardMissing(f"{error.name} is not installed: pip install 'camlink[dashboard]'") from error
    from camlink.pipeline.dashboard import app

    return app, uvicorn
