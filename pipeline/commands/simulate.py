"""`camlink simulate`: a synthetic trace of many cameras over many days, for trying out scale and drift."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camlink.pipeline.commands.console import note_console, writable_folder
from camlink.pipeline.quantities import counted

MOST_FRAMES = 20_000_000  # of a camera: 3 GB while it is made


def simulate(
    out: Annotated[Path, typer.Argument(help="Trace folder to write.", show_default=False, callback=writable_folder)],
    cameras: Annotated[int, typer.Option(min=1, help="Number of cameras: streets, buildings and roads in turn.")] = 12,
    days: Annotated[float, typer.Option(min=0.01, max=36_500, help="Days, from a Monday on.")] = 7.0,
    every: Annotated[str, typer.Option(help="Time from frame to frame: 10s, 1min.")] = "10s",
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a trace that is there already.")] = False,
) -> None:
    """Write a SYNTHETIC trace of a city: real daily profiles, everything else by chance. For scale and drift only."""
    from camlink.models.trace_writing import write_arrays
    from camlink.pipeline.errors import TraceError
    from camlink.pipeline.lab.city import MODELS, City
    from camlink.pipeline.lab.city import simulate as simulated
    from camlink.pipeline.quantities import parse_duration

    try:
        every_s = parse_duration(every).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--every") from error
    frames_each = days * 86_400.0 / every_s
    if frames_each > MOST_FRAMES:
        most = f"{frames_each:,.0f} frames of each camera are more than the {MOST_FRAMES:,} that are simulated"
        raise typer.BadParameter(f"{most}; take longer steps or fewer days", param_hint="--every")
    if (out / "trace.yaml").exists() and not overwrite:
        raise TraceError(f"{out}: holds a trace already; name another folder, or add --overwrite")
    city = City(cameras, days, every_s, seed)
    done = list(simulated(city))
    write_arrays(out, MODELS, done, note=city.note(), synthetic=True)
    frames = sum(len(camera) for camera in done)
    note_console().print(
        f"{out}: SYNTHETIC trace, {counted(cameras, 'camera')}, {counted(frames, 'frame')}", markup=False
    )
