"""A versioned store of links on disk, with atomic promotion.

Layout: ``ROOT/CAMERA/TARGET/vNNNN.npz`` holds every version; ``current.json`` names the one in force. Files are written
under another name and renamed, so a reader never sees half a version.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from urllib.parse import quote

from camlink.links.ensemble import Ensemble
from camlink.pipeline.errors import LinkError, ResultsError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_VERSION = re.compile(r"v(\d+)\.npz")


def folder_name(name: str) -> str:
    """Return the name of a folder for a camera or model, also of a trace, where they may be called anything.

    >>> folder_name("hall-1"), folder_name("../hall 1")
    ('hall-1', '%2E%2E%2Fhall%201')
    """
    if _NAME.fullmatch(name) and name not in (".", ".."):
        return name
    return quote(name, safe="").replace(".", "%2E") or "%00"


class LinkStore:
    """Links by camera, target and version. One writer, any number of readers.

    Raises `ResultsError` with the path when the disk is full or not writable.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def save(self, camera_id: str, target: str, version: int, payload: bytes) -> Path:
        """Write one version (``Ensemble.to_bytes()``) without putting it in force."""
        path = self._folder(camera_id, target) / f"v{version:04d}.npz"
        _write_atomically(path, payload)
        return path

    def promote(self, camera_id: str, target: str, version: int) -> None:
        """Put a saved version in force. Raises `LinkError` if it was never saved."""
        folder = self._folder(camera_id, target)
        if version not in self.versions(camera_id, target):
            raise LinkError(f'camera "{camera_id}": no saved version {version} of the links to {target} in {folder}')
        _write_atomically(folder / "current.json", json.dumps({"version": version}).encode())

    def versions(self, camera_id: str, target: str) -> list[int]:
        """Return the saved versions, ascending."""
        names = (path.name for path in self._folder(camera_id, target).glob("v*.npz"))
        return sorted(int(match[1]) for name in names if (match := _VERSION.fullmatch(name)))

    def current(self, camera_id: str, target: str) -> tuple[int, Ensemble] | None:
        """Return the version in force and its links, or None if nothing was promoted yet."""
        version = self.version(camera_id, target)
        return None if version is None else (version, self.load(camera_id, target, version))

    def version(self, camera_id: str, target: str) -> int | None:
        """Return the version in force, or None if nothing was promoted yet. Raises `LinkError` if that is damaged."""
        file = self._folder(camera_id, target) / "current.json"
        try:
            return int(json.loads(file.read_bytes())["version"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise LinkError(f"{file} is damaged: {error}; promote a version again") from error

    def load(self, camera_id: str, target: str, version: int) -> Ensemble:
        """Return one saved version. Raises `LinkError` if it is missing or damaged."""
        path = self._folder(camera_id, target) / f"v{version:04d}.npz"
        try:
            return Ensemble.from_bytes(path.read_bytes())
        except FileNotFoundError as error:
            raise LinkError(f"no saved links at {path}") from error
        except LinkError as error:
            raise LinkError(f"{path}: {error}") from error

    def _folder(self, camera_id: str, target: str) -> Path:
        return self._root / folder_name(camera_id) / folder_name(target)


def _write_atomically(path: Path, payload: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise ResultsError(f"{path}: cannot be written: {reason}; free some space or choose another folder") from error
