"""`camlink zoo`: what cameras have learnt, for new cameras with the same models to start from (docs/policy.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from camlink.pipeline.commands.console import note_console, out_console, writable_file
from camlink.pipeline.quantities import counted

if TYPE_CHECKING:
    from camlink.operators.zoo import Experience

app = typer.Typer(help="What cameras have learnt, for new ones to start from: docs/policy.md.", no_args_is_help=True)


@app.command()
def build(
    traces: Annotated[list[Path], typer.Argument(help="Trace folders, see `camlink record`.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File to write.", show_default=False, callback=writable_file)],
    frames: Annotated[int | None, typer.Option(min=20, help="Learn from this many newest frames of a camera.")] = None,
) -> None:
    """Learn from recorded traces what `policy: camlink` would have learnt on their cameras, and write it to a file.

    A site names the file as `policy_zoo`.
    """
    from camlink.pipeline.lab.zoo import build_zoo
    from camlink.pipeline.zoo_file import save_zoo

    notes = note_console()

    def note(text: str) -> None:
        notes.print(text, style="yellow", markup=False, soft_wrap=True)

    with notes.status("reading") as status:
        zoo = build_zoo(traces, note, status.update, frames)
    save_zoo(zoo, out)
    learnt = sum(camera.frames for camera in zoo.cameras)
    out_console().print(
        f"{out}: {counted(len(zoo.cameras), 'camera')}, {counted(learnt, 'frame')}, models {', '.join(zoo.specs)}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


@app.command()
def show(file: Annotated[Path, typer.Argument(help="A zoo's file.", show_default=False)]) -> None:
    """Say what is in a zoo: per camera and model, how long outputs stay as they are, and what they usually are."""
    from camlink.pipeline.tables import print_table
    from camlink.pipeline.zoo_file import open_zoo

    zoo = open_zoo(file)
    console = out_console()
    title = f"{file}: {counted(len(zoo.cameras), 'camera')} with {', '.join(zoo.specs)}"
    heads = ("camera", "model", "frames", "repeats", "lasts", "usual")
    rows = [row for camera in zoo.cameras for row in _rows(camera)]
    print_table(console, heads, rows, names=2, title=title)
    console.print(
        "repeats: how often a model says the same of a frame that hardly differs; lasts: frames until half of what "
        "then held has changed, at mean movement; usual: how often its most frequent value, mean over entries",
        style="dim",
        markup=False,
        highlight=False,
    )


def _rows(camera: Experience) -> list[tuple[str, ...]]:
    from camlink.operators.freshness import half_life, steadiness

    return [
        (
            camera.camera_id,
            name,
            f"{camera.frames:,}",
            f"{steadiness(model.freshness):.0%}",
            f"{half_life(model.freshness):,.0f}",
            f"{model.usual.max(axis=1).mean():.0%}" if model.usual.size else "",
        )
        for name, model in camera.models.items()
    ]
