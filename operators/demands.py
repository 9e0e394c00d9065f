"""What a camera would take of a machine's time, by what it is worth there: of its models, all that pay at a price."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from operator import truediv

from camlink.operators.shares import Demand
from camlink.operators.worth import Outlook, Prices


def demand_of(
    outlooks: Mapping[str, Outlook],
    total_ms: float,
    most: float = 1.0,
    *,
    required: Collection[str] = (),
    least: Callable[[str], float] = lambda name: 0.0,
) -> Demand | None:
    """Return what share of ``total_ms``, that of executing everything on a frame, a camera would take at which price.

    None where there is no outlook yet. No more than ``most``. Models that are ``required`` execute whatever the price,
    and none executes below the price that is its ``least``.
    """
    if not outlooks:
        return None
    fixed_ms = sum(o.time_ms for name, o in outlooks.items() if name in required)
    by_least: dict[float, list[Outlook]] = defaultdict(list)
    for name, outlook in outlooks.items():
        if name not in required:
            by_least[least(name)].append(outlook)
    groups = [(above, Prices(each), [o.time_ms for o in each]) for above, each in by_least.items()]

    def demand(price: float) -> float:
        taken_ms = fixed_ms
        for above, prices, times_ms in groups:
            taken_ms += sum(map(truediv, times_ms, prices.intervals(max(price, above))))
        return min(most, taken_ms / total_ms)

    return demand
