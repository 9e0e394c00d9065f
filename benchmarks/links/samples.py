"""What the link benchmarks read: the outputs of all models on the frames of one camera of a recorded trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.recorded import open_trace
from camlink.pipeline.records import Frame

Array = NDArray[np.float32]


@dataclass(frozen=True)
class CameraSamples:
    """``values``: model -> (n, size); ``statistics`` (n, 3): pixel change, edge density, luma; ``times_s`` (n,)."""

    name: str
    specs: Mapping[str, OutputSpec]
    values: Mapping[str, Array]
    statistics: Array
    times_s: NDArray[np.float64]


def cameras_of(path: Path) -> Iterator[CameraSamples]:
    """Yield the cameras of a trace."""
    trace = open_trace(path)
    cameras: dict[str, list[Frame]] = {}
    for frame in trace.frames:
        cameras.setdefault(frame.camera_id, []).append(frame)
    for camera_id, frames in cameras.items():
        yield CameraSamples(
            camera_id,
            trace.specs,
            {m.spec.model: np.stack([i.value for i in m.run(frames)]) for m in trace.models},
            np.stack([_statistics(frame) for frame in frames]),
            np.array([frame.captured_at.timestamp() for frame in frames]),
        )


def _statistics(frame: Frame) -> Array:
    stats = frame.stats
    if stats is None:
        return np.zeros(3, np.float32)
    return np.array([stats.pixel_change, stats.edge_density, stats.mean_luma / 255.0], np.float32)
