"""Small charts as SVG, drawn on the server: they need no script, no library and no second request.

Colours are classes of the style sheet, so that one drawing serves the light and the dark scheme. Everything that comes
from users, cameras or models is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup

from camlink.models.base import OutputSpec
from camlink.pipeline.dashboard.buckets import Filled
from camlink.pipeline.dashboard.rollups import (
    FIRST_LABEL,
    N_ABSTAINED,
    N_CHOSEN,
    N_DECIDED,
    N_EXECUTED,
    N_PREDICTED,
    SUM_EXECUTED,
    SUM_PREDICTED,
    shown_labels,
)
from camlink.pipeline.dashboard.trust import Trust

WIDTH, HEIGHT = 560, 128
LEFT, RIGHT, TOP, FOOT = 84, 8, 10, 20
FEW = 8  # points of a sparkline
GAP = 5  # times the usual spacing, from which on nothing is drawn across
ROW = 20  # height of a label's row
SHARES_ROW = 34  # height of a model's row of shares
BARS, FEWEST_FRAMES = 48, 10  # of a row of shares, at most; frames that one joins, about, at least
DAY_US = 86_400_000_000
TICK = '<line class="tick" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/><text class="time" x="{0}" y="{3}">{4}</text>'
SHARE = (
    '<g><title>{0}</title><rect class="rest" x="{1}" width="{2}" y="{3}" height="{4}"/>'
    '<rect class="executed" x="{1}" width="{2}" y="{5}" height="{6}"/></g>'
)
GRID = '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="value" x="{}" y="{}">{}</text>'


def sparkline(filled: Filled, points: int = 60) -> Markup:
    """Draw the shape of what was served, without an axis: a mean per span."""
    total = filled.sums[:, N_EXECUTED] + filled.sums[:, N_PREDICTED]
    used = np.flatnonzero(total > 0)[-points:]
    if len(used) < 2:
        return Markup('<svg class="spark" viewBox="0 0 120 28" aria-hidden="true"></svg>')
    means = (filled.sums[used, SUM_EXECUTED] + filled.sums[used, SUM_PREDICTED]) / total[used]
    shown = replace(filled, starts_us=filled.starts_us[used], sums=filled.sums[used])
    x = 1 + 118 * (shown.starts_us - shown.starts_us[0]) / (shown.starts_us[-1] - shown.starts_us[0])
    y = 26 - 24 * _scaled(means)
    runs = [run for run in _runs(shown) if run.stop - run.start > 1]
    if len(used) < FEW or not runs:  # a line between so few would show a course that nobody saw
        dots = "".join(f"M{a:.1f} {b:.1f}h.01" for a, b in zip(x, y, strict=True))
        return Markup(
            '<svg class="spark" viewBox="0 0 120 28" aria-hidden="true"><path class="dots" d="{}"/></svg>'
        ).format(dots)
    lines = [_path(x[run], y[run]) for run in runs]
    fills = "".join(f"{d}L{x[run][-1]:.1f} 28L{x[run][0]:.1f} 28Z" for d, run in zip(lines, runs, strict=True))
    return Markup(
        '<svg class="spark" viewBox="0 0 120 28" preserveAspectRatio="none" aria-hidden="true">'
        '<path class="fill" d="{}"/><path class="stroke" d="{}"/></svg>'
    ).format(fills, "".join(lines))


def interval(figure: Trust | None, target: float | None = None, start: float = 0.0) -> Markup:
    """Draw an agreement with its 95 % interval and its best baseline on an axis from ``start`` to 1, and the target."""
    if figure is None:
        return Markup('<span class="track empty"></span>')

    def place(value: float) -> float:
        return round(100.0 * max(0.0, (value - start) / (1.0 - start)), 2)

    mark = Markup('<i class="target" style="left:{}%"></i>').format(place(target)) if target is not None else Markup("")
    whisker = Markup('<i class="whisker" style="left:{}%;right:{}%"></i>').format(
        place(figure.low), round(100.0 - place(figure.high), 2)
    )
    dot = Markup('<i class="dot" style="left:{}%"></i>').format(place(figure.mean))
    ring = Markup('<i class="ring" style="left:{}%"></i>').format(place(figure.baseline_mean))
    return Markup('<span class="track">{}{}{}{}</span>').format(whisker, ring, mark, dot)


def over_time(spec: OutputSpec, filled: Filled, window: tuple[int, int]) -> Markup:
    """Draw what was served within ``window`` (microseconds): executed and predicted apart, abstained at the foot."""
    labels = shown_labels(spec)
    return _label_chart(spec, filled, window, labels) if labels else _number_chart(spec, filled, window)


def _number_chart(spec: OutputSpec, filled: Filled, window: tuple[int, int]) -> Markup:
    known = filled.high[~np.isnan(filled.high)]
    most = nice_ceiling(float(known.max()) if known.size else 1.0)
    least = min(0.0, float(np.nanmin(filled.low))) if known.size else 0.0
    bottom = HEIGHT - FOOT

    def y(values: np.ndarray) -> np.ndarray:
        return np.asarray(bottom - (bottom - TOP) * (values - least) / (most - least))

    x = _places(filled, window)
    parts = [_grid([(y(np.array([v]))[0], f"{v:g}") for v in (least, (least + most) / 2, most)])]
    parts += [_band(run, x, y(filled.low), y(filled.high)) for run in _runs(filled)]
    kinds = (("executed", N_EXECUTED, SUM_EXECUTED), ("predicted", N_PREDICTED, SUM_PREDICTED))
    total = filled.sums[:, N_EXECUTED] + filled.sums[:, N_PREDICTED]
    mean = (filled.sums[:, SUM_EXECUTED] + filled.sums[:, SUM_PREDICTED]) / np.maximum(total, 1)
    given = [np.arange(r.start, r.stop)[total[r] > 0] for r in _runs(filled)]  # where all abstained there is no mean
    parts += [Markup('<path class="line" d="{}"/>').format(_path(x[g], y(mean)[g])) for g in given if len(g) > 1]
    for name, count, value in kinds:
        some = filled.sums[:, count] > 0
        heights = y(filled.sums[some, value] / filled.sums[some, count])
        parts.append(_marks(name, x[some], heights))
    parts.append(_marks("abstained", x[filled.sums[:, N_ABSTAINED] > 0], None, bottom))
    return _chart(parts, window, HEIGHT, f"{spec.model} over time")


def _label_chart(spec: OutputSpec, filled: Filled, window: tuple[int, int], labels: int) -> Markup:
    height = TOP + ROW * labels + FOOT
    bottom = height - FOOT
    x = _places(filled, window)
    names = [spec.labels[i] if spec.labels else f"label {i}" for i in range(labels)]
    middle = [TOP + ROW * (i + 0.5) for i in range(labels)]
    parts = [_grid([(at, name) for at, name in zip(middle, names, strict=True)])]
    for offset, name, shift in ((0, "executed", -3.0), (labels, "predicted", 3.0)):
        for label in range(labels):
            some = filled.sums[:, FIRST_LABEL + offset + label] > 0
            parts.append(_marks(name, x[some], np.full(int(some.sum()), middle[label] + shift)))
    parts.append(_marks("abstained", x[filled.sums[:, N_ABSTAINED] > 0], None, bottom))
    return _chart(parts, window, height, f"labels of {spec.model} over time")


def strip(decisions: Sequence[Mapping[str, Any]], models: Sequence[str], window: tuple[int, int]) -> Markup:
    """Draw which models each decision executes, predicts or leaves out, one row per model."""
    height = TOP + ROW * len(models) + FOOT
    parts = [_grid([(TOP + ROW * (i + 0.5), name) for i, name in enumerate(models)])]
    for decision in decisions:
        left, right = (float(_place(decision[key], window)) for key in ("start_us", "end_us"))
        if right <= LEFT or left >= WIDTH - RIGHT:
            continue
        left, right = max(left, LEFT), min(right, WIDTH - RIGHT)
        for row, model in enumerate(models):
            state = _state(decision, model)
            parts.append(
                Markup(
                    '<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{} {}: {}</title></rect>'
                ).format(
                    state.replace(" ", "-"), round(left, 1), TOP + ROW * row + 3, round(max(right - left - 1, 1), 1),
                    ROW - 6, model, state, decision["reason"],
                )
            )  # fmt: skip
    return _chart(parts, window, height, "which models were executed and which predicted, over time")


def _state(decision: Mapping[str, Any], model: str) -> str:
    if model in decision["execute"]:
        return "executed"
    return "predicted" if model in decision["predict"] else "left out"


def shares(series: Mapping[str, Filled], window: tuple[int, int]) -> Markup:
    """Draw on which share of the frames served under decisions each model executed, as heights, one row per model."""
    height = TOP + SHARES_ROW * len(series) + FOOT
    middle = [TOP + SHARES_ROW * (row + 0.5) for row in range(len(series))]
    parts = [_grid(list(zip(middle, series, strict=True)))]
    for row, (model, filled) in enumerate(series.items()):
        parts += _share_bars(model, filled, window, TOP + SHARES_ROW * row + 3, SHARES_ROW - 6)
    return _chart(parts, window, height, "on which share of served frames each model was executed, over time")


def _share_bars(model: str, filled: Filled, window: tuple[int, int], top: float, high: float) -> list[Markup]:
    """Draw one row, ``high`` from ``top`` down: a bar for each of some spans in which any frame was served."""
    shown = filled.starts_us + filled.width_us > window[0]
    starts, sums = filled.starts_us[shown], filled.sums[shown][:, [N_DECIDED, N_CHOSEN]]
    bars = int(np.clip(sums[:, 0].sum() // FEWEST_FRAMES, 1, BARS))
    places = np.minimum(np.maximum(starts - window[0], 0) * bars // max(1, window[1] - window[0]), bars - 1)
    wide = (WIDTH - LEFT - RIGHT) / bars
    drawn = []
    for place in np.unique(places):
        frames, executed = sums[places == place].sum(axis=0).astype(int)
        if frames:
            told = f"{model}: executed on {executed:,} of {frames:,} served frames ({executed / frames:.0%})"
            up = round(high * executed / frames, 1)
            left, width = round(LEFT + wide * place, 1), round(max(wide - 1.0, 1.0), 1)
            drawn.append(Markup(SHARE).format(told, left, width, top, high, round(top + high - up, 1), up))
    return drawn


def nice_ceiling(value: float) -> float:
    """Return a round number at or above ``value``, for the top of an axis.

    >>> nice_ceiling(7.0), nice_ceiling(0.3), nice_ceiling(130.0)
    (8.0, 0.4, 200.0)
    """
    if value <= 0.0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 4, 6, 8, 10, 20) if step * power >= value * (1 - 1e-9)))


def time_ticks(window: tuple[int, int], most: int = 6) -> list[tuple[int, str]]:
    """Return at most ``most`` round moments within ``window``, with what to write below them."""
    span = max(1, window[1] - window[0])
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
    step = next((s * 1_000_000 for s in steps if span / (s * 1e6) <= most), 0)
    if not step:
        step = -(-span // (most * DAY_US)) * DAY_US
    form = "%H:%M:%S" if step < 60_000_000 else "%H:%M" if step < DAY_US else "%d %b"
    first = -(-window[0] // step) * step
    return [(at, datetime.fromtimestamp(at / 1e6, UTC).strftime(form)) for at in range(first, window[1] + 1, step)]


def _chart(parts: Sequence[Markup], window: tuple[int, int], height: int, label: str) -> Markup:
    bottom = height - FOOT
    ticks = [
        Markup(TICK).format(
            round(float(_place(at, window)), 1), bottom, bottom + 4, height - 4, text
        )
        for at, text in time_ticks(window)
        if LEFT + 12 <= _place(at, window) <= WIDTH - RIGHT - 12
    ]  # fmt: skip
    body = Markup("").join([*parts, *ticks])
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, label, body
    )


def _grid(rows: Sequence[tuple[float, str]]) -> Markup:
    lines = [
        Markup(GRID).format(
            LEFT, WIDTH - RIGHT, round(at, 1), round(at, 1), LEFT - 6, round(at + 3.5, 1), _short(text)
        )
        for at, text in rows
    ]  # fmt: skip
    return Markup("").join(lines)


def _short(text: str) -> str:
    return text if len(text) <= 9 else f"{text[:8]}…"


def _marks(name: str, x: np.ndarray, y: np.ndarray | None, foot: float = 0.0) -> Markup:
    """Draw many equal marks as one path: dots for executed, diamonds for predicted, crosses for abstained."""
    shapes = {
        "executed": "M{:.1f} {:.1f}m-2.2 0a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0-4.4 0",
        "predicted": "M{:.1f} {:.1f}m0-3l3 3l-3 3l-3-3Z",
        "abstained": "M{:.1f} {:.1f}m-2.5-2.5l5 5m-5 0l5-5",
    }
    heights = np.full(len(x), foot) if y is None else y
    drawn = "".join(shapes[name].format(a, b) for a, b in zip(x, heights, strict=True))
    return Markup('<path class="{}" d="{}"/>').format(name, drawn) if drawn else Markup("")


def _band(run: slice, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> Markup:
    known = ~np.isnan(low[run])
    if known.sum() < 2 or np.allclose(low[run][known], high[run][known]):
        return Markup("")
    out, back = _path(x[run][known], low[run][known]), _path(x[run][known][::-1], high[run][known][::-1])
    return Markup('<path class="band" d="{}L{}Z"/>').format(out, back[1:])


def _runs(filled: Filled) -> list[slice]:
    """Return stretches without a gap of `GAP` times the usual spacing: no line is drawn where nothing was seen.

    Where spans join several frames, these come more often than once a span, however far apart two of them lie.
    """
    if not len(filled.starts_us):
        return []
    spacing = np.diff(filled.starts_us)
    frames = filled.sums[:, [N_EXECUTED, N_PREDICTED, N_ABSTAINED]].sum() / len(filled.starts_us)
    usual = filled.width_us if frames >= 2 or not len(spacing) else float(np.median(spacing))
    edges = np.flatnonzero(spacing > GAP * usual) + 1
    bounds = [0, *edges.tolist(), len(filled.starts_us)]
    return [slice(a, b) for a, b in pairwise(bounds)]


def _places(filled: Filled, window: tuple[int, int]) -> np.ndarray:
    return np.asarray(_place(filled.starts_us + filled.width_us / 2, window))


def _place(moment_us: Any, window: tuple[int, int]) -> Any:
    span = max(1, window[1] - window[0])
    return LEFT + (WIDTH - LEFT - RIGHT) * (np.asarray(moment_us, np.float64) - window[0]) / span


def _path(x: np.ndarray, y: np.ndarray) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def _scaled(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.full(len(values), 0.5)
