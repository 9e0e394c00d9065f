"""Writes files that are either wholly there or not there at all, also after a crash or a full disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from camlink.pipeline.errors import ResultsError


def write_durably(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write a temporary sibling, sync it and rename it to ``path``.

    Raises `ResultsError` with the path when the disk is full or not writable; what was at ``path`` is then untouched.
    A pipe or a device, such as /dev/stdout, is written to as it is, for no file is to take its place.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.exists() and not path.is_file():
            fill(path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        fill(temporary)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:  # pyarrow's ArrowIOError is an OSError too
        _discard(temporary)
        reason = error.strerror or str(error)
        raise ResultsError(f"{path}: cannot be written: {reason}; free some space or choose another folder") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step. Raises `ResultsError`."""

    def fill(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_durably(path, fill)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file in one step. Raises `ResultsError`."""

    def fill(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_durably(path, fill)


def _sync(path: Path) -> None:
    """Wait until the disk holds the file, or the folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(path: Path) -> None:
    """Remove what a failed write left; a disk that refuses even that keeps only a hidden ``.tmp`` nobody reads."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
