"""Tables in a terminal of any width: side by side where there is room, else row by row; nothing is folded or cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WIDE = 10_000


def print_table(
    console: Console, heads: Sequence[str], rows: Iterable[Sequence[str | Text]], *, names: int = 1, title: str = ""
) -> None:
    """Print ``rows``, whose first ``names`` cells say what a row is about. Texts are never read as markup.

    Where the table is wider than the terminal, each row becomes its names and, below, its facts: "saved 62.0 %".
    """
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    texts = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    if title:
        console.print(Text(title, style="bold"), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for number, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if number < names else "right", no_wrap=True)
    for row in texts:
        table.add_row(*row)
    if Measurement.get(console, console.options.update(width=WIDE), table).maximum <= console.width:
        console.print(table)
        return
    for row in texts:
        console.print(Text(", ").join(row[:names]), style="bold", soft_wrap=True)
        for line in _packed(heads[names:], row[names:], console.width - 2):
            console.print(Text("  ") + line, soft_wrap=True)


def _packed(heads: Sequence[str], cells: Sequence[Text], width: int) -> Iterator[Text]:
    """Yield lines of facts, as many beside each other as there is room for; what is empty is left out."""
    from rich.text import Text

    line = Text()
    for head, cell in zip(heads, cells, strict=True):
        if not cell.plain:
            continue
        fact = Text.assemble((f"{head} ", "dim"), cell)
        if line and line.cell_len + 3 + fact.cell_len > width:
            yield line
            line = Text()
        line = Text(" · ").join([line, fact]) if line else fact
    if line:
        yield line
