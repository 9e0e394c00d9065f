"""Documentation that would lie if the code moved on: keys, commands and links are checked against the code."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from camlink.pipeline.config import json_schema

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def keys() -> Iterator[str]:
    schema = json_schema()
    for name, entry in schema["properties"].items():
        section = re.search(r"\$defs/(\w+)", str(entry.get("$ref") or entry.get("allOf") or ""))
        fields = schema["$defs"][section[1]]["properties"] if section else {}
        yield from (f"{name}.{field}" for field in fields)
        if not fields:
            yield name
    yield from schema["$defs"]["CameraConfig"]["properties"]
    yield from schema["$defs"]["ModelConfig"]["properties"]


@pytest.mark.parametrize("key", sorted(set(keys())))
def test_every_key_is_documented(key: str) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert re.search(rf"\b{re.escape(key)}\b", page), f"docs/configuration.md says nothing of {key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_named_in_the_docs_exist(page: Path) -> None:
    from camlink.pipeline.cli import app

    known = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback} | {
        group.name for group in app.registered_groups
    }
    for command in re.findall(r"`(?:[.\w/]*/)?camlink ([a-z]+)", page.read_text()):
        assert command in known, f"{page.name} names `camlink {command}`"
