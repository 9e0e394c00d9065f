"""How often a broker is asked for records: at once while few come, and seldom enough for large answers while many do.

Each request costs a client the same, however few records it brings (kafka-python: what a hundred small records cost).
Network cards do likewise with interrupts (adaptive interrupt moderation).
"""

from __future__ import annotations

FREE_PER_S = 400.0  # records a second up to which nothing waits longer than it has to
LONGEST_S = 0.05


class Pace:
    """Says how long to wait before asking again.

    >>> pace = Pace()
    >>> pace.came(2, at_s=10.0)
    >>> round(pace.left_s(10.001), 6)
    0.004
    >>> pace.came(1000, at_s=20.0)
    >>> round(pace.left_s(20.0), 6)
    0.05
    >>> pace.left_s(30.0)
    0.0
    """

    def __init__(self) -> None:
        self._due_s = 0.0

    def came(self, records: int, at_s: float) -> None:
        """Note how many records an answer brought: it takes them so long to come at `FREE_PER_S`."""
        self._due_s = at_s + min(records / FREE_PER_S, LONGEST_S)

    def left_s(self, now_s: float) -> float:
        """Return the seconds until the next request should be made."""
        return max(0.0, self._due_s - now_s)
