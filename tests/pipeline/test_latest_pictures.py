"""The latest picture of a camera shows the boxes behind the answers, and none that did not count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from camlink.models.base import OutputSpec
from camlink.pipeline.records import Detections, FrameResult, ModelOutput, Picture
from camlink.pipeline.results.latest import LatestPictures, latest_picture, read_latest
from camlink.pipeline.testing import START

FALLS = OutputSpec("action", "vector", 2, "multi_label", ("normal", "fall"))
PERSONS = OutputSpec("persons", "vector", 1, "count", ("person",))


def shown(folder: Path, spec: OutputSpec, value: list[float], scores: list[float], classes: list[int]) -> list[float]:
    """Return the scores of the boxes that are drawn."""
    boxes = Detections(
        np.zeros((len(scores), 4), np.float32), np.array(scores, np.float32), np.array(classes, np.int32)
    )
    answer = np.array(value, np.float32)
    output = ModelOutput("hall", 7, START, spec.model, answer, "serve", "executed", detections=boxes)
    latest = LatestPictures(folder, {spec.model: spec})
    latest.on_picture(Picture("hall", 7, START, b"jpeg", "serve"))
    latest.on_result(FrameResult("hall", 7, START, "serve", (output,)))
    told = read_latest(folder, "hall")
    assert told is not None
    return [box["score"] for box in told["outputs"][spec.model]["boxes"]]


@pytest.mark.parametrize(
    ("value", "scores", "drawn"),
    [
        ([0.0, 0.135], [0.135], []),  # the answer is "none"
        ([0.9, 0.135], [0.9, 0.135, 0.4], [0.9]),
        ([0.9, 0.6], [0.9, 0.6, 0.7], [0.9, 0.7, 0.6]),
    ],
)
def test_of_labels_only_boxes_that_gave_one_are_drawn(
    tmp_path: Path, value: list[float], scores: list[float], drawn: list[float]
) -> None:
    classes = [0, 1, 0] if len(scores) > 1 else [1]
    assert shown(tmp_path, FALLS, value, scores, classes) == pytest.approx(drawn)


def test_of_a_count_only_the_boxes_that_were_counted_are_drawn(tmp_path: Path) -> None:
    assert shown(tmp_path, PERSONS, [2.0], [0.3, 0.8, 0.9, 0.1], [0] * 4) == pytest.approx([0.9, 0.8])


def test_a_camera_that_counts_from_0_again_shows_its_new_pictures(tmp_path: Path) -> None:
    """As where the store that held its index was lost: earlier pictures have higher numbers."""
    latest = LatestPictures(tmp_path, {})
    for index in (100_000, 100_001, 0, 1, 2):
        latest.on_picture(Picture("hall", index, START, b"jpeg", "serve"))
        latest.on_result(FrameResult("hall", index, START, "serve", ()))
        assert latest_picture(tmp_path, "hall", index).is_file()
    assert sorted(int(file.stem) for file in tmp_path.glob("latest/hall/*.jpg")) == [1, 2]
