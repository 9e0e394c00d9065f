"""Where a camera's frames come from: environment variables filled in, schemes checked, files found."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from camlink.pipeline.ingest.masking import mask_url
from camlink.pipeline.suggestions import suggest

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp")

Kind = Literal["file or folder", "file", "folder", "trace"]
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LIKE_ADDRESS = re.compile(r":/+|:.*@", re.DOTALL)
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def expand_environment(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Fill in ``${NAME}`` from the environment. Raises ValueError naming every variable that is not set.

    Within the user info of an address, and as a value in its query, a variable is percent-encoded, so that a password
    may hold any character; FFmpeg decodes it again (libavformat/httpauth.c).

    >>> expand_environment("rtsp://cam:${PW}@192.0.2.7/s1", {"PW": "a/b@c"})
    'rtsp://cam:a%2Fb%40c@192.0.2.7/s1'
    """
    known = os.environ if environment is None else environment
    names = list(dict.fromkeys(_VARIABLE.findall(text)))
    if any(not _NAME.fullmatch(name) for name in names):
        raise ValueError("a ${...} holds something else than the name of an environment variable; write it as ${NAME}")
    unset = [name for name in names if name not in known]
    if unset:
        plural = "variables are" if len(unset) > 1 else "variable is"
        listed = ", ".join(f"${{{name}}}" for name in unset)
        raise ValueError(f"the environment {plural} not set: {listed}; export it before starting camlink")
    return _VARIABLE.sub(lambda match: _encoded(known[match.group(1)], text, match.start()), text)


def _encoded(value: str, text: str, place: int) -> str:
    """Return ``value`` as it must be written at ``place`` of the address ``text``; elsewhere it stays as it is."""
    if not is_url(text):
        return value
    start, end = _authority(text)
    at = text.rfind("@", start, end)
    if start <= place < at:
        if ":" in _VARIABLE.sub("", text[start:at]):
            return _quote(value)
        user, colon, password = value.partition(":")  # ${LOGIN} may hold both, "user:password"
        return _quote(user) + colon + _quote(password)
    query = text.find("?", end, place)
    return _quote(value) if query >= 0 and "=" in text[query:place].rpartition("&")[2] else value


def _authority(url: str) -> tuple[int, int]:
    """Return where user info, host and port begin and end."""
    start = url.index("://") + 3
    return start, start + len(re.split("[/?#]", url[start:], maxsplit=1)[0])


def _quote(value: str) -> str:
    return quote(value, safe="", errors="surrogateescape")


def check_address(url: str) -> None:
    """Raise ValueError where an address could be read in two ways; its text never shows the address.

    FFmpeg would take the rest of a password for a host, fail, and print it.
    """
    if any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ValueError(
            "the address holds a space or a control character; write %20 for a space, or put the password into an "
            "environment variable as ${NAME}, which is encoded by itself"
        )
    start, end = _authority(url)
    if url.count("@", start) > 1 or "@" in url[end:]:
        raise ValueError(
            'the address holds an "@" that does not end user name and password, or a "/", "?" or "#" within them; '
            "write %40, %2F, %3F or %23 for these, or use ${NAME}, which is encoded by itself"
        )
    host = url[start:end].rpartition("@")[2]
    port = host.rpartition("]")[2].partition(":")[2]
    if port and not port.isdecimal():
        raise ValueError('the port of the address is not a number; "@" belongs between a password and the host')


def is_url(source: str) -> bool:
    """Tell an address from a path."""
    return _SCHEME.match(source) is not None


def check_scheme(url: str) -> None:
    """Raise ValueError unless OpenCV can be expected to open such an address."""
    match = _SCHEME.match(url)
    scheme = match.group(1).lower() if match else ""
    if scheme in SCHEMES:
        return
    raise ValueError(f'"{mask_url(url)}" has the unknown scheme "{scheme}"; {suggest(scheme, SCHEMES)}')


def find_path(path: str, folder: Path | None, kind: Kind = "file or folder") -> str:
    """Return where ``path`` lies: beside the configuration (``folder``) or in the working directory.

    Raises ValueError with the places that were looked at and the nearest name of that kind there.
    """
    wanted = Path(os.path.expanduser(path))
    places = [wanted] if wanted.is_absolute() else [base / wanted for base in (folder, Path()) if base is not None]
    for place in filter(os.path.exists, places):  # unlike Path's, it takes what can be no name for what is not there
        if not _is(place, kind):
            raise ValueError(_of_another_kind(place, kind))
        return str(place)
    if _LIKE_ADDRESS.search(path):  # not shown: it may hold a password
        raise ValueError("looks like an address without a scheme; begin it with rtsp:// or http://")
    tried = " and ".join(f'"{place.parent}"' for place in dict.fromkeys(places))
    siblings = [
        entry.name for place in places if place.parent.is_dir() for entry in place.parent.iterdir() if _is(entry, kind)
    ]
    close = get_close_matches(wanted.name, siblings, n=1)
    advice = f'did you mean "{wanted.with_name(close[0])}"?' if close else f"give an existing {kind}"
    raise ValueError(f'no {kind} "{path}" (looked in {tried}); {advice}')


def _of_another_kind(place: Path, kind: Kind) -> str:
    if kind == "trace":
        return f'"{place}" is no trace: it holds no trace.yaml; `camlink record` writes one'
    what = "folder" if place.is_dir() else "file" if place.is_file() else "device or pipe"
    return f'"{place}" is a {what}; a {kind} is wanted'


def _is(place: Path, kind: Kind) -> bool:
    if kind == "trace":
        return (place / "trace.yaml").is_file()
    if kind == "file":
        return place.is_file()  # and no device, which might never end
    return kind == "file or folder" or place.is_dir()
