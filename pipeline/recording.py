"""Writes traces: the recorded outputs of all models on all frames (format: docs/traces.md)."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from camlink.models.base import Inference
from camlink.models.pool import ModelPool
from camlink.models.recorded import RecordedModel, Trace
from camlink.models.scores import RULES, has_agreement
from camlink.pipeline.embedded import Reading, ticks
from camlink.pipeline.errors import ModelError, TraceError
from camlink.pipeline.ingest.base import CAMERA_ID
from camlink.pipeline.ingest.names import camera_id_from
from camlink.pipeline.progress import Progress
from camlink.pipeline.quantities import counted
from camlink.pipeline.records import STATISTICS, Frame, FrameDropped
from camlink.pipeline.suggestions import suggest

FRAME_COLUMNS = ("camera_id", "frame_index", "captured_at", *STATISTICS)
OUTPUT_COLUMNS = ("camera_id", "frame_index", "model", "value", "detections")
BATCH = 8
MOST_IN_A_ROW = 50  # frames that a model may fail on before a recording ends

logger = logging.getLogger(__name__)


class TraceWriter:
    """A trace folder in the making. Raises `TraceError` if the folder already holds one or cannot be written."""

    def __init__(self, folder: Path, pool: ModelPool) -> None:
        if (folder / "trace.yaml").exists():
            raise TraceError(f"{folder} already holds a trace; choose another folder")
        self.frames = 0
        self.folder = folder
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
        """Add one frame and what models said of it; one that failed has no row."""
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
            raise TraceError(f"{self.folder}: a trace cannot be written here: {error.strerror}") from error

    def _table(self, path: Path, columns: Sequence[str]) -> Any:
        writer = csv.writer(self._open.enter_context(path.open("w", newline="", encoding="utf-8")))
        writer.writerow(columns)
        return writer


def check_replayable(trace: Trace, chosen: Sequence[RecordedModel], *, named_folders: bool) -> None:
    """Raise `TraceError` for a trace that a comparison may take, but no pipeline could serve with ``chosen`` models.

    ``named_folders``: folders are named after cameras and models, or records of them travel.
    """
    if boxed := [model.spec.model for model in chosen if model.spec.kind == "set"]:
        raise TraceError(
            f"{trace.path}: what {', '.join(boxed)} gives is boxes, which can be compared but not served; "
            "name the other models with --models"
        )
    for model in chosen:
        if not has_agreement(model.spec):
            wrong = f'model "{model.spec.model}" has the unknown task "{model.spec.task}"'
            raise TraceError(f"{trace.path}: {wrong}; {suggest(model.spec.task, RULES)}")
    cameras = sorted({frame.camera_id for frame in trace.frames})
    if named_folders:
        for what, names in (("camera", cameras), ("model", [model.spec.model for model in chosen])):
            for name in names:
                if not CAMERA_ID.fullmatch(name):
                    raise TraceError(
                        f'{trace.path}: {what} "{name}" names folders here, which takes 1 to 64 letters of English, '
                        f'digits, "_", "." or "-", such as "{camera_id_from(name)}"; rename it in the trace'
                    )
    said = any(model.knows(frame.camera_id, frame.index) for frame in trace.frames for model in chosen)
    if trace.frames and not said:
        raise TraceError(
            f"{trace.path}: no frame has an output of {', '.join(model.spec.model for model in chosen)}; camera_id and "
            f"frame_index of its two tables do not meet (cameras of frames: {', '.join(cameras[:5])})"
        )


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
) -> Counter[str]:
    """Run every model on every frame and write what they say. Dropped frames leave a gap in the index.

    Returns on how many frames each model failed, those that ever did. Raises `ModelError` once one has failed on
    `MOST_IN_A_ROW` frames; what was recorded until then, these included, is written.
    """
    attempts = _Attempts(pool)
    for group in ticks(readings, BATCH, one_per_camera=False):
        frames = [reading for reading in group if isinstance(reading, Frame)]
        values = {model: attempts.run(model, frames) for model in pool.specs}
        for i, frame in enumerate(frames):
            said = {model: inferences[i] for model, inferences in values.items()}
            trace.write(frame, {model: inference for model, inference in said.items() if inference is not None})
        progress.frames += sum(r.count if isinstance(r, FrameDropped) else isinstance(r, Frame) for r in group)
        progress.executions += len(frames) * len(values)
        on_tick()
        attempts.check(trace)
        if stop():
            break
    return attempts.failed


class _Attempts:
    """Runs models on frames, so that one which fails now and then ends no recording of hours."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool
        self.failed: Counter[str] = Counter()  # model -> frames
        self._in_a_row: Counter[str] = Counter()
        self._last: dict[str, ModelError] = {}

    def run(self, model: str, frames: Sequence[Frame]) -> list[Inference | None]:
        """Return what the model says of each frame, None where it fails: as a batch, and if that fails one by one."""
        if not frames:
            return []
        try:
            said: list[Inference | None] = [*self._pool.run(model, frames)]
        except ModelError as error:
            if len(frames) > 1:
                return [inference for frame in frames for inference in self.run(model, [frame])]
            if not self.failed[model]:  # once: it may fail now and then for days
                logger.warning('camera "%s", frame %d: %s', frames[0].camera_id, frames[0].index, error)
            self.failed[model] += 1
            self._in_a_row[model] += 1
            self._last[model] = error
            return [None]
        self._in_a_row[model] = 0
        return said

    def check(self, trace: TraceWriter) -> None:
        """Raise `ModelError` for a model that has failed too often in a row."""
        for model, frames in self._in_a_row.items():
            if frames >= MOST_IN_A_ROW:
                raise ModelError(
                    f"{self._last[model]}; so it was on {frames} frames in a row, which ends the recording. Mend the "
                    f"model, or leave {model} out (--models), and record into another folder; {trace.folder} keeps the "
                    f"{counted(trace.frames, 'frame')} so far"
                ) from self._last[model]


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
