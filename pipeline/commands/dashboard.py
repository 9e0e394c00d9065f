"""`camlink dashboard`: live pages over results folders."""

from __future__ import annotations

import secrets
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from camlink.pipeline.commands.console import note_console, out_console

TokenOption = Annotated[
    str | None,
    typer.Option(
        envvar="CAMLINK_DASHBOARD_TOKEN", show_envvar=True, help="What to sign in with; 16 characters or more.",
        show_default=False,
    ),
]  # fmt: skip


def dashboard(
    results: Annotated[
        list[Path],
        typer.Argument(exists=True, file_okay=False, help="Results folders of runs, or folders of such folders."),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on. Other than this machine's own, a token is needed.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 8765, or a free one if that is taken.")
    ] = None,
    token: TokenOption = None,
    days: Annotated[int, typer.Option(min=1, help="Days of outputs to read, back from the newest.")] = 7,
) -> None:
    """Serve a dashboard over runs, finished or still going on."""
    from camlink.pipeline.dashboard.auth import is_local
    from camlink.pipeline.dashboard.server import Dashboard

    if token is None and not is_local(host):
        token = secrets.token_urlsafe(24)
        note_console().print(f"Token to sign in with: {token}", soft_wrap=True, markup=False)
    served = Dashboard(results, host=host, port=port, token=token, days=days)
    out_console().print(f"Dashboard: {served.url}", highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, _done)  # the server stops for it, and then hands it on
    try:
        served.run()
    finally:
        served.close()


def _done(number: int, frame: FrameType | None) -> None:
    """A supervisor that stops the dashboard is no failure."""
    raise SystemExit(0)
