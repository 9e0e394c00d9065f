"""Agreement is what every figure of camlink rests on, so each task is checked against values worked out by hand."""

import numpy as np
import pytest

from camlink.models.base import OutputSpec
from camlink.models.scores import agreement, is_wrong, rules


def spec(task: str, size: int, scale: float = 1.0) -> OutputSpec:
    return OutputSpec("m", "vector", size, task, scale=scale)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "predicted", "executed", "expected"),
    [
        ("count", [2.49, 0.0, 1.0], [2.0, 0.0, 2.0], 2 / 3),
        ("count", [2.5, 0.0, 0.0], [2.0, 0.0, 0.0], 2 / 3),  # exactly half off is wrong
        ("single_label", [0.6, 0.3, 0.1], [0.4, 0.35, 0.25], 1.0),
        ("single_label", [0.6, 0.3, 0.1], [0.3, 0.6, 0.1], 0.0),
        ("multi_label", [0.7, 0.2], [0.51, 0.6], 0.5),
        ("box", [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.5], 0.5),
        ("box", [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], 1.0),
        ("box", [0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 3.0, 3.0], 0.0),
    ],
)
def test_agreement_by_hand(task: str, predicted: list[float], executed: list[float], expected: float) -> None:
    p, e = (np.array([v], dtype=np.float32) for v in (predicted, executed))
    assert agreement(spec(task, len(predicted)), p, e)[0] == pytest.approx(expected, abs=1e-6)


def test_regression_agreement_is_relative_to_the_scale() -> None:
    p, e = np.array([[21.0]], dtype=np.float32), np.array([[20.0]], dtype=np.float32)
    assert agreement(spec("regression", 1, scale=10.0), p, e)[0] == pytest.approx(0.9)
    assert agreement(spec("regression", 1, scale=0.5), p, e)[0] == 0.0


def test_served_counts_are_whole_and_never_negative() -> None:
    finished = rules(spec("count", 4)).finish(np.array([-0.7, 0.5, 1.49, 2.5], dtype=np.float32))
    assert finished.tolist() == [0.0, 1.0, 1.0, 3.0]


def test_softmax_survives_large_logits() -> None:
    out = rules(spec("single_label", 2)).activate(np.array([[1e4, 0.0]], dtype=np.float32))
    assert out.tolist() == [[1.0, 0.0]]


def test_a_task_without_vector_form_says_so() -> None:
    with pytest.raises(ValueError, match='task "detections" cannot be scored'):
        rules(spec("detections", 3))


def test_a_number_is_wrong_where_a_person_would_say_so_and_a_count_where_it_differs() -> None:
    number, count = OutputSpec("x", "vector", 1, "regression"), OutputSpec("n", "vector", 2, "count")
    assert is_wrong(number, np.array([1.0, 0.97, 0.5], np.float32)).tolist() == [False, False, True]
    assert is_wrong(count, np.array([1.0, 0.97, 0.5], np.float32)).tolist() == [False, True, True]
