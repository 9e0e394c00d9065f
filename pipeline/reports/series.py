"""Thins a camera's rows out to what a plot can show, without hiding peaks or rare labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.pipeline.reports.rows import ModelRows, Strings
from camlink.pipeline.reports.stretches import Stretches

Floats = NDArray[np.float64]
LABEL_ROWS = 8  # a label plot shows the commonest ones; the rest share a row


@dataclass(frozen=True)
class Points:
    """Markers of one kind: ``times_ms`` since 1970, ``y``, and how many frames each stands for."""

    times_ms: NDArray[np.int64]
    y: Floats
    frames: NDArray[np.int64]


@dataclass(frozen=True)
class ModelSeries:
    """What to draw for one model: executed, predicted and abstained apart; for numbers, the range behind the means."""

    caption: str
    executed: Points
    predicted: Points
    abstained: Points
    line: Points
    low: Floats  # of the range behind `line`; empty when no frames were joined
    high: Floats
    rows: tuple[str, ...]  # names of y = 0, 1, ... when labels are drawn
    frames_per_point: int


NOTHING = Points(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
EMPTY = np.zeros(0)


def thin(rows: ModelRows, points: int, footage: Stretches) -> ModelSeries:
    """Return at most about ``points`` places in time; more frames than that are joined by spans of equal length.

    Frames on either side of a gap in ``footage`` are never joined.
    """
    served = rows.served
    times, how, values = rows.times_us[served] // 1000, rows.how[served], rows.values[served]
    bins = _bins(times, points, footage)
    every = -(-len(times) // max(1, len(np.unique(bins)))) if len(times) else 1
    labelled = rows.spec.task in ("single_label", "multi_label")
    floor = np.full(len(times), -0.5 if labelled else 0.0)  # abstained: at the foot of the plot
    none = _distinct_points(times, floor, bins, how == "abstained")
    if labelled:
        return _label_series(rows.spec, values, times, how, bins, none, every)
    y, caption = _plain_numbers(rows.spec, values)
    known = ~np.isnan(y)
    low, high = _extremes(y, bins, known)
    return ModelSeries(
        caption=caption,
        executed=_mean_points(times, y, bins, known & (how == "executed")),
        predicted=_mean_points(times, y, bins, known & _was_predicted(how)),
        abstained=none,
        line=_mean_points(times, y, bins, known),
        low=low,
        high=high,
        rows=(),
        frames_per_point=every,
    )


def _label_series(
    spec: OutputSpec,
    values: NDArray[np.float32],
    times: NDArray[np.int64],
    how: Strings,
    bins: NDArray[np.int64],
    none: Points,
    every: int,
) -> ModelSeries:
    """Return one row of markers per label; a frame with several labels has one in each of their rows."""
    frame, row, names, caption = _label_rows(spec, values)
    executed, predicted = (how == "executed")[frame], _was_predicted(how)[frame]
    return ModelSeries(
        caption=caption,
        executed=_distinct_points(times[frame], row, bins[frame], executed),
        predicted=_distinct_points(times[frame], row, bins[frame], predicted),
        abstained=none,
        line=NOTHING,
        low=EMPTY,
        high=EMPTY,
        rows=names,
        frames_per_point=every,
    )


def _was_predicted(how: Strings) -> NDArray[np.bool_]:
    return np.isin(how, ("linked", "reused"))


def _bins(times_ms: NDArray[np.int64], points: int, footage: Stretches) -> NDArray[np.int64]:
    """Return each frame's bin: its own while there are few frames, else one of ``points`` spans of time."""
    if len(times_ms) <= points:
        return np.arange(len(times_ms))
    span = max(1, int(times_ms[-1] - times_ms[0]) + 1)
    bins = (times_ms - times_ms[0]) * points // span
    return np.asarray(bins * (len(footage.starts_ms) + 1) + footage.of(times_ms), dtype=np.int64)


def _plain_numbers(spec: OutputSpec, values: NDArray[np.float32]) -> tuple[Floats, str]:
    """Reduce values (n, size) to one number each: a total or the first entry; NaN where an output abstained."""
    if spec.task == "count":
        named = f"“{spec.labels[0]}”" if spec.size == 1 and spec.labels else "all labels together"
        return values.sum(axis=1, dtype=np.float64), f"count of {named}"
    return values[:, 0].astype(np.float64), spec.labels[0] if spec.labels else "first entry"


def _label_rows(
    spec: OutputSpec, values: NDArray[np.float32]
) -> tuple[NDArray[np.int64], Floats, tuple[str, ...], str]:
    """Return, per marker, its frame and its row, then the rows' names and a caption."""
    given = np.flatnonzero(~np.isnan(values).any(axis=1))
    if spec.task == "single_label":
        frame, label, bare = given, values[given].argmax(axis=1), np.zeros(0, np.int64)
    else:
        place, label = np.nonzero(values[given] >= 0.5)
        frame, bare = given[place], given[(values[given] < 0.5).all(axis=1)]
    counts = np.bincount(label, minlength=spec.size)
    shown = np.sort(np.argsort(-counts, kind="stable")[:LABEL_ROWS])
    names = [spec.labels[i] if spec.labels else f"label {i}" for i in shown]
    row_of = np.full(spec.size, len(names), np.float64)
    row_of[shown] = np.arange(len(shown))
    names += [f"{spec.size - len(shown)} others"] if spec.size > len(shown) else []
    rows = np.concatenate((row_of[label], np.full(len(bare), float(len(names)))))
    names += ["none"] if len(bare) else []
    return np.concatenate((frame, bare)), rows, tuple(names), "labels" if spec.task == "multi_label" else "label"


def _mean_points(times: NDArray[np.int64], y: Floats, bins: NDArray[np.int64], chosen: NDArray[np.bool_]) -> Points:
    places, inverse, counts = np.unique(bins[chosen], return_inverse=True, return_counts=True)
    if len(places) == len(inverse):
        return Points(times[chosen], y[chosen], counts)
    means = np.bincount(inverse, weights=y[chosen]) / counts
    centres = times[0] + np.bincount(inverse, weights=(times[chosen] - times[0]).astype(np.float64)) / counts
    return Points(centres.astype(np.int64), means, counts)


def _distinct_points(times: NDArray[np.int64], y: Floats, bins: NDArray[np.int64], chosen: NDArray[np.bool_]) -> Points:
    """Return one point per bin and distinct y, so that a rare label stays visible."""
    pairs = np.stack((bins[chosen].astype(np.float64), y[chosen]), axis=1)
    distinct, first, counts = np.unique(pairs, axis=0, return_index=True, return_counts=True)
    return Points(times[chosen][first], distinct[:, 1], counts)


def _extremes(y: Floats, bins: NDArray[np.int64], known: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    places, inverse = np.unique(bins[known], return_inverse=True)
    if len(places) == len(inverse):
        return np.zeros(0), np.zeros(0)
    low, high = np.full(len(places), np.inf), np.full(len(places), -np.inf)
    np.minimum.at(low, inverse, y[known])
    np.maximum.at(high, inverse, y[known])
    return low, high
