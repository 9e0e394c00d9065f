"""Keeps passwords out of logs, errors and events: every address is masked before it becomes text."""

from __future__ import annotations

import re

# Greedy up to the last "@" before a space: real passwords do contain "@" and "/" unescaped. Too much may be masked,
# never too little.
_USER_INFO = re.compile(r"://\S*@")
_SECRET = re.compile(
    r"(?P<key>(?:pass(?:wor[dt]|wd|phrase)?|pwd|psw|token|secret|auth|api_?key|key|sig(?:nature)?|credential)s?=)[^&/\s\"';#]+",
    re.IGNORECASE,
)


def mask_url(source: object) -> str:
    """Return an address, or a text with addresses in it, that is fit to be shown.

    >>> mask_url("rtsp://admin:p@ss/w@10.0.0.7/s1")
    'rtsp://***@10.0.0.7/s1'
    >>> mask_url("http://10.0.0.7/video.cgi?user=admin&pwd=hunter2&q=1")
    'http://10.0.0.7/video.cgi?user=admin&pwd=***&q=1'
    >>> mask_url(0)
    'device 0'
    """
    if isinstance(source, int):
        return f"device {source}"
    return _SECRET.sub(r"\g<key>***", _USER_INFO.sub("://***@", str(source)))
