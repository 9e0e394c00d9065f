"""`camlink replay`: recorded footage, or a recorded trace, through the whole pipeline."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlink.pipeline.commands import console
from camlink.pipeline.commands.answering import AnswersOption
from camlink.pipeline.commands.console import DeviceOption, ModelsOption, RateOption, TimezoneOption

if TYPE_CHECKING:
    from camlink.pipeline.commands.earlier_run import EarlierRun
    from camlink.pipeline.config import SiteConfig
    from camlink.pipeline.ingest.base import SourceSpec


PIXELS_ONLY = ("fps", "start", "realtime", "timezone", "device")  # options that say how footage is read and looked at


def replay(
    context: typer.Context,
    paths: Annotated[
        list[Path], typer.Argument(help="Clips, folders of clips or of stills, or a trace.", show_default=False)
    ],
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-c",
            help="Configuration file, or a built-in name; not given: traffic for --models traffic, else building.",
        ),
    ] = None,
    models: ModelsOption = None,
    fps: RateOption = "5",
    period: Annotated[
        str | None, typer.Option(help="How long a decision holds, in event time: 20s, 10min, 1h.")
    ] = None,
    time_share: Annotated[
        float | None, typer.Option(help="Time budget as a share (0..1) of executing everything.")
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(
            help="Agreement (0..1) that answers are to meet; under policy camlink, in place of the file's time budget."
        ),
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option(help="What models may take on any one frame, in ms, by what they cost.")
    ] = None,
    memory_gb: Annotated[float | None, typer.Option(help="Memory budget for loaded models, in GB.")] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="On every frame: camlink, reducto, periodic; per period: mlink, mlink-exact, standalone, all."
        ),
    ] = None,
    bootstrap: Annotated[
        int | None, typer.Option(help="First frames of a camera on which every model runs, to learn from.")
    ] = None,
    audit: Annotated[float | None, typer.Option(help="Share (0..1) of frames audited.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random choice.")] = None,
    device: DeviceOption = None,
    timezone: TimezoneOption = "UTC",
    start: Annotated[datetime | None, typer.Option(help="Event time of the first frame of a clip.")] = None,
    realtime: Annotated[
        bool, typer.Option("--real-time", help="At the speed of recording, not at full speed.")
    ] = False,
    fit: Annotated[
        bool, typer.Option(help="Shorten the learning and lengthen the period where footage is too short for them.")
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(help="Results folder; runs/NAME-TIME when not given.", callback=console.writable_folder),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Delete an earlier run in the results folder.")] = False,
    answers: AnswersOption = None,
) -> None:
    """Replay recorded footage through ingest, scheduler, models, links and adaptation; end with a report.

    What no option says is as the configuration has it.
    Event time is that of the footage, so a replay at any speed decides alike, and one seed gives the same rows.
    """
    from camlink.pipeline.commands.earlier_run import EarlierRun, results_folder
    from camlink.pipeline.commands.replay_trace import replay_trace
    from camlink.pipeline.commands.settings import built_in_site, load_settings
    from camlink.pipeline.config import warnings_of

    rate, timezone = console.parse_fps(fps), console.parse_timezone(timezone)
    is_trace = len(paths) == 1 and (paths[0] / "trace.yaml").is_file()
    settings = load_settings(
        config or built_in_site(models),
        {
            "models": None if is_trace else models,
            "period": period,
            "budgets.time_share": time_share,
            "target_agreement": target,
            "budgets.latency_ms": latency_ms,
            "budgets.memory_gb": memory_gb,
            "policy": policy,
            "links.bootstrap_frames": bootstrap,
            "audit.fraction": audit,
            "seed": seed,
            "device": device,
        },
    )
    console.print_warnings(warnings_of(settings))
    folder = EarlierRun(out or results_folder(paths[0].resolve().stem), overwrite, paths)
    fit = fit and bootstrap is None and period is None
    if is_trace:
        _refuse_options_for_pixels(context)
        code = replay_trace(paths[0], settings, folder, models, fit=fit, answers=answers)
    else:
        specs = find_cameras(paths, rate, timezone, start)
        code = _replay_footage(specs, settings, folder, fit=fit, realtime=realtime, answers=answers)
    raise typer.Exit(code)


def _refuse_options_for_pixels(context: typer.Context) -> None:
    for parameter in context.command.params:
        given = context.get_parameter_source(str(parameter.name))
        if parameter.name in PIXELS_ONLY and given is not None and given.name != "DEFAULT":
            raise typer.BadParameter(
                "a trace has frames, times and outputs already; leave this out, or replay the footage itself",
                param_hint=parameter.opts[0],
            )


def find_cameras(paths: list[Path], fps: float | None, timezone: str, start: datetime | None) -> list[SourceSpec]:
    """Return the cameras found at the given paths, without the clips in folders that cannot be read.

    Raises `SourceError` if two paths give the same camera, or nothing can be read.
    """
    from camlink.pipeline.errors import SourceError
    from camlink.pipeline.ingest.discover import discover
    from camlink.pipeline.ingest.readable import only_readable

    specs: list[SourceSpec] = []
    for path in paths:
        found = discover(path, fps=fps, timezone=timezone)
        if path.is_dir():
            found, unreadable = only_readable(found)
            for why in unreadable:
                console.note_console().print(f"left out: {why}", style="yellow", markup=False, soft_wrap=True)
            if not found:
                raise SourceError(f"{path}: none of its {len(unreadable)} clips can be read")
        specs += found
    ids = [spec.camera_id for spec in specs]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise SourceError(f'camera "{twice[0]}" is found at more than one of the given paths; replay them one by one')
    return [replace(spec, start=start) for spec in specs] if start else specs


def _replay_footage(
    specs: list[SourceSpec], config: SiteConfig, out: EarlierRun, *, fit: bool, realtime: bool, answers: str | None
) -> int:
    from camlink.pipeline.assembly import check_budgets
    from camlink.pipeline.clock import SteadyClock
    from camlink.pipeline.commands.answering import told_answers
    from camlink.pipeline.commands.running import build_pool, encode_picture, run_and_report
    from camlink.pipeline.config.start_checks import check_start
    from camlink.pipeline.footage import fit_rules, footage_of
    from camlink.pipeline.ingest.masking import mask_url
    from camlink.pipeline.ingest.merge import merge
    from camlink.pipeline.ingest.opening import open_source
    from camlink.pipeline.ingest.replay import Rest, paced
    from camlink.pipeline.session import Camera, Session

    footage = [footage_of(spec) for spec in specs]
    if fit:
        config, changes = fit_rules(config, footage)
        console.print_fitted(changes)
    check_start(config)
    pool, descriptions = build_pool(config)
    cameras = {
        spec.camera_id: Camera(spec.domain, ", ".join(mask_url(s) for s in spec.sources), facts.fps)
        for spec, facts in zip(specs, footage, strict=True)
    }
    sources = [open_source(spec, live=False) for spec in specs]
    check_budgets(config, pool)
    readings: Any = merge(sources)
    rest = Rest()
    if realtime:
        readings = paced(readings, SteadyClock(), rest)
    total = sum(f.frames for f in footage if f.frames) if all(f.frames for f in footage) else None

    def close() -> None:
        rest.cut()
        for source in sources:
            source.close()

    with told_answers(answers, pool.specs) as listeners:
        folder = out.cleared()
        session = Session(
            *(config, pool, cameras, folder),
            model_notes=descriptions,
            encode_picture=encode_picture,
            tick=min(len(cameras), 16),
            listeners=listeners,
        )
        return run_and_report(
            session, readings, lambda: {s.camera_id: s.captured for s in sources}, total, folder, close
        )
