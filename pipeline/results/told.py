"""An output as other programs and pages read it: plain JSON data, with the boxes that counted."""

from __future__ import annotations

from typing import Any

from camlink.models.base import OutputSpec
from camlink.pipeline.records import ModelOutput
from camlink.pipeline.results.boxes import CORNER_DIGITS, SCORE_DIGITS, counted, label_names

BOXES = 60  # told per model at most


def told_output(output: ModelOutput, spec: OutputSpec | None) -> dict[str, Any]:
    """Return how an answer came about, its value (a list, None where there is none), and what is known beside it."""
    value = None if output.value is None else [round(float(entry), 4) for entry in output.value.ravel()]
    confidence = None if output.confidence is None else round(output.confidence, 4)
    boxes = counted_boxes(output, spec)
    return {"how": output.how, "value": value, "confidence": confidence, "boxes": boxes, "reason": output.reason}


def counted_boxes(output: ModelOutput, spec: OutputSpec | None) -> list[dict[str, Any]]:
    """Return the boxes behind a value, surest first: those that counted, and of labels those that gave them."""
    found = output.detections
    if found is None or spec is None or output.value is None or not len(found.scores):
        return []
    rows, names = counted([(found, output, spec)], BOXES), label_names(spec)
    return [
        {
            "xyxy": [round(corner, CORNER_DIGITS) for corner in corners],
            "score": round(score, SCORE_DIGITS),
            "label": names[label],
        }
        for corners, score, label in zip(rows.xyxy.tolist(), rows.score.tolist(), rows.label.tolist(), strict=True)
    ]
