"""How far a long command is, on standard error: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from camlink.pipeline.lab.compare import Step

PLAIN_EVERY_S = 10.0  # between two lines where there is no terminal


@contextmanager
def shown_steps(console: Console) -> Iterator[Callable[[Step], None]]:
    """Give what shows a `Step` each time it is called."""
    if not console.is_terminal:
        yield plain_lines(console)
        return
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=16),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(compact=True),
    )
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda step: bar.update(task, description=step.text, completed=step.done, total=step.total)


def plain_lines(console: Console, now: Callable[[], float] = time.monotonic) -> Callable[[Step], None]:
    """Return what prints the first step at once, then one in `PLAIN_EVERY_S` seconds of ``now``."""
    due = now()

    def show(step: Step) -> None:
        nonlocal due
        if now() >= due:
            share = 100 * step.done / step.total
            console.print(f"{step.text} ({share:.0f} % of this trace done)", markup=False, soft_wrap=True)
            due = now() + PLAIN_EVERY_S

    return show
