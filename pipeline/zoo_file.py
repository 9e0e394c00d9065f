"""A zoo's file: read and held against the models it is to serve, and written (`camlink.operators.zoo`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from camlink.models.base import OutputSpec
from camlink.pipeline.durable import write_durably
from camlink.pipeline.errors import StateError, ZooError

if TYPE_CHECKING:
    from camlink.operators.zoo import Zoo


def save_zoo(zoo: Zoo, path: Path) -> None:
    """Write a zoo's file. Raises `ResultsError`, and `ZooError` for one that could not be read."""
    from camlink.operators.zoo import Zoo

    data = zoo.to_bytes()
    try:
        Zoo.from_bytes(data)
    except StateError as error:
        raise ZooError(
            f"{path}: not written, for nobody could read it: {error}; please report this with the traces"
        ) from error

    def fill(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_durably(path, fill)


def open_zoo(path: Path, specs: Mapping[str, OutputSpec] | None = None) -> Zoo:
    """Read a zoo's file, and hold it against the models it is to serve.

    Raises `ZooError` for a file that is no zoo, or one of other models than ``specs``.
    """
    from camlink.operators.zoo import Zoo

    try:
        zoo = Zoo.from_bytes(path.read_bytes())
    except OSError as error:
        raise ZooError(f"{path}: cannot be read: {error.strerror}; `camlink zoo build` writes a zoo") from error
    except StateError as error:
        raise ZooError(f"{path}: {error}; `camlink zoo build` writes a zoo") from error
    if specs is not None and (wrong := zoo.misfits(specs)):
        raise ZooError(f"{path}: {'; '.join(wrong)}; build a zoo from traces of these models")
    return zoo
