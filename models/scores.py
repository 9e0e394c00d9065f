"""What a task means: its output activation, its training loss, its agreement and its confidence, in one place.

All functions are vectorised over frames: arrays are ``(n, size)`` float, results ``(n,)`` in [0, 1]. Agreement is the
papers' "output accuracy": how far an output equals what the model itself would have said, not ground truth.

>>> spec = OutputSpec("objects", "vector", 2, "count", ("person", "chair"))
>>> agreement(spec, np.array([[2.4, 0.0]]), np.array([[2.0, 1.0]])).tolist()
[0.5]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from camlink.models.average_precision import boxes_agreement
from camlink.models.base import OutputSpec

Array = NDArray[np.float32]
Loss = Literal["mse", "cross_entropy", "binary_cross_entropy"]

_MOST_ODDS, _ONE = np.full(1, 60.0, np.float32), np.ones(1, np.float32)
WRONG_BELOW = 0.9  # agreement of an output that agrees by degrees, below which a person would call it wrong
COUNT_TOLERANCE = 0.5  # MLink extended, Sec. 6.2: a count is right when it is off by less than this


@dataclass(frozen=True)
class TaskRules:
    """How one task is activated (MLink Sec. 3.4), trained (Eq. 2) and scored (Tab. 1)."""

    activate: Callable[[Array], Array]  # pre-activation -> value in the model's own output space
    loss: Loss
    agree: Callable[[OutputSpec, Array, Array], Array]
    finish: Callable[[Array], Array] = lambda value: value  # value as served: counts are whole and not negative


def _softmax(z: Array) -> Array:
    shifted = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)


def _sigmoid(z: Array) -> Array:
    odds = np.minimum(np.negative(z), _MOST_ODDS)  # in place from here: on one frame, calls are all that costs
    np.exp(odds, out=odds)
    odds += _ONE
    return np.reciprocal(odds, out=odds)


def _linear(z: Array) -> Array:
    return z


def _same_counts(_: OutputSpec, predicted: Array, executed: Array) -> Array:
    return np.asarray(np.mean(np.abs(predicted - executed) < COUNT_TOLERANCE, axis=-1), dtype=np.float32)


def _same_top_label(_: OutputSpec, predicted: Array, executed: Array) -> Array:
    return np.asarray(predicted.argmax(axis=-1) == executed.argmax(axis=-1), dtype=np.float32)


def _same_labels(_: OutputSpec, predicted: Array, executed: Array) -> Array:
    return np.asarray(np.mean((predicted >= 0.5) == (executed >= 0.5), axis=-1), dtype=np.float32)


def _relative_closeness(spec: OutputSpec, predicted: Array, executed: Array) -> Array:
    error = np.abs(predicted - executed).mean(axis=-1)
    return np.asarray(np.clip(1.0 - error / spec.scale, 0.0, 1.0), dtype=np.float32)


def _intersection_over_union(_: OutputSpec, predicted: Array, executed: Array) -> Array:
    """Boxes are x1, y1, x2, y2; two empty boxes agree fully."""
    low = np.maximum(predicted[:, :2], executed[:, :2])
    high = np.minimum(predicted[:, 2:4], executed[:, 2:4])
    shared = np.prod(np.clip(high - low, 0.0, None), axis=-1)
    areas = [np.prod(np.clip(box[:, 2:4] - box[:, :2], 0.0, None), axis=-1) for box in (predicted, executed)]
    union = areas[0] + areas[1] - shared
    return np.asarray(np.where(union > 0, shared / np.where(union > 0, union, 1.0), 1.0), dtype=np.float32)


def _word_accuracy(_: OutputSpec, predicted: Array, executed: Array) -> Array:
    """One minus the word error rate, not below 0; tokens (n, steps), closed by token 0. Two empty ones agree fully."""
    rates = []
    for said, wanted in zip(predicted, executed, strict=True):
        ours, theirs = _before_end(said), _before_end(wanted)
        rates.append(_edits(ours, theirs) / len(theirs) if theirs else float(bool(ours)))
    return np.asarray(np.clip(1.0 - np.array(rates), 0.0, 1.0), dtype=np.float32)


def _before_end(tokens: Array) -> list[float]:
    ends = np.flatnonzero(tokens == 0)
    return [float(token) for token in tokens[: ends[0] if len(ends) else len(tokens)]]


def _edits(ours: list[float], theirs: list[float]) -> int:
    """Levenshtein distance: the fewest words replaced, left out or put in."""
    costs = list(range(len(theirs) + 1))
    for row, word in enumerate(ours, start=1):
        diagonal, costs[0] = costs[0], row
        for column, other in enumerate(theirs, start=1):
            best = min(costs[column] + 1, costs[column - 1] + 1, diagonal + (word != other))
            diagonal, costs[column] = costs[column], best
    return costs[-1]


def _whole_counts(value: Array) -> Array:
    return np.asarray(np.floor(np.maximum(value, 0.0) + 0.5), dtype=np.float32)


RULES: dict[str, TaskRules] = {
    "count": TaskRules(_linear, "mse", _same_counts, _whole_counts),
    "single_label": TaskRules(_softmax, "cross_entropy", _same_top_label),
    "multi_label": TaskRules(_sigmoid, "binary_cross_entropy", _same_labels),
    "regression": TaskRules(_linear, "mse", _relative_closeness),
    "box": TaskRules(_linear, "mse", _intersection_over_union),
    "tokens": TaskRules(_softmax, "cross_entropy", _word_accuracy),  # activation and loss of one step
}


def rules(spec: OutputSpec) -> TaskRules:
    """Return the rules of ``spec``'s task. Raises `ValueError` for tasks that have no vector form."""
    try:
        return RULES[spec.task]
    except KeyError:
        known = ", ".join(sorted(RULES))
        raise ValueError(f'model "{spec.model}": task "{spec.task}" cannot be scored; known tasks: {known}') from None


def agrees_by_degrees(spec: OutputSpec) -> bool:
    """Say whether outputs agree by degrees, as numbers, boxes and words do, and not entry by entry or not at all."""
    return spec.task not in ("count", "single_label", "multi_label")


def is_wrong(spec: OutputSpec, agreements: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Say of which outputs (n,) a person would say that they are wrong, given how far they agree."""
    return agreements < (WRONG_BELOW if agrees_by_degrees(spec) else 1.0)


def has_agreement(spec: OutputSpec) -> bool:
    """Say whether outputs of this task can be compared. Boxes can, though no link predicts them."""
    return spec.task in RULES or spec.task == "detections"


def agreement(spec: OutputSpec, predicted: Array, executed: Array) -> Array:
    """Return how far ``predicted`` equals ``executed``, per frame: (n, size), (n, size) -> (n,) in [0, 1].

    Count: share of entries within 0.5. Single label: same top label. Multi label: share of labels on the same side
    of 0.5. Regression: one minus the mean error over ``spec.scale``. Box: intersection over union. Tokens (n, steps):
    one minus the word error rate. Detections (n, places x 6): mean average precision (`average_precision`).
    """
    if spec.task == "detections":
        return boxes_agreement(predicted, executed)
    return rules(spec).agree(spec, predicted, executed)
