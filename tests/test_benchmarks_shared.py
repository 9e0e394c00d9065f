"""Cameras of a machine that has no time for all of them: put together from traces, and what sharing by gain brings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import mean

import numpy as np
import pytest

from benchmarks.shared import ALIKE, agreements, overtaken, shared, together
from camlink.operators.shares import LEAST

MODELS = """\
models:
  persons: {kind: vector, size: 1, task: count, labels: [person], time_ms: 30.0, memory_gb: 1.0}
  bags: {kind: vector, size: 1, task: count, labels: [bag], time_ms: 10.0, memory_gb: 1.0}
"""


def trace(folder: Path, camera: str, changes: float, count: int = 600) -> str:
    """Write the trace of a camera on whose frames people come and go with that probability; return its path."""
    random, people, frames, said = np.random.default_rng(5), 0, [], []
    for index in range(count):
        people = int(random.integers(0, 6)) if random.random() < changes else people
        moved = round(float(random.uniform(0.01, 0.02)), 4)  # pixels do not tell
        at = f"2026-01-05T08:{index // 60:02}:{index % 60:02}+00:00"
        frames.append(f"{camera},{index},{at},{moved},{0.001 * index},100.0")
        said += [f"{camera},{index},persons,[{people}]", f"{camera},{index},bags,[{people // 2}]"]
    path = folder / camera
    path.mkdir()
    (path / "trace.yaml").write_text(MODELS)
    head = "camera_id,frame_index,captured_at,pixel_change,edge_density,mean_luma"
    (path / "frames.csv").write_text("\n".join([head, *frames]) + "\n")
    (path / "outputs.csv").write_text("\n".join(["camera_id,frame_index,model,value", *said]) + "\n")
    return str(path)


def test_shorter_traces_go_back_and_forth_at_their_own_rates(tmp_path: Path) -> None:
    joined = together([trace(tmp_path, "hall", 0.5, 4), trace(tmp_path, "yard", 0.5, 9) + "@2"], 1.0, 18)
    assert Counter(frame.camera_id for frame in joined.frames) == {"0-hall-hall": 9, "1-yard-yard": 18}
    assert all(model.knows(frame.camera_id, frame.index) for frame in joined.frames for model in joined.models)
    hall = [frame for frame in joined.frames if frame.camera_id == "0-hall-hall"]
    alone = together([str(tmp_path / "hall")], 1.0, 4).frames
    edges = [frame.stats.edge_density for frame in alone if frame.stats]
    assert [round(1000 * edge) for edge in edges] == [0, 1, 2, 3]
    model = joined.model("persons")
    said = [float(model.answer("0-hall-hall", frame.index).value[0]) for frame in hall]
    assert said[:4] == said[6:2:-1] and said[6:] == said[:3]
    moved = [frame.stats.pixel_change for frame in hall if frame.stats]
    assert moved[1:4] == moved[6:3:-1], "as much as the same frames differ the other way round"


def test_a_busy_camera_gains_more_than_a_quiet_one_loses(tmp_path: Path) -> None:
    both = together([trace(tmp_path, "busy", 0.3), trace(tmp_path, "quiet", 0.002)], 5.0, 1200)
    runs = {least: shared(both, 3.0, least) for least in (ALIKE, LEAST)}
    alike, by_gain = (agreements(both, records) for records in runs.values())
    busy, quiet = sorted(alike)
    assert by_gain[busy] > alike[busy] + 5.0 and by_gain[quiet] > alike[quiet] - 1.0
    assert mean(by_gain.values()) > mean(alike.values()) + 2.5
    assert overtaken(both, runs[LEAST]) == pytest.approx(overtaken(both, runs[ALIKE]), abs=5.0)
