"""Frame statistics, held to the definition in design.md."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from camlink.pipeline.ingest.framestats import FrameStatsMeter


def grey(level: int, shape: tuple[int, int] = (180, 320)) -> np.ndarray:
    return np.full((*shape, 3), level, dtype=np.uint8)


def test_the_first_frame_has_not_changed() -> None:
    assert FrameStatsMeter().measure(grey(90)).pixel_change == 0.0


def test_pixel_change_is_the_share_of_pixels_that_moved_by_more_than_twenty_levels() -> None:
    meter = FrameStatsMeter()
    meter.measure(grey(100))
    assert meter.measure(grey(120)).pixel_change == 0.0
    half = grey(120)
    half[:, :160] = 200
    assert meter.measure(half).pixel_change == pytest.approx(0.5, abs=0.02)  # the blur moves the border a little
    assert meter.measure(half).pixel_change == 0.0


def test_mean_luma_is_on_the_scale_of_pixels() -> None:
    assert FrameStatsMeter().measure(grey(200)).mean_luma == pytest.approx(200)


def test_edges_are_counted_where_there_are_some() -> None:
    picture = grey(0)
    cv2.rectangle(picture, (80, 40), (240, 140), (255, 255, 255), -1)
    density = FrameStatsMeter().measure(picture).edge_density
    perimeter = 2 * (80 + 50) / (160 * 90)
    assert density == pytest.approx(perimeter, rel=0.15)
    assert FrameStatsMeter().measure(grey(77)).edge_density == 0.0


def test_statistics_follow_the_written_definition_on_a_textured_picture() -> None:
    rng = np.random.default_rng(3)
    picture = np.asarray(cv2.blur(rng.integers(0, 256, (270, 480, 3), dtype=np.uint8), (7, 7)), dtype=np.uint8)
    small = cv2.GaussianBlur(
        cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), (160, 90), interpolation=cv2.INTER_AREA), (5, 5), 0
    )
    stats = FrameStatsMeter().measure(picture)
    assert stats.edge_density == (cv2.Canny(small, 50, 150) > 0).mean()
    assert stats.mean_luma == pytest.approx(small.mean())


def test_a_frame_of_another_resolution_can_be_compared() -> None:
    meter = FrameStatsMeter()
    meter.measure(grey(100))
    assert meter.measure(grey(100, (90, 160))).pixel_change == 0.0


def test_the_changed_area_is_that_of_the_largest_body_that_moved() -> None:
    meter = FrameStatsMeter()
    meter.measure(grey(100))
    bodies = grey(100)
    bodies[20:120, 20:120] = 220  # a body of 100 x 100 of 180 x 320 pixels
    bodies[140:160, 280:300] = 220  # and a small one
    stats = meter.measure(bodies)
    assert stats.changed_area == pytest.approx(106 * 106 / (180 * 320), rel=0.1)  # blurred, and widened
    assert stats.changed_area < stats.pixel_change * 1.1
    assert meter.measure(bodies).changed_area == 0.0


def test_scattered_changes_leave_the_changed_area_small() -> None:
    meter = FrameStatsMeter()
    meter.measure(grey(0))
    leaves = grey(0)
    for row in range(10, 180, 40):
        for column in range(10, 320, 40):
            leaves[row : row + 12, column : column + 12] = 255
    stats = meter.measure(leaves)
    assert stats.pixel_change > 0.05 and stats.changed_area < 0.01


def test_corners_are_counted_where_there_are_some() -> None:
    picture = grey(0)
    assert FrameStatsMeter().measure(picture).corner_density == 0.0
    picture[60:120, 100:220] = 255
    assert 0.0 < FrameStatsMeter().measure(picture).corner_density < 0.01
