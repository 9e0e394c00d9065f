"""How the C library keeps the memory of a worker's threads."""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8  # of glibc's <malloc.h>
ARENAS = 2


def share_arenas(most: int = ARENAS) -> bool:
    """Let all threads take memory from ``most`` arenas; say whether the C library knows of that (glibc does).

    glibc gives threads arenas of their own, up to eight per core. Frames are received by one thread and freed by
    another, and what is free in one arena is of no use in the next: an inference worker grew by kilobytes per frame for
    as long as one watched, while none of its objects did. To be called before threads are started.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(M_ARENA_MAX, most) == 1
