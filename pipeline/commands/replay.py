"""`camlink replay`: recorded footage, or a recorded trace, through the whole pipeline."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlink.pipeline.commands import console
from camlink.pipeline.commands.console import ConfigOption, DeviceOption, ModelsOption, RateOption, TimezoneOption

if TYPE_CHECKING:
    from camlink.pipeline.config import SiteConfig
    from camlink.pipeline.ingest.base import SourceSpec


def replay(
    paths: Annotated[
        list[Path], typer.Argument(help="Clips, folders of clips or of stills, or a trace.", show_default=False)
    ],
    config: ConfigOption = "building",
    models: ModelsOption = None,
    fps: RateOption = "5",
    period: Annotated[
        str | None, typer.Option(help="How long a decision holds, in event time: 20s, 10min, 1h.")
    ] = None,
    time_share: Annotated[
        float | None, typer.Option(help="Time budget as a share (0..1) of executing everything.")
    ] = None,
    memory_gb: Annotated[float | None, typer.Option(help="Memory budget for loaded models, in GB.")] = None,
    policy: Annotated[str | None, typer.Option(help="mlink, mlink-exact, standalone or all.")] = None,
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
    out: Annotated[Path | None, typer.Option(help="Results folder; runs/NAME-TIME when not given.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Delete an earlier run in the results folder.")] = False,
) -> None:
    """Replay recorded footage through ingest, scheduler, models, links and adaptation; end with a report.

    Event time is that of the footage, so a replay at any speed decides alike, and one seed gives the same rows.
    """
    from camlink.pipeline.commands.settings import load_settings, model_choice

    settings = load_settings(
        config,
        {
            "models": model_choice(models),
            "period": period,
            "budgets.time_share": time_share,
            "budgets.memory_gb": memory_gb,
            "policy": policy,
            "links.bootstrap_frames": bootstrap,
            "audit.fraction": audit,
            "seed": seed,
            "device": device,
        },
    )
    folder = _out_folder(out, paths[0], overwrite)
    if len(paths) == 1 and (paths[0] / "trace.yaml").is_file():
        code = _replay_trace(paths[0], settings, folder)
    else:
        specs = find_cameras(paths, console.parse_fps(fps), timezone, start)
        code = _replay_footage(
            specs, settings, folder, fit=fit and bootstrap is None and period is None, realtime=realtime
        )
    raise typer.Exit(code)


def find_cameras(paths: list[Path], fps: float | None, timezone: str, start: datetime | None) -> list[SourceSpec]:
    """Return the cameras found at the given paths. Raises `SourceError` if two paths give the same camera."""
    from camlink.pipeline.errors import SourceError
    from camlink.pipeline.ingest.discover import discover

    specs = [spec for path in paths for spec in discover(path, fps=fps, timezone=timezone)]
    ids = [spec.camera_id for spec in specs]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise SourceError(f'camera "{twice[0]}" is found at more than one of the given paths; replay them one by one')
    return [replace(spec, start=start) for spec in specs] if start else specs


def _replay_footage(specs: list[SourceSpec], config: SiteConfig, out: Path, *, fit: bool, realtime: bool) -> int:
    from camlink.pipeline.clock import WallClock
    from camlink.pipeline.commands.running import build_pool, encode_picture, run_and_report
    from camlink.pipeline.footage import fit_rules, footage_of
    from camlink.pipeline.ingest.masking import mask_url
    from camlink.pipeline.ingest.merge import merge
    from camlink.pipeline.ingest.opening import open_source
    from camlink.pipeline.ingest.replay import paced
    from camlink.pipeline.session import Camera, Session

    footage = [footage_of(spec) for spec in specs]
    notes = console.note_console()
    if fit:
        config, changes = fit_rules(config, footage)
        for change in changes:
            notes.print(f"short footage: {change}", style="yellow")
    pool, descriptions = build_pool(config)
    cameras = {
        spec.camera_id: Camera(spec.domain, ", ".join(mask_url(s) for s in spec.sources), facts.fps)
        for spec, facts in zip(specs, footage, strict=True)
    }
    session = Session(
        config,
        pool,
        cameras,
        out,
        model_notes=descriptions,
        encode_picture=encode_picture,
        tick=min(len(cameras), 16),
    )
    sources = [open_source(spec, live=False) for spec in specs]
    readings: Any = merge(sources)
    if realtime:
        readings = paced(readings, WallClock())
    total = sum(f.frames for f in footage if f.frames) if all(f.frames for f in footage) else None

    def close() -> None:
        for source in sources:
            source.close()

    return run_and_report(session, readings, lambda: {s.camera_id: s.captured for s in sources}, total, out, close)


def _replay_trace(path: Path, config: SiteConfig, out: Path) -> int:
    """Replay recorded outputs: no pixels, no weights, no GPU."""
    from collections import Counter

    from camlink.models.pool import ModelPool
    from camlink.models.recorded import open_trace
    from camlink.pipeline.commands.running import run_and_report
    from camlink.pipeline.footage import Footage, fit_rules, rate_of
    from camlink.pipeline.recording import TraceReadings
    from camlink.pipeline.session import Camera, Session

    trace = open_trace(path)
    frames = sorted(trace.frames, key=lambda frame: (frame.captured_at, frame.camera_id))
    rates = rate_of(frames)
    counts = Counter(frame.camera_id for frame in frames)
    config, changes = fit_rules(config, [Footage(camera, counts[camera], rate) for camera, rate in rates.items()])
    for change in changes:
        console.note_console().print(f"short footage: {change}", style="yellow")
    cameras = {camera: Camera("trace", str(path), rate) for camera, rate in rates.items()}
    session = Session(config, ModelPool(trace.models, config.budgets.memory_gb), cameras, out, tick=len(cameras))
    readings = TraceReadings(frames)
    return run_and_report(session, readings, lambda: dict(readings.captured), len(frames), out, readings.close)


def _out_folder(out: Path | None, first: Path, overwrite: bool) -> Path:
    import shutil

    folder = out or Path("runs") / f"{first.resolve().stem}-{datetime.now():%Y%m%d-%H%M%S}"
    if overwrite and (folder / "run.json").exists():
        shutil.rmtree(folder)
    return folder
