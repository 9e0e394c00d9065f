"""`camlink record`: runs every model on every frame and writes a trace, to judge schedules by later."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlink.pipeline.commands import console
from camlink.pipeline.commands.console import ConfigOption, DeviceOption, ModelsOption, RateOption, TimezoneOption
from camlink.pipeline.quantities import counted


def record(
    paths: Annotated[list[Path], typer.Argument(help="Clips, folders of clips or of stills.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the trace, new or empty.", callback=console.writable_folder)],
    config: ConfigOption = "building",
    models: ModelsOption = None,
    fps: RateOption = "5",
    device: DeviceOption = None,
    timezone: TimezoneOption = "UTC",
) -> None:
    """Record the outputs of all models on all frames: trace.yaml, frames.csv, outputs.csv.

    `camlink replay TRACE` then replays them without pixels, weights or GPU.
    """
    from camlink.pipeline.commands.replay import find_cameras
    from camlink.pipeline.commands.running import build_pool, shown_progress, stop_on_interrupt
    from camlink.pipeline.commands.settings import load_settings
    from camlink.pipeline.config import Budgets
    from camlink.pipeline.footage import footage_of
    from camlink.pipeline.ingest.merge import merge
    from camlink.pipeline.ingest.opening import open_source
    from camlink.pipeline.progress import Progress
    from camlink.pipeline.recording import TraceWriter, record_trace

    settings = load_settings(config, {"models": models, "device": device})
    settings = settings.model_copy(update={"budgets": Budgets()})  # every model runs on every frame: no swapping
    specs = find_cameras(paths, console.parse_fps(fps), console.parse_timezone(timezone), None)
    totals = [footage_of(spec).frames for spec in specs]
    pool, _ = build_pool(settings)
    progress = Progress(pool.specs)
    readings = merge([open_source(spec, live=False) for spec in specs])
    total = sum(t for t in totals if t) if all(totals) else None
    with (
        TraceWriter(out, pool) as trace,
        stop_on_interrupt(lambda: None) as stopped,
        shown_progress(progress, total, say=lambda _: "") as tick,
    ):
        failed = record_trace(readings, pool, trace, progress, stop=stopped, on_tick=tick)
    for model, frames in failed.items():
        text = f"{model} failed on {counted(frames, 'frame')}, of which the trace has no output of it"
        console.note_console().print(text, style="yellow", highlight=False)
    console.out_console().print(f"Trace of {counted(trace.frames, 'frame')}: {out}", highlight=False)
    raise typer.Exit(console.STOPPED if stopped() else console.DONE)
