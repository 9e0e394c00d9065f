"""A comparison in a terminal: for each trace, memory budget and latency limit a table, 80 columns wide.

Policies are its rows, time budgets its columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from camlink.pipeline.lab.summary import AGREEMENT, Cell, Row, budget_words, cells, tied, trace_words
from camlink.pipeline.tables import print_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

MISSED = "!"
BEST = "*"  # beside the figure, for terminals and readers without bold
MAY_BE_BEST = "~"


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """Print the tables and below what their signs mean; nothing where there is no row."""
    found = cells(rows)
    best = {id(cell) for place in tied(found) for cell in place}
    for table in dict.fromkeys((c.trace, c.memory_gb, c.latency_ms) for c in found):
        here = [c for c in found if (c.trace, c.memory_gb, c.latency_ms) == table]
        _print_table(here, best, console)
    if found:
        spread = "; ± is the standard deviation over seeds" if any(c.spread >= 5e-4 for c in found) else ""
        signs = (
            f"{BEST} best of its column and all that tie with it, {MAY_BE_BEST} behind it by no more than may be "
            "chance (all and oracle do not compete); "
        )
        console.print(
            f"{signs if best else ''}in brackets: cost{spread}",
            style="dim",
            markup=False,
            highlight=False,
        )


def print_targets(rows: Sequence[Row], console: Console) -> None:
    """Print, for each trace, what each policy needs for each target, and below what the signs mean."""
    groups = dict.fromkeys((row["trace"], row["budget_gb"], row["latency_ms"]) for row in rows)
    for trace, memory_gb, latency_ms in groups:
        group = (trace, memory_gb, latency_ms)
        here = [row for row in rows if (row["trace"], row["budget_gb"], row["latency_ms"]) == group]
        targets = sorted({row["target"] for row in here})
        shown: list[tuple[str | Text, ...]] = []
        for policy in dict.fromkeys(row["policy"] for row in here):
            mine = [[row for row in here if (row["policy"], row["target"]) == (policy, t)] for t in targets]
            shown.append((policy, *(_needed(found) if found else "" for found in mine)))
        limits = _limits(memory_gb, latency_ms)
        heads = [f"target {100 * target:g}%" for target in targets]
        name = trace_words(trace, synthetic=here[0].get("synthetic", False))
        print_table(console, ("policy", *heads), shown, title=f"{name}{limits}: least cost (agreement), in %")
    if rows:
        console.print(
            f"{MISSED} target missed; camlink is given the target, the others count with the least budget that "
            "reaches it, of a ladder in steps of 5 %",
            style="dim",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _needed(rows: Sequence[Row]) -> str:
    """Return the mean over seeds of the cost and of the agreement reached."""
    cost, agreement = fmean(row["cost"] for row in rows), fmean(row["agreement"] for row in rows)
    return f"{100 * cost:.0f} ({100 * agreement:.1f}){'' if agreement >= rows[0]['target'] else MISSED}"


def _print_table(here: Sequence[Cell], best: set[int], console: Console) -> None:
    """Print the cells of one trace, memory budget and latency limit; what was not played is left empty."""
    shares = list(dict.fromkeys(c.time_share for c in here))
    played = {(c.policy, c.time_share): c for c in here}
    shown: list[tuple[str | Text, ...]] = []
    for policy in dict.fromkeys(c.policy for c in here):
        mine = [played.get((policy, share)) for share in shares]
        shown.append((policy, *("" if c is None else _cell(c, best=id(c) in best) for c in mine)))
    limits = _limits(here[0].memory_gb, here[0].latency_ms)
    heads = ["no time limit" if share is None else budget_words(None, share) for share in shares]
    title = f"{trace_words(here[0].trace, synthetic=here[0].synthetic)}{limits}: {here[0].short} (cost), in %"
    print_table(console, ("policy", *heads), shown, title=title)
    if here[0].measure != AGREEMENT:
        console.print(f"mAP: {here[0].measure}", markup=False, highlight=False, soft_wrap=True)


def _limits(memory_gb: float | None, latency_ms: float | None) -> str:
    memory = "" if memory_gb is None else f", memory {budget_words(memory_gb, None)}"
    return memory if latency_ms is None else f"{memory}, {budget_words(None, None, latency_ms)}"


def _cell(cell: Cell, *, best: bool) -> Text:
    from rich.text import Text

    spread = f"±{100 * cell.spread:.1f}" if cell.spread >= 5e-4 else ""
    sign = BEST if best else MAY_BE_BEST if cell.may_be_best else " "
    agreement = f"{100 * cell.agreement:.1f}{spread}{sign}"
    return Text.assemble((agreement, "bold" if best else ""), f" ({100 * cell.cost:.0f})")
