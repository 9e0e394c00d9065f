"""The one contract that every model meets: frames in, one output value per frame out.

A model is a black box (design ruling 10): camlink knows its `OutputSpec` and what it costs, nothing of its inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np

from camlink.pipeline.errors import ModelError
from camlink.pipeline.records import Detections, Frame, Value

Kind = Literal["vector", "sequence", "set"]
Task = Literal["count", "single_label", "multi_label", "regression", "box", "tokens", "detections"]


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What a model's output means.

    ``size`` is the length of a vector, or the vocabulary of a sequence; ``labels`` names the entries; ``scale`` is
    the error at which a regression counts as entirely wrong (same unit as the value).
    """

    model: str
    kind: Kind
    size: int
    task: Task
    labels: tuple[str, ...] = ()
    max_steps: int = 1
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f'model "{self.model}": size must be at least 1, got {self.size}')
        if self.labels and len(self.labels) != self.size:
            raise ValueError(f'model "{self.model}": {len(self.labels)} labels for an output of size {self.size}')
        if self.kind not in get_args(Kind):
            raise ValueError(
                f'model "{self.model}": kind must be one of {", ".join(get_args(Kind))}, got "{self.kind}"'
            )
        if not self.scale > 0.0:
            raise ValueError(f'model "{self.model}": scale must be above 0, got {self.scale}')


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """What a model gives for one frame: ``value`` (size,) float32 and, for detectors, the boxes behind it."""

    value: Value
    detections: Detections | None = None


@runtime_checkable
class Model(Protocol):
    """A black-box model. ``run`` always takes a batch, which may mix cameras and resolutions."""

    @property
    def spec(self) -> OutputSpec: ...

    @property
    def memory_gb(self) -> float:
        """Peak memory while loaded and running, in GB."""
        ...

    @property
    def time_ms(self) -> float:
        """Time per frame, in milliseconds."""
        ...

    def load(self) -> None:
        """Bring weights into memory. Raises `ModelError`. Loading twice is harmless."""
        ...

    def unload(self) -> None:
        """Free what `load` took."""
        ...

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        """Return one `Inference` per frame, in order. Raises `ModelError`."""
        ...


def check_answers(spec: OutputSpec, frames: Sequence[Frame], answers: Sequence[Inference]) -> None:
    """Raise `ModelError` for what ``spec`` does not describe: a wrong shape or a NaN must not teach a link."""
    if len(answers) != len(frames):
        raise ModelError(f'model "{spec.model}": {len(answers)} values for {len(frames)} frames')
    for frame, answer in zip(frames, answers, strict=True):
        if spec.kind == "vector" and answer.value.shape != (spec.size,):
            raise ModelError(f'model "{spec.model}": a value of shape {answer.value.shape}, wanted ({spec.size},)')
        if not np.isfinite(answer.value).all():
            raise ModelError(
                f'model "{spec.model}": the value for frame {frame.index} of camera "{frame.camera_id}" is not finite'
            )
