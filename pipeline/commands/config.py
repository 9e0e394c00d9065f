"""`camlink config`: check a configuration, print its schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlink.pipeline.commands.console import WRONG_USE, note_console, out_console, print_warnings, writable_file

app = typer.Typer(no_args_is_help=True, help="Configurations: check one, print the JSON Schema.")


@app.command()
def check(files: Annotated[list[str], typer.Argument(help="Configuration files, or built-in names.")]) -> None:
    """Say everything that is wrong with configurations, with file, line and a way out.

    Keys that the policy does not read are told of as warnings, and are no reason to refuse a file.
    """
    from camlink.pipeline.config import check_config, config_warnings, load_config

    problems = [problem for file in files for problem in check_config(file)]
    for problem in problems:
        note_console().print(str(problem), markup=False, soft_wrap=True)
    print_warnings([warning for file in files for warning in config_warnings(file)])
    if problems:
        raise typer.Exit(WRONG_USE)
    for file in files:
        cameras = "" if load_config(file).cameras else "; it has no cameras, which `camlink run` needs"
        out_console().print(f"{file}: correct{cameras}", highlight=False, soft_wrap=True, markup=False)


@app.command()
def schema(
    out: Annotated[
        Path | None, typer.Option(help="Write here instead of to standard output.", callback=writable_file)
    ] = None,
) -> None:
    """Print the JSON Schema of a configuration, for editors."""
    import json

    from camlink.pipeline.config import json_schema
    from camlink.pipeline.durable import write_text

    text = json.dumps(json_schema(), indent=2)
    if out is None:
        typer.echo(text)
    else:
        write_text(out, text + "\n")
