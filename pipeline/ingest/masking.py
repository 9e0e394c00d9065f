"""Keeps passwords out of logs, errors and events: every address is masked before it becomes text."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r":/+")  # one slash too: paths lose the other
_SECRET = re.compile(
    r"(?P<key>(?:pas+(?:wor[dt]|wd|phrase)?|pwd|psw|token|secret|auth|api_?key|key|sig(?:nature)?|credential)s?=)[^&]+",
    re.IGNORECASE,
)


def mask_url(source: object) -> str:
    """Return an address, or a text with an address in it, that is fit to be shown.

    Names of query parameters stay, all their values go: which of them is the password no list of names can tell.
    Where it is not clear how far a password reaches, too much is masked, never too little; so text that follows an
    address may go too.

    >>> mask_url("rtsp://admin:p@ss/w rd@10.0.0.7/s1")
    'rtsp://***@10.0.0.7/s1'
    >>> mask_url("http://10.0.0.7/video.cgi?user=admin&loginpas=hunter 2")
    'http://10.0.0.7/video.cgi?user=***&loginpas=***'
    >>> mask_url(0)
    'device 0'
    """
    if isinstance(source, int):
        return f"device {source}"
    text = str(source)
    match = _ADDRESS.search(text)
    if match is not None:
        text = text[: match.end()] + _mask_rest(text[match.end() :])
    return _SECRET.sub(r"\g<key>***", text)


def _mask_rest(rest: str) -> str:
    """Mask what follows ``://``. Real passwords do contain "@", "/" and spaces, so user info ends at the last "@"."""
    user_info, at, location = rest.rpartition("@")
    if "?" in user_info:  # a password with a "?", or a query with an "@": the one shows the end of the other
        return "***"
    path, mark, query = location.partition("?")
    return ("***" + at if at else "") + path + mark + "&".join(_mask_parameter(part) for part in query.split("&"))


def _mask_parameter(part: str) -> str:
    key, equals, _ = part.partition("=")
    return f"{key}=***" if equals else "***" if part else ""
