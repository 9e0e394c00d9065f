"""What commands share: the consoles, the exit codes and the options that several of them take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

DONE = 0
FAILED = 1  # something went wrong while running
WRONG_USE = 2  # options, configuration or input files are wrong; nothing was run
STOPPED = 130  # stopped by Ctrl-C; what was done is kept and reported

ConfigOption = Annotated[str, typer.Option("--config", "-c", help="Configuration file, or a built-in name.")]
ModelsOption = Annotated[
    str | None, typer.Option("--models", "-m", help="A set (building, traffic) or names, comma-separated.")
]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
TimezoneOption = Annotated[str, typer.Option(help="How times without a zone in names and manifests are read.")]
RateOption = Annotated[
    str, typer.Option("--fps", help='Frames per second to look at, a rate such as "1/min", or "all".')
]


def out_console() -> Console:
    """Return the console for results (standard output)."""
    from rich.console import Console

    return Console()


def note_console() -> Console:
    """Return the console for notes, progress and errors (standard error)."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


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
    from zoneinfo import available_timezones

    from camlink.pipeline.suggestions import suggest

    zones = available_timezones()
    if text in zones:
        return text
    close = suggest(text, sorted(zones))
    advice = close if close.startswith("did") else 'write one like "Asia/Singapore"'
    raise typer.BadParameter(f'"{text}" is not a known time zone; {advice}', param_hint="--timezone")


def print_error(error: Exception) -> None:
    """Say on standard error what went wrong."""
    console = note_console()
    console.print("error:", style="bold red", end=" ")
    console.print(str(error), markup=False, soft_wrap=True)
