"""A comparison as one HTML page that works offline: the frontier, the papers' table and the segments of each trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from math import ceil
from statistics import fmean
from typing import Any

from camlink.pipeline.lab.summary import (
    AGREEMENT,
    BOXES,
    REFERENCES,
    Cell,
    Row,
    cells,
    tied,
    ties,
    trace_words,
    winner,
)
from camlink.pipeline.lab.tally import LEAST_CONFIDENCES

Figure = dict[str, Any]
PERIOD_TICKS = 12  # there are no halves of periods, which plotly would name where there are few
MOST_POINTS = 48  # of a line over periods: beyond, it hides the others
COLOURS = 9  # CSS variables --policy0 to --policy8, of all but `OWN`
OWN = "camlink"  # the policy that pages are about: of one look on all of them, whatever it is compared with
SYMBOLS = ("square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star", "pentagon", "hexagon")


def render(rows: Sequence[Row], notes: Sequence[str] = ()) -> str:
    """Return the page of all ``rows``; ``notes`` are said at its top."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("camlink.pipeline.lab", package_path="."),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found = cells(rows)
    others = [p for p in dict.fromkeys(c.policy for c in found) if p != OWN]
    place = {policy: i for i, policy in enumerate(others)}
    traces = [
        _trace([c for c in found if c.trace == name], place, rows) for name in dict.fromkeys(c.trace for c in found)
    ]
    return environment.get_template("compare.html").render(
        traces=traces,
        least_confidences=[f"{least:g}" for least in LEAST_CONFIDENCES],
        notes=notes,
        seeds=sorted({row["seed"] for row in rows}),
        headline=headline([c for c in found if not c.synthetic] or found),
        synthetic=list(dict.fromkeys(c.trace for c in found if c.synthetic)),
        style=_asset("colours.css") + _asset("report.css"),  # as the report and the dashboard
        script=_asset("report.js"),
        plotlyjs=get_plotlyjs(),
    )


def headline(found: Sequence[Cell]) -> str:
    """Return the one sentence that the page opens with: who is best how often, alone or level with others."""
    places = tied(found)
    if not places:
        return ""
    level: dict[str, int] = {}
    alone: dict[str, int] = {}
    for place in places:
        for cell in place:
            level[cell.policy] = level.get(cell.policy, 0) + 1
            alone[cell.policy] = alone.get(cell.policy, 0) + (len(place) == 1)
    said = ", ".join(f"{p} {level[p]} ({alone[p]} alone)" for p in sorted(level, key=lambda p: (-level[p], -alone[p])))
    of = "the one pair" if len(places) == 1 else f"{len(places)} pairs"
    unproved: dict[str, int] = {}
    for cell in found:
        if cell.may_be_best:
            unproved[cell.policy] = unproved.get(cell.policy, 0) + 1
    measure = " or ".join(sorted({measure for cell in found for measure in cell.measures.values()}))
    first = f"Highest {measure} in {of} of trace and budget, counting all that tie: {said}."
    if not unproved:
        return first
    listed = ", ".join(f"{p} {unproved[p]}" for p in sorted(unproved, key=lambda p: -unproved[p]))
    return f"{first} The best, or behind it by no more than may be chance: {listed}."


def _trace(found: list[Cell], place: Mapping[str, int], rows: Sequence[Row]) -> dict[str, Any]:
    budgets = list(dict.fromkeys(c.budget for c in found))
    middle = budgets[len(budgets) // 2]
    best = {b: winner(c for c in found if c.budget == b) for b in budgets}
    some = next(row for row in rows if row["trace"] == found[0].trace)
    return {
        "name": trace_words(found[0].trace, synthetic=found[0].synthetic),
        "frames": some["frames"],
        "cameras": len(some["per_camera"]),
        "measure": found[0].measure,
        "title": found[0].short[0].upper() + found[0].short[1:] if found[0].short == AGREEMENT else found[0].short,
        "boxed": [m for m, measure in found[0].measures.items() if measure == BOXES],
        "budgets": budgets,
        "middle": middle,
        "models": list(found[0].per_model),
        "table": [
            {
                "policy": policy,
                "reference": policy in REFERENCES,
                "cells": [
                    {
                        "cell": c,
                        "best": c is not None and ties(c, best[b]),
                        "worse": c is not None and c.chance is not None and not (c.may_be_best or ties(c, best[b])),
                    }
                    for b in budgets
                    for c in [next((c for c in found if (c.policy, c.budget) == (policy, b)), None)]
                ],
            }
            for policy in dict.fromkeys(c.policy for c in found)
        ],
        "per_model": [c for c in found if c.budget == middle],
        "confident": [c for c in found if c.budget == middle and c.answers],
        "frontier": frontier(found, place),
        "segments": segments([c for c in found if c.budget == middle], place),
    }


def frontier(found: Sequence[Cell], place: Mapping[str, int]) -> Figure:
    """Draw agreement over cost, one line per policy through its budgets."""
    short = found[0].short if found else AGREEMENT
    hover = f"%{{text}}<br>cost %{{x:.1f}} %<br>{short} %{{y:.1f}} %<extra></extra>"
    data = []
    for policy in dict.fromkeys(c.policy for c in found if c.policy != "all"):
        mine = sorted((c for c in found if c.policy == policy), key=lambda c: c.cost)
        data.append(
            _line(policy, place)
            | {
                "x": [round(100 * c.cost, 2) for c in mine],
                "y": [round(100 * c.agreement, 2) for c in mine],
                "error_y": {"array": [round(100 * c.spread, 2) for c in mine], "thickness": 1, "width": 3},
                "text": [c.budget for c in mine],
                "hovertemplate": f"{escape(policy)}, {hover}",
            }
        )
    return {"data": data, "layout": _layout("cost, % of executing everything", f"{short}, %")}


def segments(found: Sequence[Cell], place: Mapping[str, int]) -> Figure:
    """Draw agreement period by period, one line per policy; neighbours of many periods are put together."""
    periods = max((len(c.per_period) for c in found), default=0)
    together = max(1, ceil(periods / MOST_POINTS))
    short = found[0].short if found else AGREEMENT
    data = []
    for c in found:
        if c.policy != "all":
            parts = [c.per_period[i : i + together] for i in range(0, len(c.per_period), together)]
            data.append(
                _line(c.policy, place)
                | {
                    "x": [1 + i * together for i in range(len(parts))],
                    "y": [round(100 * fmean(part), 2) for part in parts],
                    "hovertemplate": f"{escape(c.policy)}, period %{{x}}<br>{short} %{{y:.1f}} %<extra></extra>",
                }
            )
    title = "period" if together == 1 else f"period (each point: the mean of {together})"
    layout = _layout(title, f"{short}, %")
    layout["xaxis"] |= {"tick0": 1, "dtick": together * max(1, ceil(periods / together / PERIOD_TICKS))}
    return {"data": data, "layout": layout}


def _line(policy: str, place: Mapping[str, int]) -> Figure:
    own = policy == OWN
    number = 0 if own else place[policy]
    colour = f"@{OWN}" if own else f"@policy{number % COLOURS}"
    symbol = "circle" if own else SYMBOLS[number % len(SYMBOLS)]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escape(policy),
        "line": {"color": colour, "width": 3.5 if own else 1.5, "dash": "dot" if policy in REFERENCES else "solid"},
        "marker": {"color": colour, "size": 10 if own else 7, "symbol": symbol},
        "zorder": int(own),  # above the others
    }


def _layout(x: str, y: str) -> Figure:
    axis = {"gridcolor": "@grid", "zeroline": False, "linecolor": "@edge", "tickfont": {"color": "@muted"}}
    return {
        "height": 420,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "@font", "color": "@ink", "size": 13},
        "margin": {"l": 60, "r": 12, "t": 12, "b": 110},
        "legend": {"orientation": "h", "y": -0.24, "x": 0, "yanchor": "top", "font": {"size": 13}},
        "hoverlabel": {"bgcolor": "@raised", "bordercolor": "@edge", "font": {"color": "@ink"}},
        "xaxis": axis | {"title": {"text": x, "standoff": 6}},
        "yaxis": axis | {"title": {"text": y}},
    }


def _asset(name: str) -> str:
    return files("camlink.pipeline.reports").joinpath(name).read_text(encoding="utf-8")
