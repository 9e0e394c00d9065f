"""Conformal sets hold the truth as often as asked, on frames like those they were fitted on."""

import numpy as np
import pytest

from camlink.links.conformal import ConformalSets
from camlink.links.ensemble import Ensemble
from camlink.links.train import train_ensembles
from camlink.models.base import OutputSpec
from camlink.pipeline.errors import LinkError

RNG = np.random.default_rng(5)
SPECS = {
    "seen": OutputSpec("seen", "vector", 1, "count"),
    "truth": OutputSpec("truth", "vector", 2, "count"),
    "action": OutputSpec("action", "vector", 3, "single_label"),
}


def samples(count: int) -> dict[str, np.ndarray]:
    truth = RNG.poisson(2, (count, 2)).astype(np.float32)
    seen = truth[:, :1] + RNG.integers(-1, 2, (count, 1))
    action = np.eye(3, dtype=np.float32)[np.clip(truth[:, 0] + RNG.integers(-1, 2, count), 0, 2).astype(int)]
    return {"seen": seen.astype(np.float32), "truth": truth, "action": action}


@pytest.fixture(scope="module")
def links() -> dict[str, Ensemble]:
    return train_ensembles(SPECS, samples(300), seed=0, targets=["truth", "action"])


@pytest.mark.parametrize("target", ["truth", "action"])
@pytest.mark.parametrize("coverage", [0.7, 0.9])
def test_sets_hold_the_truth_as_often_as_asked(links: dict[str, Ensemble], target: str, coverage: float) -> None:
    some, others = samples(400), samples(2000)
    sets = ConformalSets.fit(links[target], {"seen": some["seen"]}, some[target], coverage)
    covered = sets.covered({"seen": others["seen"]}, others[target]).mean(axis=0)
    assert (covered > coverage - 0.05).all()


def test_a_lower_coverage_makes_no_set_larger(links: dict[str, Ensemble]) -> None:
    some = samples(400)
    given = {"seen": some["seen"]}
    narrow, wide = (ConformalSets.fit(links["truth"], given, some["truth"], c).sets(given) for c in (0.6, 0.95))
    assert all((n <= w).all() for n, w in zip(narrow, wide, strict=True))
    assert sum(n.sum() for n in narrow) < sum(w.sum() for w in wide)


def test_no_set_is_empty_and_one_frame_has_the_set_it_has_among_many(links: dict[str, Ensemble]) -> None:
    some = samples(400)
    sets = ConformalSets.fit(links["truth"], {"seen": some["seen"]}, some["truth"], 0.5)
    together = sets.sets({"seen": some["seen"]})
    assert all(kept.any(axis=1).all() for kept in together)
    for i in range(20):
        alone = sets.sets({"seen": some["seen"][i : i + 1]})
        assert all((a[0] == t[i]).all() for a, t in zip(alone, together, strict=True))


def test_what_cannot_be_promised_is_refused(links: dict[str, Ensemble]) -> None:
    few = samples(5)
    with pytest.raises(LinkError, match=r"5 frames cannot promise a coverage of 0\.9"):
        ConformalSets.fit(links["truth"], {"seen": few["seen"]}, few["truth"])
    regressed = train_ensembles(SPECS, samples(50), seed=0, targets=["truth"], kind="vec_to_vec")["truth"]
    some = samples(50)
    with pytest.raises(LinkError, match="no distribution"):
        ConformalSets.fit(regressed, {"seen": some["seen"]}, some["truth"])


def test_counts_that_no_link_ever_saw_widen_the_sets_to_all_that_can_be_said(links: dict[str, Ensemble]) -> None:
    some = samples(100)
    crowded = some["truth"].copy()
    crowded[:40, 1] = 500
    given = {"seen": some["seen"]}
    sets = ConformalSets.fit(links["truth"], given, crowded, 0.9)
    assert sets.sets(given)[1].all()
    assert not sets.covered(given, crowded)[:40, 1].any(), "what cannot be said is not covered, and not claimed to be"
