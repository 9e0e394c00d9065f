"""`camlink report`: what a run did and how right it was, on the terminal, as JSON and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlink.pipeline.commands.console import out_console


def report(
    run: Annotated[Path, typer.Argument(help="Results folder of a run, finished or still going on.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
    write: Annotated[bool, typer.Option(help="Write report.json and report.html into the folder.")] = True,
) -> None:
    """Print a run's report, and write it as JSON and as one self-contained HTML page."""
    import json

    from camlink.pipeline.reports import build_report, print_report, write_report

    content = build_report(run)
    if as_json:
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    console = out_console()
    print_report(content, console)
    if write:
        console.print(f"Report: {write_report(run)}", highlight=False, soft_wrap=True)
