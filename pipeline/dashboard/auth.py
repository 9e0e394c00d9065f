"""Who may look: everybody on this machine, or, once the page is bound elsewhere, whoever knows the token."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from hashlib import sha256

COOKIE = "camlink_session"
SESSION_S = 12 * 3600
TOKEN_LEAST = 16  # characters
TRIES, TRIES_S = 10, 60.0  # wrong tokens before all must wait
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Door:
    """Checks tokens and remembers sessions, as hashes. Without a token it is open."""

    def __init__(self, token: str | None, seconds: Callable[[], float] = time.monotonic) -> None:
        """Raises `ValueError` for a token that could be guessed."""
        if token is not None and len(token) < TOKEN_LEAST:
            raise ValueError(f"the dashboard's token has {len(token)} characters; give at least {TOKEN_LEAST}")
        self._token = None if token is None else _hash(token)
        self._seconds = seconds
        self._sessions: dict[bytes, float] = {}
        self._wrong: deque[float] = deque(maxlen=TRIES)

    @property
    def is_open(self) -> bool:
        """Whether nobody needs to sign in."""
        return self._token is None

    def wait_s(self) -> float:
        """Return how long nobody may try a token, after too many wrong ones; 0 when anybody may."""
        if len(self._wrong) < TRIES:
            return 0.0
        return max(0.0, TRIES_S - (self._seconds() - self._wrong[0]))

    def knows(self, token: str) -> bool:
        """Say whether ``token`` is right, in a time that does not tell how nearly; wrong ones are counted."""
        if self._token is None:
            return True
        right = secrets.compare_digest(_hash(token), self._token)
        if not right:
            self._wrong.append(self._seconds())
        return right

    def open_session(self) -> str:
        """Return the value of a cookie that lets its bearer in for `SESSION_S`."""
        now = self._seconds()
        self._sessions = {key: until for key, until in self._sessions.items() if until > now}
        value = secrets.token_urlsafe(32)
        self._sessions[_hash(value)] = now + SESSION_S
        return value

    def close_session(self, value: str) -> None:
        """Forget a session."""
        self._sessions.pop(_hash(value), None)

    def lets_in(self, cookie: str | None, authorization: str | None) -> bool:
        """Say whether a request may pass, by its session or by ``Authorization: Bearer TOKEN``."""
        if self.is_open:
            return True
        if cookie and self._sessions.get(_hash(cookie), 0.0) > self._seconds():
            return True
        kind, _, token = (authorization or "").partition(" ")
        return kind.lower() == "bearer" and self.wait_s() == 0.0 and self.knows(token.strip())


def is_local(host: str) -> bool:
    """Say whether a host to bind to, or a ``Host`` header without its port, is this machine alone."""
    return host.strip("[]") in LOOPBACK


def host_of(header: str) -> str:
    """Return a ``Host`` header without its port.

    >>> host_of("localhost:8765"), host_of("[::1]:8765"), host_of("cam.example")
    ('localhost', '::1', 'cam.example')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] or header


def local_path(path: str) -> str:
    """Return where to go after signing in: a path on this site, or its start.

    >>> local_path("/camera?id=hall"), local_path("//elsewhere.example"), local_path("https://elsewhere.example")
    ('/camera?id=hall', '/', '/')
    """
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if plain and "\\" not in path else "/"


def _hash(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()
