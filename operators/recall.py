"""What each model of one camera said last, for predictions that take it into account."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from camlink.links.memory import Recall
from camlink.operators.snapshots import get_times, get_values, put_time
from camlink.pipeline.records import Value

MOST_LATE = 64  # frames in a row that are older than one before: far more than wait for models to be loaded


class LastExecuted:
    """The newest executed value per model. Without it, links predict from their sources alone.

    Under a tight memory budget full frames run late, when later ones have been served already. What they say is known
    from the next frame on that is newer than all before (`show`): frames that come late together must not tell each
    other what no served frame among them knew, else audits would judge better answers than were served. Where all
    that comes is older than what was, the clock was set back: then what was known is forgotten.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[datetime, Value]] = {}
        self._newest: datetime | None = None
        self._late: list[tuple[datetime, Mapping[str, Value]]] = []
        self._behind = 0  # frames in a row that were older than the newest

    def show(self, captured_at: datetime) -> None:
        """Begin with a frame."""
        if self._newest is not None and captured_at <= self._newest:
            self._behind += captured_at < self._newest
            if self._behind <= MOST_LATE:
                return
            self._last = {}
        self._newest, self._behind = captured_at, 0
        late, self._late = self._late, []
        for at, executed in late:
            if at <= captured_at:  # all are, but where the clock was set back
                self._take(at, executed)

    def after(self, captured_at: datetime) -> datetime | None:
        """Return when the newest frame so far was captured; None if that is no later than ``captured_at``."""
        return self._newest if self._newest is not None and self._newest > captured_at else None

    def of(self, model: str, now: datetime) -> Recall | None:
        """Return the model's last value as of ``now``, or None if there is none from before."""
        known = self._last.get(model)
        if known is None or known[0] >= now:
            return None
        return Recall(known[1], (now - known[0]).total_seconds())

    def update(self, captured_at: datetime, executed: Mapping[str, Value]) -> None:
        """Take in a frame's executed values; frames that come late never replace newer ones."""
        if self._newest is not None and captured_at < self._newest:
            self._late.append((captured_at, executed))
        else:
            self._take(captured_at, executed)

    def _take(self, captured_at: datetime, executed: Mapping[str, Value]) -> None:
        for model, value in executed.items():
            if model not in self._last or self._last[model][0] < captured_at:
                self._last[model] = (captured_at, value)

    def state(self) -> dict[str, Any]:
        """Return what `of_state` reads, as plain values."""
        return {model: [put_time(at), value.tolist()] for model, (at, value) in self._last.items()}

    @classmethod
    def of_state(cls, state: Mapping[str, Any], sizes: Mapping[str, int]) -> LastExecuted:
        """Return what `state` told. Raises `StateError` for models or sizes that are not the site's."""
        values = get_values({model: value for model, (_, value) in state.items()}, sizes)
        found = cls()
        for (model, value), at in zip(values.items(), get_times([at for at, _ in state.values()]), strict=True):
            found.update(at, {model: value})
        return found
