"""Answers as lines of JSON, as they come: what other programs read while a run goes on.

    {"camera_id": "hall", "frame_index": 300, "captured_at": "2026-03-02T08:01:00+00:00", "answers": {"persons": {"how":
     "executed", "value": {"person": 1.0}, "confidence": null, "boxes": [...], "reason": "..."}}}

What is served is told, once per frame and model; comparisons on audit frames and executions to learn from are not.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from camlink.models.base import OutputSpec
from camlink.pipeline.records import FrameResult, ModelOutput, Record, RelabelRequest
from camlink.pipeline.results.told import told_output

logger = logging.getLogger(__name__)


class AnswerLines:
    """A listener of a `Session` or a `ResultsWorker` that writes a line for each frame.

    A reader that has gone, or a disk that is full, ends the lines with a warning, and not the run.
    """

    def __init__(self, out: TextIO, name: str, specs: Mapping[str, OutputSpec]) -> None:
        """``name``: what ``out`` is called in a warning."""
        self._out: TextIO | None = out
        self._name = name
        self._specs = specs

    def observe(self, records: Iterable[Record]) -> tuple[RelabelRequest, ...]:
        """Write what was served; ask for nothing."""
        if self._out is not None:
            try:
                for record in records:
                    if isinstance(record, FrameResult) and (served := [o for o in record.outputs if o.served]):
                        self._out.write(self._line(record, served))
                self._out.flush()
            except OSError as error:
                logger.warning("%s: no more answers are written: %s; the run goes on", self._name, error.strerror)
                self._out = None
        return ()

    def _line(self, result: FrameResult, served: Iterable[ModelOutput]) -> str:
        told = {
            "camera_id": result.camera_id,
            "frame_index": result.frame_index,
            "captured_at": result.captured_at.isoformat(),
            "answers": {output.model: self._answer(output) for output in served},
        }
        return json.dumps(told, ensure_ascii=False) + "\n"

    def _answer(self, output: ModelOutput) -> dict[str, Any]:
        spec = self._specs.get(output.model)
        told = told_output(output, spec)
        if told["value"] is not None and spec is not None and spec.labels:
            told["value"] = dict(zip(spec.labels, told["value"], strict=True))
        return told
