"""From a classifier's many class probabilities to the few labels that a site cares about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from camlink.models.detections import class_ids
from camlink.pipeline.records import Value

REST = "other"
ROUNDING = 0.01  # of a quantised network's shares


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities over the last axis; an output that already is one (sums to 1, none negative) stays."""
    total = logits.sum(axis=-1, keepdims=True)
    if bool((logits >= 0).all()) and bool((np.abs(total - 1) < 1e-3).all()):
        return logits
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), np.float32)


class Grouping:
    """Sums class probabilities into labels; the label `REST` takes what is left of 1 unless it has a group of its own.

    Quantised classifiers round small probabilities to nothing; what is missing then belongs to no label, so to `REST`.
    """

    def __init__(
        self, model: str, labels: Sequence[str], groups: Mapping[str, Sequence[str]], names: Sequence[str]
    ) -> None:
        """Find every group's classes in ``names``, the classifier's own. Raises `ModelError` if one is unknown."""
        known = {number: first_name(name) for number, name in enumerate(names)}
        own_rest = REST in groups or REST in known.values()
        self._rest = labels.index(REST) if REST in labels and not own_rest else None
        self._matrix = np.zeros((len(names), len(labels)), np.float32)
        for column, label in enumerate(labels):
            if column != self._rest:
                self._matrix[list(class_ids(model, groups.get(label, (label,)), known)), column] = 1.0

    def __call__(self, probabilities: NDArray[np.float32]) -> Value:
        """Return ``(labels,)`` float32, summing to 1, for ``(classes,)`` probabilities."""
        grouped = np.asarray(probabilities @ self._matrix, np.float32)
        if self._rest is not None:
            grouped[self._rest] = max(1.0 - float(grouped.sum()), 0.0)
        total = float(grouped.sum())
        return grouped / np.float32(total) if total > 0 else grouped


class Head:
    """Turns one frame's raw network output ``(classes,)`` into a value, as the task asks.

    Whether a network of several labels ends in a sigmoid its file does not say. A number outside 0..1 shows that it
    does not, from then on for good: logits that happen to lie within must not be read otherwise than on other frames.
    """

    def __init__(self, task: str, grouping: Grouping | None = None, *, gives_logits: bool = False) -> None:
        """``grouping`` is for a single label."""
        self.grouping = grouping
        self._task, self._gives_logits = task, gives_logits

    def __call__(self, raw: NDArray[np.float32]) -> Value:
        if self._task == "regression":
            return np.asarray(raw, np.float32)
        if self._task == "multi_label":
            self._gives_logits = self._gives_logits or not _is_share(raw)
            return np.asarray(1 / (1 + np.exp(-raw)) if self._gives_logits else np.clip(raw, 0.0, 1.0), np.float32)
        assert self.grouping is not None
        return self.grouping(softmax(raw))


def first_name(name: str) -> str:
    """ImageNet lists synonyms: ``"cab, hack, taxi, taxicab"`` goes by ``"cab"``."""
    return name.split(",", maxsplit=1)[0].strip()


def _is_share(raw: NDArray[np.float32]) -> bool:
    return bool(((raw >= -ROUNDING) & (raw <= 1 + ROUNDING)).all())
