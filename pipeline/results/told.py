"""An output as other programs and pages read it: plain JSON data, with the boxes that counted."""

from __future__ import annotations

from typing import Any

import numpy as np

from camlink.models.base import OutputSpec
from camlink.pipeline.records import ModelOutput

BOXES = 60  # told per model at most
GIVEN = 0.5  # score from which on one of several labels is given


def told_output(output: ModelOutput, spec: OutputSpec | None) -> dict[str, Any]:
    """Return how an answer came about, its value (a list, None where there is none), and what is known beside it."""
    value = None if output.value is None else [round(float(entry), 4) for entry in output.value.ravel()]
    confidence = None if output.confidence is None else round(output.confidence, 4)
    boxes = counted_boxes(output, spec)
    return {"how": output.how, "value": value, "confidence": confidence, "boxes": boxes, "reason": output.reason}


def counted_boxes(output: ModelOutput, spec: OutputSpec | None) -> list[dict[str, Any]]:
    """Return the boxes behind a value, surest first: those that counted, and of labels those that gave them."""
    found = output.detections
    if found is None or spec is None or output.value is None:
        return []
    left = np.floor(output.value + 0.5) if spec.task == "count" else np.full(spec.size, BOXES)
    least = GIVEN if spec.task == "multi_label" else 0.0
    boxes: list[dict[str, Any]] = []
    for place in np.argsort(-found.scores)[: 4 * BOXES]:
        label = int(found.classes[place])
        if label < len(left) and left[label] >= 1 and found.scores[place] >= least and len(boxes) < BOXES:
            left[label] -= 1
            name = spec.labels[label] if spec.labels else str(label)
            corners = [round(float(corner), 4) for corner in found.xyxy[place]]
            boxes.append({"xyxy": corners, "score": round(float(found.scores[place]), 3), "label": name})
    return boxes
