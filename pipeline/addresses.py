"""Where a camera's frames come from: environment variables filled in, schemes checked, files found."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from camlink.pipeline.ingest.masking import mask_url
from camlink.pipeline.suggestions import suggest

SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp")

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def expand_environment(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Fill in ``${NAME}`` from the environment. Raises ValueError naming every variable that is not set.

    >>> expand_environment("rtsp://cam:${PW}@192.0.2.7/s1", {"PW": "abc"})
    'rtsp://cam:abc@192.0.2.7/s1'
    """
    known = os.environ if environment is None else environment
    names = list(dict.fromkeys(_VARIABLE.findall(text)))
    unset = [name for name in names if name not in known]
    if unset:
        plural = "variables are" if len(unset) > 1 else "variable is"
        listed = ", ".join(f"${{{name}}}" for name in unset)
        raise ValueError(f"the environment {plural} not set: {listed}; export it before starting camlink")
    return _VARIABLE.sub(lambda match: known[match.group(1)], text)


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


def find_path(path: str, folder: Path | None) -> str:
    """Return where ``path`` lies: beside the configuration (``folder``) or in the working directory.

    Raises ValueError with the places that were looked at and the nearest name there.
    """
    wanted = Path(path).expanduser()
    places = [wanted] if wanted.is_absolute() else [base / wanted for base in (folder, Path()) if base is not None]
    for place in places:
        if place.exists():
            return str(place)
    tried = " and ".join(f'"{place.parent}"' for place in dict.fromkeys(places))
    siblings = [entry.name for place in places if place.parent.is_dir() for entry in place.parent.iterdir()]
    close = get_close_matches(wanted.name, siblings, n=1)
    advice = f'did you mean "{wanted.with_name(close[0])}"?' if close else "give an existing file or folder"
    raise ValueError(f'no file or folder "{path}" (looked in {tried}); {advice}')
