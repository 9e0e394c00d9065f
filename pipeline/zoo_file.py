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
    """Write a zoo's file. Raises `ResultsError`."""

    def fill(temporary: Path) -> None:
        temporary.write_bytes(zoo.to_bytes())

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
