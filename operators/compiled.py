"""Loops over small arrays, compiled with numba: a call takes a microsecond, as long as a single operation of numpy's.

Functions are compiled for the processor at hand when they are first called, which takes some seconds in all, and kept
on disk for the next process: in the folder that NUMBA_CACHE_DIR names, else beside the source, else in the user's
cache. What is kept is known by the source file's time, so that a compiled function may not use another file's functions
or constants: a change there would go unnoticed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., object])
logger = logging.getLogger(__name__)


def compiled(function: F) -> F:
    """Return ``function``, compiled when it is called. Its loops may divide by zero, as numpy's may."""
    try:
        return cast("F", njit(cache=True, error_model="numpy")(function))
    except RuntimeError as error:  # no place to keep it, says numba
        logger.info("compiled for this process only: %s", error)
        return cast("F", njit(error_model="numpy")(function))
