"""What links read of a frame: the values that models gave and, where asked for, their boxes and the frame's context.

Everything about one source lies in one flat vector, value first, then context, then boxes (`camlink.links.sets`), so
that links, ensembles and training know arrays only. By default that vector is the value itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import cos, pi, sin
from typing import Literal

import numpy as np

from camlink.links.base import Array
from camlink.links.sets import packed, set_spec
from camlink.models.base import OutputSpec
from camlink.pipeline.records import Detections, FrameStats, ModelOutput

Context = Literal["time_of_day", "frame_statistics"]
CONTEXT_SIZES: Mapping[Context, int] = {"time_of_day": 2, "frame_statistics": 3}
DAY_S = 86_400.0


@dataclass(frozen=True, eq=False)
class SourceSamples:
    """What links read of each model as a source: its space, and (n, size) on the frames to learn from."""

    specs: Mapping[str, OutputSpec]
    samples: Mapping[str, Array]


class LinkInputs:
    """How a site's links read a frame. ``sources``: the space of each model as links see it, when it is a source."""

    def __init__(self, specs: Mapping[str, OutputSpec], *, boxes: bool = False, context: Sequence[Context] = ()):
        self._boxes = boxes
        self._context = tuple(context)
        width = sum(CONTEXT_SIZES[c] for c in context)
        self.sources = {m: _source_spec(spec, width, boxes) for m, spec in specs.items()}

    def read(
        self,
        values: Mapping[str, Array],
        detections: Mapping[str, Detections | None],
        captured_at: datetime,
        stats: FrameStats | None,
    ) -> dict[str, Array]:
        """Return what links read of one frame: model -> (sources[model].size,), for the models with a value.

        A model without boxes reads as one that saw none, and statistics that nobody took as 0.
        """
        if not self._context and not self._boxes:
            return dict(values)
        context = [part for name in self._context for part in _CONTEXTS[name](captured_at, stats)]
        around = np.array(context, np.float32)
        boxes = {m: packed(detections.get(m)) if self._boxes else around[:0] for m in values}
        return {m: np.concatenate([value, around, boxes[m]]) for m, value in values.items()}

    def of_outputs(
        self, outputs: Iterable[ModelOutput], captured_at: datetime, stats: FrameStats | None
    ) -> dict[str, Array]:
        """Return what links read of a frame's executed outputs."""
        ran = [o for o in outputs if o.how == "executed"]
        values = {o.model: o.value for o in ran if o.value is not None}
        return self.read(values, {o.model: o.detections for o in ran}, captured_at, stats)

    def stacked(self, frames: Sequence[Mapping[str, Array]], models: Sequence[str] | None = None) -> SourceSamples:
        """Put what was read of several frames together, of some ``models`` or of all."""
        chosen = self.sources if models is None else models
        return SourceSamples(self.sources, {m: np.stack([frame[m] for frame in frames]) for m in chosen})


def _source_spec(spec: OutputSpec, context: int, boxes: bool) -> OutputSpec:
    if boxes:
        return set_spec(spec.model, spec.size + context)
    return spec if not context else OutputSpec(spec.model, "vector", spec.size + context, "regression")


def _time_of_day(captured_at: datetime, stats: FrameStats | None) -> tuple[float, float]:
    """Place the moment on a circle, so that 23:59 lies beside 0:00; in UTC, which no summer time shifts."""
    angle = 2.0 * pi * (captured_at.timestamp() % DAY_S) / DAY_S
    return sin(angle), cos(angle)


def _frame_statistics(captured_at: datetime, stats: FrameStats | None) -> tuple[float, float, float]:
    return (stats.pixel_change, stats.edge_density, stats.mean_luma / 255.0) if stats else (0.0, 0.0, 0.0)


_CONTEXTS = {"time_of_day": _time_of_day, "frame_statistics": _frame_statistics}
