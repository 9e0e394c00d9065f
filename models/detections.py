"""From a detector's raw tensor to boxes, and from boxes to the value that links read. Pure numpy.

Detections keep every box with a score of at least `KEPT_SCORE`: near-threshold boxes are evidence for later set links.
Values count only those at or above the model's own confidence. Suppression of overlaps starts at the best box, so the
weaker boxes kept here never change which stronger ones survive.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.pipeline.errors import ModelError
from camlink.pipeline.records import Detections, Value

KEPT_SCORE = 0.10
OVERLAP = 0.7  # ultralytics' default IoU threshold for prediction
MAX_BOXES = 300
_CLASS_STEP = 7680.0  # px; shifts the classes apart so that boxes suppress only their own class (ultralytics' max_wh)

Boxes = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]  # xyxy (n, 4), scores (n,), class ids (n,)


def decode_end_to_end(raw: NDArray[np.float32], wanted: Sequence[int]) -> Boxes:
    """Read one frame of a head that has suppressed overlaps itself: rows of ``x1, y1, x2, y2, score, class, ...``."""
    xyxy, scores, classes = raw[:, :4], raw[:, 4], raw[:, 5].astype(np.int32)
    keep = (scores > KEPT_SCORE) & np.isin(classes, wanted)
    return xyxy[keep], scores[keep], classes[keep]


def decode_yolo(raw: NDArray[np.float32], class_count: int, wanted: Sequence[int]) -> Boxes:
    """Read one frame of a YOLO head: ``(4 + classes + extra, anchors)``, boxes as centre and size in input pixels.

    Returns corner boxes in input pixels, best first, overlaps suppressed, restricted to the class ids ``wanted``.
    """
    best = raw[4 : 4 + class_count]  # (classes, anchors)
    candidates = np.flatnonzero(best.max(axis=0) > KEPT_SCORE)
    columns = raw[:, candidates]
    classes = columns[4 : 4 + class_count].argmax(axis=0).astype(np.int32)
    scores = columns[4 : 4 + class_count].max(axis=0)
    keep = np.isin(classes, wanted)
    centre, half = columns[:2, keep].T, columns[2:4, keep].T / 2
    xyxy = np.concatenate([centre - half, centre + half], axis=1)
    scores, classes = scores[keep], classes[keep]
    kept = suppress(xyxy + classes[:, None].astype(np.float32) * _CLASS_STEP, scores)
    return xyxy[kept], scores[kept], classes[kept]


def suppress(xyxy: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return indices of the boxes that no better box overlaps by more than `OVERLAP`, best first.

    >>> boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], np.float32)
    >>> suppress(boxes, np.array([0.5, 0.9, 0.3], np.float32)).tolist()
    [1, 2]
    """
    order = np.argsort(-scores, kind="stable")
    areas = np.prod(xyxy[:, 2:] - xyxy[:, :2], axis=1)
    kept: list[int] = []
    while order.size and len(kept) < MAX_BOXES:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        low = np.maximum(xyxy[best, :2], xyxy[rest, :2])
        high = np.minimum(xyxy[best, 2:], xyxy[rest, 2:])
        overlap = np.prod(np.clip(high - low, 0.0, None), axis=1)
        order = rest[overlap <= OVERLAP * (areas[best] + areas[rest] - overlap)]
    return np.array(kept, np.intp)


def class_ids(model: str, wanted: Sequence[str | int], known: Mapping[int, str]) -> tuple[int, ...]:
    """Return the network's id of each wanted class, given by name or id. Raises `ModelError` with the nearest name."""
    ids: dict[str | int, int] = {name: number for number, name in known.items()}
    ids.update({number: number for number in known})
    for name in wanted:
        if name not in ids:
            near = difflib.get_close_matches(str(name), known.values(), n=1)
            hint = (
                f'did you mean "{near[0]}"?' if near else f"its {len(known)} classes begin {list(known.values())[:5]}"
            )
            raise ModelError(f'model "{model}": the weights know no class "{name}"; {hint}')
    return tuple(ids[name] for name in wanted)


def counted_ids(model: str, wanted: Sequence[str | int], known: Mapping[int, str]) -> tuple[int, ...]:
    """Return the network's id of each class that a detector counts. Raises `ModelError`, also for one named twice."""
    ids = class_ids(model, wanted, known)
    for place, number in enumerate(ids):
        if number in ids[:place]:
            raise ModelError(f'model "{model}": the class "{known[number]}" is counted twice; name it once')
    return ids


def check_yolo(spec: OutputSpec, network: str) -> None:
    """Raise `ModelError` where a YOLO network of the task ``network`` cannot give what ``spec`` describes."""
    found = {"classify": ("single_label",), **dict.fromkeys(("detect", "pose", "segment"), ("count", "multi_label"))}
    if network not in found:
        raise ModelError(
            f'model "{spec.model}": weights of YOLO\'s task "{network}" are not read; {", ".join(found)} are'
        )
    if spec.task not in found[network]:
        gives = "classes of the whole picture" if network == "classify" else "boxes"
        raise ModelError(
            f'model "{spec.model}": its weights, of YOLO\'s task "{network}", give {gives}, so that its task is '
            f"{' or '.join(found[network])}, not {spec.task}"
        )


def as_detections(xyxy: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int32]) -> Detections:
    """Freeze boxes into `Detections`; ``labels`` are indices into the model's ``spec.labels``."""
    arrays = (
        np.ascontiguousarray(xyxy, np.float32).reshape(-1, 4),
        np.ascontiguousarray(scores, np.float32),
        np.ascontiguousarray(labels, np.int32),
    )
    for array in arrays:
        array.flags.writeable = False
    return Detections(*arrays)


def counts(detections: Detections, size: int, confidence: float) -> Value:
    """Count the boxes of each label that reach ``confidence``: ``(size,)`` float32."""
    sure = detections.classes[detections.scores >= confidence]
    return np.bincount(sure, minlength=size).astype(np.float32)


def highest_scores(detections: Detections, size: int) -> Value:
    """Return the best score of each label, 0 where none was seen: ``(size,)`` float32 in 0..1."""
    best = np.zeros(size, np.float32)
    np.maximum.at(best, detections.classes, detections.scores)
    return best


def relabel(classes: NDArray[np.int32], ids: Sequence[int]) -> NDArray[np.int32]:
    """Turn the network's class ids into positions in ``ids``, which are label positions.

    >>> relabel(np.array([7, 2, 7], np.int32), (2, 7)).tolist()
    [1, 0, 1]
    """
    order = np.argsort(ids)
    positions: NDArray[np.int32] = order[np.searchsorted(np.asarray(ids)[order], classes)].astype(np.int32)
    return positions
