"""What a misspelt name was probably meant to be, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean "x"?``, or the list of what there is when nothing comes close.

    >>> suggest("perod", ["period", "profile"])
    'did you mean "period"?'
    >>> suggest("xyz", ["period", "profile"])
    'known: period, profile'
    """
    names = list(known)
    folded = {name.casefold(): name for name in reversed(names)}
    close = get_close_matches(word.casefold(), folded, n=1)
    return f'did you mean "{folded[close[0]]}"?' if close else f"known: {', '.join(names)}"
