"""A policy's state as bytes and back, so that it goes on after a restart exactly where it stood.

A state is nested mappings, lists and plain numbers, with arrays (float64, float32, int64) as leaves. The plain part is
JSON, arrays lie beside it bit by bit (`camlink.operators.snapshots`): what is read back decides as what was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camlink.operators.snapshots import Snapshot, reading
from camlink.pipeline.errors import StateError

VERSION = 7  # of what policies keep; a snapshot of another one is refused
_ARRAY = "\0array"  # key of a leaf that stands for an array
_KINDS = {"f8": np.float64, "f4": np.float32, "i8": np.int64}
State = Mapping[str, Any]
Array = NDArray[Any]


def pack(state: State) -> bytes:
    """Serialise. `unpack` reads it.

    >>> unpack(pack({"age": 3.0, "seen": np.array([1, 2])}))
    {'age': 3.0, 'seen': array([1, 2])}
    """
    parts: dict[str, bytes] = {}
    told = _put(state, parts)
    return Snapshot({"version": VERSION, "state": told}, parts).to_bytes()


def unpack(data: bytes) -> dict[str, Any]:
    """Read what `pack` wrote. Raises `StateError` for anything else, and for another version's."""
    snapshot = Snapshot.from_bytes(data)
    with reading():
        version = snapshot.told["version"]
        if version != VERSION:
            raise StateError(f"a policy's snapshot of version {version}; this version of camlink reads {VERSION}")
        state = _get(snapshot.told["state"], snapshot.parts)
        if not isinstance(state, dict):
            raise StateError(f"not a snapshot: a policy's state is a {type(state).__name__}")
    return state


def array(found: object, like: Array, *, free: tuple[int, ...] = ()) -> Array:
    """Return an array that was read, if it has the kind and shape of ``like``; axes in ``free`` have any length.

    Raises `StateError`.
    """
    if not isinstance(found, np.ndarray):
        raise StateError(f"not a snapshot: {type(found).__name__} in place of an array")
    expected = tuple(None if i in free else n for i, n in enumerate(like.shape))
    fits = found.ndim == like.ndim and all(e in (None, n) for e, n in zip(expected, found.shape, strict=True))
    if found.dtype != like.dtype or not fits:
        raise StateError(
            f"not a snapshot: {found.dtype} of shape {found.shape}, expected {like.dtype} of {expected} (None: any)"
        )
    return found


def _put(leaf: object, parts: dict[str, bytes]) -> object:
    if isinstance(leaf, np.ndarray):
        name = str(len(parts))
        parts[name] = leaf.tobytes()
        return {_ARRAY: name, "kind": leaf.dtype.str[1:], "shape": list(leaf.shape)}
    if isinstance(leaf, Mapping):
        return {str(key): _put(value, parts) for key, value in leaf.items()}
    if isinstance(leaf, list | tuple):
        return [_put(value, parts) for value in leaf]
    return leaf


def _get(told: object, parts: Mapping[str, bytes]) -> object:
    if isinstance(told, list):
        return [_get(value, parts) for value in told]
    if not isinstance(told, dict):
        return told
    if _ARRAY not in told:
        return {key: _get(value, parts) for key, value in told.items()}
    flat: Array = np.frombuffer(parts[told[_ARRAY]], _KINDS[told["kind"]])
    if not np.isfinite(flat).all():
        raise StateError("not a snapshot: an array with numbers that are not finite")
    return flat.reshape(told["shape"]).copy()
