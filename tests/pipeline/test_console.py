"""What is printed is what is meant: names with brackets are no markup."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rich.console import Console

from camlink.pipeline.commands.console import note_console, out_console


@pytest.mark.parametrize("console", [out_console, note_console])
@pytest.mark.parametrize("path", ["runs/hall[north]/report.html", "runs/a[/north]/report.html"])
def test_paths_with_brackets_are_printed_as_they_are(
    console: Callable[[], Console], path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console().print(f"Report: {path}", soft_wrap=True)
    assert path in "".join(capsys.readouterr())
