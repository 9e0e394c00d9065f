"""What each model of one camera said last, for predictions that take it into account."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from camlink.links.memory import Recall
from camlink.pipeline.records import Value


class LastExecuted:
    """The newest executed value per model. Kept in memory only: without it, links predict from their sources alone."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[datetime, Value]] = {}

    def of(self, model: str, now: datetime) -> Recall | None:
        """Return the model's last value as of ``now``, or None if there is none from before."""
        known = self._last.get(model)
        if known is None or known[0] >= now:
            return None
        return Recall(known[1], (now - known[0]).total_seconds())

    def update(self, captured_at: datetime, executed: Mapping[str, Value]) -> None:
        """Take in a frame's executed values; frames that come late never replace newer ones."""
        for model, value in executed.items():
            if model not in self._last or self._last[model][0] < captured_at:
                self._last[model] = (captured_at, value)
