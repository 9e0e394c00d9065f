"""Loss prediction: the slope is that of the pairwise hinge, and the unsure frames come out on top."""

import numpy as np
import pytest

from camlink.links.fit import FitJob, fit_links
from camlink.links.loss_prediction import MARGIN, fit_loss_predictor, losses_of, ranking_slope
from camlink.models.base import OutputSpec
from camlink.pipeline.errors import LinkError

RNG = np.random.default_rng(9)
SOURCE, TARGET = OutputSpec("seen", "vector", 2, "count"), OutputSpec("truth", "vector", 1, "count")


def crowds(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """The more people, the more of them hide: errors grow with the count."""
    x = RNG.integers(0, 10, (frames, 2)).astype(np.float32)
    y = x[:, :1] + RNG.normal(0, 0.05 + 0.4 * x[:, :1])
    return x, y.astype(np.float32)


def test_the_slope_is_the_derivative_of_the_pairwise_hinge() -> None:
    predicted, losses = RNG.normal(size=6).astype(np.float64), RNG.random(6)

    def hinge(p: np.ndarray) -> float:
        pairs = [(i, j) for i in range(6) for j in range(6) if losses[i] > losses[j]]
        return float(np.mean([max(0.0, MARGIN - (p[i] - p[j])) for i, j in pairs]))

    slope = ranking_slope(predicted, losses)
    for i in range(6):
        step = np.eye(6)[i] * 1e-5
        assert slope[i] == pytest.approx((hinge(predicted + step) - hinge(predicted - step)) / 2e-5, abs=1e-4)


def test_losses_are_those_of_the_task() -> None:
    x, y = crowds(20)
    link = fit_links([FitJob(SOURCE, TARGET, x, y, 0)])[0]
    np.testing.assert_allclose(losses_of(link, x, y), ((link.predict(x) - y) ** 2)[:, 0], rtol=1e-4, atol=1e-5)


def test_frames_ranked_high_are_wrong_more_often() -> None:
    link = fit_links([FitJob(SOURCE, TARGET, *crowds(300), 0)])[0]
    predictor = fit_loss_predictor(link, *crowds(300), seed=0)
    x, y = crowds(600)
    order = np.argsort(predictor.predict(x))
    losses = losses_of(link, x, y)
    assert losses[order[-200:]].mean() > 3 * losses[order[:200]].mean()
    assert predictor.predict(x[0]) == pytest.approx(predictor.predict(x)[0], abs=1e-5)


def test_one_sample_is_no_pair() -> None:
    x, y = crowds(20)
    link = fit_links([FitJob(SOURCE, TARGET, x, y, 0)])[0]
    with pytest.raises(LinkError, match="seen -> truth"):
        fit_loss_predictor(link, x[:1], y[:1], seed=0)
