"""What commands share: the consoles, the exit codes and the options that several of them take."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from camlink.pipeline.errors import Problem

DONE = 0
FAILED = 1  # something went wrong while running
WRONG_USE = 2  # options, configuration or input files are wrong; nothing was run
STOPPED = 130  # stopped by Ctrl-C; what was done is kept and reported
PIPED_WIDTH = 200  # what is piped into a file or another program has no terminal to fit

ConfigOption = Annotated[str, typer.Option("--config", "-c", help="Configuration file, or a built-in name.")]
ModelsOption = Annotated[
    str | None,
    typer.Option("--models", "-m", help="A set (building, traffic) or names, comma-separated; the file's own, too."),
]


def writable(path: Path | None) -> Path | None:
    """Check what a command is to write, before anything is done. Raises `typer.BadParameter` where it cannot be."""
    if path is not None:
        there = next(parent for parent in path.absolute().parents if parent.exists())
        if not there.is_dir():
            raise typer.BadParameter(f"{path} cannot be written: {there} is no folder; choose another place")
        if not os.access(path if path.exists() else there, os.W_OK):
            raise typer.BadParameter(f"{path} cannot be written: no permission in {there}; choose another place")
    return path


def writable_folder(path: Path | None) -> Path | None:
    """Check a folder that a command is to write to, as `writable` does; it need not be there."""
    if path is not None and path.exists() and not path.is_dir():
        raise typer.BadParameter(f"{path} is no folder; name one, or what is not there yet")
    return writable(path)


def writable_file(path: Path | None) -> Path | None:
    """Check a file that a command is to write, as `writable` does; make its folder when it is not there."""
    if path is not None and path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; name a file")
    if writable(path) is not None and path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    return path


def known_device(device: str | None) -> str | None:
    """Check ``--device``. Raises `typer.BadParameter` for what can be none; whether it is there shows at the start."""
    from camlink.models.device import check_name
    from camlink.pipeline.errors import ModelError

    try:
        if device is not None:
            check_name(device)
    except ModelError as error:
        raise typer.BadParameter(str(error)) from error
    return device


DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", callback=known_device)]
TimezoneOption = Annotated[str, typer.Option(help="How times without a zone in names and manifests are read.")]
RateOption = Annotated[
    str, typer.Option("--fps", help='Frames per second to look at, a rate such as "1/min", or "all".')
]


def out_console() -> Console:
    """Return the console for results (standard output). What it prints is never read as markup: paths have brackets."""
    from rich.console import Console

    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if narrow else PIPED_WIDTH, markup=False)


def note_console() -> Console:
    """Return the console for notes, progress and errors (standard error), which are never read as markup either."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False)


def print_note(text: str) -> None:
    """Say on standard error what a person who watches should know."""
    note_console().print(text, markup=False, soft_wrap=True)


def print_warnings(problems: Sequence[Problem]) -> None:
    """Say on standard error what in a configuration is not as it may be meant."""
    for problem in problems:
        note_console().print(f"warning: {problem}", style="yellow", markup=False, soft_wrap=True)


def print_fitted(changes: Sequence[str]) -> None:
    """Say in one paragraph what was changed to fit short footage; nothing where nothing was."""
    if changes:
        note_console().print(f"short footage: {'; '.join(changes)}.", style="yellow", markup=False)


def parse_fps(text: str) -> float | None:
    """Read ``--fps``: a number, a rate, or "all" (None). Raises `typer.BadParameter`."""
    from camlink.pipeline.quantities import parse_rate

    if text == "all":
        return None
    try:
        return float(parse_rate(float(text) if text.replace(".", "", 1).isdigit() else text))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--fps") from error


def parse_timezone(text: str) -> str:
    """Read ``--timezone``. Raises `typer.BadParameter` for one that is not known."""
    from camlink.pipeline import quantities

    try:
        return quantities.parse_timezone(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--timezone") from error


def print_error(error: Exception | str) -> None:
    """Say on standard error what went wrong."""
    console = note_console()
    console.print("error:", style="bold red", end=" ")
    console.print(str(error), markup=False, soft_wrap=True)
