"""From YAML text to a validated section, or to every problem in it, each with its line and a way out.

Pydantic finds what is wrong; this file says it in the words of the configuration. Nothing here knows which sections
there are: names of keys come from the pydantic model handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from camlink.pipeline.errors import Problem
from camlink.pipeline.ingest.masking import mask_url
from camlink.pipeline.suggestions import suggest
from camlink.pipeline.yaml_lines import Document, KeyPath, read_yaml

SectionT = TypeVar("SectionT", bound=BaseModel)


def read_section(
    text: str, file: str, model: type[SectionT], leave_out: str = ""
) -> tuple[SectionT | None, list[Problem]]:
    """Validate YAML ``text`` as ``model``; return it, or None and all problems in the order of their lines.

    ``file`` is shown in problems, and relative paths are looked for beside it. The top-level key ``leave_out`` is
    not looked at.
    """
    try:
        document = read_yaml(text)
    except yaml.YAMLError as error:
        return None, [_syntax_problem(file, error)]
    data = _without_absent(document.data if document.data is not None else {})
    if not isinstance(data, dict):
        return None, [Problem(file, 1, f'must be a mapping of keys such as "site:", got {_show(data)}')]
    data.pop(leave_out, None)
    problems = [*_duplicate_keys(file, document), *_duplicate_ids(file, document, data)]
    section = None
    try:
        section = model.model_validate(data, context={"folder": Path(file).parent})
    except ValidationError as error:
        problems += _describe_all(error, file, document, data, model)
    problems.sort(key=lambda problem: problem.line or 0)
    return (None if problems else section), problems


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
            used = f'camera id "{camera_id}" is already used on line {first_lines[camera_id]}'
            yield Problem(file, line, f'{used}; rename one, for example "{camera_id}-{number + 1}"')
        first_lines.setdefault(camera_id, line)


def _describe_all(
    error: ValidationError, file: str, document: Document, data: Any, model: type[BaseModel]
) -> Iterator[Problem]:
    for details in error.errors(include_url=False):
        if details["type"] == "duplicate_id":
            continue  # `_duplicate_ids` has named it, with both lines
        path = tuple(part for part in details["loc"] if not str(part).startswith("<"))  # union tags are not keys
        yield Problem(file, document.line_of(path), _place(path, data) + _describe(details, path, model))


def _place(path: KeyPath, data: Any) -> str:
    """Return ``camera "hall-03": fps: `` for the path of a problem, or its numbered path where there is no name."""
    words: list[str] = []
    rest = path
    if len(path) >= 2 and path[0] in _LISTS and isinstance(path[1], int):
        kind = str(path[0]).removesuffix("s")
        entry = data[path[0]][path[1]]
        name = entry.get("id" if kind == "camera" else "name") if isinstance(entry, dict) else None
        words, rest = [f'{kind} "{name}"' if isinstance(name, str) else f"{kind} {path[1] + 1}"], path[2:]
    words += [".".join(str(part) for part in rest)] if rest else []
    return "".join(f"{word}: " for word in words)


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
    wanted = _WANTED.get(kind)
    if wanted is not None:
        return f"must be {wanted(context)}, got {_show(details['input'])}"
    return f"{details['msg']}, got {_show(details['input'])}"


_LISTS = ("cameras", "models")  # not proposed as the home of a stray key: which entry would it be?

_WANTED: dict[str, Callable[[dict[str, Any]], str]] = {
    "string_type": lambda _: "text (in quotes if it looks like a number or a date)",
    "int_type": lambda _: "a whole number",
    "int_from_float": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "tuple_type": lambda _: "a list",
    "dict_type": lambda _: "a mapping of keys",
    "model_type": lambda _: "a mapping of keys",
    "model_attributes_type": lambda _: "a mapping of keys",
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
    sections = dict(_sections(model))
    return sections.get(str(path[0]), model) if path else model


def _sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        for section in _models_within(field.annotation):
            yield name, section


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
