"""The results log's tables: where each lies in a run folder, its columns, and how records become rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from camlink.pipeline.clock import EPOCH
from camlink.pipeline.records import AdaptationEvent, CalibratedOutput, CameraEvent, Decision, FrameDropped, ModelOutput

if TYPE_CHECKING:
    import pyarrow as pa

DAY_US = 86_400_000_000
MIXED = "mixed"
BY_DAY = ("outputs", "boxes")  # tables that lie by day and camera; the others are small

# column -> type, as pyarrow aliases; "texts" and "values" are lists. One definition for writing and for empty reads.
TABLES: dict[str, dict[str, str]] = {
    "outputs": {
        "camera_id": "string",
        "frame_index": "int64",
        "captured_at": "time",
        "model": "string",
        "value": "values",
        "purpose": "string",
        "how": "string",
        "served": "bool",
        "sources": "texts",
        "link_version": "int64",
        "confidence": "float32",
        "audit_probability": "float64",
        "reason": "string",
        "pixel_change": "float32",
        "known_after": "time",
    },
    "boxes": {
        "camera_id": "string",
        "frame_index": "int64",
        "captured_at": "time",
        "model": "string",
        "box": "int16",
        "label": "string",
        "score": "float32",
        "x1": "float32",
        "y1": "float32",
        "x2": "float32",
        "y2": "float32",
    },
    "decisions": {
        "camera_id": "string",
        "start": "time",
        "end": "time",
        "execute": "texts",
        "predict": "texts",
        "loaded": "texts",
        "activation": "string",
        "budget": "string",
        "link_scores": "string",
        "expected_agreement": "float64",
        "reason": "string",
        "target_states": "string",
        "certificates": "string",
        "trial": "string",
        "audit_share": "float64",
        "per_frame": "bool",
    },
    "drops": {
        "camera_id": "string",
        "first_index": "int64",
        "count": "int64",
        "captured_at": "time",
        "reason": "string",
    },
    "camera_events": {"camera_id": "string", "at": "time", "kind": "string", "detail": "string"},
    "adaptation": {
        "camera_id": "string",
        "at": "time",
        "kind": "string",
        "target": "string",
        "version": "int64",
        "detail": "string",
        "scores": "string",
    },
    "calibrated": {
        "camera_id": "string",
        "frame_index": "int64",
        "captured_at": "time",
        "name": "string",
        "value": "values",
        "sources": "texts",
        "confidence": "float32",
    },
}

# What makes two rows the same fact (design ruling 7): a repeat after a restart falls out on reading. The boxes of an
# output are one fact together: a frame that was executed twice may have been given others.
KEYS: dict[str, tuple[str, ...]] = {
    "outputs": ("camera_id", "frame_index", "model", "how"),
    "boxes": ("camera_id", "frame_index", "model"),
    "decisions": ("camera_id", "start", "end", "reason"),
    "drops": ("camera_id", "first_index", "reason"),
    "camera_events": ("camera_id", "at", "kind", "detail"),
    "adaptation": ("camera_id", "at", "kind", "target", "version", "detail"),
    "calibrated": ("camera_id", "frame_index", "name"),
}


def schema(table: str) -> pa.Schema:
    """Return the Arrow schema of ``table``."""
    import pyarrow as pa

    special = {"time": pa.timestamp("us", tz="UTC"), "texts": pa.list_(pa.string()), "values": pa.list_(pa.float32())}
    return pa.schema(
        [
            (name, special[alias] if alias in special else pa.type_for_alias(alias))
            for name, alias in TABLES[table].items()
        ]
    )


def folder_name(camera_id: str) -> str:
    """Return ``camera_id`` as one safe path component, whatever it holds (``../x``, slashes, nothing).

    >>> folder_name("hall 3"), folder_name("../etc")
    ('hall%203', '%2E%2E%2Fetc')
    """
    return quote(camera_id, safe="").replace(".", "%2E") or "%00"


def partition(table: Path, day: int, camera_id: str | None) -> Path:
    """Return the folder of one camera's rows on one day, given as days since 1970 in UTC.

    None: of parts that hold a moment's rows of many cameras, until they are merged camera by camera.
    """
    place = MIXED if camera_id is None else f"camera={folder_name(camera_id)}"
    return table / f"day={np.datetime64(day, 'D')}" / place


def microseconds(moment: datetime) -> int:
    """Return microseconds since 1970, exactly (a float would round)."""
    since = moment - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def outputs_table(times_us: Sequence[int], outputs: Sequence[ModelOutput], changes: Sequence[float | None]) -> pa.Table:
    """Return the rows of ``outputs`` as an Arrow table, column by column for speed.

    ``changes``: the share of pixels that changed since the frame before, where it was measured.
    """
    import pyarrow as pa

    columns = {
        "camera_id": [o.camera_id for o in outputs],
        "frame_index": [o.frame_index for o in outputs],
        "captured_at": np.asarray(times_us, dtype="datetime64[us]"),
        "model": [o.model for o in outputs],
        "value": _value_lists(outputs),
        "purpose": [o.purpose for o in outputs],
        "how": [o.how for o in outputs],
        "served": [o.served for o in outputs],
        "sources": [o.sources for o in outputs],
        "link_version": [o.link_version for o in outputs],
        "confidence": [o.confidence for o in outputs],
        "audit_probability": [o.audit_probability for o in outputs],
        "reason": [o.reason for o in outputs],
        "pixel_change": changes,
        "known_after": [o.known_after for o in outputs],
    }
    types = schema("outputs")
    arrays = [_array(columns[field.name], field.type) for field in types]
    return pa.Table.from_arrays(arrays, schema=types)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if isinstance(values, pa.Array):
        return values
    if isinstance(values, np.ndarray):
        return pa.array(values).cast(kind)
    return pa.array(values, type=kind)


def _value_lists(outputs: Sequence[ModelOutput]) -> pa.Array:
    """Join the values into one list column; an abstained output's value is null."""
    import pyarrow as pa

    values = [o.value for o in outputs]
    lengths = np.fromiter((0 if v is None else v.size for v in values), dtype=np.int32, count=len(values))
    offsets = np.concatenate((np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)))
    present = [v for v in values if v is not None]
    flat = np.concatenate(present).astype(np.float32, copy=False) if present else np.zeros(0, np.float32)
    absent = pa.array([v is None for v in values])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), mask=absent)


Row = dict[str, Any]


def _decision_row(d: Decision) -> Row:
    return {
        "camera_id": d.camera_id,
        "start": d.start,
        "end": d.end,
        "execute": list(d.execute),
        "predict": list(d.predict),
        "loaded": list(d.loaded),
        "activation": _json(d.activation),
        "budget": _json(d.budget),
        "link_scores": _json({source: dict(targets) for source, targets in d.link_scores.items()}),
        "expected_agreement": None if d.expected_agreement is None else float(d.expected_agreement),
        "reason": d.reason,
        "target_states": _json(d.target_states),
        "certificates": _json({model: dict(figures) for model, figures in d.certificates.items()}),
        "trial": _json({model: list(sources) for model, sources in d.trial.items()}),
        "audit_share": d.audit_share,
        "per_frame": d.per_frame,
    }


def _drop_row(d: FrameDropped) -> Row:
    return {name: getattr(d, name) for name in TABLES["drops"]}


def _camera_event_row(e: CameraEvent) -> Row:
    return {name: getattr(e, name) for name in TABLES["camera_events"]}


def _adaptation_row(e: AdaptationEvent) -> Row:
    return {name: getattr(e, name) for name in TABLES["adaptation"]} | {"scores": _json(e.scores)}


def _calibrated_row(c: CalibratedOutput) -> Row:
    return {name: getattr(c, name) for name in TABLES["calibrated"]} | {"value": c.value.tolist()}


def _json(mapping: Any) -> str:
    return json.dumps(dict(mapping), sort_keys=True, default=float)


# Records of small tables, row by row; FrameResult comes often and has its own way above.
SELDOM: dict[type, tuple[str, Callable[[Any], Row]]] = {
    Decision: ("decisions", _decision_row),
    FrameDropped: ("drops", _drop_row),
    CameraEvent: ("camera_events", _camera_event_row),
    AdaptationEvent: ("adaptation", _adaptation_row),
    CalibratedOutput: ("calibrated", _calibrated_row),
}
