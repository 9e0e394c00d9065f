"""From YAML text to a validated section, or to every problem in it, each with its line and a way out.

Pydantic finds what is wrong; this file says it in the words of the configuration. Nothing here knows which sections
there are: names of keys come from the pydantic model handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

import yaml
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from camlink.pipeline.config.validation import LeftOut, validate
from camlink.pipeline.config.yaml_lines import Document, KeyPath, read_yaml
from camlink.pipeline.errors import Problem
from camlink.pipeline.ingest.masking import mask_url
from camlink.pipeline.suggestions import suggest

SectionT = TypeVar("SectionT", bound=BaseModel)


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a section was read from, so that what is found wrong later is told with its line, too.

    ``options``: of values that the command line has put in the file's place, the option, which is named instead.
    All are equal: where settings stand is no part of what they say.
    """

    file: str = ""
    document: Document = field(default_factory=Document)
    left_out: LeftOut = field(default_factory=LeftOut)
    options: Mapping[KeyPath, str] = field(default_factory=dict)

    def option_of(self, path: KeyPath) -> str | None:
        """Return the option that has given the value at ``path``; None for one of the file."""
        return next((option for key, option in self.options.items() if path[: len(key)] == key), None)

    def states(self, path: KeyPath) -> bool:
        """Say whether the file, or an option in its place, gives the value at ``path``; else it is as by default."""
        return self.option_of(path) is not None or _at(self.document.data, path) is not None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)

    def __hash__(self) -> int:
        return 0

    def problem(self, path: KeyPath, message: str) -> Problem:
        """Return the problem of the value at ``path`` of the section."""
        if (option := self.option_of(path)) is not None:
            return Problem(option, None, message)
        path = self.left_out.original(path)
        line = self.document.line_of(path) if self.file else None
        return Problem(self.file, line, _place(path, self.document.data) + message)


@dataclass(frozen=True)
class Read(Generic[SectionT]):
    """What could be made of a text: all problems, and the section, or as much of it as is sound (None: nothing)."""

    sound: SectionT | None
    problems: list[Problem]
    origin: Origin = Origin()


def read_section(
    text: str, file: str, model: type[SectionT], leave_out: str = "", stand_in: Mapping[str, Any] | None = None
) -> Read[SectionT]:
    """Validate YAML ``text`` as ``model``, as far as it goes, and find all its problems, in the order of their lines.

    ``file`` is shown in problems, and relative paths are looked for beside it. The top-level key ``leave_out`` is
    not looked at; ``stand_in`` as for `validate`.
    """
    try:
        document = read_yaml(text)
    except yaml.YAMLError as error:
        return Read(None, [_syntax_problem(file, error)])
    data = _without_absent(document.data if document.data is not None else {})
    if not isinstance(data, dict):
        return Read(None, [Problem(file, 1, f'must be a mapping of keys such as "site:", got {_show(data)}')])
    data.pop(leave_out, None)
    document.data = data
    problems = [*_duplicate_keys(file, document), *_duplicate_ids(file, document, data)]
    found = validate(data, model, {"folder": Path(file).parent}, stand_in or {})
    origin = Origin(file, document, found.left_out)
    for path, details in found.faults:
        if details["type"] != "duplicate_id":  # `_duplicate_ids` has named it, with both lines
            message = _place(path, data) + _describe(details, path, model)
            problems.append(Problem(file, document.line_of(path), message))
    return Read(found.sound, in_order(problems), origin)


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return problems of a file in the order of their lines."""
    return sorted(problems, key=lambda problem: problem.line or 0)


def _syntax_problem(file: str, error: yaml.YAMLError) -> Problem:
    """Say where YAML went wrong, without the quoted text that PyYAML adds: a password may stand in it."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(file, None, "not valid YAML: it holds characters that are not text")
    line = error.problem_mark.line + 1 if error.problem_mark else None
    hint = "; indent with spaces, not tabs" if "\\t" in str(error.problem) else ""
    return Problem(file, line, f"not valid YAML: {error.problem or error.context}{hint}")


def _without_absent(data: Any) -> Any:
    """Drop keys without a value: ``budgets:`` with every line below it commented out means "as by default"."""
    if isinstance(data, dict):
        return {key: _without_absent(value) for key, value in data.items() if value is not None}
    return [_without_absent(item) for item in data] if isinstance(data, list) else data


def _duplicate_keys(file: str, document: Document) -> Iterator[Problem]:
    for twice in document.duplicates:
        yield Problem(file, twice.line, f'"{twice.key}" is already given on line {twice.first_line}; keep one of them')


def _duplicate_ids(file: str, document: Document, data: dict[str, Any]) -> Iterator[Problem]:
    """Find repeated camera ids in the raw data, since pydantic compares cameras only once each is right by itself."""
    cameras = data.get("cameras")
    first_lines: dict[str, int] = {}
    for number, camera in enumerate(cameras if isinstance(cameras, list) else []):
        camera_id = camera.get("id") if isinstance(camera, dict) else None
        if not isinstance(camera_id, str):
            continue
        line = document.line_of(("cameras", number, "id"))
        if camera_id in first_lines:
            used = f'camera id "{mask_url(camera_id)}" is already used on line {first_lines[camera_id]}'
            yield Problem(file, line, f'{used}; rename one, for example "{mask_url(camera_id)}-{number + 1}"')
        first_lines.setdefault(camera_id, line)


def _place(path: KeyPath, data: Any) -> str:
    """Return ``camera "hall-03": fps: `` for the path of a problem, or its numbered path where there is no name."""
    words: list[str] = []
    for entries, (kind, key) in _NAMED.items():
        if len(path) > len(entries) and path[: len(entries)] == entries and isinstance(path[len(entries)], int):
            number = int(path[len(entries)])
            entry = _at(data, (*entries, number))
            name = entry.get(key) if isinstance(entry, dict) else None
            words = [f'{kind} "{mask_url(name)}"' if isinstance(name, str) else f"{kind} {number + 1}"]
            path = path[len(entries) + 1 :]
    words += [".".join(str(part) for part in path)] if path else []
    return "".join(f"{word}: " for word in words)


def _at(data: Any, path: KeyPath) -> Any:
    """Return what is at ``path``; None where there is nothing, as in settings that come from no file."""
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _describe(details: ErrorDetails, path: KeyPath, model: type[BaseModel]) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(path, model)
    if kind == "missing":
        field = _section_at(path[:-1], model).model_fields.get(str(path[-1]))
        return f"is missing. {field.description if field else ''}".rstrip()
    if kind == "value_error":
        text, value = str(context["error"]), details["input"]
        return text.replace(value, mask_url(value)) if isinstance(value, str) and value else text
    if kind == "literal_error":
        choices = [word.strip("' ") for word in str(context["expected"]).replace(" or ", ",").split(",")]
        return f"{_show(details['input'])} is not a choice here; {suggest(str(details['input']), choices)}"
    if kind in ("model_type", "model_attributes_type"):
        keys = ", ".join(f'"{key}"' for key in list(_section_at(path, model).model_fields)[:6])
        return f"must be a mapping of keys such as {keys}, got {_show(details['input'])}"
    wanted = _WANTED.get(kind)
    if wanted is not None:
        return f"must be {wanted(context)}, got {_show(details['input'])}"
    return f"{details['msg']}, got {_show(details['input'])}"


_LISTS = ("cameras", "models")  # not proposed as the home of a stray key: which entry would it be?
_NAMED: dict[KeyPath, tuple[str, str]] = {  # lists of entries with a name: what an entry is called, and its name's key
    ("cameras",): ("camera", "id"),
    ("models",): ("model", "name"),
    ("alerts", "rules"): ("alert rule", "name"),
}

_WANTED: dict[str, Callable[[dict[str, Any]], str]] = {
    "string_type": lambda _: "text (in quotes if it looks like a number or a date)",
    "int_type": lambda _: "a whole number",
    "int_from_float": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "tuple_type": lambda _: "a list",
    "dict_type": lambda _: "a mapping of keys",
    "greater_than": lambda context: f"above {context['gt']:g}",
    "greater_than_equal": lambda context: f"at least {context['ge']:g}",
    "less_than": lambda context: f"below {context['lt']:g}",
    "less_than_equal": lambda context: f"at most {context['le']:g}",
    "string_pattern_mismatch": lambda context: f"of the form {str(context['pattern']).strip('^$')}",
    "string_too_short": lambda _: "not empty",
    "too_short": lambda context: f"a list of at least {context['min_length']}",
    "too_long": lambda context: f"a list of at most {context['max_length']}",
}


def _unknown_key(path: KeyPath, model: type[BaseModel]) -> str:
    key, section = str(path[-1]), _section_at(path[:-1], model)
    text = "is not a known key; "
    homes = [name for name, other in _sections(model) if key in other.model_fields and name not in _LISTS]
    if homes:
        return text + f'it belongs under "{homes[0]}"'
    return text + suggest(key, section.model_fields)


def _section_at(path: KeyPath, model: type[BaseModel]) -> type[BaseModel]:
    """Return the pydantic model that holds the keys at ``path``."""
    for part in path:
        model = dict(_sections(model)).get(str(part), model)
    return model


@cache
def _sections(model: type[BaseModel]) -> tuple[tuple[str, type[BaseModel]], ...]:
    fields = model.model_fields.items()
    return tuple((name, section) for name, known in fields for section in _models_within(known.annotation))


def _models_within(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_within(argument)


def _show(value: Any) -> str:
    """Return a value as an error may show it: short, and without passwords."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if len(value) > 8 else f"[{', '.join(_show(item) for item in value)}]"
    shown = mask_url(str(value))
    return f'"{shown[:77]}..."' if len(shown) > 80 else f'"{shown}"' if isinstance(value, str) else shown
