"""Tables stay whole at any width, in every command that prints one; counts say their nouns rightly."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from camlink.pipeline.commands import running
from camlink.pipeline.progress import Progress
from camlink.pipeline.tables import print_table
from camlink.pipeline.testing import TinyModel
from tests.pipeline.test_cli import camlink, write_trace

HEADS = ("camera", "model", "saved", "95 % interval")
ROWS = [("entrance-north-03", "persons", "62.0 %", "91.2 – 97.8 %"), ("yard", "objects", "", "not measured")]


NAMING = ("Camera", "Model", "target")  # heads of cells that name a row, or are all empty


def printed(width: int) -> list[str]:
    out = io.StringIO()
    print_table(Console(file=out, width=width), HEADS, ROWS, names=2, title="Agreement")
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_where_there_is_room_rows_stand_under_their_heads() -> None:
    lines = printed(80)
    (head,) = [line for line in lines if "95 % interval" in line]
    assert all(name in head for name in HEADS)
    assert any(line.split()[:3] == ["entrance-north-03", "persons", "62.0"] for line in lines)


@pytest.mark.parametrize("width", [20, 30, 40, 50])
def test_where_there_is_none_each_row_is_told_by_itself_and_no_fact_is_broken(width: int) -> None:
    text = "\n".join(printed(width))
    for name in ("entrance-north-03, persons", "saved 62.0 %", "95 % interval 91.2 – 97.8 %", "yard, objects"):
        assert name in text
    assert "saved \n" not in text and text.count("saved") == 1, "an empty cell is no fact"
    assert "…" not in text


@pytest.mark.parametrize("width", [30, 40])
def test_as_many_facts_stand_beside_each_other_as_there_is_room_for(width: int) -> None:
    facts = [line for line in printed(width) if line.startswith("  ")]
    assert all(len(line) <= width for line in facts)
    assert ("  saved 62.0 % · 95 % interval 91.2 – 97.8 %" in printed(50)) and len(facts) == 3


def test_markup_in_names_is_shown_as_it_is() -> None:
    out = io.StringIO()
    print_table(Console(file=out, width=60), ("camera", "n"), [("[bold]x[/bold]", "1")])
    assert "[bold]x[/bold]" in out.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_trace(folder / "trace", frames=60, cameras=("entrance-north-camera-03", "yard-behind-the-workshop"))
    made = camlink("replay", "trace", "--config", "demo", "--out", "run", cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "report run --no-write",
        "report run --no-write --day 2026-01-05",
        "compare trace --policy periodic standalone",
        "federate rehearse trace --rounds 1 --overwrite --out links",
    ],
)
def test_a_narrow_terminal_shows_whatever_a_wide_one_does(place: Path, command: str) -> None:
    narrow, wide = (camlink(*command.split(), cwd=place, env={"COLUMNS": width}) for width in ("80", "400"))
    assert narrow.returncode == wide.returncode == 0, narrow.stderr
    words, there = ([w.strip(",:") for w in done.stdout.split()] for done in (wide, narrow))
    missing = {word for word in words if any(letter.isalnum() for letter in word)} - {*there, *NAMING}
    assert not missing, narrow.stdout
    assert "│" not in narrow.stdout


def test_a_run_of_which_no_frame_has_come_says_so_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(running.time, "monotonic", lambda: now[0])
    progress = Progress({"a": TinyModel.count("a", lambda frame: 0).spec})
    tick = running._lines(progress, None, running.facts)
    for second in range(25):
        now[0] = float(second)
        tick()
    assert capsys.readouterr().err.splitlines() == ["no frame has come yet; still trying"] * 2
    progress.frames = 1
    assert running._line(progress, None, running.facts).startswith("1 frame, ")
    assert running._line(progress, 9, running.facts).startswith("1 of 9 frames, ")
