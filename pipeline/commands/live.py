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
) -> None:
    """Run the cameras of a configuration live until Ctrl-C; results and report grow in the results folder.

    Cameras that are added, removed or changed in the file meanwhile are taken up, let go or reopened.
    """
    from camlink.pipeline.commands.running import build_pool, encode_picture, run_and_report
    from camlink.pipeline.config import SiteConfig, load_config
    from camlink.pipeline.config_watch import ConfigWatch
    from camlink.pipeline.ingest import Roster, SourceSpec
    from camlink.pipeline.ingest.names import camera_id_from
    from camlink.pipeline.session import Camera, Session

    site = load_config(config)
    if not site.cameras:
        note_console().print(f"{config}: no cameras; name at least one under `cameras:`", style="red")
        raise typer.Exit(WRONG_USE)
    if device is not None:
        site = site.model_copy(update={"device": device})
    pool, descriptions = build_pool(site)
    folder = out or Path("runs") / f"{camera_id_from(site.site)}-{datetime.now():%Y%m%d-%H%M%S}"

    def cameras_of(site: SiteConfig) -> dict[str, Camera]:
        return {c.id: Camera(c.domain, c.shown_source, c.fps) for c in site.cameras}

    session = Session(
        site,
        pool,
        cameras_of(site),
        folder,
        model_notes=descriptions,
        encode_picture=encode_picture,
        tick=min(len(site.cameras), 16),
    )
    watch = ConfigWatch(config, site)

    def edited() -> list[SourceSpec] | None:
        site = watch.poll()
        if site is None:
            return None
        session.update_cameras(site, cameras_of(site))
        return [camera.source_spec() for camera in site.cameras]

    roster = Roster([camera.source_spec() for camera in site.cameras], edits=edited)
    note_console().print(f"{len(site.cameras)} cameras; Ctrl-C ends with a report in {folder}")
    raise typer.Exit(run_and_report(session, roster, roster.captured, None, folder, on_stop=roster.close))
