"""Opens a backend by the scheme of its URL, and says what was probably meant when the scheme is unknown."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from camlink.pipeline.errors import CamlinkError


def open_backend(url: str, backends: Mapping[str, str], error: type[CamlinkError], what: str) -> Any:
    """Import and construct the class that ``backends`` names for the URL's scheme ("module:Class").

    Raises ``error`` for a scheme that is not known, and for what is no address.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError as cause:
        from camlink.pipeline.ingest.masking import mask_url

        raise error(f"{mask_url(url)} is no address: {cause}") from cause
    if scheme not in backends:
        close = get_close_matches(scheme, backends, n=1, cutoff=0.5)
        hint = f'; did you mean "{close[0]}://"?' if close else f"; known: {', '.join(f'{b}://' for b in backends)}"
        raise error(f'no {what} for scheme "{scheme}://"{hint}')
    module, _, name = backends[scheme].partition(":")
    return getattr(import_module(module), name)(url)
