"""Ensembles: valid for any subset of sources, honest about their confidence, and the same after a round trip."""

from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camlink.links.ensemble import Ensemble
from camlink.links.memory import Recall
from camlink.links.train import CANDIDATES, train_ensembles
from camlink.models.base import OutputSpec
from camlink.models.scores import RULES
from camlink.pipeline.errors import LinkError

PEOPLE = OutputSpec("people", "vector", 1, "count")
RNG = np.random.default_rng(3)
SPECS = {
    "objects": OutputSpec("objects", "vector", 3, "count", ("person", "chair", "bag")),
    "persons": OutputSpec("persons", "vector", 1, "count", ("person",)),
    "action": OutputSpec("action", "vector", 2, "multi_label", ("normal", "fall")),
    "scene": OutputSpec("scene", "vector", 3, "single_label", ("day", "dusk", "night")),
}


def samples(frames: int = 120) -> dict[str, np.ndarray]:
    people = RNG.poisson(3, (frames, 1)).astype(np.float32)
    day = (people[:, 0] > 2).astype(int)
    return {
        "objects": np.concatenate([people, RNG.poisson(0.2, (frames, 2))], axis=1).astype(np.float32),
        "persons": people,
        "action": np.stack([1 - np.exp(-people[:, 0]), np.full(frames, 0.1)], axis=1).astype(np.float32),
        "scene": np.eye(3, dtype=np.float32)[day],
    }


SAMPLES = samples()
ENSEMBLES = train_ensembles(SPECS, SAMPLES, seed=0, times_s=np.arange(120.0))
PAPER = train_ensembles(SPECS, SAMPLES, seed=0, kind="vec_to_vec")
SUBSETS = [s for n in (1, 2, 3) for s in combinations(SPECS, n)]


@pytest.mark.parametrize("recall", [False, True])
@pytest.mark.parametrize("trained", [ENSEMBLES, PAPER], ids=["count_distribution", "vec_to_vec"])
@pytest.mark.parametrize("target", SPECS)
def test_every_subset_of_sources_gives_a_value_in_the_targets_space(
    target: str, trained: dict[str, Ensemble], recall: bool
) -> None:
    ensemble = trained[target]
    others = [m for m in SPECS if m != target]
    last = Recall(SAMPLES[target][0], 3.0) if recall else None
    for sources in chain.from_iterable(combinations(others, n) for n in (1, 2, 3)):
        value, confidence = ensemble.predict({s: SAMPLES[s] for s in sources}, last)
        assert value.shape == SAMPLES[target].shape
        assert np.isfinite(value).all()
        assert ((confidence >= 0) & (confidence <= 1)).all()
        if SPECS[target].task == "single_label":
            np.testing.assert_allclose(value.sum(axis=1), 1.0, atol=1e-5)
        if SPECS[target].task == "count":
            assert (value == np.floor(value)).all()
            assert (value >= 0).all()


def test_a_single_source_stands_as_it_is() -> None:
    ensemble = PAPER["persons"]
    alone = ensemble.combine({"objects": ensemble.links["objects"].predict(SAMPLES["objects"])})
    np.testing.assert_array_equal(alone, ensemble.links["objects"].predict(SAMPLES["objects"]))


def test_weights_are_renormalised_over_the_sources_that_ran() -> None:
    for ensemble in (ENSEMBLES["persons"], PAPER["persons"]):
        z = {s: np.full((1, ensemble.output.size), 5.0, np.float32) for s in ensemble.links}
        for subset in SUBSETS:
            part = {s: z[s] for s in subset if s in z}
            if part:
                np.testing.assert_allclose(ensemble.mix(part), 5.0, atol=1e-4)


def test_the_informative_source_gets_the_weight() -> None:
    weights = ENSEMBLES["persons"].weights
    assert weights["objects"] > weights["scene"]
    assert sum(weights.values()) == pytest.approx(1.0, abs=1e-5)


def test_classes_that_never_occur_have_no_say_in_the_weights() -> None:
    rng, frames = np.random.default_rng(0), 150
    seen = rng.integers(0, 4, (frames, 3)).astype(np.float32)
    everything = np.concatenate([seen, np.zeros((frames, 77), np.float32)], axis=1)
    samples = {"seen": seen, "noise": rng.integers(0, 2, (frames, 1)).astype(np.float32), "classes": everything}
    specs = {name: OutputSpec(name, "vector", values.shape[1], "count") for name, values in samples.items()}
    weights = train_ensembles(specs, samples, seed=0, targets=["classes"], kind="vec_to_vec")["classes"].weights
    assert weights["seen"] > 0.8


def test_one_frame_and_a_batch_agree() -> None:
    ensemble = ENSEMBLES["persons"]
    batch, sure = ensemble.predict({"objects": SAMPLES["objects"]})
    for i in range(5):
        value, confidence = ensemble.predict({"objects": SAMPLES["objects"][i]})
        np.testing.assert_allclose(value, batch[i], atol=1e-5)
        assert float(confidence) == pytest.approx(float(sure[i]), abs=1e-5)


@pytest.mark.parametrize("recall", [None, 0.5, 1e5])
@pytest.mark.parametrize("target", ["objects", "persons"])
def test_the_fast_way_for_one_frame_and_the_way_for_batches_agree(target: str, recall: float | None) -> None:
    """The counts of one frame are predicted by other code: `camlink.links.one_frame`."""
    ensemble = ENSEMBLES[target]
    others = [m for m in SPECS if m != target]
    for sources in chain.from_iterable(combinations(others, n) for n in (1, 2, 3)):
        read = {s: SAMPLES[s][1:31] for s in sources}
        last = None if recall is None else Recall(SAMPLES[target][:30], np.full(30, recall))
        batch, sure = ensemble.predict(read, last)
        for i in range(30):
            one = None if recall is None else Recall(SAMPLES[target][i], recall)
            value, confidence = ensemble.predict({s: v[i] for s, v in read.items()}, one)
            np.testing.assert_array_equal(value, batch[i])
            assert float(confidence) == pytest.approx(float(sure[i]), abs=1e-5)
        assert ensemble._compiled[sources, recall is not None] is not None


def test_values_that_fit_only_together_are_refused() -> None:
    """Two sources whose sizes add up, but are each wrong."""
    wrong = {"objects": np.zeros(2, np.float32), "action": np.zeros(3, np.float32)}
    with pytest.raises(LinkError, match="link objects -> persons: got values of size 2, expected 3"):
        ENSEMBLES["persons"].predict(wrong)


def test_no_known_source_is_an_error_that_names_both_sides() -> None:
    with pytest.raises(LinkError, match="no link to persons from depth; links exist from objects"):
        ENSEMBLES["persons"].predict({"depth": np.zeros(3, np.float32)})


def test_a_round_trip_changes_nothing() -> None:
    for ensemble in (*ENSEMBLES.values(), *PAPER.values()):
        again = Ensemble.from_bytes(ensemble.to_bytes())
        sources = {s: SAMPLES[s] for s in ensemble.links}
        for recall in (None, Recall(SAMPLES[ensemble.target.model][3], 2.5)):
            for before, after in zip(ensemble.predict(sources, recall), again.predict(sources, recall), strict=True):
                np.testing.assert_array_equal(before, after)
        assert again.target == ensemble.target


@settings(max_examples=60)
@given(st.binary(max_size=200) | st.integers(0, 3000).map(lambda n: ENSEMBLES["persons"].to_bytes()[:n]))
def test_damaged_bytes_are_refused_and_never_executed(payload: bytes) -> None:
    with pytest.raises(LinkError):
        Ensemble.from_bytes(payload)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_harmless(place: int, flip: int) -> None:
    payload = bytearray(ENSEMBLES["persons"].to_bytes())
    payload[place % len(payload)] ^= flip
    try:
        ensemble = Ensemble.from_bytes(bytes(payload))
    except LinkError:
        return
    value, _ = ensemble.predict({"objects": SAMPLES["objects"][0]})
    assert np.isfinite(value).all()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (np.zeros((1, 5), np.float32), r"link objects -> persons: got values of size 5, expected 3"),
        (np.full((1, 3), np.nan, np.float32), r"link objects -> persons: got values that are not finite"),
    ],
)
def test_wrong_values_raise_with_the_links_name(broken: np.ndarray, message: str) -> None:
    with pytest.raises(LinkError, match=message):
        ENSEMBLES["persons"].predict({"objects": broken})


def test_confidence_of_counts_matches_how_often_they_are_right() -> None:
    """Counts with normal errors: the stated confidence is the observed share of agreement, within a few points."""
    ensemble = PAPER["persons"]
    spread = 0.6
    exact = Ensemble(ensemble.target, ensemble.links, ensemble.weights, np.array([spread], np.float32), 0.0)
    predicted = RNG.uniform(0, 8, (20_000, 1)).astype(np.float32)
    truth = np.round(predicted + RNG.normal(0, spread, predicted.shape))
    right = np.abs(exact.finish(predicted) - truth)[:, 0] < 0.5
    assert float(exact.confidence(predicted).mean()) == pytest.approx(right.mean(), abs=0.02)


def test_a_fresh_memory_outweighs_a_source_that_says_nothing_and_fades() -> None:
    """The target stays as it is for 40 frames at a time; the source is noise."""
    blocks = np.repeat(RNG.integers(0, 6, 20), 40).astype(np.float32)[:, None]
    specs = {
        "noise": OutputSpec("noise", "vector", 2, "regression"),
        "people": OutputSpec("people", "vector", 1, "count"),
    }
    noise = RNG.normal(size=(len(blocks), 2)).astype(np.float32)
    times = np.arange(len(blocks), dtype=np.float64)
    ensemble = train_ensembles(specs, {"noise": noise, "people": blocks}, seed=0, times_s=times)["people"]
    for count in range(6):
        last = np.array([count], np.float32)
        fresh, sure = ensemble.predict({"noise": noise[0]}, Recall(last, 1.0))
        assert fresh[0] == count
        stale, unsure = ensemble.predict({"noise": noise[0]}, Recall(last, 1e6))
        forgotten, _ = ensemble.predict({"noise": noise[0]})
        assert stale[0] == forgotten[0]
        assert unsure < sure


def test_memory_alone_answers_where_nothing_was_executed() -> None:
    """Counts stay for 40 frames at a time: what was said a frame ago is nearly always still so, and is stated so."""
    rng = np.random.default_rng(5)
    blocks = np.repeat(rng.integers(0, 6, 20), 40).astype(np.float32)[:, None]
    specs = {"noise": OutputSpec("noise", "vector", 1, "regression"), "people": PEOPLE}
    noise = rng.normal(size=(len(blocks), 1)).astype(np.float32)
    times = np.arange(len(blocks), dtype=np.float64)
    ensemble = train_ensembles(specs, {"noise": noise, "people": blocks}, seed=0, times_s=times)["people"]
    ages = np.ones(len(blocks) - 1)
    value, confidence = ensemble.predict({}, Recall(blocks[:-1], ages))
    right = (value == blocks[1:])[:, 0]
    assert right.mean() > 0.95
    assert float(confidence.mean()) == pytest.approx(right.mean(), abs=0.1)
    _, stale = ensemble.predict({}, Recall(blocks[0], 1e6))
    assert stale < confidence.min()


def test_without_sources_or_memory_there_is_no_prediction() -> None:
    assert ENSEMBLES["persons"].remembers
    assert not PAPER["persons"].remembers
    with pytest.raises(LinkError, match="no link to persons from nothing"):
        ENSEMBLES["persons"].predict({})
    with pytest.raises(LinkError, match="the links to persons remember nothing"):
        PAPER["persons"].predict({}, Recall(SAMPLES["persons"][0], 1.0))
    with pytest.raises(LinkError, match="no link to persons from depth"):
        ENSEMBLES["persons"].predict({"depth": np.zeros(3, np.float32)}, Recall(SAMPLES["persons"][0], 1.0))


def test_noise_is_not_believed() -> None:
    specs = {
        "noise": OutputSpec("noise", "vector", 3, "regression"),
        "people": OutputSpec("people", "vector", 1, "count"),
    }
    noise = RNG.normal(size=(300, 3)).astype(np.float32)
    people = RNG.choice([0, 1, 2], p=[0.2, 0.7, 0.1], size=(300, 1)).astype(np.float32)
    ensemble = train_ensembles(specs, {"noise": noise[:150], "people": people[:150]}, seed=0)["people"]
    value, confidence = ensemble.predict({"noise": noise[150:]})
    assert (value == 1.0).mean() > 0.95
    assert float(confidence.mean()) == pytest.approx(0.7, abs=0.1)


def test_stated_confidence_is_how_often_later_frames_agree() -> None:
    """Counts seen through a detector that misses one person in four."""
    people = RNG.poisson(2, (2000, 1)).astype(np.float32)
    seen = RNG.binomial(people.astype(int), 0.9).astype(np.float32)
    specs = {"seen": OutputSpec("seen", "vector", 1, "count"), "people": PEOPLE}
    ensemble = train_ensembles(specs, {"seen": seen[:400], "people": people[:400]}, seed=0)["people"]
    value, confidence = ensemble.predict({"seen": seen[400:]})
    right = (value == people[400:])[:, 0]
    assert float(confidence.mean()) == pytest.approx(right.mean(), abs=0.05)
    surer = confidence > np.median(confidence)
    assert right[surer].mean() > right[~surer].mean()


def test_training_refuses_what_it_cannot_learn_from() -> None:
    few = {m: v[:9] for m, v in SAMPLES.items()}
    with pytest.raises(LinkError, match="at least 10 frames"):
        train_ensembles(SPECS, few, seed=0)
    uneven = {**SAMPLES, "persons": SAMPLES["persons"][:50]}
    with pytest.raises(LinkError, match="same frames"):
        train_ensembles(SPECS, uneven, seed=0)
    broken = {**SAMPLES, "persons": np.where(SAMPLES["persons"] > 5, np.nan, SAMPLES["persons"])}
    with pytest.raises(LinkError, match="not finite"):
        train_ensembles(SPECS, broken, seed=0)

    with pytest.raises(LinkError, match="ascending"):
        train_ensembles(SPECS, SAMPLES, seed=0, times_s=np.zeros(5))


def test_every_task_of_vectors_and_sequences_has_rules() -> None:
    assert set(RULES) == {"count", "single_label", "multi_label", "regression", "box", "tokens"}


@pytest.mark.parametrize("noisy", [False, True])
def test_auto_takes_the_kind_that_did_better_on_held_out_frames(noisy: bool) -> None:
    rng = np.random.default_rng(3)
    seen = rng.integers(0, 60, (120, 1)).astype(np.float32)
    said = np.rint(seen / 6 + rng.normal(0, 2.0 if noisy else 0.0, seen.shape)).clip(0).astype(np.float32)
    specs = {"a": OutputSpec("a", "vector", 1, "count"), "b": OutputSpec("b", "vector", 1, "count")}
    tried = {k: train_ensembles(specs, {"a": seen, "b": said}, seed=0, kind=k) for k in ("auto", *CANDIDATES)}
    for target in specs:
        scores = {kind: tried[kind][target].held_out_agreement for kind in CANDIDATES}
        best = max(scores, key=lambda kind: scores[kind])
        assert tried["auto"][target].to_bytes() == tried[best][target].to_bytes()
    assert len({tried[kind]["b"].held_out_agreement for kind in CANDIDATES}) == 2, "a tie would show nothing"
