"""What the link benchmarks read: the outputs of all models on the frames of one camera of a recorded trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from camlink.links.inputs import LinkInputs, SourceSamples
from camlink.models.base import OutputSpec
from camlink.models.recorded import open_trace
from camlink.pipeline.records import Detections, Frame

Array = NDArray[np.float32]


@dataclass(frozen=True)
class CameraSamples:
    """``values``: model -> (n, size); ``times_s`` (n,); ``boxes``: model -> a list per frame, of detectors only."""

    name: str
    specs: Mapping[str, OutputSpec]
    values: Mapping[str, Array]
    times_s: NDArray[np.float64]
    frames: Sequence[Frame]
    boxes: Mapping[str, Sequence[Detections | None]]

    def read_by(self, inputs: LinkInputs) -> SourceSamples:
        """Return what links with these inputs read of every frame."""
        frames = [
            inputs.read(
                {m: v[i] for m, v in self.values.items()},
                {m: b[i] for m, b in self.boxes.items()},
                frame.captured_at,
                frame.stats,
            )
            for i, frame in enumerate(self.frames)
        ]
        return inputs.stacked(frames)


def cameras_of(path: Path) -> Iterator[CameraSamples]:
    """Yield the cameras of a trace."""
    trace = open_trace(path)
    cameras: dict[str, list[Frame]] = {}
    for frame in trace.frames:
        cameras.setdefault(frame.camera_id, []).append(frame)
    for camera_id, frames in cameras.items():
        said = {m.spec.model: m.run(frames) for m in trace.models}
        yield CameraSamples(
            camera_id,
            trace.specs,
            {m: np.stack([i.value for i in inferences]) for m, inferences in said.items()},
            np.array([frame.captured_at.timestamp() for frame in frames]),
            frames,
            {m: [i.detections for i in inferences] for m, inferences in said.items()},
        )
