"""`camlink run`: live cameras through the whole pipeline, in one process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camlink.pipeline.commands.answering import AnswersOption
from camlink.pipeline.commands.console import (
    WRONG_USE,
    DeviceOption,
    note_console,
    print_note,
    print_warnings,
    writable_folder,
)
from camlink.pipeline.commands.dashboard import TokenOption
from camlink.pipeline.quantities import counted

if TYPE_CHECKING:
    from camlink.models.pool import ModelPool
    from camlink.pipeline.config import SiteConfig
    from camlink.pipeline.ingest.roster import Edits, Roster
    from camlink.pipeline.session import Camera
    from camlink.pipeline.telemetry import Telemetry


def run(
    config: Annotated[str, typer.Argument(help="Configuration file with cameras, or a built-in name such as webcam.")],
    out: Annotated[
        Path | None, typer.Option(help="Results folder; runs/SITE-TIME when not given.", callback=writable_folder)
    ] = None,
    device: DeviceOption = None,
    dashboard: Annotated[bool, typer.Option(help="Serve live pages and /metrics while running.")] = True,
    host: Annotated[
        str, typer.Option(help="Address of the dashboard; other than localhost it needs a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the dashboard; 8765, or a free one if taken.")
    ] = None,
    token: TokenOption = None,
    answers: AnswersOption = None,
    learnt: Annotated[
        Path | None,
        typer.Option(
            help="Folder in which to keep what cameras teach; the next start goes on from it.", callback=writable_folder
        ),
    ] = None,
) -> None:
    """Run the cameras of a configuration live until Ctrl-C; results and report grow in the results folder.

    Cameras that are added, removed or changed in the file meanwhile are taken up, let go or reopened.
    """
    from camlink.pipeline.commands.alerting import sent_alerts
    from camlink.pipeline.commands.answering import told_answers
    from camlink.pipeline.commands.running import build_pool, encode_picture, run_and_report
    from camlink.pipeline.config.watch import ConfigWatch
    from camlink.pipeline.dashboard.server import door_to
    from camlink.pipeline.ingest import SourceSpec
    from camlink.pipeline.learnt_folder import LearntFolder
    from camlink.pipeline.session import Listener, Session

    if dashboard:
        door_to(host, token)  # before models are measured
    site = _checked(config, device)
    folder = _free_folder(out, site)  # before models are measured, and alerts that an earlier run left there are sent
    with ExitStack() as serving:
        kept = serving.enter_context(closing(LearntFolder(learnt, site.policy))) if learnt else None
        pool, descriptions = build_pool(site)
        _tell_demand(site, pool)
        telemetry = serving.enter_context(_served(folder, pool, host, port, token)) if dashboard else None
        listeners: list[Listener] = [telemetry.observe] if telemetry else []
        listeners += serving.enter_context(told_answers(answers, pool.specs))
        if site.alerts.rules:
            listeners.append(serving.enter_context(sent_alerts(site, pool.specs, folder, telemetry)).observe)
        session = Session(
            *(site, pool, _cameras_of(site), folder),
            model_notes=descriptions,
            encode_picture=encode_picture,
            tick=min(len(site.cameras), 16),
            live=True,
            listeners=listeners,
            learnt=kept,
        )
        _tell_taken_up(session.info.taken_up)
        if telemetry is not None:
            telemetry.machine(session.throttle)
        watch = ConfigWatch(config, site)

        def edited() -> list[SourceSpec] | None:
            site = watch.poll()
            if site is None:
                return None
            _tell_taken_up(session.update_cameras(site, _cameras_of(site)))
            if telemetry is not None:
                telemetry.watched([camera.id for camera in site.cameras])
            return [camera.source_spec() for camera in site.cameras]

        roster = _roster(site, edited)
        note_console().print(f"{counted(len(site.cameras), 'camera')}; Ctrl-C ends with a report in {folder}")
        readings = telemetry.timed(roster) if telemetry else roster
        code = run_and_report(session, readings, roster.captured, None, folder, on_stop=roster.close)
    raise typer.Exit(code)


def _checked(config: str, device: str | None) -> SiteConfig:
    """Return the configuration of a site with cameras, for which all that a start needs is there."""
    from camlink.pipeline.commands.settings import on_device
    from camlink.pipeline.config import load_config, warnings_of
    from camlink.pipeline.config.start_checks import check_start

    site = load_config(config)
    if not site.cameras:
        note_console().print(f"{config}: no cameras; name at least one under `cameras:`", style="red")
        raise typer.Exit(WRONG_USE)
    site = on_device(site, device)
    print_warnings(warnings_of(site))
    check_start(site)
    return site


def _free_folder(out: Path | None, site: SiteConfig) -> Path:
    from camlink.pipeline.ingest.names import camera_id_from
    from camlink.pipeline.session import check_free

    folder = out or Path("runs") / f"{camera_id_from(site.site)}-{datetime.now():%Y%m%d-%H%M%S}"
    check_free(folder)
    return folder


def _cameras_of(site: SiteConfig) -> dict[str, Camera]:
    """Return what a run says of each camera."""
    from camlink.pipeline.session import Camera

    return {c.id: Camera(c.domain, c.shown_source, c.fps) for c in site.cameras}


def _roster(site: SiteConfig, edits: Edits) -> Roster:
    """Open the cameras; where a policy can answer for frames that no model runs on, some may wait for that."""
    from camlink.operators.gate import PER_FRAME_POLICIES
    from camlink.operators.paced_inference import LIVE_QUEUE
    from camlink.pipeline.ingest.roster import Roster, open_live_source

    opened = partial(open_live_source, waiting=LIVE_QUEUE if site.policy in PER_FRAME_POLICIES else 1)
    return Roster([c.source_spec() for c in site.cameras], edits=edits, open_source=opened, tell=print_note)


def _tell_demand(site: SiteConfig, pool: ModelPool) -> None:
    """Say how much of the machine the cameras will take, and warn where that is more than there is."""
    from camlink.pipeline.assembly import costs_of
    from camlink.pipeline.demand import demand_of, demand_warnings

    demand = demand_of(site, costs_of(pool))
    note_console().print(demand.words, style="dim", soft_wrap=True)
    print_warnings([site.problem_at(path, message) for path, message in demand_warnings(demand)])


def _tell_taken_up(cameras: Mapping[str, str]) -> None:
    if cameras:
        latest = max(map(datetime.fromisoformat, cameras.values())).astimezone()
        note_console().print(
            f"{counted(len(cameras), 'camera')} going on from what was learnt until {latest:%Y-%m-%d %H:%M}",
            style="dim",
        )


@contextmanager
def _served(
    folder: Path, pool: ModelPool, host: str, port: int | None, token: str | None
) -> Iterator[Telemetry | None]:
    """Serve the dashboard over ``folder``, and give what counts for its metrics; None where it is not installed."""
    from camlink.pipeline.dashboard.server import Dashboard, DashboardMissing
    from camlink.pipeline.telemetry import Telemetry

    try:
        telemetry = Telemetry(pool.specs, now_s=time.time)
        pool.watch = telemetry.batch
        telemetry.gauge("models_loaded_gb", "Memory of the models that are loaded", lambda: pool.loaded_gb)
        telemetry.gauge("model_loads", "Times a model was brought into memory", lambda: pool.loads)
        dashboard = Dashboard([folder], host=host, port=port, token=token, metrics=telemetry.render)
    except (DashboardMissing, ImportError) as error:
        note_console().print(f"no dashboard: {error}", style="yellow", markup=False, soft_wrap=True)
        yield None
        return
    dashboard.start()
    note_console().print(f"Dashboard: {dashboard.url}", style="bold", soft_wrap=True)
    try:
        yield telemetry
    finally:
        dashboard.close()
