"""A comparison in a terminal: for each trace and memory budget a table, policies by time budgets, 80 columns wide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from camlink.pipeline.lab.summary import AGREEMENT, Cell, Row, budget_words, cells, tied
from camlink.pipeline.tables import print_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

BEST = "*"  # beside the figure, for terminals and readers without bold


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """Print the tables and below what their signs mean; nothing where there is no row."""
    found = cells(rows)
    best = {id(cell) for place in tied(found) for cell in place}
    for trace, memory_gb in dict.fromkeys((c.trace, c.memory_gb) for c in found):
        here = [c for c in found if (c.trace, c.memory_gb) == (trace, memory_gb)]
        _print_table(here, best, console)
    if best:
        spread = "; ± is the standard deviation over seeds" if any(c.spread >= 5e-4 for c in found) else ""
        console.print(
            f"{BEST} best of its column and all that tie with it (all and oracle do not compete); "
            f"in brackets: cost{spread}",
            style="dim",
            markup=False,
            highlight=False,
        )


def _print_table(here: Sequence[Cell], best: set[int], console: Console) -> None:
    """Print the cells of one trace and memory budget; what was not played is left empty."""
    shares = list(dict.fromkeys(c.time_share for c in here))
    played = {(c.policy, c.time_share): c for c in here}
    shown: list[tuple[str | Text, ...]] = []
    for policy in dict.fromkeys(c.policy for c in here):
        mine = [played.get((policy, share)) for share in shares]
        shown.append((policy, *("" if c is None else _cell(c, best=id(c) in best) for c in mine)))
    memory = "" if here[0].memory_gb is None else f", memory {budget_words(here[0].memory_gb, None)}"
    heads = ["no time limit" if share is None else budget_words(None, share) for share in shares]
    title = f"{here[0].trace}{memory}: {here[0].short} (cost), in %"
    print_table(console, ("policy", *heads), shown, title=title)
    if here[0].measure != AGREEMENT:
        console.print(f"mAP: {here[0].measure}", markup=False, highlight=False, soft_wrap=True)


def _cell(cell: Cell, *, best: bool) -> Text:
    from rich.text import Text

    spread = f"±{100 * cell.spread:.1f}" if cell.spread >= 5e-4 else ""
    agreement = f"{100 * cell.agreement:.1f}{spread}{BEST if best else ' '}"
    return Text.assemble((agreement, "bold" if best else ""), f" ({100 * cell.cost:.0f})")
