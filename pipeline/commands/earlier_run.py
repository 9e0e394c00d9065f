"""The results folder of a replay, and an earlier run in it: deleted when asked for, and not before its turn."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import typer

from camlink.pipeline.errors import RequestError


def results_folder(name: str) -> Path:
    """Return where the results of a run go when nothing is said of it."""
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


class EarlierRun:
    """A results folder that may hold an earlier run.

    Raises `RequestError` at once if it does and ``overwrite`` was not said, `typer.BadParameter` if deleting it would
    delete what is to be replayed.
    """

    def __init__(self, folder: Path, overwrite: bool, inputs: Sequence[Path]) -> None:
        self._folder = folder
        if not self._is_there():
            return
        if not overwrite:
            raise RequestError(f"{folder} already holds a run; choose another folder, or say --overwrite")
        inside = [path for path in inputs if path.resolve().is_relative_to(folder.resolve())]
        if inside:
            raise typer.BadParameter(f"{inside[0]} lies in {folder}, which would be deleted", param_hint="--overwrite")

    def cleared(self) -> Path:
        """Delete the earlier run and return the folder. To be called when all that may be wrong has been found."""
        if self._is_there():
            shutil.rmtree(self._folder)
        return self._folder

    def _is_there(self) -> bool:
        return (self._folder / "run.json").exists()
