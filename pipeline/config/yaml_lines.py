"""YAML that remembers on which line each key stands, so that a wrong value can be pointed at.

PyYAML's ``safe_load`` forgets lines and lets the last of two equal keys win in silence; here both are kept track of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

KeyPath = tuple[str | int, ...]
MERGE_TAG = "tag:yaml.org,2002:merge"
MOST_ENTRIES = 500_000  # aliases of aliases multiply: ten lines may stand for a billion entries
MOST_DEPTH = 50


@dataclass(frozen=True)
class Duplicate:
    """A key written twice in one mapping; the second would win in silence."""

    key: str
    line: int
    first_line: int


@dataclass
class Document:
    """Plain data, and the line (from 1) of every key and list entry, by its path from the root.

    >>> document = read_yaml("site: a\\ncameras:\\n  - id: x\\n  - id: y\\n")
    >>> document.data
    {'site': 'a', 'cameras': [{'id': 'x'}, {'id': 'y'}]}
    >>> document.line_of(("cameras", 1, "id"))
    4
    >>> document.line_of(("cameras", 1, "source"))  # absent: the nearest that is there
    4
    """

    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    duplicates: list[Duplicate] = field(default_factory=list)

    def line_of(self, path: KeyPath) -> int:
        """Return the line of ``path``, or of its nearest ancestor that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_yaml(text: str) -> Document:
    """Read one YAML document with the safe types only. Raises ``yaml.YAMLError`` on a syntax error."""
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._loader = yaml.SafeLoader(text)
        self._document = Document()
        self._open: set[int] = set()  # nodes being built: an alias to one of them would never end
        self._entries = 0

    def read(self) -> Document:
        try:
            node = self._root()
            if node is not None:
                self._document.data = self._build(node, ())
        finally:
            self._loader.dispose()
        return self._document

    def _root(self) -> yaml.Node | None:
        try:
            return self._loader.get_single_node()
        except RecursionError:
            mark = self._loader.get_mark()
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MOST_DEPTH} levels", problem_mark=mark) from None

    def _build(self, node: yaml.Node, path: KeyPath) -> Any:
        self._entries += 1
        if self._entries > MOST_ENTRIES or len(path) > MOST_DEPTH:
            limit = f"nested deeper than {MOST_DEPTH} levels" if len(path) > MOST_DEPTH else "it stands for too much"
            raise yaml.MarkedYAMLError(problem=f"{limit}; write less by aliases", problem_mark=node.start_mark)
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._open:
            raise yaml.MarkedYAMLError(problem="an alias contains itself", problem_mark=node.start_mark)
        self._open.add(id(node))
        value = self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._sequence(node, path)
        self._open.remove(id(node))
        return value

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            return self._loader.construct_object(node)
        except ValueError as error:  # 2026-13-45 looks like a date and is none
            raise yaml.MarkedYAMLError(problem=f'"{node.value}": {error}', problem_mark=node.start_mark) from error

    def _sequence(self, node: yaml.Node, path: KeyPath) -> list[Any]:
        return [self._build(item, (*path, number)) for number, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        self._note_duplicates(node)
        self._loader.flatten_mapping(node)  # `<<: *defaults`, merged keys first so that own keys win
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(self._loader.construct_object(key_node, deep=True))
            self._document.lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self._build(value_node, (*path, key))
        return result

    def _note_duplicates(self, node: yaml.MappingNode) -> None:
        first_lines: dict[str, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == MERGE_TAG:
                continue
            key = str(key_node.value)
            if key in first_lines:
                self._document.duplicates.append(Duplicate(key, line, first_lines[key]))
            first_lines.setdefault(key, line)
