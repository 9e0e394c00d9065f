"""A worker's health for supervisors: ``/healthz`` (its loop goes round), ``/readyz`` (it works), ``/metrics``.

Answers on loopback unless told otherwise, and says nothing but counts.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STUCK_AFTER_S = 60.0


class Health:
    """Serves until closed. ``age_s`` says how long ago the loop last went round; None before it has begun."""

    def __init__(
        self,
        address: str,
        age_s: Callable[[], float | None],
        counts: Callable[[], Mapping[str, int]],
        metrics: Callable[[], tuple[bytes, str]] | None = None,
    ) -> None:
        """``address`` is HOST:PORT or PORT; port 0 takes a free one. Raises `OSError` if it is taken.

        ``metrics`` gives the Prometheus text and its content type.
        """
        host, _, port = address.rpartition(":")
        self._age_s, self._counts, self._metrics = age_s, counts, metrics
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, kind, body = outer.respond(self.path)
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Supervisors ask every few seconds; that is no news."""

        self._server = ThreadingHTTPServer((host or "127.0.0.1", int(port)), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def respond(self, path: str) -> tuple[int, str, bytes]:
        """Return the status code, the content type and the body for a path."""
        if path == "/metrics" and self._metrics is not None:
            body, kind = self._metrics()
            return 200, kind, body
        code, told = self.answer(path)
        return code, "application/json", json.dumps(told).encode()

    def answer(self, path: str) -> tuple[int, dict[str, object]]:
        """Return the status code and what is told for a path."""
        age = self._age_s()
        told: dict[str, object] = {"loop_age_s": age, "counts": dict(self._counts())}
        if path == "/healthz":
            return (200 if age is None or age < STUCK_AFTER_S else 503), told
        if path == "/readyz":
            return (200 if age is not None and age < STUCK_AFTER_S else 503), told
        return 404, {"error": "there are /healthz, /readyz and, with prometheus-client, /metrics"}

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
