"""What pages show of one run, kept up to date from the parts that are new in its folder.

One thread calls `refresh`; pages read under ``lock``. Memory is bounded per camera and model, whatever the run's
length, but for the scores of audit frames, of which there are few.

Of hundreds of cameras, the new rows are worked into the figures in turn: all that comes is read at once and says which
cameras live, but what a camera's figures take costs nearly the same for one flush as for six. Who looks at one camera
gets it as it stands.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from camlink.models.base import OutputSpec
from camlink.operators.evidence import Evidence
from camlink.pipeline.dashboard.audits import AuditFrames, AuditLedger, Heard, extended, of_all_models
from camlink.pipeline.dashboard.batch import Piece, Unsorted, pieces, read_rows
from camlink.pipeline.dashboard.buckets import Buckets
from camlink.pipeline.dashboard.parts import NewParts
from camlink.pipeline.dashboard.seen_frames import SeenFrames
from camlink.pipeline.errors import ResultsError
from camlink.pipeline.results.tables import KEYS, microseconds, schema
from camlink.pipeline.run_info import FILE_NAME, RunInfo

HOWS = ("executed", "linked", "reused", "abstained")
LABELS = 8  # of a model are drawn, its first ones
LISTED = 400  # events, drops and decisions kept per camera
# Tables whose rows are shown one by one, and the list of a `CameraState` that holds them; others are for reports.
LIST_OF = {"decisions": "decisions", "drops": "drops", "camera_events": "events", "adaptation": "adaptation"}
KEYS_KEPT = 10_000  # rows per table of which repeats are known; repeats come soon, after a restart
PARTS_AT_ONCE = 500
QUIET = 8  # refreshes without news after which nothing more is waited for
AT_ONCE = 32  # cameras at least that a refresh works in, if they have new rows
TURNS, IDLE_TURNS = 6, 30  # refreshes that bring news until each camera had its turn: while somebody looks, and else
SECOND_US = 1_000_000
# Span shown -> width of its buckets; those of "all" grow.
SPANS = {"1m": SECOND_US // 6, "1h": 10 * SECOND_US, "24h": 240 * SECOND_US}

# Columns of the buckets: frames by how, sums of their values, frames served under a decision (audits left out) and
# those of them that executed, then frames per label, executed and predicted.
N_EXECUTED, N_PREDICTED, N_ABSTAINED, SUM_EXECUTED, SUM_PREDICTED, N_DECIDED, N_CHOSEN, FIRST_LABEL = range(8)


@dataclass
class ModelState:
    """What is known of one model on one camera."""

    spec: OutputSpec
    audit: AuditLedger
    series: dict[str, Buckets]
    served: Counter[str] = field(default_factory=Counter)  # by how
    executions: int = 0  # for whatever purpose, with or without an answer
    failed: int = 0  # of these, those without
    frames_served: int = 0  # under a decision, audits left out: the frames that a time budget is for
    executed_when_served: int = 0  # on those
    overtaken: int = 0  # frames answered without a model as the next one was there already
    relabelled: int = 0  # executions on frames that had been served without
    seen: dict[str, SeenFrames] = field(default_factory=dict)
    link_version: int | None = None
    confidence_sum: float = 0.0
    confidences: int = 0

    @classmethod
    def of(cls, spec: OutputSpec) -> ModelState:
        columns = FIRST_LABEL + 2 * shown_labels(spec)
        series = {span: Buckets(columns, width) for span, width in SPANS.items()}
        series["all"] = Buckets(columns, SECOND_US // 10, grows=True)
        return cls(spec, AuditLedger(spec), series)

    def add(self, piece: Piece) -> Heard | None:
        """Take new rows, leaving out repeats; return what they say (see `AuditLedger.add`)."""
        piece = piece.kept(self._fresh(piece))
        rows = piece.rows
        for how in HOWS:
            self.served[how] += rows.served_count(how)
        self.executions += rows.executions_made
        self.failed += rows.executions_failed
        budgeted = rows.served & (rows.purpose == "serve")
        self.frames_served += int(budgeted.sum())
        self.overtaken += int((rows.served & (rows.purpose == "overtaken")).sum())
        self.executed_when_served += int((rows.tried & (rows.purpose == "serve")).sum())
        self.relabelled += int(((rows.purpose == "relabel") & rows.tried).sum())
        sums, values = bucket_rows(rows)
        drawn = rows.served | (rows.how == "executed")
        for buckets in self.series.values():
            buckets.add(rows.times_us[drawn], sums[drawn], np.where(rows.served, values, np.nan)[drawn])
        predicted = rows.served & np.isin(rows.how, ("linked", "reused"))
        if predicted.any():
            newest = int(piece.link_version[predicted].max())
            self.link_version = newest if newest >= 0 else self.link_version  # a policy on every frame links without
            known = predicted & ~np.isnan(piece.confidence)
            self.confidence_sum += float(piece.confidence[known].sum())
            self.confidences += int(known.sum())
        return self.audit.add(rows)

    def _fresh(self, piece: Piece) -> np.ndarray:
        fresh = np.zeros(len(piece.rows.how), np.bool_)
        for how in np.unique(piece.rows.how):
            mask = piece.rows.how == how
            fresh[mask] = self.seen.setdefault(str(how), SeenFrames()).new(piece.rows.frame_index[mask])
        return fresh


@dataclass
class CalibratedState:
    """What the oracle node says of one camera: sums over its frames."""

    name: str
    frames: int = 0
    count_sum: float = 0.0  # all counted things together
    confidence_sum: float = 0.0
    seen: SeenFrames = field(default_factory=SeenFrames)

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Take new rows, leaving out repeats."""
        fresh = self.seen.new(np.array([row["frame_index"] for row in rows], np.int64))
        for row in (row for row, new in zip(rows, fresh, strict=True) if new):
            self.frames += 1
            self.count_sum += float(sum(row["value"]))
            self.confidence_sum += float(row["confidence"])


@dataclass
class CameraState:
    """What is known of one camera."""

    camera_id: str
    models: dict[str, ModelState]
    first_us: int | None = None
    last_us: int | None = None
    decisions: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=LISTED))
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=LISTED))
    adaptation: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=LISTED))
    drops: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=LISTED))
    dropped: Counter[str] = field(default_factory=Counter)  # frames by reason
    seen_drops: dict[str, SeenFrames] = field(default_factory=dict)  # by reason: their first frames
    calibrated: dict[str, CalibratedState] = field(default_factory=dict)  # by name, where a person gave labels
    evidence: Evidence = field(default_factory=Evidence)  # on all outputs
    audited: AuditFrames = field(default_factory=AuditFrames)
    version: int = 0  # rises with every change
    new: list[Unsorted] = field(default_factory=list)  # rows that are not in the figures yet

    def frames(self) -> int:
        """Return how many frames have their outputs: every model gives one a frame."""
        known = max((model.served.total() for model in self.models.values()), default=0)
        return known + sum(rows.frames for rows in self.new)

    @property
    def overtaken(self) -> int:
        """On how many frames nothing ran, as the next one was there already."""
        return max((model.overtaken for model in self.models.values()), default=0)

    def meet(self, rows: Unsorted) -> None:
        """Take note of new rows, to be worked in later."""
        self.new.append(rows)
        self.first_us = rows.first_us if self.first_us is None else min(rows.first_us, self.first_us)
        self.last_us = rows.last_us if self.last_us is None else max(rows.last_us, self.last_us)

    def work_in(self, specs: Mapping[str, OutputSpec]) -> None:
        """Bring all figures up to date."""
        if not self.new:
            return
        told = [self.models[piece.rows.spec.model].add(piece) for piece in pieces(self.camera_id, self.new, specs)]
        heard = [one for one in told if one is not None]
        if heard:
            self.evidence = extended(self.evidence, of_all_models([one.answers for one in heard]))
            self.audited.add([one.scores for one in heard if one.scores is not None])
        self.new.clear()
        self.version += 1


class RunRollups:
    """One run folder. ``version`` rises when anything changed, so that what was made of it may be kept until then."""

    def __init__(self, run_dir: Path, days: int = 7) -> None:
        """Raises `ResultsError` when the folder holds no run."""
        self.run_dir = Path(run_dir)
        self.lock = threading.RLock()
        self.info = RunInfo.load(self.run_dir)
        self.cameras: dict[str, CameraState] = {}
        self.version = 0
        self._specs = self.info.specs()
        self._parts = NewParts(self.run_dir, days)
        self._keys: dict[str, dict[tuple[Any, ...], None]] = {table: {} for table in LIST_OF}  # oldest first
        self._header_at = 0
        self._quiet = 0  # refreshes since the last that brought outputs
        self._meet([*self.info.cameras, *self.info.captured])

    @property
    def since(self) -> date | None:
        """The first day that figures are of, where the run has earlier ones; None where they are of all."""
        return self._parts.since

    def refresh(self, *, watched: bool = True) -> bool:
        """Read what is new; return whether anything was. Raises `ResultsError` if a file cannot be read.

        ``watched``: somebody looks at the run, so figures are to be fresh.
        """
        changed = self._read_header()
        new = self._parts.take()
        outputs = new.pop("outputs", [])
        for start in range(0, len(outputs), PARTS_AT_ONCE):
            with self._unless_merged(outputs[start:]):
                self._take(outputs[start : start + PARTS_AT_ONCE], catch_up=len(outputs) > PARTS_AT_ONCE)
        for table, files in new.items():
            if table not in (*LIST_OF, "calibrated"):
                continue
            with self._unless_merged(files):
                rows = _read_rows(table, files)
                with self.lock:
                    self._calibrate(rows) if table == "calibrated" else self._list(table, rows)
        self._quiet = 0 if outputs else self._quiet + 1
        if outputs or self._quiet == QUIET:
            self._work_in(watched)
        changed = changed or bool(outputs or new) or self._quiet == QUIET
        self.version += changed
        return changed

    def up_to_date(self, camera_id: str) -> CameraState | None:
        """Return a camera with all its rows worked in; None: there is none of this name. The lock is held."""
        camera = self.cameras.get(camera_id)
        if camera is not None:
            camera.work_in(self._specs)
        return camera

    def catch_up(self) -> None:
        """Work in what has come while nobody looked."""
        for camera in list(self.cameras.values()):
            with self.lock:  # for a moment only: pages wait for it
                camera.work_in(self._specs)

    def _take(self, files: list[str], *, catch_up: bool) -> None:
        rows = read_rows(files, len(self._specs))
        with self.lock:
            self._meet(rows)
            for camera_id, own in rows.items():
                self.cameras[camera_id].meet(own)
        if catch_up or not self.version:  # much at once, as when a run is opened
            self.catch_up()

    def _work_in(self, watched: bool) -> None:
        """Let those cameras have their turn whose rows have waited longest; all, where nothing comes any more."""
        waiting = sorted((camera for camera in self.cameras.values() if camera.new), key=lambda c: -len(c.new))
        turns = 1 if self._quiet or self.info.finished_at else TURNS if watched else IDLE_TURNS
        for camera in waiting[: max(AT_ONCE, -(-len(self.cameras) // turns))]:
            with self.lock:
                camera.work_in(self._specs)

    @contextmanager
    def _unless_merged(self, files: list[str]) -> Iterator[None]:
        """Let pass that files cannot be read which were merged into others meanwhile: their rows come with those."""
        try:
            yield
        except ResultsError:
            if all(map(os.path.exists, files)):
                raise
            self._parts.forget(files)

    def _read_header(self) -> bool:
        try:
            written = (self.run_dir / FILE_NAME).stat().st_mtime_ns
        except OSError as error:
            raise ResultsError(f"{self.run_dir}: its {FILE_NAME} is gone: {error.strerror}") from error
        if written == self._header_at:
            return False
        info = RunInfo.load(self.run_dir)
        with self.lock:
            self.info, self._header_at, self._specs = info, written, info.specs()
            self._meet([*info.cameras, *info.captured])
        return True

    def _meet(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.cameras:
                self.cameras[name] = CameraState(name, {m: ModelState.of(spec) for m, spec in self._specs.items()})

    def _calibrate(self, rows: list[dict[str, Any]]) -> None:
        together: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in rows:
            together.setdefault((row["camera_id"], row["name"]), []).append(row)
        self._meet(camera_id for camera_id, _ in together)
        for (camera_id, name), own in together.items():
            camera = self.cameras[camera_id]
            camera.version += 1
            camera.calibrated.setdefault(name, CalibratedState(name)).add(own)

    def _list(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        self._meet(row["camera_id"] for row in rows)
        fresh = self._new_drops(rows) if table == "drops" else [self._is_new(table, row) for row in rows]
        for row in compress(rows, fresh):
            camera = self.cameras[row["camera_id"]]
            camera.version += 1
            getattr(camera, LIST_OF[table]).append(row)
            if table == "drops":
                camera.dropped[row["reason"]] += row["count"]

    def _new_drops(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return which rows (n,) come for the first time. There may be many: an overload drops frames one by one."""
        together: dict[tuple[str, str], list[int]] = {}
        for place, row in enumerate(rows):
            together.setdefault((row["camera_id"], row["reason"]), []).append(place)
        fresh = np.zeros(len(rows), np.bool_)
        for (camera_id, reason), places in together.items():
            seen = self.cameras[camera_id].seen_drops.setdefault(reason, SeenFrames())
            fresh[places] = seen.new(np.array([rows[place]["first_index"] for place in places], np.int64))
        return fresh

    def _is_new(self, table: str, row: Mapping[str, Any]) -> bool:
        key, known = tuple(str(row[name]) for name in KEYS[table]), self._keys[table]
        if key in known:
            return False
        known[key] = None
        if len(known) > KEYS_KEPT:
            del known[next(iter(known))]
        return True


def bucket_rows(rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the buckets' columns (n, columns) of each row, and the one number (n,) that a chart draws of it."""
    spec: OutputSpec = rows.spec
    labels = shown_labels(spec)
    sums = np.zeros((len(rows.how), FIRST_LABEL + 2 * labels))
    value = plain_value(spec, rows.values)
    masks = {
        N_EXECUTED: rows.served & (rows.how == "executed"),
        N_PREDICTED: rows.served & np.isin(rows.how, ("linked", "reused")),
        N_ABSTAINED: rows.served & (rows.how == "abstained"),
        N_DECIDED: (decided := rows.served & (rows.purpose == "serve")),
        N_CHOSEN: decided & (rows.how == "executed"),
    }
    for column, mask in masks.items():
        sums[mask, column] = 1.0
    for column, by in ((SUM_EXECUTED, N_EXECUTED), (SUM_PREDICTED, N_PREDICTED)):
        sums[:, column] = np.where(masks[by], np.nan_to_num(value), 0.0)
    if labels:
        given = given_labels(spec, rows.values)[:, :labels]
        sums[:, FIRST_LABEL : FIRST_LABEL + labels] = given & masks[N_EXECUTED][:, None]
        sums[:, FIRST_LABEL + labels :] = given & masks[N_PREDICTED][:, None]
    return sums, value


def shown_labels(spec: OutputSpec) -> int:
    """Return how many labels a chart draws; none for numbers."""
    return min(spec.size, LABELS) if spec.task in ("single_label", "multi_label") else 0


def plain_value(spec: OutputSpec, values: np.ndarray) -> np.ndarray:
    """Return one number a row: a count over all labels, else the first entry; NaN where an output abstained."""
    return np.asarray(values.sum(axis=1) if spec.task == "count" else values[:, 0], np.float64)


def given_labels(spec: OutputSpec, values: np.ndarray) -> np.ndarray:
    """Return which labels (n, size) an output gives."""
    known = np.nan_to_num(values, nan=-1.0)
    if spec.task == "single_label":
        top = np.arange(spec.size) == known.argmax(axis=1)[:, None]
        return np.asarray(top & (known.max(axis=1) >= 0.0)[:, None])
    return np.asarray(known >= 0.5)


def _read_rows(table: str, files: list[str]) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.dataset as ds

    try:
        rows = ds.dataset(files, format="parquet", schema=schema(table)).to_table().to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ResultsError(f"{files[0]} and {len(files) - 1} other parts cannot be read: {error}") from error
    for row in rows:
        for name in ("activation", "budget", "link_scores", "scores", "target_states"):
            if row.get(name):  # runs of earlier versions lack some
                row[name] = json.loads(row[name])
    return sorted(rows, key=_moment_of)


def _moment_of(row: Mapping[str, Any]) -> tuple[int, bool]:
    """Order rows as they happened; links are trained before they are judged."""
    at = row.get("at") or row.get("start") or row["captured_at"]
    return microseconds(at), row.get("kind") != "trained"
