"""`camlink compare`: every policy and baseline on recorded outputs, at the same budgets (docs/compare.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from camlink.pipeline.commands.console import STOPPED, note_console, out_console, print_note, writable_file
from camlink.pipeline.quantities import counted

if TYPE_CHECKING:
    from camlink.operators.selection import Budget
    from camlink.operators.zoo import Zoo
    from camlink.pipeline.lab.compare import Result, Rules

TIMES = ("0.17", "0.25", "0.33", "0.5")  # of executing everything, where no budget is named
DEFAULT_TIMES = f"Without any budget: {', '.join(TIMES)}."
MANY = ("--budget-gb", "--budget-time", "--latency-ms", "--policy", "--seed", "--target")


class ManyValues(TyperCommand):
    """A command whose options in `MANY` take several values after one name: ``--budget-time 0.17 0.33``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args))


def spread(args: Sequence[str]) -> list[str]:
    """Repeat an option's name before each of its values, as click wants it.

    >>> spread(["TRACE", "--budget-time", "0.17", "0.5", "--json"])
    ['TRACE', '--budget-time', '0.17', '--budget-time', '0.5', '--json']
    """
    result: list[str] = []
    option: str | None = None
    for arg in args:
        if arg.startswith("--"):
            option = arg if arg in MANY else None
            if option is None:
                result.append(arg)
        elif option is not None and _is_value(option, arg, first=result[-2:-1] != [option]):
            result += [option, arg]
        else:
            option = None
            result.append(arg)
    return result


def _is_value(option: str, arg: str, *, first: bool) -> bool:
    """Say whether ``arg`` belongs to ``option``: the first one does, and further ones that can be no trace."""
    if first or arg == "none":
        return True
    if option == "--policy":
        return not (Path(arg) / "trace.yaml").is_file()  # a folder of any other kind may be called like a policy
    return arg.replace(".", "", 1).isdigit()


def compare(
    traces: Annotated[list[Path], typer.Argument(help="Trace folders, see `camlink record`.", show_default=False)],
    budget_time: Annotated[
        list[str] | None,
        typer.Option(help=f'Time budgets as shares (0..1) of executing everything; "none": unlimited. {DEFAULT_TIMES}'),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="Agreements (0..1) in place of time budgets: what is the least cost that meets each?"),
    ] = None,
    budget_gb: Annotated[list[str] | None, typer.Option(help='Memory budgets in GB; "none": unlimited.')] = None,
    latency_ms: Annotated[
        list[str] | None, typer.Option(help='What models may take on any one frame, in ms; "none": unlimited.')
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Policies by name, or your own as module:Class; all when not given.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="Seeds; several give a mean and a spread. 0 when not given.")
    ] = None,
    period: Annotated[
        str | None, typer.Option(help="How long a selection holds; 1h or a tenth of the trace when not given.")
    ] = None,
    load_ms: Annotated[
        float, typer.Option(min=0.0, max=1e9, help="What bringing a model into memory costs, in ms.")
    ] = 0.0,
    zoo: Annotated[
        Path | None, typer.Option(help="What camlink starts from on every camera, as `camlink zoo build` writes it.")
    ] = None,
    boxes: Annotated[
        bool, typer.Option("--boxes", help="Judge detectors by their boxes (mean average precision), not by counts.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON, and nothing else.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the rows as a CSV table.", callback=writable_file)] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page: frontiers, tables and segments.", callback=writable_file)
    ] = None,
) -> None:
    """Compare policies on recorded traces: what would each budget have cost, without a GPU."""
    import json

    from camlink.pipeline.lab.compare import Rules
    from camlink.pipeline.lab.page import render
    from camlink.pipeline.lab.summary import as_csv
    from camlink.pipeline.lab.terminal import print_rows, print_targets

    _check_names(policy or [])
    allowed = budgets(budget_gb, budget_time, latency_ms)
    rules = Rules(allowed, policy or (), seed or (0,), _seconds(period), load_ms, _zoo(zoo))
    if html is not None and target:
        raise typer.BadParameter("shows budgets; with --target there are a table, --json, --csv", param_hint="--html")
    if target and budget_time:
        raise typer.BadParameter("takes the place of --budget-time; name one of the two", param_hint="--target")
    targets = [number for text in target or () if (number := _number(text, "--target", 1.0, none=False)) is not None]
    rows, said, stopped = _play_all(traces, rules, targets, boxes=boxes)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    elif targets:
        print_targets(rows, out_console())
    else:
        print_rows(rows, out_console())
    with ExitStack() as writing:  # last first; a file that cannot be written keeps no other from it
        if html is not None and rows:
            writing.callback(_write, "page", html, lambda: render(rows, said))
        if csv is not None:
            writing.callback(_write, "CSV", csv, lambda: as_csv(rows))
    if stopped:
        raise typer.Exit(STOPPED)


def _write(what: str, path: Path, text: Callable[[], str]) -> None:
    """Write one file, and say so. Raises `ResultsError`."""
    from camlink.pipeline.durable import write_text

    write_text(path, text())
    print_note(f"{what}: {path}")


def _play_all(
    traces: Sequence[Path], rules: Rules, targets: Sequence[float], *, boxes: bool
) -> tuple[list[dict[str, Any]], list[str], bool]:
    """Return the rows of all traces, for ``targets`` or else at budgets, what was noted (also on standard error), and
    whether Ctrl-C cut it short.
    """
    from camlink.models.trace_arrays import check_folder, names_of, open_arrays
    from camlink.pipeline.commands.steps import shown_steps
    from camlink.pipeline.lab.compare import compare as compared
    from camlink.pipeline.lab.compare import rows_of
    from camlink.pipeline.lab.targets import compare_targets

    notes = note_console()
    rows: list[dict[str, Any]] = []
    played: list[Result] = []  # of the trace at hand: they hold on to it
    said: list[str] = []

    def note(text: str) -> None:
        said.append(text)
        notes.print(text, style="yellow", markup=False, soft_wrap=True)

    def judged() -> list[dict[str, Any]]:
        return [r.row() | {"chance_to_be_best": None} for r in played] if targets else rows_of(played)

    called = names_of(traces)
    for path in called:
        check_folder(path)  # all of them, before hours go into the first
    try:
        with shown_steps(notes) as step:
            for path, name in called.items():
                trace = open_arrays(path, name=name, boxes=boxes, detections=not boxes)
                for text in trace.notes:
                    note(text)
                results = (
                    compare_targets(trace, rules, targets, note, step)
                    if targets
                    else compared(trace, rules, note, step)
                )
                for result in results:
                    played.append(result)  # one by one: Ctrl-C leaves those that are done
                rows += judged()
                played.clear()
    except KeyboardInterrupt:
        rows += judged()
        note(
            f"PARTIAL: stopped by Ctrl-C after {counted(len(rows), 'row')}; policies and budgets that were not reached "
            "are missing, and what is marked best is the best of these rows only"
        )
        return rows, said, True
    return rows, said, False


def _check_names(names: list[str]) -> None:
    """Raise `typer.BadParameter` for a policy that cannot be found, before anything is played."""
    from camlink.pipeline.errors import PolicyError
    from camlink.pipeline.lab.policies import find_policies

    try:
        find_policies(names, period_s=1.0)
    except PolicyError as error:
        raise typer.BadParameter(str(error), param_hint="--policy") from error


def _zoo(file: Path | None) -> Zoo | None:
    from camlink.pipeline.zoo_file import open_zoo

    return None if file is None else open_zoo(file)


def _seconds(period: str | None) -> float | None:
    from camlink.pipeline.quantities import parse_duration

    try:
        return None if period is None else parse_duration(period).total_seconds()
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--period") from error


def budgets(memory: list[str] | None, time: list[str] | None, latency: list[str] | None = None) -> list[Budget]:
    """Return all memory budgets with all limits and all time budgets. Raises `typer.BadParameter` for what is none."""
    from camlink.operators.selection import Budget

    times = time or (["none"] if memory or latency else list(TIMES))
    return [
        Budget(_number(gb, "--budget-gb", 1e6), _number(share, "--budget-time", 1.0), _number(ms, "--latency-ms", 1e9))
        for gb in memory or ["none"]
        for ms in latency or ["none"]
        for share in times
    ]


def _number(text: str, option: str, most: float, *, none: bool = True) -> float | None:
    if none and text == "none":
        return None
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if text.endswith("%") or not 0.0 < number <= most:
        meant = f" (for {number:g} per cent write {number / 100:g})" if most == 1.0 and 1.0 <= number < 100.0 else ""
        other = ', nor "none"' if none else ""
        raise typer.BadParameter(f'"{text}" is no number above 0 and up to {most:g}{other}{meant}', param_hint=option)
    return number
