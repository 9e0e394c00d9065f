"""Where a worker's time goes: its cProfile by part of camlink, built-ins counted with their callers."""

from __future__ import annotations

import pstats
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

PARTS = {
    "pipeline/codec": "records <-> bytes",
    "pipeline/jpeg": "JPEG",
    "pipeline/bus": "bus",
    "pipeline/state": "state store",
    "links/": "links",
    "operators/": "operators",
    "models/": "models",
    "pipeline/results": "results log",
    "pyarrow": "results log",
    "pipeline/": "runtime",
    "site-packages/kafka": "Kafka client",
    "site-packages/redis": "Redis client",
    "selectors.py": "waiting for the network",
}


def shares(profile: Path) -> dict[str, float]:
    """Return each part's share of the main thread's time while it worked: waiting and start-up are left out."""
    spent: dict[str, float] = defaultdict(float)
    for (file, _, name), (_, _, own, _, callers) in pstats.Stats(str(profile)).stats.items():  # type: ignore[attr-defined]
        if file == "~":
            if "poll" in name or "sleep" in name or "acquire" in name:
                continue
            for (caller, _, _), (_, _, caller_own, _) in callers.items():
                spent[part_of(caller)] += caller_own
        else:
            spent[part_of(file)] += own
    spent.pop("other", None)
    spent.pop("waiting for the network", None)
    total = sum(spent.values())
    return {part: seconds / total for part, seconds in spent.items()}


def part_of(file: str) -> str:
    """Return the part of the work that a source file belongs to."""
    return next((part for path, part in PARTS.items() if path in file), "other")


def table(folder: Path, steps: Sequence[str]) -> Table:
    """Return the shares of each step's profile in ``folder``."""
    found = {step: shares(folder / f"{step}.prof") for step in steps}
    parts = sorted({part for of_step in found.values() for part in of_step})
    made = Table("part", *steps, title="share of the main thread's working time")
    for part in parts:
        made.add_row(part, *[f"{found[step].get(part, 0.0):.0%}" for step in steps])
    return made
