"""Turns the 45-day road counts into a trace: 22 cameras, a frame every five minutes, real detector output.

    python -m benchmarks.lab.road_counts counts_22cams_45days.csv.gz TRACE [--cameras 6]

One detector counted five classes. They become three models, as one would deploy them: ``cars`` (car), ``two_wheelers``
(motorcycle, bicycle) and ``heavy`` (bus, truck). All three are set to 30 ms and 0.5 GB: only shares of cost mean
anything here. The table has no frame statistics, and its times are Singapore's.
"""

from __future__ import annotations

from datetime import timedelta, timezone
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from camlink.models.base import OutputSpec
from camlink.models.trace_arrays import CameraTrace
from camlink.models.trace_files import RecordedEntry
from camlink.models.trace_writing import write_arrays

CLASSES = {"cars": ("car",), "two_wheelers": ("motorcycle", "bicycle"), "heavy": ("bus", "truck")}
SINGAPORE = timezone(timedelta(hours=8))


def cameras_of(table: Path) -> list[CameraTrace]:
    """Read the count table into one camera trace each, in order of time; a time that stands twice is taken once."""
    from pyarrow import csv

    rows = csv.read_csv(table).sort_by([("camera_id", "ascending"), ("timestamp", "ascending")])
    ids = np.asarray(rows["camera_id"]).astype(str)
    offset = SINGAPORE.utcoffset(None).total_seconds()
    times = np.asarray(rows["timestamp"]).astype("datetime64[s]").astype(np.int64) - offset
    specs = {m: OutputSpec(m, "vector", len(labels), "count", labels) for m, labels in CLASSES.items()}
    cameras = []
    for camera_id in sorted(set(ids)):
        at = np.flatnonzero(ids == camera_id)
        at = at[np.diff(times[at], prepend=-np.inf) > 0]
        values = {
            m: np.stack([np.asarray(rows[label])[at] for label in labels], axis=1).astype(np.float32)
            for m, labels in CLASSES.items()
        }
        cameras.append(CameraTrace(f"road-{camera_id}", specs, np.arange(len(at)), times[at].astype(float), {}, values))
    return cameras


def main(
    table: Path,
    out: Path,
    most: Annotated[int | None, typer.Option("--cameras", help="Only the first so many.")] = None,
) -> None:
    cameras = cameras_of(table)[:most]
    models = {m: RecordedEntry(spec, 30.0, 0.5) for m, spec in cameras[0].specs.items()}
    write_arrays(
        out, models, cameras, note="Counts by a detector on 22 Singapore road cameras (LTA open data), 45 days."
    )
    print(f"{out}: {len(cameras)} cameras, {sum(map(len, cameras)):,} frames")


if __name__ == "__main__":
    typer.run(main)
