"""What of records msgspec does not know by itself: arrays, what a type is called, and what a well-formed record is.

msgspec writes and reads the dataclasses of `camlink.pipeline.records` in C, and refuses values that are not
of the types in their hints. What it cannot know is checked here: names that become folders, and times not in UTC.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

from camlink.pipeline.ingest.base import CAMERA_ID
from camlink.pipeline.records import FramePicture

MOST_AXES = 3
MOST_ENTRIES = 100_000_000  # along one axis: no array of a record has more
_DTYPES = {name: np.dtype(name) for name in ("<f4", "<f8", "<i4", "<i8", "|u1", "|b1")}

Check = Callable[[Any], None]


def shape_of(hint: Any) -> str:
    """Return the type ``hint`` in words, down to the fields of records: the same words on every Python and numpy.

    Raises `TypeError` for a type that cannot travel.

    >>> shape_of(tuple[str, ...])
    '[str]'
    """
    if hint == FramePicture:
        return "picture"
    if hint in (str, int, bool, float, bytes, datetime):
        return str(hint.__name__)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return f"{hint.__name__}({', '.join(f'{name}: {shape_of(of)}' for name, of in _fields(hint).items())})"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {arguments}"
    if _is_optional(hint):
        return f"{shape_of(arguments[0])}?"
    if origin is tuple and arguments[1:] == (...,):
        return f"[{shape_of(arguments[0])}]"
    if origin is Mapping and arguments[0] is str:
        return f"{{{shape_of(arguments[1])}}}"
    if origin is np.ndarray:
        return f"array {_dtype_of(hint)}"
    raise TypeError(f"values of type {hint} cannot travel")


def put_other(value: Any) -> object:
    """Return what msgspec does not know as something it does: an array as dtype, shape and little-endian bytes."""
    if isinstance(value, np.ndarray):
        little = value.dtype.newbyteorder("<")
        if little.str not in _DTYPES or value.ndim > MOST_AXES:
            raise TypeError(f"an array of {value.dtype} with {value.ndim} axes cannot travel")
        return little.str, value.shape, np.ascontiguousarray(value, little).tobytes()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"values of type {type(value).__name__} cannot travel")


def get_other(hint: Any, told: Any) -> NDArray[Any]:
    """Return the array of the type ``hint`` that `put_other` told of. Raises `ValueError` for anything else."""
    if type(told) is not list or len(told) != 3:
        raise ValueError(f"{told!r:.40} where an array belongs")
    name, shape, data = told
    if type(name) is not str or name not in _DTYPES or type(data) is not bytes or type(shape) is not list:
        raise ValueError(f"{told!r:.40} where an array belongs")
    if len(shape) > MOST_AXES or any(type(side) is not int or not 0 <= side <= MOST_ENTRIES for side in shape):
        raise ValueError(f"{shape!r:.40} is no shape")
    dtype = _DTYPES[name]
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{len(data)} bytes for an array of {dtype} of shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape).astype(_dtype_of(hint), copy=False)


@functools.cache
def check_of(kind: type) -> Check:
    """Return what raises `ValueError` for a ``kind`` of record with a bad name, or a time that is not in UTC.

    It looks into records within it as well.
    """
    checks = [(name, check) for name, hint in _fields(kind).items() for check in _checks_of_field(kind, name, hint)]

    def check_all(record: Any) -> None:
        for name, check in checks:
            value = getattr(record, name)
            try:
                if value is not None:
                    check(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error

    return check_all


def _checks_of_field(kind: type, name: str, hint: Any) -> list[Check]:
    """Return no check or one."""
    if _names_a_folder(kind, name):
        return [_check_name]
    if _is_optional(hint):
        return _checks_of_field(kind, name, get_args(hint)[0])
    if hint is datetime:
        return [_check_time]
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [check_of(hint)] if _has_checks(hint) else []
    if get_origin(hint) is tuple and _has_checks(get_args(hint)[0]):
        return [each(check_of(get_args(hint)[0]))]
    return []


def _has_checks(hint: Any) -> bool:
    if not (isinstance(hint, type) and dataclasses.is_dataclass(hint)):
        return False
    return any(_checks_of_field(hint, name, of) for name, of in _fields(hint).items())


def each(check: Check) -> Check:
    """Return the check of a sequence whose every entry must pass ``check``."""

    def check_each(values: Any) -> None:
        for value in values:
            check(value)

    return check_each


def _names_a_folder(kind: type, name: str) -> bool:
    return name in ("camera_id", "federation", "site") or (kind.__name__, name) == ("LinkPromotion", "target")


@functools.lru_cache(maxsize=100_000)  # there are few cameras; a name that is refused is looked at each time
def _check_name(name: str) -> None:
    """Readers name folders and keys after this text: what could lead elsewhere is refused where it comes in."""
    if not CAMERA_ID.fullmatch(name):
        raise ValueError(f"{name!r:.80} is not 1 to 64 letters, digits, '_', '.' or '-', which name a folder")


def _check_time(moment: datetime) -> None:
    if moment.tzinfo is not UTC:
        raise ValueError(f"{moment} where a time in UTC belongs")


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _is_optional(hint: Any) -> bool:
    arguments = get_args(hint)
    is_union = get_origin(hint) in (typing.Union, types.UnionType)
    return is_union and len(arguments) == 2 and arguments[1] is type(None)


@functools.cache
def _dtype_of(hint: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(get_args(get_args(hint)[1])[0])
    return dtype
