"""Average precision of boxes and of labels, against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from camlink.models.average_precision import binned_average_precision, boxes_agreement, places_of
from camlink.models.base import OutputSpec
from camlink.models.scores import agreement, has_agreement

Boxes = list[list[float]]
PERSON, CAR = 0.0, 1.0
LEFT, RIGHT, FAR = [0.0, 0.0, 1.0, 1.0], [2.0, 0.0, 3.0, 1.0], [9.0, 9.0, 10.0, 10.0]
WIDE = [0.0, 0.0, 2.0, 1.0]  # lies half on LEFT: intersection over union is exactly a half
WIDER = [0.0, 0.0, 2.1, 1.0]


def box(corners: list[float], score: float, label: float = PERSON) -> list[float]:
    return [*corners, score, label]


@pytest.mark.parametrize(
    ("predicted", "executed", "expected"),
    [
        ([], [], 1.0),
        ([], [box(LEFT, 0.9)], 0.0),
        ([box(LEFT, 0.9)], [], 0.0),
        ([box(LEFT, 0.3)], [box(LEFT, 0.9)], 1.0),
        ([box(WIDE, 0.9)], [box(LEFT, 0.9)], 1.0),
        ([box(WIDER, 0.9)], [box(LEFT, 0.9)], 0.0),
        ([box(LEFT, 0.9, CAR)], [box(LEFT, 0.9)], 0.0),  # of two classes, neither is found
        ([box(LEFT, 0.9)], [box(LEFT, 0.9), box(RIGHT, 0.8)], 0.5),
        ([box(LEFT, 0.9), box(FAR, 0.1)], [box(LEFT, 0.9)], 1.0),  # the wrong one comes last
        ([box(LEFT, 0.1), box(FAR, 0.9)], [box(LEFT, 0.9)], 0.5),  # ... and first
        ([box(LEFT, 0.9), box(WIDE, 0.8)], [box(LEFT, 0.9), box(RIGHT, 0.9)], 0.5),  # LEFT is found once
        # best first: found, wrong, found: precisions 1 and 2/3, of four that are there
        ([box(LEFT, 0.9), box(FAR, 0.8), box(RIGHT, 0.7)],
         [box(LEFT, 1), box(RIGHT, 1), box([4, 0, 5, 1], 1), box([6, 0, 7, 1], 1)], (1 + 2 / 3) / 4),
        ([box(LEFT, 0.9), box(RIGHT, 0.9, CAR)], [box(LEFT, 0.9), box(FAR, 0.9, CAR)], 0.5),  # persons 1, cars 0
    ],
)  # fmt: skip
def test_boxes_by_hand(predicted: Boxes, executed: Boxes, expected: float) -> None:
    said, wanted = places_of([predicted]), places_of([executed])
    assert boxes_agreement(said, wanted)[0] == pytest.approx(expected, abs=1e-6)


def test_frames_do_not_disturb_each_other_nor_does_the_order_of_boxes() -> None:
    rng = np.random.default_rng(0)

    def some() -> Boxes:
        corners = rng.uniform(0, 3, (rng.integers(0, 6), 2))
        return [[x, y, x + 1.5, y + 1.5, rng.random(), rng.integers(2)] for x, y in corners]

    ours, theirs = [some() for _ in range(1500)], [some() for _ in range(1500)]
    together = boxes_agreement(places_of(ours), places_of(theirs))
    alone = [boxes_agreement(places_of([a[::-1]]), places_of([b]))[0] for a, b in zip(ours, theirs, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert 0.05 < together.mean() < 0.95
    np.testing.assert_array_equal(boxes_agreement(places_of(ours), places_of(ours)), 1.0)


def test_boxes_have_an_agreement_of_their_own() -> None:
    spec = OutputSpec("boxes", "set", 2, "detections")
    same = places_of([[box(LEFT, 0.9)]])
    assert has_agreement(spec) and agreement(spec, same, same).tolist() == [1.0]


@pytest.mark.parametrize(
    ("chances", "labels", "expected"),
    [
        ([0.9, 0.1], [1, 0], 1.0),
        ([0.9, 0.1], [0, 1], 0.5),
        ([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0], (1 + 2 / 3) / 2),
        ([0.5, 0.5], [1, 0], 0.5),  # equal chances tell nothing apart
        ([0.5], [0], None),
    ],
)
def test_ranked_labels_by_hand(chances: list[float], labels: list[int], expected: float | None) -> None:
    bins = (np.array(chances) * 10).astype(int)
    true, false = (np.bincount(bins[np.array(labels) == wanted], minlength=10).astype(float) for wanted in (1, 0))
    found = binned_average_precision(true, false)
    assert found == (None if expected is None else pytest.approx(expected))
