"""Snapshots of operators as bytes, without pickle: facts as JSON, and parts (arrays, ensembles) beside them.

    length:u32  JSON {"format", "told", "parts": {name: length}}  part ...

A snapshot lies in the state store, which others may write to and an older camlink may have written: what is read is
checked, and whatever is wrong with it is a `StateError`, upon which a camera starts anew.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from camlink.links.base import Array
from camlink.links.ensemble import Ensemble
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Value

FORMAT = 1
_LENGTH = struct.Struct(">I")
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Snapshot:
    """``told``: plain JSON values; ``parts``: bytes by name."""

    told: Mapping[str, Any]
    parts: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """Serialise. `from_bytes` reads it."""
        sizes = {name: len(part) for name, part in self.parts.items()}
        head = json.dumps({"format": FORMAT, "told": self.told, "parts": sizes}, separators=(",", ":")).encode()
        return b"".join((_LENGTH.pack(len(head)), head, *self.parts.values()))

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """Read what `to_bytes` wrote. Raises `StateError` for anything else.

        >>> Snapshot.from_bytes(Snapshot({"fresh": 3}, {"links": b"..."}).to_bytes()).parts
        {'links': b'...'}
        """
        with reading():
            (length,) = _LENGTH.unpack_from(data)
            end = _LENGTH.size + length
            head = json.loads(data[_LENGTH.size : end])
            if head["format"] != FORMAT:
                raise StateError(f"a snapshot of format {head['format']}; this version of camlink reads {FORMAT}")
            parts = {}
            for name, size in head["parts"].items():
                parts[name], end = data[end : end + size], end + size
            if end != len(data):
                raise StateError(f"not a snapshot: {len(data)} of {end} bytes")
            return cls(head["told"], parts)


@contextmanager
def reading() -> Iterator[None]:
    """Turn whatever is wrong with a snapshot while it is read into `StateError`."""
    try:
        yield
    except StateError:
        raise
    except Exception as error:  # numbers, dates, JSON and arrays have errors of their own for what is damaged
        raise StateError(f"not a snapshot: {type(error).__name__}: {error}") from error


class EnsembleBytes:
    """Ensembles as bytes, each serialised once: they do not change, and several snapshots hold the same."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Ensemble, bytes] = WeakKeyDictionary()

    def of(self, ensemble: Ensemble) -> bytes:
        """Return ``Ensemble.to_bytes()``."""
        if ensemble not in self._known:
            self._known[ensemble] = ensemble.to_bytes()
        return self._known[ensemble]

    def read(self, payload: bytes) -> Ensemble:
        """Return the ensemble in ``payload``. Raises `LinkError`."""
        ensemble = Ensemble.from_bytes(payload)
        self._known[ensemble] = payload
        return ensemble


def array_bytes(rows: Sequence[Array], shape: tuple[int, ...]) -> bytes:
    """Return ``rows``, each of ``shape``, as one float32 array of shape (n, *shape); none at all is fine."""
    stacked = np.asarray(rows, dtype=np.float32).reshape(len(rows), *shape)
    buffer = io.BytesIO()
    np.save(buffer, stacked, allow_pickle=False)
    return buffer.getvalue()


def array_of(data: bytes, count: int, shape: tuple[int, ...]) -> Array:
    """Read what `array_bytes` wrote. Raises `StateError` if it is not (count, *shape) finite numbers."""
    with reading():
        found = np.load(io.BytesIO(data), allow_pickle=False)
        if found.shape != (count, *shape) or found.dtype != np.float32 or not np.isfinite(found).all():
            raise StateError(f"not a snapshot: {found.dtype} of shape {found.shape}, expected {(count, *shape)}")
        return np.asarray(found)


def put_values(values: Mapping[str, Value]) -> dict[str, list[float]]:
    """Return one frame's values as plain numbers."""
    return {model: value.tolist() for model, value in values.items()}


def get_values(told: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Value]:
    """Read what `put_values` wrote. Raises `StateError` for models or sizes that are not the site's."""
    with reading():
        values = {model: np.asarray(numbers, dtype=np.float32) for model, numbers in told.items()}
    for model, value in values.items():
        if value.shape != (sizes.get(model),) or not np.isfinite(value).all():
            raise StateError(f'not a snapshot: model "{model}" with values of shape {value.shape}')
    return values


def put_time(moment: datetime | None) -> int | None:
    """Return a time as microseconds since 1970."""
    return None if moment is None else (moment - EPOCH) // _MICROSECOND


def get_time(number: int | None) -> datetime | None:
    """Read what `put_time` wrote."""
    return None if number is None else EPOCH + timedelta(microseconds=number)


def get_times(numbers: Sequence[int]) -> list[datetime]:
    """Read many of them, none of which is None."""
    return [EPOCH + timedelta(microseconds=number) for number in numbers]
