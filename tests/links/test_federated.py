"""Federated links: only sums and gradients leave a site, and together they learn what the pooled data would teach."""

import numpy as np
import pytest

from camlink.links.federated import Update, aggregate, fuse, moments_of, pool, train_global
from camlink.links.federation import Plan, Server, SiteLearner
from camlink.links.fit import FitJob, fit_links
from camlink.models.base import OutputSpec
from camlink.pipeline.errors import LinkError

RNG = np.random.default_rng(2)
SOURCE, TARGET = OutputSpec("seen", "vector", 2, "count"), OutputSpec("truth", "vector", 1, "count")


def site(low: int, high: int, frames: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Frames with ``low``..``high`` people; beyond four, the detector sees a third. Its second output is clutter."""
    people = RNG.integers(low, high, (frames, 1)).astype(np.float32)
    visible = np.minimum(people, 4) + np.maximum(people - 4, 0) / 3
    seen = np.concatenate([visible, RNG.random((frames, 1))], axis=1).astype(np.float32)
    return seen, people


def test_pooled_moments_are_those_of_all_samples_together() -> None:
    parts = [site(0, 4, 30), site(3, 9, 70)]
    scaling = pool([moments_of(x, y) for x, y in parts], TARGET)
    x, y = (np.concatenate(side) for side in zip(*parts, strict=True))
    np.testing.assert_allclose(scaling.x_mean, x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(scaling.x_std, x.std(axis=0), rtol=1e-4)
    np.testing.assert_allclose(scaling.y_std, y.std(axis=0), rtol=1e-4)


def test_sites_count_by_their_samples_and_absent_ones_not_at_all() -> None:
    one, two = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
    np.testing.assert_allclose(aggregate([Update(30, one), Update(10, two)]), [0.75, 0.25])
    np.testing.assert_allclose(aggregate([Update(10, two)]), two)


def test_a_wild_update_is_clipped_and_an_unusable_one_refused() -> None:
    wild, calm = np.array([1e6, 0.0], np.float32), np.array([0.0, 0.5], np.float32)
    mean = aggregate([Update(1, wild), Update(1, calm)], clip_norm=1.0)
    np.testing.assert_allclose(mean, [0.5, 0.25])
    with pytest.raises(LinkError, match="finite"):
        aggregate([Update(1, np.array([np.nan, 0.0], np.float32)), Update(1, calm)])
    with pytest.raises(LinkError, match="one size"):
        aggregate([Update(1, np.zeros(3, np.float32)), Update(1, calm)])
    with pytest.raises(LinkError, match="no site"):
        aggregate([])


def test_the_global_link_covers_what_no_single_site_has_seen() -> None:
    sites = {"low": site(0, 4), "high": site(5, 10)}
    link = train_global(SOURCE, TARGET, sites, seed=0).link
    x, y = site(0, 10)
    local = fit_links([FitJob(SOURCE, TARGET, *sites["low"], seed=0)])[0]
    right = {name: (np.abs(one.predict(x) - y) < 0.5).mean() for name, one in (("global", link), ("local", local))}
    assert right["global"] > 0.85
    assert right["global"] > right["local"] + 0.2


def test_a_third_of_the_sites_away_in_each_round_does_no_harm() -> None:
    sites = {f"site-{i}": site(0, 10) for i in range(4)}
    link = train_global(SOURCE, TARGET, sites, seed=0, drop_out=0.33).link
    x, y = site(0, 10)
    assert (np.abs(link.predict(x) - y) < 0.5).mean() > 0.9


def test_bytes_per_round_are_parameters_out_and_gradients_back() -> None:
    result = train_global(SOURCE, TARGET, {"a": site(0, 5), "b": site(0, 5), "c": site(0, 5)}, seed=0, rounds=1)
    parameters = sum(w.size for w in result.link.weights().values())
    assert result.bytes_per_round == 3 * 2 * 4 * parameters


def test_fusion_is_one_link_that_leans_to_the_better() -> None:
    x, y = site(0, 10)
    good = fit_links([FitJob(SOURCE, TARGET, x, y, seed=0)])[0]
    bad = good.replace_weights({**good.weights(), "b2": good.b2 + 5})
    fused = fuse([good, bad], x, y)
    assert np.abs(fused.predict(x) - y).mean() < 0.5 * np.abs(bad.predict(x) - y).mean()
    alone = fuse([good], x, y)
    np.testing.assert_allclose(alone.predict(x), good.predict(x), atol=1e-5)
    other = fit_links([FitJob(TARGET, TARGET, y, y, seed=0, stop_after=0)])[0]
    with pytest.raises(LinkError, match="one source and one target"):
        fuse([good, other], x, y)


def test_a_site_where_nothing_happens_does_not_decide_on_the_sources() -> None:
    rng, frames = np.random.default_rng(0), 150
    specs = {name: OutputSpec(name, "vector", 1, "count") for name in ("good", "noise", "truth")}
    plan = Plan(specs, ("truth",), rounds=100)

    def outputs(**values: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value.reshape(-1, 1).astype(np.float32) for name, value in values.items()}

    people = [rng.integers(0, 6, frames) for _ in range(2)]
    have = [outputs(good=n + (rng.random(frames) < 0.1), noise=rng.integers(0, 2, frames), truth=n) for n in people]
    have.append(outputs(good=rng.random(frames) < 0.3, noise=np.full(frames, 3), truth=np.zeros(frames)))
    learners = [SiteLearner(plan, samples) for samples in have]
    server = Server(plan)
    server.advance([learner.moments() for learner in learners])
    while server.phase == "gradients":
        server.advance([learner.gradients(server.parameters, server.pooled, rng) for learner in learners])
    server.advance([learner.losses(server.parameters, server.pooled) for learner in learners])
    assert server.ensembles["truth"].weights["good"] > 0.9
