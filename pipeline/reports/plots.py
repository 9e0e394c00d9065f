"""The report's plots, as plotly.js figures in plain data: ``{"data": [...], "layout": {...}}``.

A colour written ``@name`` stands for the page's CSS variable ``--name``; the page fills it in when it draws, so that
one figure serves the light and the dark scheme. Names come from users and models and are escaped: plotly.js reads its
texts as HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np

from camlink.pipeline.reports.rows import CameraRows
from camlink.pipeline.reports.series import ModelSeries, Points, thin
from camlink.pipeline.reports.stretches import Stretches

Figure = dict[str, Any]
Trace = dict[str, Any]

BASELINE_MARKS = {
    "constant": ("constant", "square-open"),
    "hourly_mode": ("hourly mode", "triangle-up-open"),
    "persistence": ("persistence", "cross-thin-open"),
}
MOMENT = "%d %b %H:%M:%S"
ROW_PX = 148
TIME_PLOT_LEFT_PX = 96  # one edge for both plots over time, so that they can be read together
APART = {"executed": 0.13, "predicted": -0.13}  # within a label's row, so that neither hides the other


def outputs_over_time(rows: CameraRows, points: int) -> Figure | None:
    """Draw what was served, one row of plots per model on one time axis; None without any output."""
    drawn = [(name, thin(model, points, rows.stretches)) for name, model in rows.models.items() if model.served.any()]
    if not drawn:
        return None
    traces: list[Trace] = []
    height = ROW_PX * len(drawn)  # of the rows, without margins
    layout = base_layout(height + 92)
    layout["meta"] = {"frames_per_point": max(series.frames_per_point for _, series in drawn)}
    layout["annotations"] = []
    for place, (name, series) in enumerate(drawn):
        traces += _model_traces(series, place, rows.stretches)
        top, bottom = 1.0 - place / len(drawn), 1.0 - (place + 1) / len(drawn)
        layout[_axis("yaxis", place)] = _value_axis(series, bottom + 14 / height, top - 28 / height)
        layout["annotations"].append(_row_title(name, series, top))
    for kind in ("executed", "predicted", "abstained"):
        for trace in [trace for trace in traces if trace.get("name") == kind and trace["x"]][:1]:
            trace["showlegend"] = True  # whichever model comes first with it: one without marks has no place there
    layout["xaxis"] |= time_axis(rows) | {"anchor": _axis("y", len(drawn) - 1)}
    layout["margin"]["l"] = TIME_PLOT_LEFT_PX
    return {"data": traces, "layout": layout}


def _model_traces(series: ModelSeries, place: int, footage: Stretches) -> list[Trace]:
    axis = {"yaxis": _axis("y", place)}
    unnamed = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False, **axis}
    traces: list[Trace] = []
    if len(series.low):
        traces.append(unnamed | _band(series, footage))
    if len(series.line.y):
        line = {"color": "@line", "width": 1, "shape": "linear" if len(series.low) else "hv"}
        traces.append(unnamed | _broken_line(series.line, footage) | {"line": line})
    for name, points, marker in (
        ("executed", series.executed, {"color": "@executed", "size": 5, "symbol": "circle"}),
        (
            "predicted",
            series.predicted,
            {"color": "@surface", "size": 5.5, "symbol": "diamond", "line": {"color": "@predicted", "width": 1.5}},
        ),
        (
            "abstained",
            series.abstained,
            {"color": "@abstained", "size": 7, "symbol": "x-thin-open", "line": {"width": 2}},
        ),
    ):
        if len(points.y):
            lift = APART.get(name, 0.0) if series.rows else 0.0
            traces.append(_scatter(points, axis, lift) | _marks(name, points, marker, series))
    return traces


def _runs(points: Points, footage: Stretches) -> list[slice]:
    """Return the points of each stretch of footage, as slices."""
    edges = np.flatnonzero(np.diff(footage.of(points.times_ms))) + 1
    return [slice(int(a), int(b)) for a, b in pairwise((0, *edges, len(points.y)))]


def _broken_line(line: Points, footage: Stretches) -> Trace:
    """Return a line that stops at each gap: plotly draws nothing across a null."""
    x: list[int | None] = []
    y: list[float | None] = []
    for run in _runs(line, footage):
        x += [*line.times_ms[run].tolist(), None]
        y += [*(round(float(value), 3) for value in line.y[run]), None]
    return {"x": x[:-1], "y": y[:-1]}


def _band(series: ModelSeries, footage: Stretches) -> Trace:
    """Return the range behind the line as one polygon per stretch: out along the lows, back along the highs."""
    x: list[float | None] = []
    y: list[float | None] = []
    for run in _runs(series.line, footage):
        times, low, high = series.line.times_ms[run], series.low[run], series.high[run]
        if len(times) == 1:  # a range without any width would not be seen
            times = times[0] + np.array([-0.5, 0.5]) * footage.least_ms
            low, high = low.repeat(2), high.repeat(2)
        x += [*times.tolist(), *times[::-1].tolist(), None]
        y += [*low.tolist(), *high[::-1].tolist(), None]
    return {"x": x[:-1], "y": y[:-1], "line": {"width": 0}, "fill": "toself", "fillcolor": "@band"}


def _scatter(points: Points, axis: Mapping[str, str], lift: float = 0.0) -> Trace:
    y = [round(float(value) + lift, 3) for value in points.y]
    return {"type": "scatter", "x": points.times_ms.tolist(), "y": y, **axis}


def _marks(name: str, points: Points, marker: Trace, series: ModelSeries) -> Trace:
    named = bool(series.rows) and name != "abstained"
    what = "no output" if name == "abstained" else "%{text}" if named else "%{y}"
    texts = {"text": [escape(series.rows[int(row)]) for row in points.y]} if named else {}
    joined = "<br>joins %{customdata} frames" if series.frames_per_point > 1 else ""
    counts = {"customdata": points.frames.tolist()} if joined else {}
    hover = f"{what} · <b>{name}</b><br>%{{x|{MOMENT}}}{joined}<extra></extra>"
    legend = {"name": name, "legendgroup": name, "showlegend": False}
    return {
        "mode": "markers",
        "marker": marker,
        "hovertemplate": hover,
        "cliponaxis": False,
        **legend,
        **texts,
        **counts,
    }


def _value_axis(series: ModelSeries, bottom: float, top: float) -> Trace:
    axis = {"domain": [max(0.0, bottom), top], "fixedrange": True, "zeroline": False, "gridcolor": "@grid", "nticks": 4}
    axis |= {"automargin": True, "ticks": "", "ticklabelstandoff": 6}
    if series.rows:
        rows = [escape(short(name)) for name in series.rows]
        return axis | {"tickvals": list(range(len(rows))), "ticktext": rows, "range": [-0.5, len(rows) - 0.5]}
    return axis | {"rangemode": "tozero"}


def _row_title(name: str, series: ModelSeries, top: float) -> Trace:
    text = f"<b>{escape(short(name))}</b>  {escape(short(series.caption, 28))}"
    place = {"x": 0, "y": top, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "top"}
    return {"text": text, "showarrow": False, "align": "left", "font": {"size": 12.5, "color": "@ink"}, **place}


def agreement_by_model(models: Mapping[str, Mapping[str, Any]], looks: str) -> Figure | None:
    """Draw agreement of predicted outputs per model with its interval, baselines beside; None if none is measured.

    ``looks`` says what the interval is (`notes.looks`).
    """
    figures = {name: entry["agreement"]["predicted_only"] for name, entry in models.items()}
    figures = {name: figure for name, figure in figures.items() if figure["mean"] is not None}
    if not figures:
        return None
    names = [escape(short(name)) for name in figures]
    shown = [value for f in figures.values() for value in (f["low"], *f["baselines"].values())]
    traces = []
    for baseline, (label, symbol) in BASELINE_MARKS.items():
        x = [figure["baselines"][baseline] for figure in figures.values()]
        marker = {"color": "@muted", "size": 10, "symbol": symbol, "line": {"width": 1.8, "color": "@muted"}}
        hover = f"<b>%{{y}}</b><br>{label}: %{{x:.1%}}<extra></extra>"
        traces.append(_dots(x, names) | {"name": label, "marker": marker, "hovertemplate": hover})
    traces.append(_whiskers(names, list(figures.values()), looks))
    layout = base_layout(46 * len(names) + 104)
    layout["xaxis"] |= {"tickformat": ".0%", "range": [max(0.0, min(shown) - 0.04), 1.012], "gridcolor": "@grid"}
    layout["yaxis"] = name_axis(list(figures))
    return {"data": traces, "layout": layout}


def _whiskers(names: list[str], figures: Sequence[Mapping[str, Any]], looks: str) -> Trace:
    means = [figure["mean"] for figure in figures]
    up = [figure["high"] - figure["mean"] for figure in figures]
    down = [figure["mean"] - figure["low"] for figure in figures]
    error = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "width": 5, "thickness": 2}
    texts = [f"{f['low']:.1%} – {f['high']:.1%}, {f['audit_frames']} audit frames" for f in figures]
    return _dots(means, names) | {
        "name": f"camlink, {looks}",
        "marker": {"color": "@executed", "size": 11},
        "error_x": error | {"color": "@executed"},
        "text": texts,
        "hovertemplate": "<b>%{y}</b><br>camlink: %{x:.1%}<br>%{text}<extra></extra>",
    }


def _dots(x: list[float], y: list[str]) -> Trace:
    return {"type": "scatter", "mode": "markers", "x": x, "y": y, "cliponaxis": False}


def link_matrix(link_scores: Mapping[str, Mapping[str, float]], models: Sequence[str]) -> Figure | None:
    """Draw how well each source predicts each target, as scored for one decision; None without scores.

    ``models`` gives the order of rows and columns, so that the diagonal is one.
    """
    scored = {target for scores in link_scores.values() for target in scores}
    sources = [name for name in models if name in link_scores]
    targets = [name for name in models if name in scored]
    if not targets:
        return None
    z = [[link_scores[source].get(target) for target in targets] for source in sources]
    trace: Trace = {
        "type": "heatmap",
        "x": [escape(short(target)) for target in targets],
        "y": [escape(short(source)) for source in sources],
        "z": z,
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "@heat0"], [0.5, "@heat1"], [1, "@heat2"]],
        "showscale": False,
        "xgap": 3,
        "ygap": 3,
        "texttemplate": "%{z:.0%}",
        "hoverongaps": False,
        "hovertemplate": "<b>%{y}</b> predicts <b>%{x}</b>: %{z:.1%}<extra></extra>",
    }
    layout = base_layout(44 * len(sources) + 78) | {"showlegend": False}
    layout["xaxis"] |= {"side": "top", "showgrid": False, "title": {"text": "target", "standoff": 6}}
    layout["yaxis"] = name_axis(sources) | {"title": {"text": "source", "standoff": 8}}
    layout["margin"] = {"l": 8, "r": 8, "t": 48, "b": 8}
    return {"data": [trace], "layout": layout}


def base_layout(height: int) -> Figure:
    """Return what all plots share: no chrome, the page's own type and colours, a legend above."""
    return {
        "height": height,
        "margin": {"l": 8, "r": 14, "t": 36, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "@font", "size": 12, "color": "@muted"},
        "hoverlabel": {
            "bgcolor": "@raised",
            "bordercolor": "@edge",
            "font": {"color": "@ink", "size": 12},
            "align": "left",
        },
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "y": 1, "yanchor": "top"},
        "xaxis": {"gridcolor": "@grid", "zeroline": False, "automargin": True, "nticks": 6},
        "yaxis": {"gridcolor": "@grid", "zeroline": False, "automargin": True},
    }


def name_axis(names: Sequence[str]) -> Trace:
    order = [escape(short(name)) for name in names]
    axis: Trace = {"type": "category", "categoryorder": "array", "categoryarray": order, "autorange": "reversed"}
    axis |= {"tickfont": {"color": "@ink", "size": 12.5}, "ticks": "", "ticklabelstandoff": 8}
    return axis | {"showgrid": False, "fixedrange": True, "automargin": True}


def time_axis(rows: CameraRows) -> Trace:
    """Return the axis that a camera's plots over time share: from its first to its last frame, with a little air."""
    seen = [model.times_us for model in rows.models.values() if len(model.times_us)]
    axis: Trace = {"type": "date"}
    if not seen:
        return axis
    first, last = min(int(times[0]) for times in seen) // 1000, max(int(times[-1]) for times in seen) // 1000
    air = max(1, (last - first) // 100)
    return axis | {"range": [first - air, last + air]}


def _axis(name: str, place: int) -> str:
    return name if place == 0 else f"{name}{place + 1}"


def short(text: str, most: int = 22) -> str:
    """Shorten in the middle, since names that differ mostly differ at their ends."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"
