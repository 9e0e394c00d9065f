"""`camlink report`: what a run did and how right it was: terminal, JSON, page, one day, and the results as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from camlink.pipeline.commands.console import out_console, writable_file
from camlink.pipeline.quantities import counted


def report(
    run: Annotated[Path, typer.Argument(help="Results folder of a run, finished or still going on.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
    write: Annotated[
        bool,
        typer.Option(help="Write report.json and .html into the folder; with --day, those of days/DAY."),
    ] = True,
    day: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only this day (UTC), camera by camera.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Also write the results, a row per output, as CSV.", callback=writable_file)
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(help="Also write the results as one Parquet file.", callback=writable_file)
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="Also write the boxes of executed detectors, a row each: as Parquet where FILE ends in .parquet, "
            "else as CSV.",
            metavar="FILE",
            callback=writable_file,
        ),
    ] = None,
) -> None:
    """Print a run's report, and write it as JSON and as one self-contained HTML page."""
    form_of_boxes = "parquet" if boxes is not None and boxes.suffix == ".parquet" else "csv"
    exports: list[_Export] = [(csv, "csv", "outputs"), (parquet, "parquet", "outputs"), (boxes, form_of_boxes, "boxes")]
    _export(run, day, exports, quiet=as_json)
    if day is not None:
        _print_day(run, day, as_json, write)
        return
    from camlink.pipeline.reports import build_page, build_report, print_report, save_report

    if as_json or not write:
        content, page = build_report(run), None
    else:
        content, page = build_page(run)
    if as_json:
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
        return
    console = out_console()
    print_report(content, console)
    if page is not None:
        console.print(f"Report: {save_report(run, content, page)}", highlight=False, soft_wrap=True)


_Export = tuple[Path | None, str, Literal["outputs", "boxes"]]  # file, format, table


def _export(run: Path, day: datetime | None, exports: Sequence[_Export], *, quiet: bool) -> None:
    from camlink.pipeline.exports import export_results, known_day
    from camlink.pipeline.results import RunResults

    for file, form, table in exports:
        if file is not None:
            results = RunResults(run)
            rows = export_results(results, file, form, known_day(results, day.date()) if day else None, table)
            if not quiet:
                name = {"outputs": "Results", "boxes": "Boxes"}[table]
                out_console().print(f"{name}: {file}, {counted(rows, 'row')}", highlight=False, soft_wrap=True)


def _print_day(run: Path, day: datetime, as_json: bool, write: bool) -> None:
    from camlink.pipeline.reports.daily import daily_report, print_daily, write_daily
    from camlink.pipeline.results import RunResults

    results = RunResults(run)
    content = daily_report(results, day.date())
    if as_json:
        typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        console = out_console()
        print_daily(content, console)
        if write:
            console.print(f"Report: {write_daily(results, content)}", highlight=False, soft_wrap=True)
