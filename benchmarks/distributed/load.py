"""What the benchmark feeds: pictures of a wanted size in JPEG, and a recorded trace in place of models.

Models from a trace answer at once and look at no pixels, so what is measured is camlink, its bus and its store.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml

from camlink.pipeline.clock import EPOCH
from camlink.pipeline.records import Pixels

MODELS = {"objects": (2, 33.0), "persons": (1, 33.0), "bags": (1, 87.0)}  # size, ms
QUALITY = 90  # what the codec uses


def picture(jpeg_bytes: int, seed: int) -> Pixels:
    """Return read-only pixels whose JPEG is within 2 % of ``jpeg_bytes``: smooth patches under as much noise as needed.

    720p from 100 KB on, 360p below. Raises `ValueError` where no amount of noise gives that size.
    """
    height, width = (720, 1280) if jpeg_bytes >= 100_000 else (360, 640)
    rng = np.random.default_rng(seed)
    patches = cv2.resize(rng.uniform(40, 215, (9, 16, 3)).astype(np.float32), (width, height))
    noise = rng.normal(0, 1, (height, width, 3)).astype(np.float32)
    low, high = 0.0, 60.0
    for _ in range(20):
        strength = (low + high) / 2
        pixels = np.clip(patches + strength * noise, 0, 255).astype(np.uint8)
        size = len(jpeg_of(pixels))
        if abs(size - jpeg_bytes) <= 0.02 * jpeg_bytes:
            pixels.flags.writeable = False
            return pixels
        low, high = (strength, high) if size < jpeg_bytes else (low, strength)
    raise ValueError(f"no picture of {width}x{height} takes {jpeg_bytes} bytes as JPEG; the nearest took {size}")


def jpeg_of(pixels: Pixels) -> bytes:
    """Return the picture as the codec would send it."""
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def cameras(prefix: str, count: int) -> list[str]:
    """Return the names of one scenario's cameras."""
    return [f"{prefix}-{number:03}" for number in range(count)]


def write_trace(folder: Path, frames: dict[str, int], seed: int) -> None:
    """Write a trace for these cameras and numbers of frames: people come and go, and two models see them."""
    folder.mkdir(parents=True)
    described = {
        name: {"kind": "vector", "size": size, "task": "count", "time_ms": time_ms, "memory_gb": 1.0}
        for name, (size, time_ms) in MODELS.items()
    }
    (folder / "trace.yaml").write_text(yaml.safe_dump({"models": described}, sort_keys=False))
    with (folder / "frames.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["camera_id", "frame_index", "captured_at", "pixel_change", "edge_density", "mean_luma"])
        rows.writerows([camera, 0, EPOCH.isoformat(), 0.1, 0.2, 90] for camera in frames)
    with (folder / "outputs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["camera_id", "frame_index", "model", "value"])
        for place, (camera, count) in enumerate(frames.items()):
            rows.writerows(_answers(camera, count, np.random.default_rng([seed, place])))


def _answers(camera: str, count: int, rng: np.random.Generator) -> Iterator[Sequence[object]]:
    people = np.clip(np.round(3 + 2 * np.sin(np.arange(count) / 200) + rng.normal(0, 0.6, count)), 0, None).astype(int)
    odd = rng.poisson(0.2, count)
    for index in range(count):
        values = {"objects": [people[index], odd[index]], "persons": [people[index]], "bags": [people[index] // 2]}
        yield from ([camera, index, model, json.dumps(list(map(int, value)))] for model, value in values.items())
