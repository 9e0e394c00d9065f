"""How a test camera asks for a password: Basic (RFC 7617) and Digest with MD5 (RFC 2617), as IP cameras do."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Literal

REALM = "camera"


@dataclass(frozen=True)
class Credentials:
    """The one user that a test camera lets in."""

    user: str
    password: str
    scheme: Literal["Basic", "Digest"] = "Digest"
    _nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    def challenge(self) -> str:
        """Return the value of ``WWW-Authenticate``."""
        return f'Basic realm="{REALM}"' if self.scheme == "Basic" else f'Digest realm="{REALM}", nonce="{self._nonce}"'

    def allow(self, method: str, url: str, authorization: str) -> bool:
        """Say whether a request's ``Authorization`` is right."""
        scheme, _, rest = authorization.partition(" ")
        if scheme != self.scheme:
            return False
        if scheme == "Basic":
            return rest == base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        given = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        secret = _md5(f"{self.user}:{REALM}:{self.password}")
        request = _md5(f"{method}:{given.get('uri', url)}")
        wanted = _md5(f"{secret}:{self._nonce}:{request}")
        return given.get("username") == self.user and given.get("response") == wanted


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
