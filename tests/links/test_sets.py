"""Links from lists of boxes: the order means nothing, places without a box mean nothing, doubtful boxes mean a lot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camlink.links.base import Array
from camlink.links.contract import check_link
from camlink.links.ensemble import Ensemble
from camlink.links.fit import FitJob, fit, fit_links
from camlink.links.inputs import LinkInputs
from camlink.links.onnx_export import export_onnx
from camlink.links.set_to_vec import SetToVec
from camlink.links.sets import COLUMNS, features_of, packed, places_of, plain_size, set_spec
from camlink.links.train import train_ensembles
from camlink.models.base import OutputSpec
from camlink.models.scores import rules
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.errors import LinkError
from camlink.pipeline.records import Detections

SOURCE = set_spec("objects", plain=1)
TARGET = OutputSpec("persons", "vector", 3, "multi_label")
SURE, DOUBTFUL = 0.6, 0.2


def detections(rng: np.random.Generator, count: int, classes: int = 3) -> Detections:
    low = rng.random((count, 2)) * 0.5
    xyxy = np.concatenate([low, low + 0.05 + 0.4 * rng.random((count, 2))], axis=1)
    return Detections(
        xyxy.astype(np.float32), rng.random(count).astype(np.float32), rng.integers(0, classes, count, np.int32)
    )


def shuffled(found: Detections, order: np.ndarray) -> Detections:
    return Detections(found.xyxy[order], found.scores[order], found.classes[order])


def frame(found: Detections) -> Array:
    sure = np.float32([(found.scores > SURE).sum()])
    return np.concatenate([sure, packed(found)])


def samples(frames: int, seed: int = 0) -> tuple[Array, Array]:
    """Return x (n, size), and whether more than 0, 1, 2 boxes of class 1 are at least doubtful: (n, 3)."""
    rng = np.random.default_rng(seed)
    lists = [detections(rng, int(rng.integers(0, 9))) for _ in range(frames)]
    counts = np.array([((d.scores > DOUBTFUL) & (d.classes == 1)).sum() for d in lists])
    return np.stack([frame(d) for d in lists]), (counts[:, None] > np.arange(3)).astype(np.float32)


X, Y = samples(200)
LINK = fit([FitJob(SOURCE, TARGET, X, Y, 0)])[0].link


def test_a_set_link_keeps_the_contract() -> None:
    assert isinstance(LINK, SetToVec)
    check_link(LINK, X)


def test_a_set_link_as_onnx_says_what_the_link_says(tmp_path: Path) -> None:
    import onnxruntime

    export_onnx(LINK, tmp_path / "link.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "link.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(5)
    batch = np.stack([frame(detections(rng, count)) for count in (0, 1, 7, 48, 60)])
    (said,) = session.run(None, {"source": batch})
    np.testing.assert_allclose(said, rules(TARGET).activate(LINK.predict(batch)), atol=1e-5)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 60))
def test_the_order_of_boxes_does_not_matter(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    found = detections(rng, count)
    again = shuffled(found, rng.permutation(count))
    np.testing.assert_allclose(LINK.predict(frame(found)), LINK.predict(frame(again)), atol=1e-4)


def test_a_batch_and_its_frames_agree_however_many_boxes_the_others_have() -> None:
    batch = LINK.predict(X)
    for i in range(20):
        np.testing.assert_allclose(LINK.predict(X[i]), batch[i], atol=1e-4)


def test_frames_without_boxes_are_predicted_and_differ_from_frames_with_some() -> None:
    none = frame(detections(np.random.default_rng(0), 0))
    assert np.isfinite(LINK.predict(none)).all()
    assert LINK.predict(none)[0] < 0.0, "no box at all: not even one person"
    person = replace(detections(np.random.default_rng(0), 1), scores=np.float32([0.5]), classes=np.int32([1]))
    assert LINK.predict(frame(person))[0] > 0.0


def test_links_learn_from_frames_that_never_had_a_box() -> None:
    empty = np.zeros_like(X)
    empty[:, 0] = X[:, 0]
    link = fit([FitJob(SOURCE, TARGET, empty, Y, 0)])[0].link
    assert np.isfinite(link.predict(X)).all()


def test_the_best_boxes_are_kept_where_there_are_too_many() -> None:
    found = detections(np.random.default_rng(1), 70)
    spec = set_spec("objects", 0, places=10)
    kept = places_of(packed(found, places=10), spec)
    np.testing.assert_allclose(np.sort(kept[:, 4]), np.sort(found.scores)[-10:])


def test_places_without_a_box_are_left_out_where_no_frame_fills_them() -> None:
    assert places_of(X, SOURCE).shape == (200, 8, COLUMNS)
    assert places_of(np.zeros_like(X[0]), SOURCE).shape == (1, COLUMNS)
    assert plain_size(SOURCE) == 1


def test_features_tell_classes_apart_and_leave_out_unknown_ones() -> None:
    boxes = packed(Detections(np.zeros((2, 4), np.float32), np.float32([0.3, 0.2]), np.int32([1, 7])), places=2)
    features = features_of(boxes.reshape(2, COLUMNS), classes=3)
    np.testing.assert_array_equal(features[:, 4:], [[0, 1, 0], [0, 0, 0]])


def test_doubtful_boxes_tell_what_counts_do_not() -> None:
    """The source counts sure boxes of any class; the target counts doubtful ones of one class."""
    x, y = samples(200, seed=1)
    said = LINK.predict(x) > 0.0
    vector = fit_links([FitJob(OutputSpec("objects", "vector", 1, "count"), TARGET, X[:, :1], Y, 0)])[0]
    counted = vector.predict(x[:, :1]) > 0.0
    assert (said == y).mean() > 0.9 > (counted == y).mean()


def test_a_fleet_of_set_links_is_fitted_as_each_alone() -> None:
    others = [samples(n, seed=n) for n in (150, 180, 190)]
    jobs = [FitJob(SOURCE, TARGET, x, y, seed) for seed, (x, y) in enumerate(others)]
    for job, fitted in zip(jobs, fit(jobs), strict=True):
        alone = fit([job])[0].link
        np.testing.assert_allclose(fitted.link.predict(X), alone.predict(X), atol=2e-2)


def test_links_from_sets_and_vectors_may_be_fitted_together() -> None:
    vector = FitJob(OutputSpec("objects", "vector", 1, "count"), TARGET, X[:, :1], Y, 0)
    first, second = fit([FitJob(SOURCE, TARGET, X, Y, 0), vector])
    np.testing.assert_allclose(first.link.predict(X), LINK.predict(X), atol=1e-4)
    np.testing.assert_allclose(second.link.predict(X[:, :1]), fit_links([vector])[0].predict(X[:, :1]), atol=1e-4)
    with pytest.raises(LinkError, match="sets of boxes"):
        fit_links([FitJob(SOURCE, TARGET, X, Y, 0)])


def test_ensembles_of_set_links_travel_as_bytes() -> None:
    specs = {
        "objects": OutputSpec("objects", "vector", 1, "count"),
        "persons": OutputSpec("persons", "vector", 1, "count"),
    }
    rng = np.random.default_rng(5)
    lists = [detections(rng, int(rng.integers(0, 6))) for _ in range(80)]
    values = {
        "objects": np.float32([[(d.scores > SURE).sum()] for d in lists]),
        "persons": np.float32([[(d.scores > DOUBTFUL).sum()] for d in lists]),
    }
    inputs = LinkInputs(specs, boxes=True)
    frames = [
        inputs.read({m: v[i] for m, v in values.items()}, {"objects": d}, EPOCH, None) for i, d in enumerate(lists)
    ]
    read = inputs.stacked(frames)
    trained = train_ensembles(specs, values, seed=0, kind="set", times_s=np.arange(80.0), read=read)["persons"]
    again = Ensemble.from_bytes(trained.to_bytes())
    given = {"objects": read.samples["objects"]}
    for before, after in zip(trained.predict(given), again.predict(given), strict=True):
        np.testing.assert_array_equal(before, after)
    assert isinstance(again.links["objects"], SetToVec)
    assert (trained.predict(given)[0] == values["persons"]).mean() > 0.6
