"""Detections as arrays that links read: a fixed number of places, of which a frame fills as many as it has boxes.

A source of kind "set" is a flat vector: first its plain numbers (the counts, and context where asked for), then
``max_steps`` places of six numbers, ``x1, y1, x2, y2, score, class + 1``; a place whose last number is 0 is empty. The
order of the boxes means nothing, and `camlink.links.set_to_vec` sees to it that none is read into it.

>>> boxes = Detections(np.float32([[0, 0, 0.5, 1]]), np.float32([0.25]), np.int32([2]))
>>> packed(boxes, places=2).tolist()
[0.0, 0.0, 0.5, 1.0, 0.25, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array
from camlink.models.base import OutputSpec
from camlink.pipeline.records import Detections

PLACES = 48  # boxes of a frame that links read, best first; a crowded junction has 20 to 40
COLUMNS = 6  # numbers per place
PLAIN_FEATURES = 4  # of a box, beside its class


def set_spec(model: str, plain: int, places: int = PLACES) -> OutputSpec:
    """Return the space of a source with ``plain`` numbers and so many places for boxes."""
    return OutputSpec(model, "set", plain + places * COLUMNS, "detections", max_steps=places)


def plain_size(source: OutputSpec) -> int:
    """Return how many numbers stand before the places of a source of kind "set"."""
    return source.size - source.max_steps * COLUMNS


def packed(detections: Detections | None, places: int = PLACES) -> Array:
    """Write boxes into places: -> (places * 6,). Where there are more boxes than places, the best are kept."""
    out = np.zeros((places, COLUMNS), np.float32)
    if detections is not None and len(detections.scores):
        best: slice | NDArray[np.intp] = slice(None)
        if len(detections.scores) > places:
            best = np.argsort(-detections.scores, kind="stable")[:places]
        rows = out[: min(len(detections.scores), places)]
        rows[:, :4] = detections.xyxy[best]
        rows[:, 4] = detections.scores[best]
        rows[:, 5] = detections.classes[best] + 1
    return out.reshape(-1)


def places_of(batch: Array, source: OutputSpec) -> Array:
    """Return the places that any frame fills: batch (..., source.size) -> (..., filled, 6), filled at least 1."""
    places = batch[..., plain_size(source) :].reshape(*batch.shape[:-1], source.max_steps, COLUMNS)
    used = np.flatnonzero((places[..., 5] > 0).reshape(-1, source.max_steps).any(axis=0))
    filled = int(used[-1]) + 1 if len(used) else 1
    return places[..., :filled, :]


def features_of(places: Array, classes: int) -> Array:
    """Describe boxes: places (..., 6) -> (..., 4 + classes): score, width, height, side, and the class.

    The side is the root of the area; the class is one-hot. Where in the picture a box lies is left out: links learnt
    by heart who stood where (`benchmarks/links/live.py`). What empty places give is for nobody to read.
    """
    x1, y1, x2, y2, score, number = (places[..., i] for i in range(COLUMNS))
    width, height = x2 - x1, y2 - y1
    side = np.sqrt(np.maximum(width * height, 0.0))
    plain = np.stack([score, width, height, side], axis=-1)
    one_hot = number[..., None] == np.arange(1, classes + 1, dtype=np.float32)
    return np.concatenate([plain, one_hot], axis=-1, dtype=np.float32)
