"""Fitting: the written-out gradients are right, stacking changes nothing, and links learn what is there to learn."""

import numpy as np
import pytest

from camlink.links.stack import FitJob, Stack, StackLoss, fit_links
from camlink.models.base import OutputSpec
from camlink.models.scores import RULES

RNG = np.random.default_rng(7)


def spec(name: str, size: int, task: str = "count") -> OutputSpec:
    return OutputSpec(name, "vector", size, task)  # type: ignore[arg-type]


def loss_value(task: str, z: np.ndarray, y: np.ndarray) -> float:
    """The textbook losses, for one link: z, y (batch, out)."""
    if task == "count":
        return float(((z - y) ** 2).mean())
    if task == "multi_label":
        p = 1 / (1 + np.exp(-z))
        return float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())
    log_share = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return float(-(y * log_share).sum(axis=1).mean())


@pytest.mark.parametrize("task", ["count", "multi_label", "single_label"])
def test_gradients_equal_finite_differences(task: str) -> None:
    target = spec("t", 3, task)
    x = RNG.normal(size=(1, 5, 4)).astype(np.float32)
    y = RNG.random((1, 5, 3)).astype(np.float32)
    links = Stack([RNG.normal(size=(4, 6)).astype(np.float32)], [RNG.normal(size=(6, 3)).astype(np.float32)])
    hidden, z = links.forward(x)
    gradient = links.backward(x, hidden, StackLoss([target], 3).gradient(z, y)).copy()
    for i in RNG.choice(links.flat.size, 20, replace=False):
        kept, step = links.flat[i], 1e-2
        values = []
        for move in (step, -step):
            links.flat[i] = kept + move
            values.append(loss_value(task, links.forward(x)[1][0].astype(np.float64), y[0].astype(np.float64)))
        links.flat[i] = kept
        assert gradient[i] == pytest.approx((values[0] - values[1]) / (2 * step), abs=5e-3, rel=5e-2)


def test_a_stack_of_links_ends_where_each_would_have_ended_alone() -> None:
    specs = [spec("a", 4), spec("b", 1), spec("c", 2, "multi_label"), spec("d", 3, "single_label")]
    samples = {s.model: RNG.random((70, s.size)).astype(np.float32) for s in specs}
    jobs = [
        FitJob(s, t, samples[s.model], samples[t.model], seed=i * 10 + j)
        for i, s in enumerate(specs)
        for j, t in enumerate(specs)
        if s is not t
    ]
    together = fit_links(jobs, epochs=10)
    for job, link in zip(jobs, together, strict=True):
        alone = fit_links([job], epochs=10)[0]
        np.testing.assert_allclose(link.predict(job.x), alone.predict(job.x), atol=1e-3)


def test_a_link_learns_a_relation_that_is_there() -> None:
    x = RNG.poisson(4, (400, 1)).astype(np.float32)
    y = np.concatenate([2 * x, x + 1], axis=1).astype(np.float32)
    link = fit_links([FitJob(spec("a", 1), spec("b", 2), x[:300], y[:300], seed=0)])[0]
    error = np.abs(link.predict(x[300:]) - y[300:])
    assert (error < 0.5).mean() > 0.95


def test_an_input_that_never_varied_has_no_say() -> None:
    x = np.concatenate([RNG.poisson(4, (100, 1)), np.full((100, 1), 0.4)], axis=1).astype(np.float32)
    link = fit_links([FitJob(spec("a", 2), spec("b", 1), x, x[:, :1], seed=0)])[0]
    moved = x.copy()
    moved[:, 1] = 100.0
    np.testing.assert_array_equal(link.predict(x), link.predict(moved))


def test_the_served_link_has_the_papers_shape() -> None:
    x, y = RNG.random((40, 5)).astype(np.float32), RNG.random((40, 3)).astype(np.float32)
    link = fit_links([FitJob(spec("a", 5), spec("b", 3), x, y, seed=0)], epochs=2)[0]
    assert link.w1.shape == (5, 6)
    assert link.w2.shape == (6, 3)


@pytest.mark.parametrize("task", sorted(set(RULES) - {"box"}))
def test_the_same_seed_gives_the_same_link(task: str) -> None:
    x, y = RNG.random((40, 3)).astype(np.float32), RNG.random((40, 3)).astype(np.float32)
    job = FitJob(spec("a", 3), spec("b", 3, task), x, y, seed=3)
    one, two = (fit_links([job], epochs=3)[0] for _ in range(2))
    for name, value in one.weights().items():
        np.testing.assert_array_equal(value, two.weights()[name])
