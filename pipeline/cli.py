"""The command line: `camlink replay | run | worker | report | dashboard | why | record | compare | simulate | …`.

Exit codes: 0 done; 1 something went wrong while running; 2 wrong options, configuration or input files, nothing was
run; 130 stopped by Ctrl-C, and what was done until then is kept and reported.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

import camlink
from camlink.pipeline.commands import config, federate, models, worker, zoo
from camlink.pipeline.commands.compare import ManyValues, compare
from camlink.pipeline.commands.console import FAILED, STOPPED, WRONG_USE, print_error
from camlink.pipeline.commands.dashboard import dashboard
from camlink.pipeline.commands.live import run
from camlink.pipeline.commands.record import record
from camlink.pipeline.commands.replay import replay
from camlink.pipeline.commands.report import report
from camlink.pipeline.commands.simulate import simulate
from camlink.pipeline.commands.why import why
from camlink.pipeline.errors import (
    CamlinkError,
    ConfigError,
    DashboardError,
    RequestError,
    SourceError,
    TraceError,
    ZooError,
)

app = typer.Typer(
    name="camlink",
    help="Several vision models over many cameras for a fraction of their cost, with measured accuracy.",
    epilog="Exit codes: 0 done, 1 failed while running, 2 wrong use or configuration, 130 stopped by Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(replay)
app.command()(run)
app.command()(report)
app.command()(dashboard)
app.command()(why)
app.command()(record)
app.command(cls=ManyValues)(compare)
app.command()(simulate)
app.add_typer(models.app, name="models")
app.add_typer(config.app, name="config")
app.add_typer(worker.app, name="worker")
app.add_typer(federate.app, name="federate")
app.add_typer(zoo.app, name="zoo")


@app.command()
def version() -> None:
    """Print camlink's version."""
    print_version(True)


def print_version(asked: bool) -> None:
    if asked:
        typer.echo(camlink.__version__)
        raise typer.Exit


@app.callback()
def set_up(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log decisions, promotions and reconnects.")] = False,
    shows_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_version, help="Print camlink's version.")
    ] = False,
) -> None:
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Run the command line; errors that camlink raises on purpose end in one plain message."""
    try:
        app()
    except (ConfigError, DashboardError, RequestError, SourceError, TraceError, ZooError) as error:
        _fail(str(error), WRONG_USE)
    except CamlinkError as error:
        _fail(str(error), FAILED)
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; choose another place, or see to that one", FAILED)
    except KeyboardInterrupt:
        sys.exit(STOPPED)


def _fail(message: str, code: int) -> None:
    print_error(message)
    sys.exit(code)


if __name__ == "__main__":
    main()
