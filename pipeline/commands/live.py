"""`camlink run`: live cameras through the whole pipeline, in one process."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from camlink.pipeline.commands.console import WRONG_USE, note_console


def run(
    config: Annotated[str, typer.Argument(help="Configuration file with cameras, or a built-in name such as webcam.")],
    out: Annotated[Path | None, typer.Option(help="Results folder; runs/SITE-TIME when not given.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    dashboard: Annotated[bool, typer.Option(help="Serve live pages and /metrics while running.")] = True,
    host: Annotated[str, typer.Option(help="Address of the dashboard; other than localhost it needs a token.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port of the dashboard; 8765, or a free one if taken.")] = None,
    token: TokenOption = None,
) -> None:
    """Run the cameras of a configuration live until Ctrl-C; results and report grow in the results folder."""
    from camlink.pipeline.commands.running import build_pool, encode_picture, run_and_report
    from camlink.pipeline.config import load_config
    from camlink.pipeline.ingest.live import LiveSource, close_together
    from camlink.pipeline.ingest.merge import gather
    from camlink.pipeline.ingest.opening import open_source
    from camlink.pipeline.session import Camera, Session

    site = load_config(config)
    if not site.cameras:
        note_console().print(f"{config}: no cameras; name at least one under `cameras:`", style="red")
        raise typer.Exit(WRONG_USE)
    if device is not None:
        site = site.model_copy(update={"device": device})
    pool, descriptions = build_pool(site)
    folder = out or Path("runs") / f"{site.site}-{datetime.now():%Y%m%d-%H%M%S}"
    cameras = {c.id: Camera(c.domain, c.shown_source, c.fps) for c in site.cameras}
    session = Session(
        site,
        pool,
        cameras,
        folder,
        model_notes=descriptions,
        encode_picture=encode_picture,
        tick=min(len(cameras), 16),
        live=True,
    )
    sources = [s for s in (open_source(c.source_spec(), live=True) for c in site.cameras) if isinstance(s, LiveSource)]
    note_console().print(f"{len(sources)} cameras; Ctrl-C ends with a report in {folder}")
    captured = {s.camera_id: s for s in sources}
    raise typer.Exit(
        run_and_report(
            session,
            gather(sources),
            lambda: {camera: source.captured for camera, source in captured.items()},
            None,
            folder,
            on_stop=lambda: close_together(sources),
        )
    )
