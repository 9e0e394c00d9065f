"""Thins a camera's rows out to what a plot can show, without hiding peaks or rare labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.pipeline.reports.rows import ModelRows

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


def thin(rows: ModelRows, points: int) -> ModelSeries:
    """Return at most about ``points`` places in time; more frames than that are joined by spans of equal length."""
    served = rows.served
    times, how = rows.times_us[served] // 1000, rows.how[served]
    bins = _bins(times, points)
    y, names, caption = _plain_numbers(rows.spec, rows.values[served])
    known = ~np.isnan(y)
    executed, predicted = known & (how == "executed"), known & np.isin(how, ("linked", "reused"))
    reduce = _mean_points if not names else _distinct_points
    none = _distinct_points(times, np.zeros(len(y)), bins, how == "abstained")
    every = -(-len(times) // max(1, len(np.unique(bins)))) if len(times) else 1
    low, high = _extremes(y, bins, known) if not names else (np.zeros(0), np.zeros(0))
    return ModelSeries(
        caption=caption,
        executed=reduce(times, y, bins, executed),
        predicted=reduce(times, y, bins, predicted),
        abstained=none,
        line=reduce(times, y, bins, known if not names else np.zeros(len(y), np.bool_)),
        low=low,
        high=high,
        rows=names,
        frames_per_point=every,
    )


def _bins(times_ms: NDArray[np.int64], points: int) -> NDArray[np.int64]:
    """Return each frame's bin: its own while there are few frames, else one of ``points`` spans of time."""
    if len(times_ms) <= points:
        return np.arange(len(times_ms))
    span = max(1, int(times_ms[-1] - times_ms[0]) + 1)
    return np.asarray((times_ms - times_ms[0]) * points // span, dtype=np.int64)


def _plain_numbers(spec: OutputSpec, values: NDArray[np.float32]) -> tuple[Floats, tuple[str, ...], str]:
    """Reduce values (n, size) to one number each: a total, a row of labels, or the first entry."""
    absent = np.isnan(values).any(axis=1)
    if spec.task == "single_label":
        top = np.where(absent, -1, np.nan_to_num(values).argmax(axis=1))
        return _label_rows(spec, top)
    if spec.task == "multi_label":
        y, caption = (values >= 0.5).sum(axis=1).astype(np.float64), "labels present"
    elif spec.task == "count":
        y = values.sum(axis=1, dtype=np.float64)
        caption = f"number of {spec.labels[0] if spec.size == 1 and spec.labels else 'all labels together'}"
    else:
        y = values[:, 0].astype(np.float64)
        caption = spec.labels[0] if spec.labels else "first entry"
    y[absent] = np.nan
    return y, (), caption


def _label_rows(spec: OutputSpec, top: NDArray[np.int64]) -> tuple[Floats, tuple[str, ...], str]:
    counts = np.bincount(top[top >= 0], minlength=spec.size)
    shown = np.sort(np.argsort(-counts, kind="stable")[:LABEL_ROWS])
    names = [spec.labels[label] if spec.labels else f"label {label}" for label in shown]
    row_of = np.full(spec.size + 1, len(shown), np.float64)
    row_of[shown], row_of[-1] = np.arange(len(shown)), np.nan  # -1, the last: abstained
    more = [f"{spec.size - len(shown)} others"] if spec.size > len(shown) else []
    return row_of[top], (*names, *more), "label"


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
