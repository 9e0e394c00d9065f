"""Writes traces: the recorded outputs of all models on all frames (format: docs/traces.md)."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from camlink.models.base import Inference
from camlink.models.pool import ModelPool
from camlink.pipeline.embedded import Reading, ticks
from camlink.pipeline.errors import TraceError
from camlink.pipeline.progress import Progress
from camlink.pipeline.records import STATISTICS, Frame, FrameDropped

FRAME_COLUMNS = ("camera_id", "frame_index", "captured_at", *STATISTICS)
OUTPUT_COLUMNS = ("camera_id", "frame_index", "model", "value", "detections")
BATCH = 8


class TraceWriter:
    """A trace folder in the making. Raises `TraceError` if the folder already holds one or cannot be written."""

    def __init__(self, folder: Path, pool: ModelPool) -> None:
        if (folder / "trace.yaml").exists():
            raise TraceError(f"{folder} already holds a trace; choose another folder")
        self.frames = 0
        self._folder = folder
        self._open = ExitStack()
        with self._told():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "trace.yaml").write_text(_header(pool), encoding="utf-8")
            self._frames = self._table(folder / "frames.csv", FRAME_COLUMNS)
            self._outputs = self._table(folder / "outputs.csv", OUTPUT_COLUMNS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._told():
            self._open.close()

    def write(self, frame: Frame, values: Mapping[str, Inference]) -> None:
        """Add one frame and what every model said of it."""
        stats = frame.stats
        shown = [f"{getattr(stats, name):.6g}" if stats else "" for name in STATISTICS]
        with self._told():
            self._frames.writerow((frame.camera_id, frame.index, frame.captured_at.isoformat(), *shown))
            for model, inference in values.items():
                value = [round(float(entry), 5) for entry in inference.value]
                self._outputs.writerow((frame.camera_id, frame.index, model, json.dumps(value), _boxes(inference)))
        self.frames += 1

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TraceError(f"{self._folder}: a trace cannot be written here: {error.strerror}") from error

    def _table(self, path: Path, columns: Sequence[str]) -> Any:
        writer = csv.writer(self._open.enter_context(path.open("w", newline="", encoding="utf-8")))
        writer.writerow(columns)
        return writer


class TraceReadings:
    """Recorded frames one by one, counted per camera, until they end or are closed."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = frames
        self._closed = False
        self.captured: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            if self._closed:
                return
            self.captured[frame.camera_id] += 1
            yield frame

    def close(self) -> None:
        """End an iteration in progress."""
        self._closed = True


def record_trace(
    readings: Iterable[Reading],
    pool: ModelPool,
    trace: TraceWriter,
    progress: Progress,
    *,
    stop: Callable[[], bool] = lambda: False,
    on_tick: Callable[[], None] = lambda: None,
) -> None:
    """Run every model on every frame and write what they say. Dropped frames leave a gap in the index."""
    for group in ticks(readings, BATCH, one_per_camera=False):
        frames = [reading for reading in group if isinstance(reading, Frame)]
        values = {model: pool.run(model, frames) for model in pool.specs}
        for i, frame in enumerate(frames):
            trace.write(frame, {model: inferences[i] for model, inferences in values.items()})
        progress.frames += sum(r.count if isinstance(r, FrameDropped) else isinstance(r, Frame) for r in group)
        progress.executions += len(frames) * len(values)
        on_tick()
        if stop():
            return


def _boxes(inference: Inference) -> str:
    """Return a detector's boxes as a JSON list of [x1, y1, x2, y2, score, class]; nothing for models without boxes."""
    found = inference.detections
    if found is None:
        return ""
    rows = np.column_stack([found.xyxy, found.scores]).astype(np.float64).round(5).tolist()
    return json.dumps([[*row, int(number)] for row, number in zip(rows, found.classes, strict=True)])


def _header(pool: ModelPool) -> str:
    import yaml

    models = {
        name: {
            "kind": spec.kind,
            "size": spec.size,
            "task": spec.task,
            "labels": list(spec.labels),
            "scale": spec.scale,
            "time_ms": round(pool.time_ms(name), 3),
            "memory_gb": round(pool.memory_gb(name), 4),
        }
        for name, spec in pool.specs.items()
    }
    return str(yaml.safe_dump({"models": models}, sort_keys=False))
