"""Writes a trace folder from arrays: for traces that come from a table or a simulation instead of from models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from camlink.models.trace_arrays import CameraTrace
from camlink.models.trace_files import RecordedEntry
from camlink.pipeline.errors import TraceError


def write_arrays(
    folder: Path,
    models: Mapping[str, RecordedEntry],
    cameras: Sequence[CameraTrace],
    *,
    note: str | None = None,
    synthetic: bool = False,
) -> Path:
    """Write ``cameras`` as a trace folder of Parquet tables, and return it. ``note`` goes to the top of trace.yaml.

    With the boxes behind counts, where the cameras have them. ``synthetic``: it is labelled as one that no camera has
    seen. Raises `TraceError` for models that give boxes.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    if boxed := [m for m, entry in models.items() if entry.spec.kind == "set"]:
        raise TraceError(f"{folder}: {', '.join(boxed)}: boxes are written by `camlink record` only")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trace.yaml").write_text(_description(models, note, synthetic), encoding="utf-8")
    stats = [s for s in cameras[0].stats if all(s in c.stats for c in cameras)] if cameras else []
    text, whole, time = pyarrow.string(), pyarrow.int64(), pyarrow.timestamp("us", "UTC")
    frame_schema = pyarrow.schema(
        [("camera_id", text), ("frame_index", whole), ("captured_at", time), *((s, pyarrow.float32()) for s in stats)]
    )
    numbers = pyarrow.list_(pyarrow.float32())
    boxes = pyarrow.list_(numbers)
    output_schema = pyarrow.schema(
        [("camera_id", text), ("frame_index", whole), ("model", text), ("value", numbers), ("detections", boxes)]
    )
    with (
        parquet.ParquetWriter(folder / "frames.parquet", frame_schema) as frames,
        parquet.ParquetWriter(folder / "outputs.parquet", output_schema) as outputs,
    ):
        for camera in cameras:
            name = pyarrow.array([camera.camera_id] * len(camera))
            moments = pyarrow.array(np.round(camera.time_s * 1e6).astype(np.int64)).cast(time)
            columns = [name, camera.index, moments, *(camera.stats[s] for s in stats)]
            frames.write_table(pyarrow.table(columns, frame_schema))
            for model, values in camera.values.items():
                flat = pyarrow.array(values.reshape(-1).astype(np.float32))
                starts = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
                lists = pyarrow.ListArray.from_arrays(starts, flat)
                said = pyarrow.array([model] * len(camera))
                found = camera.detections.get(model)
                drawn = pyarrow.array([None] * len(camera) if found is None else found.lists(), boxes)
                outputs.write_table(pyarrow.table([name, camera.index, said, lists, drawn], output_schema))
    return folder


def _description(models: Mapping[str, RecordedEntry], note: str | None, synthetic: bool) -> str:
    import yaml

    described = {}
    for name, entry in models.items():
        spec = entry.spec
        described[name] = {
            "kind": spec.kind,
            "size": spec.size,
            "task": spec.task,
            **({"labels": list(spec.labels)} if spec.labels else {}),
            **({"max_steps": spec.max_steps} if spec.kind == "sequence" else {}),
            "scale": spec.scale,
            "time_ms": entry.time_ms,
            "memory_gb": entry.memory_gb,
        }
    head = "".join(f"# {line}\n" for line in (note or "").splitlines())
    label = {"synthetic": True} if synthetic else {}
    return head + yaml.safe_dump({**label, "models": described}, sort_keys=False)
