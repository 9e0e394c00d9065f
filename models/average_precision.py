"""Average precision: how far a set of boxes equals another one, and how well stated chances rank true labels.

Both are the all-point interpolated average precision of PASCAL VOC (Everingham et al., 2010, Sec. 4.2): the area under
precision over recall, where each precision is the best at that recall or beyond.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
COLUMNS = 6  # numbers per box: x1, y1, x2, y2, score, class + 1; a place whose last number is 0 is empty
MATCHES_FROM = 0.5  # intersection over union, as in PASCAL VOC
_CHUNK = 1024  # frames at a time: memory stays flat


def places_of(boxes: Sequence[Sequence[Sequence[float]]]) -> Array:
    """Return boxes [x1, y1, x2, y2, score, class] per frame as places: (n, most boxes x 6), at least one place.

    >>> places_of([[[0, 0, 1, 1, 0.9, 2]], []]).tolist()[1]
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    most = max((len(frame) for frame in boxes), default=0)
    places = np.zeros((len(boxes), max(most, 1), COLUMNS), np.float32)
    for i, frame in enumerate(boxes):
        if len(frame):
            places[i, : len(frame)] = frame
            places[i, : len(frame), 5] += 1.0
    return places.reshape(len(boxes), -1)


def boxes_agreement(predicted: Array, executed: Array) -> Array:
    """Return the mean average precision of each frame: places (n, places x 6) of both -> (n,) in [0, 1].

    What the model itself found is taken for the truth; the mean is over the classes that either side has. A box is
    found by the highest-scored box of its class that lies on it by half at least and has found no other. Two empty
    frames agree fully.
    """
    spans = [slice(i, i + _CHUNK) for i in range(0, len(predicted), _CHUNK)]
    return np.concatenate([_of_chunk(predicted[s], executed[s]) for s in spans]) if spans else np.zeros(0, np.float32)


def _of_chunk(predicted: Array, executed: Array) -> Array:
    ours, theirs = (_filled(side.reshape(len(side), -1, COLUMNS)) for side in (predicted, executed))
    order = np.argsort(np.where(ours[..., 5] > 0, -ours[..., 4], np.inf), axis=1, kind="stable")
    ours = np.take_along_axis(ours, order[..., None], axis=1)
    found = _found(ours, theirs)
    total, classes = np.zeros(len(ours)), np.zeros(len(ours))
    for number in np.union1d(ours[..., 5], theirs[..., 5]):
        if number > 0:
            said, wanted = ours[..., 5] == number, (theirs[..., 5] == number).sum(axis=1)
            classes += said.any(axis=1) | (wanted > 0)
            total += average_precision(found & said, said, wanted)
    return np.where(classes > 0, total / np.maximum(classes, 1.0), 1.0).astype(np.float32)


def _filled(places: Array) -> Array:
    """Cut off places that no frame fills; one stays."""
    used = np.flatnonzero((places[..., 5] > 0).any(axis=0))
    return places[:, : int(used[-1]) + 1 if len(used) else 1]


def _found(ours: Array, theirs: Array) -> NDArray[np.bool_]:
    """Say which of our boxes, best first, find a box of theirs that none before found: (n, places)."""
    overlap = np.where(ours[:, :, None, 5] == theirs[:, None, :, 5], _overlap(ours, theirs), -1.0)
    overlap[np.broadcast_to(theirs[:, None, :, 5] == 0, overlap.shape)] = -1.0
    found = np.zeros(ours.shape[:2], np.bool_)
    frames = np.arange(len(ours))
    for place in range(ours.shape[1]):
        best = overlap[:, place].argmax(axis=1)
        found[:, place] = overlap[frames, place, best] >= MATCHES_FROM
        taken = np.flatnonzero(found[:, place])
        overlap[taken, :, best[taken]] = -1.0
    return found


def _overlap(ours: Array, theirs: Array) -> Array:
    """Return intersection over union: (n, a, 6), (n, b, 6) -> (n, a, b)."""
    low = np.maximum(ours[:, :, None, :2], theirs[:, None, :, :2])
    high = np.minimum(ours[:, :, None, 2:4], theirs[:, None, :, 2:4])
    shared = np.prod(np.clip(high - low, 0.0, None), axis=-1)
    areas = [np.prod(np.clip(side[..., 2:4] - side[..., :2], 0.0, None), axis=-1) for side in (ours, theirs)]
    union = areas[0][:, :, None] + areas[1][:, None, :] - shared
    return np.asarray(shared / np.where(union > 0, union, 1.0), np.float32)


def average_precision(found: NDArray[np.bool_], said: NDArray[np.bool_], wanted: NDArray[np.int64]) -> Array:
    """Return the average precision of each row: what was said, best first, and what of it was found -> (n,).

    ``found``, ``said`` (n, places); ``wanted`` (n,): how many there were to find; rows without any give 0.

    >>> one = average_precision(np.array([[True, False, True]]), np.ones((1, 3), bool), np.array([4]))
    >>> round(float(one[0]), 4)  # precisions 1 and 2/3 at two of four
    0.4167
    """
    hits = np.cumsum(found, axis=1)
    precision = hits / np.maximum(np.cumsum(said, axis=1), 1)
    precision = np.where(said, precision, 0.0)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((best * found).sum(axis=1) / np.maximum(wanted, 1), np.float32)


def binned_average_precision(true: NDArray[np.float64], false: NDArray[np.float64]) -> float | None:
    """Return the average precision of stated chances, from histograms over them, lowest first; None if none is true.

    ``true``, ``false`` (bins,): how many chances of true and of false labels lie in each bin. Chances within one bin
    count as equal. The mean over labels is the mAP by which classifiers with several labels are judged.

    >>> binned_average_precision(np.array([1.0, 0.0, 1.0]), np.array([0.0, 2.0, 0.0]))
    0.75
    """
    if not true.sum():
        return None
    hits, all_said = np.cumsum(true[::-1]), np.cumsum((true + false)[::-1])
    precision = np.where(all_said > 0, hits / np.maximum(all_said, 1.0), 0.0)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * true[::-1]).sum() / true.sum())
