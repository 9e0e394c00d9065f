"""What every link asks of the parameters it is given: all there, of the right shapes, finite; named in all errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from camlink.links.base import Array
from camlink.pipeline.errors import LinkError


def check_parameters(link: str, arrays: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `LinkError` with the name of ``link`` unless every array has its shape and is finite."""
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape:
            raise LinkError(f"link {link}: {name} has shape {array.shape}, expected {shape}")
        if not np.isfinite(array).all():
            raise LinkError(f"link {link}: {name} holds values that are not finite")


def named_parameters(link: str, names: Sequence[str], weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return those of ``weights`` that a link has, as float32. Raises `LinkError` naming those that are missing."""
    missing = [name for name in names if name not in weights]
    if missing:
        raise LinkError(f"link {link}: weights lack {', '.join(missing)}")
    return {name: np.asarray(weights[name], dtype=np.float32) for name in names}
