"""The report's strip over time: what was decided, and, where a policy decides on every frame, what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camlink.pipeline.reports.plots import (
    MOMENT,
    TIME_PLOT_LEFT_PX,
    Figure,
    Trace,
    base_layout,
    name_axis,
    short,
    time_axis,
)
from camlink.pipeline.reports.rows import CameraRows, ModelRows

Bars = dict[str, list[Any]]  # by property, one entry per bar

STATES = {
    "executed": "@executed",
    "predicted": "@predicted",
    "not executed": "@band",
    "executed on a share of frames": "@executed",
    "left out": "@abstained",
    "bootstrap": "@profile",
    "profiling": "@profile",
}
PATTERNS = {"predicted": "/", "left out": "x", "bootstrap": "."}
BAR_KEYS = ("from", "base", "x", "y", "width", "offset", "hovertext")
HIGH = 0.72  # of a row's height is a whole bar
ROW_PX, SHARES_ROW_PX = 34, 48
BINS, FEWEST_FRAMES = 60, 10  # spans of time whose shares are drawn at most; frames in one at least, about


def decision_strip(rows: CameraRows) -> Figure | None:
    """Draw per model and time what its decision was, where there is footage; the reason shows on hover.

    Where a policy decides on every frame, a bar's height is the share of frames served in its span on which the model
    executed. None without decisions.
    """
    if not rows.decisions:
        return None
    times = [int(t) // 1000 for m in rows.models.values() if len(m.times_us) for t in (m.times_us[0], m.times_us[-1])]
    bars: dict[str, Bars] = {state: {key: [] for key in BAR_KEYS} for state in STATES}
    decisions = _joined(rows.decisions)
    starts = [_ms(decision["start"]) for decision in decisions]
    served = {name: _Served.of(model) for name, model in rows.models.items()}
    until = min(times, default=starts[0])  # what has been drawn so far; before a decision every model runs
    for decision, start, next_start in zip(decisions, starts, [*starts[1:], None], strict=True):
        end = min(_ms(decision["end"]), next_start or max(times, default=start) + 1)
        learnt = min(max(until, rows.bootstrap_until_us // 1000), start)
        anew = bool(decision.get("per_frame"))
        for name in rows.models:
            _bar(bars["bootstrap"], rows, name, (until, learnt), f"every model runs, {_to_learn(anew, 'bootstrap')}")
            _bar(bars["profiling"], rows, name, (learnt, start), f"every model runs, {_to_learn(anew, 'profiling')}")
            if anew and name not in decision["execute"]:
                _share_bars(bars, rows, name, served[name].shares(start, end))
            else:
                _bar(bars[_state(name, decision)], rows, name, (start, end), decision["reason"])
        until = max(until, end)
    traces = [_bar_trace(state, kept) for state, kept in bars.items() if kept["x"]]
    row_px = SHARES_ROW_PX if bars["not executed"]["x"] else ROW_PX
    layout = base_layout(row_px * len(rows.models) + 96) | {"barmode": "overlay"}
    layout["xaxis"] |= time_axis(rows) | {"showgrid": False}
    layout["margin"]["l"] = TIME_PLOT_LEFT_PX
    layout["yaxis"] = name_axis(list(rows.models))
    return {"data": traces, "layout": layout}


def _to_learn(per_frame: bool, state: str) -> str:
    if per_frame:
        return "to learn from"
    return "to learn the first links from" if state == "bootstrap" else "to score the links"


def _state(name: str, decision: Mapping[str, Any]) -> str:
    """Return what a decision does with a model; one that it cannot even predict, for want of sources, is left out."""
    if name in decision["execute"]:
        return "executed"
    return "predicted" if decision["execute"] and name in decision["predict"] else "left out"


@dataclass(frozen=True)
class _Served:
    """One model's frames served under decisions: ``times_ms`` (n,), rising, and executions before each (n + 1,)."""

    times_ms: NDArray[np.int64]
    ran_until: NDArray[np.int64]
    step_ms: float

    @classmethod
    def of(cls, model: ModelRows) -> _Served:
        chosen = model.served & (model.purpose == "serve")
        times = model.times_us[chosen] // 1000
        ran = np.cumsum((model.how == "executed")[chosen])
        step = max(np.median(np.diff(times)) * FEWEST_FRAMES, np.ptp(times) / BINS) if len(times) > 1 else 1.0
        return cls(times, np.concatenate((np.zeros(1, np.int64), ran)), float(step))

    def shares(self, start_ms: int, end_ms: int) -> Iterator[tuple[tuple[int, int], int, int]]:
        """Yield spans, with frames served in each (some) and how many of them the model executed on."""
        edges = np.linspace(start_ms, end_ms, max(1, round((end_ms - start_ms) / self.step_ms)) + 1).astype(np.int64)
        places = np.searchsorted(self.times_ms, edges)
        for left, right, first, last in zip(edges, edges[1:], places, places[1:], strict=False):
            if last > first:
                executed = int(self.ran_until[last] - self.ran_until[first])
                yield (int(left), int(right)), int(last - first), executed


def _share_bars(
    bars: Mapping[str, Bars], rows: CameraRows, name: str, shares: Iterator[tuple[tuple[int, int], int, int]]
) -> None:
    for span, frames, executed in shares:
        text = f"executed on {executed:,} of {frames:,} served frames ({executed / frames:.0%})"
        _bar(bars["not executed"], rows, name, span, text)
        if executed:
            _bar(bars["executed on a share of frames"], rows, name, span, text, executed / frames)


def _bar(bars: Bars, rows: CameraRows, name: str, span: tuple[int, int], text: str, share: float = 1.0) -> None:
    """Add a bar, in pieces where there are gaps, that stands at its row's foot and is ``share`` of it high."""
    lines = "<br>".join(escape(line) for line in wrap(text, 56)) or "no reason given"
    high = round(HIGH * share, 4)
    for began, start, end in rows.stretches.pieces(*span):
        values = (began, start, end - start, escape(short(name)), high, round(HIGH / 2 - high, 4), lines)
        for key, value in zip(BAR_KEYS, values, strict=True):
            bars[key].append(value)


def _bar_trace(state: str, bars: Bars) -> Trace:
    edge = 0 if bars["x"] and min(bars["x"]) * 300 < max(bars["base"]) - min(bars["base"]) else 1  # it hides thin ones
    marker: Trace = {"color": STATES[state], "line": {"color": "@surface", "width": edge}}
    if state in PATTERNS:  # told apart without colour too
        marker["pattern"] = {
            "shape": PATTERNS[state],
            "size": 6,
            "solidity": 0.25,
            "fgcolor": "@surface",
            "fillmode": "overlay",
        }
    began = bars["from"]
    return {
        "type": "bar",
        "orientation": "h",
        "name": state,
        **{key: values for key, values in bars.items() if key != "from"},
        "customdata": began,
        "textposition": "none",
        "hovertemplate": f"<b>%{{y}}</b> {state}<br>from %{{customdata|{MOMENT}}}<br>%{{hovertext}}<extra></extra>",
        "marker": marker,
    }


def _joined(decisions: Sequence[Mapping[str, Any]], most: int = 300) -> list[dict[str, Any]]:
    """Join neighbouring decisions that are alike when there are too many to draw each."""
    kept: list[dict[str, Any]] = []
    for decision in decisions:
        if kept and len(decisions) > most and _drawn(kept[-1]) == _drawn(decision):
            kept[-1]["end"] = decision["end"]
        else:
            kept.append(dict(decision))
    return kept


def _drawn(decision: Mapping[str, Any]) -> tuple[Any, ...]:
    return decision["execute"], decision["predict"], bool(decision.get("per_frame"))


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
