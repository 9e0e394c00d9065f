"""`camlink models`: what there is, fetch the weights, measure the costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from camlink.pipeline.commands.console import note_console, out_console, print_note
from camlink.pipeline.quantities import counted

if TYPE_CHECKING:
    from camlink.models.profile import CostProfile

app = typer.Typer(no_args_is_help=True, help="The models of the catalogue: list, fetch weights, measure costs.")
OTHERWISE = 1.3  # from here on, a model takes another time than it did
Names = Annotated[list[str] | None, typer.Argument(help="Models or sets; all when none is named.")]


@app.command("list")
def list_models() -> None:
    """List the catalogue: what each model is, what its output means, its licence, and what it was measured to cost."""
    from rich.text import Text

    from camlink.models import catalogue
    from camlink.models.building import known_costs

    console = out_console()
    for name in catalogue.names():
        d = catalogue.definition(name)
        in_sets = ", ".join(s for s, members in catalogue.sets().items() if name in members)
        console.print(Text(name, style="bold"), f" {d.task} of {', '.join(d.labels)}", highlight=False)
        licence = f"{d.licence} ({d.licence_note})" if d.licence_note else d.licence
        console.print(f"in {in_sets}; {licence}. {d.description}", style="dim", highlight=False)
        console.print(f"{_costs(name, known_costs(d))}\n", highlight=False)
    console.print("YOLO weights are AGPL-3.0: a service that uses them must offer its source, or hold a licence.")


def _costs(name: str, measured: CostProfile | None) -> str:
    """Say what a model costs on the device that would be chosen here."""
    if measured is None:
        return f"costs here: not measured; a run measures them, or: camlink models profile {name}"
    key, day = measured.key, f"{measured.measured_at:%Y-%m-%d}"
    on = f"{key.device} with {counted(key.threads, 'thread')}" if key.device == "cpu" else key.device
    return f"costs here: {measured.time_ms:.1f} ms a frame, {measured.memory_gb:.2f} GB ({key.backend} on {on}, {day})"


@app.command()
def pull(names: Names = None) -> None:
    """Fetch weights and verify their SHA-256, so that a run needs no network."""
    from camlink.models import catalogue
    from camlink.models.building import pull as fetch_files

    console = note_console()
    for name in chosen(names):
        with console.status(f"{name}: fetching"):
            paths = fetch_files(catalogue.definition(name))
        console.print(f"{name}: {', '.join(path.name for path in paths)}", soft_wrap=True)


@app.command()
def profile(
    names: Names = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batches: Annotated[str, typer.Option(help="Batch sizes to measure, comma-separated.")] = "1,4",
) -> None:
    """Measure every backend that can run a model here; the costs are stored, and the fastest is used from then on."""
    from camlink.models import catalogue
    from camlink.models.building import measure_all
    from camlink.models.device import resolve
    from camlink.pipeline.errors import ModelError
    from camlink.pipeline.tables import print_table

    if not all(size.strip().isdecimal() and int(size) for size in batches.split(",")):
        raise typer.BadParameter("batch sizes are whole numbers from 1 on, such as 1,4,8", param_hint="--batches")
    sizes = tuple(int(size) for size in batches.split(","))
    try:
        resolve(device)
    except ModelError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from error
    heads = ("model", "device", "backend", *(f"ms a frame, batch {s}" for s in sizes), "GB")
    rows, changed = [], []
    with note_console().status("measuring"):
        for name in chosen(names):
            for p, before in measure_all(catalogue.definition(name), device=device, batch_sizes=sizes):
                times = [f"{p.ms_by_batch[s]:.1f}" if s in p.ms_by_batch else "-" for s in sizes]
                rows.append((name, p.key.device, p.key.backend, *times, f"{p.memory_gb:.2f}"))
                if before is not None and not 1 / OTHERWISE < p.time_ms / before.time_ms < OTHERWISE:
                    changed.append(f"{name} by {p.key.backend} took {before.time_ms:.1f} ms a frame before")
    print_table(out_console(), heads, rows, names=3)
    if changed:
        print_note(f"{'; '.join(changed)}. Budgets go by the new figures: measure again if the machine was busy now.")


def chosen(names: list[str] | None) -> list[str]:
    """Expand sets and check names. Raises `typer.BadParameter` for an unknown one."""
    from camlink.models import catalogue
    from camlink.pipeline.errors import ModelError

    if not names:
        return list(catalogue.names())
    sets = catalogue.sets()
    expanded = [model for name in names for model in sets.get(name, (name,))]
    try:
        return [catalogue.definition(name).name for name in dict.fromkeys(expanded)]
    except ModelError as error:
        raise typer.BadParameter(str(error), param_hint="NAMES") from error
