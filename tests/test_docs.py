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


def anchors(page: Path) -> set[str]:
    """Return what a link may name after ``#``: the headings of a page, as GitHub spells them."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        if "://" not in target:
            led_to = page.parent / target if target else page
            assert led_to.exists(), f"{page.name} links to {target}, which is not there"
            if heading:
                assert heading in anchors(led_to), f"{page.name} links to {target}#{heading}: no such heading"


def leads(table: str) -> list[float]:
    """Return the points of every case of a table of `camlink / best baseline`, above it or below."""
    cases = re.findall(r"\| \**([\d.]+)\** / \**([\d.]+)\** [\w-]+(?: [†‡])?(?= \|)", table)
    return [round(float(ours) - float(best), 1) for ours, best in cases]


def test_what_is_said_of_the_results_is_what_their_tables_show() -> None:
    page = (ROOT / "docs" / "policy-results.md").read_text()
    section = page.split("\n## How good it is\n")[1].split("\n## ")[0]
    clips, rest = section.split("Live cameras are slower")
    slow, others = rest.split("Three counters of cars, by")
    chosen_on, apart = slow.split("*clips kept apart*")
    cars, stills = others.split("Kept apart entirely")
    named = {
        "the eight clips, at all their frames": clips,
        "slow and three-counter traces that constants were chosen on": chosen_on,
        "slow and three-counter traces kept apart": apart,
        "three counters of cars": cars,
        "stills of four road cameras, day and night": stills,
    }
    for name, table in named.items():
        points, worse = leads(table), table.count(" ‡ |")
        not_below, mean = sum(p >= 0 for p in points), sum(points) / len(points)
        assert f"| {name} | {len(points)} | {not_below} | {mean:+.1f} | {min(points):+.1f} | {worse} |" in page

    for told, sets in {
        "README.md": (clips, slow),
        "docs/policy.md": (clips, slow),
        "docs/compare.md": (clips,),
    }.items():
        words = " ".join((ROOT / told).read_text().split())
        for points in map(leads, sets):
            mean = sum(points) / len(points)
            assert f"{sum(p >= 0 for p in points)} of {len(points)} cases, {mean:.1f} points above" in words, told
            assert re.search(rf"\b{-min(points):.1f} (points )?below", words), told


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_named_in_the_docs_exist(page: Path) -> None:
    from camlink.pipeline.cli import app

    known = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback} | {
        group.name for group in app.registered_groups
    }
    for command in re.findall(r"`(?:[.\w/]*/)?camlink ([a-z]+)", page.read_text()):
        assert command in known, f"{page.name} names `camlink {command}`"
