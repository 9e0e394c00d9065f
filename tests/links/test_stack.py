"""Fitting: the written-out gradients are right, stacking changes nothing, and links learn what is there to learn."""

from dataclasses import replace

import numpy as np
import pytest

from camlink.links.fit import PAPER, FitJob, Recipe, fit, fit_links
from camlink.links.stack import Stack, StackLoss
from camlink.models.base import OutputSpec
from camlink.models.scores import RULES
from camlink.pipeline.errors import LinkError

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
    share = np.full((1, 5, 1), 0.2, np.float32)
    gradient = links.backward(x, hidden, StackLoss([target], 3).gradient(z, y, share)).copy()
    for i in RNG.choice(links.flat.size, 20, replace=False):
        kept, step = links.flat[i], 1e-2
        values = []
        for move in (step, -step):
            links.flat[i] = kept + move
            values.append(loss_value(task, links.forward(x)[1][0].astype(np.float64), y[0].astype(np.float64)))
        links.flat[i] = kept
        np.testing.assert_allclose(
            StackLoss([target], 3).value(links.forward(x)[1], y, share)[0],
            loss_value(task, links.forward(x)[1][0], y[0]),
            rtol=1e-4,
        )
        assert gradient[i] == pytest.approx((values[0] - values[1]) / (2 * step), abs=5e-3, rel=5e-2)


def test_a_stack_of_links_ends_where_each_would_have_ended_alone() -> None:
    specs = [spec("a", 4), spec("b", 1), spec("c", 2, "multi_label"), spec("d", 3, "single_label")]
    samples = {s.model: RNG.random((95, s.size)).astype(np.float32) for s in specs}
    watched = np.arange(95) % 5 == 0
    jobs = [
        FitJob(
            s,
            t,
            samples[s.model][: 70 + 3 * j],
            samples[t.model][: 70 + 3 * j],
            seed=i * 10 + j,
            watched=watched[: 70 + 3 * j] if i % 2 else None,
            stop_after=3 + i + j,
        )
        for i, s in enumerate(specs)
        for j, t in enumerate(specs)
        if s is not t
    ]
    together = fit(jobs, Recipe(epochs=10))
    for job, one in zip(jobs, together, strict=True):
        alone = fit([job], Recipe(epochs=10))[0]
        assert one.epoch == alone.epoch
        np.testing.assert_allclose(one.link.predict(job.x), alone.link.predict(job.x), atol=1e-3)
        if one.losses is not None and alone.losses is not None:
            np.testing.assert_allclose(one.losses[:2], alone.losses[:2], rtol=1e-4)


def test_a_watched_link_is_taken_from_its_best_epoch() -> None:
    """The fitted labels are noise, so every epoch beyond the constant makes the watched loss worse."""
    x = RNG.normal(size=(60, 4)).astype(np.float32)
    y = (RNG.random((60, 1)) < 0.5).astype(np.float32)
    job = FitJob(spec("a", 4), spec("b", 1, "multi_label"), x, y, 0, watched=np.arange(60) % 3 == 0)
    best = fit([job], Recipe(epochs=30))[0]
    assert best.losses is not None
    assert best.epoch == int(best.losses.argmin())
    last = fit([job], Recipe(epochs=30), keep="last")[0]
    assert last.epoch == 30
    assert best.losses[best.epoch] < best.losses[30]
    z = best.link.predict(x[job.watched]).astype(np.float64)
    assert (np.logaddexp(0, z) - z * y[job.watched]).mean() == pytest.approx(best.losses[best.epoch], rel=1e-4)


def test_a_link_stopped_at_once_says_the_constant() -> None:
    x, y = RNG.normal(size=(50, 3)).astype(np.float32), RNG.random((50, 2)).astype(np.float32)
    for task in ("count", "multi_label", "single_label"):
        shares = y / y.sum(axis=1, keepdims=True) if task == "single_label" else y
        job = FitJob(spec("a", 3), spec("b", 2, task), x, shares, 0, stop_after=0)
        said = RULES[task].activate(fit([job])[0].link.predict(x))
        np.testing.assert_allclose(said, np.tile(shares.mean(axis=0), (50, 1)), atol=0.02)


@pytest.mark.parametrize("seed", range(8))
def test_a_single_count_is_learnt_from_any_start(seed: int) -> None:
    """With the paper's two hidden units some starts never learn this: both units die."""
    x = RNG.poisson(2, (200, 9)).astype(np.float32)
    job = FitJob(spec("a", 9), spec("b", 1), x, x[:, :1], seed)
    assert np.abs(fit_links([job])[0].predict(x) - x[:, :1]).max() < 0.5


def test_samples_that_do_not_fit_raise_with_the_links_name() -> None:
    x, y = np.zeros((20, 3), np.float32), np.zeros((20, 1), np.float32)
    broken = np.full((20, 1), np.nan, np.float32)
    for job, message in (
        (FitJob(spec("a", 4), spec("b", 1), x, y, 0), r"link a -> b: source samples have shape \(20, 3\)"),
        (FitJob(spec("a", 3), spec("b", 1), x, y[:19], 0), "link a -> b: target samples have shape"),
        (FitJob(spec("a", 3), spec("b", 1), x, broken, 0), "link a -> b: target samples hold values"),
        (FitJob(spec("a", 3), spec("b", 1), x, y, 0, watched=np.ones(20, np.bool_)), "link a -> b: needs at least"),
    ):
        with pytest.raises(LinkError, match=message):
            fit([job])


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
    link = fit_links([FitJob(spec("a", 5), spec("b", 3), x, y, seed=0)], replace(PAPER, epochs=2))[0]
    assert link.w1.shape == (5, 6)
    assert link.w2.shape == (6, 3)


@pytest.mark.parametrize("task", sorted(set(RULES) - {"box", "tokens"}))
def test_the_same_seed_gives_the_same_link(task: str) -> None:
    x, y = RNG.random((40, 3)).astype(np.float32), RNG.random((40, 3)).astype(np.float32)
    job = FitJob(spec("a", 3), spec("b", 3, task), x, y, seed=3)
    one, two = (fit_links([job], Recipe(epochs=3))[0] for _ in range(2))
    for name, value in one.weights().items():
        np.testing.assert_array_equal(value, two.weights()[name])


@pytest.mark.parametrize("task", ["count", "multi_label", "single_label", "regression"])
@pytest.mark.parametrize("watches", [False, True])
def test_torch_gives_the_links_that_numpy_gives(task: str, watches: bool) -> None:
    """Fleets of links of several sizes, on whatever device torch has here."""
    rng = np.random.default_rng(2)
    jobs = []
    for seed, (samples, size) in enumerate(((40, 2), (60, 3), (50, 3))):
        x = rng.normal(size=(samples, 4)).astype(np.float32)
        y = np.abs(x[:, :size]) if task in ("count", "regression") else (x[:, :size] > 0).astype(np.float32)
        if task == "single_label":
            y = np.eye(size, dtype=np.float32)[x[:, :size].argmax(axis=1)]
        watched = np.arange(samples) % 5 == 0 if watches else None
        jobs.append(FitJob(spec("source", 4), spec("target", size, task), x, y, seed, watched))
    recipe = Recipe(epochs=20)
    for job, by_numpy, by_torch in zip(jobs, fit(jobs, recipe), fit(jobs, recipe, backend="torch"), strict=True):
        np.testing.assert_allclose(by_torch.link.predict(job.x), by_numpy.link.predict(job.x), atol=2e-2)
        assert by_torch.epoch == by_numpy.epoch
