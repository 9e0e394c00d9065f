"""A test kit, for camlink's own tests and for operators, models and policies that others write.

frames = make_frames("hall", 500)
models = [TinyModel.count("objects", lambda frame: frame.index // 50 % 4), ...]
records = run_frames(frames, models, policy="mlink-exact", budgets={"time_share": 0.5})
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import numpy as np

from camlink.models.base import Inference, Model, OutputSpec
from camlink.models.pool import ModelPool
from camlink.pipeline.assembly import CameraFacts, build_embedded
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.embedded import Reading
from camlink.pipeline.errors import ModelError
from camlink.pipeline.records import Frame, FrameResult, ModelOutput, Record

START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
NO_PIXELS = np.zeros((0, 0, 3), dtype=np.uint8)


def make_frames(camera_id: str, count: int, fps: float = 1.0, start: datetime = START, first: int = 0) -> list[Frame]:
    """Return frames without pixels, ``fps`` apart in event time."""
    step = timedelta(seconds=1.0 / fps)
    return [Frame(camera_id, i, start + step * i, NO_PIXELS) for i in range(first, first + count)]


@dataclass
class ListSource:
    """A source that gives what it was given."""

    camera_id: str
    readings: Sequence[Reading]
    captured: int = 0

    def __iter__(self) -> Any:
        for reading in self.readings:
            self.captured += isinstance(reading, Frame)
            yield reading

    def close(self) -> None:
        """Nothing to free."""


@dataclass
class TinyModel:
    """A model that is a function of the frame. ``fails_on`` lists frame indexes on which it raises `ModelError`."""

    spec: OutputSpec
    function: Callable[[Frame], Any]
    time_ms: float = 10.0
    memory_gb: float = 1.0
    fails_on: frozenset[int] = frozenset()
    loaded: bool = field(default=False, init=False)
    runs: int = field(default=0, init=False)

    @classmethod
    def count(cls, name: str, function: Callable[[Frame], Any], size: int = 1, **more: Any) -> Self:
        """Return a counting model whose value is what ``function`` gives, in ``size`` entries."""
        return cls(OutputSpec(name, "vector", size, "count"), function, **more)

    def load(self) -> None:
        self.loaded = True

    def unload(self) -> None:
        self.loaded = False

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        if not self.loaded:
            raise ModelError(f'model "{self.spec.model}" was run without being loaded')
        broken = [f.index for f in frames if f.index in self.fails_on]
        if broken:
            raise ModelError(f'model "{self.spec.model}" fails on frame {broken[0]}, as it was told')
        self.runs += len(frames)
        shape = (self.spec.size,)
        return [Inference(np.broadcast_to(np.asarray(self.function(f), np.float32), shape).copy()) for f in frames]


def run_frames(
    readings: Iterable[Reading], models: Sequence[Model], *, fps: float = 1.0, tick: int = 1, **settings: Any
) -> list[Record]:
    """Carry readings through the embedded pipeline; return all that reaches the results log, in order.

    ``settings`` are those of a site configuration.
    """
    config = SiteConfig(models="building", **settings)
    readings = list(readings)
    cameras = {reading.camera_id: CameraFacts(fps) for reading in readings}
    pool = ModelPool(models, config.budgets.memory_gb)
    records: list[Record] = []
    build_embedded(config, pool, cameras, records.extend, tick=tick).run(readings)
    return records


def outputs(records: Iterable[Record], *, served: bool | None = True) -> list[ModelOutput]:
    """Return the model outputs among ``records``; ``served=None`` gives shadow and relabelled ones too."""
    rows = (o for r in records if isinstance(r, FrameResult) for o in r.outputs)
    return [o for o in rows if served is None or o.served == served]
