"""Validate data as far as it goes: what is wrong is set aside and the rest is looked at again, so that all is found.

Pydantic stops at a value that is wrong: what compares it with others never runs, and a person would be told of the
next fault only after mending the first. Here a wrong key, or the list entry that cannot be without it, is left out,
and the remainder is validated again until it is sound. What was left out is never used, only what else is wrong found.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from camlink.pipeline.config.yaml_lines import KeyPath

ModelT = TypeVar("ModelT", bound=BaseModel)
Fault = tuple[KeyPath, ErrorDetails]


class LeftOut:
    """Paths that were set aside, as in the data at first; lists close up where an entry is missing."""

    def __init__(self, paths: Iterable[KeyPath] = ()) -> None:
        self.paths: set[KeyPath] = set()
        self._above: set[KeyPath] = set()  # where something is left out at or below
        self._shifts: dict[KeyPath, list[int]] = {}  # of a list: how many that are there precede each missing entry
        self.add(paths)

    def add(self, paths: Iterable[KeyPath]) -> None:
        """Set aside more."""
        self.paths.update(paths)
        self._above = {path[:length] for path in self.paths for length in range(len(path) + 1)}
        missing: dict[KeyPath, list[int]] = {}
        for path in sorted((p for p in self.paths if p and isinstance(p[-1], int)), key=lambda p: int(p[-1])):
            missing.setdefault(path[:-1], []).append(int(path[-1]))
        self._shifts = {path: [gone - i for i, gone in enumerate(numbers)] for path, numbers in missing.items()}

    def touches(self, *path: str | int) -> bool:
        """Say whether something at or below ``path`` was left out."""
        return path in self._above

    def without(self, data: Any, path: KeyPath = ()) -> Any:
        """Return ``data`` without what was left out."""
        if isinstance(data, dict):
            return {k: self.without(v, (*path, k)) for k, v in data.items() if (*path, k) not in self.paths}
        if isinstance(data, list):
            return [self.without(v, (*path, i)) for i, v in enumerate(data) if (*path, i) not in self.paths]
        return data

    def original(self, path: KeyPath) -> KeyPath:
        """Return where ``path`` of the remaining data was at first.

        >>> LeftOut({("cameras", 0), ("cameras", 2)}).original(("cameras", 1, "id"))
        ('cameras', 3, 'id')
        """
        found: KeyPath = ()
        for part in path:
            found = (*found, self._entry(found, part) if isinstance(part, int) else part)
        return found

    def _entry(self, path: KeyPath, number: int) -> int:
        return number + bisect_right(self._shifts.get(path, ()), number)


@dataclass
class Validated(Generic[ModelT]):
    """The sound part of some data, or None where there is none; all faults, and what was left out for them."""

    sound: ModelT | None
    faults: list[Fault]
    left_out: LeftOut


def validate(
    data: dict[str, Any], model: type[ModelT], context: dict[str, Any], stand_in: Mapping[str, Any]
) -> Validated[ModelT]:
    """Validate ``data`` as ``model``, setting aside what is wrong until the rest is sound.

    ``stand_in`` takes the place of top-level keys that cannot be left out, so that the others can be looked at.
    """
    left_out = LeftOut()
    faults: list[Fault] = []
    while True:
        instead = {key: value for key, value in stand_in.items() if (key,) in left_out.paths}
        try:
            sound = model.model_validate({**left_out.without(data), **instead}, context=context)
            return Validated(sound, faults, left_out)
        except ValidationError as error:
            found = [(left_out.original(_keys(d["loc"])), d) for d in error.errors(include_url=False)]
        # What lacks a part that was set aside is wrong for that reason, and has been told of.
        faults += [(path, details) for path, details in found if not left_out.touches(*path)]
        gone = {_to_leave_out(path, details, data, stand_in) for path, details in found}
        if () in gone or gone <= left_out.paths:
            return Validated(None, faults, left_out)
        left_out.add(gone)


def _to_leave_out(path: KeyPath, details: ErrorDetails, data: Any, stand_in: Mapping[str, Any]) -> KeyPath:
    if len(path) == 1 and path[0] in stand_in:
        return path
    return path[:-1] if details["type"] == "missing" else _within(data, path)


def _keys(location: tuple[int | str, ...]) -> KeyPath:
    return tuple(part for part in location if not str(part).startswith("<"))  # tags of unions are no keys


def _within(data: Any, path: KeyPath) -> KeyPath:
    """Return as much of ``path`` as there is in ``data``: pydantic may point further, at a part of a value."""
    for depth, part in enumerate(path):
        there = part in data if isinstance(data, dict) else isinstance(data, list) and part in range(len(data))
        if not there:
            return path[:depth]
        data = data[part]
    return path
