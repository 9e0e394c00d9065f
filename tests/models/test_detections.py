"""Boxes are decoded, suppressed and counted as ultralytics does it; pictures are scaled as it scales them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camlink.models.detections import (
    as_detections,
    class_ids,
    counts,
    decode_end_to_end,
    decode_yolo,
    highest_scores,
)
from camlink.models.images import letterbox, picture_of, stretch_rgb, to_planes
from camlink.models.ultralytics import library
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.errors import ModelError
from camlink.pipeline.records import Frame


def raw_head(*anchors: tuple[float, ...]) -> np.ndarray:
    """Anchors as ``(cx, cy, w, h, score of class 0, of class 1)``: ``(6, anchors)``."""
    return np.array(anchors, np.float32).T


def test_overlapping_boxes_suppress_only_their_own_class() -> None:
    head = raw_head(
        (50, 50, 20, 20, 0.9, 0.0),
        (51, 50, 20, 20, 0.8, 0.0),
        (50, 50, 20, 20, 0.0, 0.7),
        (90, 90, 20, 20, 0.05, 0.05),
    )
    xyxy, scores, classes = decode_yolo(head, 2, (0, 1))
    np.testing.assert_allclose(scores, [0.9, 0.7])
    assert classes.tolist() == [0, 1]
    np.testing.assert_allclose(xyxy[0], [40, 40, 60, 60])


def test_only_wanted_classes_are_kept() -> None:
    head = raw_head((50, 50, 20, 20, 0.9, 0.0), (50, 50, 20, 20, 0.0, 0.7))
    assert decode_yolo(head, 2, (1,))[2].tolist() == [1]


def test_a_picture_without_boxes_gives_zeros() -> None:
    xyxy, scores, classes = decode_yolo(raw_head((1, 1, 1, 1, 0, 0)), 2, (0, 1))
    found = as_detections(xyxy, scores, classes)
    assert found.xyxy.shape == (0, 4)
    assert counts(found, 2, 0.25).tolist() == [0, 0]
    assert highest_scores(found, 2).tolist() == [0, 0]


def test_heads_that_suppress_themselves_are_read_row_by_row() -> None:
    rows = np.array([[1, 2, 3, 4, 0.9, 1], [1, 2, 3, 4, 0.2, 0], [0, 0, 0, 0, 0, 0]], np.float32)
    xyxy, scores, classes = decode_end_to_end(rows, (0, 1))
    assert classes.tolist() == [1, 0]
    np.testing.assert_allclose(xyxy[0], [1, 2, 3, 4])
    np.testing.assert_allclose(scores, [0.9, 0.2])


def test_weak_boxes_are_kept_but_not_counted() -> None:
    boxes = np.tile(np.float32([0, 0, 1, 1]), (3, 1))
    found = as_detections(boxes, np.float32([0.9, 0.15, 0.3]), np.int32([1, 1, 0]))
    assert counts(found, 2, 0.25).tolist() == [1, 1]
    np.testing.assert_allclose(highest_scores(found, 2), [0.3, 0.9])


def test_unknown_classes_are_named_with_the_nearest() -> None:
    with pytest.raises(ModelError, match='no class "persons"; did you mean "person"'):
        class_ids("m", ["persons"], {0: "person", 1: "car"})
    assert class_ids("m", ["car", 0], {0: "person", 1: "car"}) == (1, 0)


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([64, 96, 640]))
def test_boxes_come_back_to_where_they_were(height: int, width: int, size: int) -> None:
    boxed = letterbox(np.zeros((height, width, 3), np.uint8), size)
    assert boxed.pixels.shape[0] % 32 == 0
    assert boxed.pixels.shape[1] % 32 == 0
    (scaled_h, scaled_w), (top, left) = boxed.scaled, boxed.offset
    corners = np.float32([[left, top, left + scaled_w, top + scaled_h]])
    np.testing.assert_allclose(boxed.to_unit(corners), [[0, 0, 1, 1]])


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(576, 768), (432, 768), (360, 640), (101, 333), (720, 405), (640, 640)])
@pytest.mark.parametrize("square", [False, True])
def test_letterbox_is_that_of_ultralytics(shape: tuple[int, int], square: bool) -> None:
    library()  # sets its switches before the import below
    from ultralytics.data.augment import LetterBox

    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    theirs = LetterBox((640, 640), auto=not square, stride=32)(image=pixels)
    np.testing.assert_array_equal(letterbox(pixels, 640, filled=square).pixels, theirs)


def test_planes_are_rgb_in_unit_range() -> None:
    planes = to_planes(np.full((2, 2, 3), (255, 0, 51), np.uint8))
    assert planes.shape == (1, 3, 2, 2)
    np.testing.assert_allclose(planes[0, :, 0, 0], [0.2, 0.0, 1.0])
    assert stretch_rgb(np.full((2, 2, 3), (255, 0, 51), np.uint8), 4, 6)[0, 0].tolist() == [51, 0, 255]


def test_a_frame_without_pixels_is_refused_with_advice() -> None:
    with pytest.raises(ModelError, match="can only be given to recorded models"):
        picture_of(Frame("a", 3, EPOCH, np.zeros((0, 0, 3), np.uint8)), "objects")
