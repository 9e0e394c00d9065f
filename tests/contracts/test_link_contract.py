"""Every way of making a link keeps the link contract, and the contract notices what is broken."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from camlink.links.base import Array
from camlink.links.contract import check_link
from camlink.links.federated import fuse, train_global
from camlink.links.fit import PAPER, FitJob, fit_links
from camlink.links.onnx_export import export_onnx
from camlink.links.train import train_ensembles
from camlink.links.vec_to_vec import VecToVec
from camlink.models.base import OutputSpec
from camlink.models.scores import rules

RNG = np.random.default_rng(1)
SOURCE = OutputSpec("source", "vector", 3, "count")
X = RNG.poisson(2, (60, 3)).astype(np.float32)


def target(task: str) -> OutputSpec:
    return OutputSpec("target", "vector", 2, task)  # type: ignore[arg-type]


def labels() -> Array:
    first = (X[:, :1] > 1).astype(np.float32)
    return np.concatenate([first, 1 - first], axis=1)


def papers() -> VecToVec:
    return fit_links([FitJob(SOURCE, target("count"), X, X[:, :2], 0)], PAPER)[0]


def single_label() -> VecToVec:
    return fit_links([FitJob(SOURCE, target("single_label"), X, labels(), 0)])[0]


def thresholds() -> VecToVec:
    specs = {"source": SOURCE, "target": target("count")}
    return train_ensembles(specs, {"source": X, "target": X[:, :2]}, seed=0)["target"].links["source"]


def federated() -> VecToVec:
    return train_global(SOURCE, target("multi_label"), {"a": (X, labels())}, seed=0, rounds=50).link


def fused() -> VecToVec:
    return fuse([papers(), papers()], X, X[:, :2])


MAKERS: list[Callable[[], VecToVec]] = [papers, single_label, thresholds, federated, fused]


@pytest.mark.parametrize("make", MAKERS)
def test_every_link_keeps_the_contract(make: Callable[[], VecToVec]) -> None:
    check_link(make(), X)


@pytest.mark.parametrize("make", MAKERS)
def test_an_exported_link_says_the_same(make: Callable[[], VecToVec], tmp_path: Path) -> None:
    import onnxruntime

    link = make()
    export_onnx(link, tmp_path / "link.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "link.onnx"), providers=["CPUExecutionProvider"])
    (said,) = session.run(None, {"source": X})
    np.testing.assert_allclose(said, rules(link.target).activate(link.predict(X)), atol=1e-5)


class WritesIntoItsInput(VecToVec):
    def predict(self, batch: Array) -> Array:
        out = super().predict(batch)
        batch[...] = 0
        return out


class LooksAtItsNeighbours(VecToVec):
    def predict(self, batch: Array) -> Array:
        place = np.arange(len(batch), dtype=np.float32)[:, None] if batch.ndim > 1 else np.float32(0)
        return super().predict(batch) + place


class SwallowsNan(VecToVec):
    def predict(self, batch: Array) -> Array:
        return super().predict(np.nan_to_num(batch))


class KeepsItsWeights(VecToVec):
    def replace_weights(self, weights: object) -> "KeepsItsWeights":
        return self


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (WritesIntoItsInput, "wrote into its input"),
        (LooksAtItsNeighbours, "depends on its batch"),
        (SwallowsNan, "not finite are not refused"),
        (KeepsItsWeights, "weights do not decide"),
    ],
)
def test_the_contract_notices(broken: type[VecToVec], message: str) -> None:
    good = papers()
    link = broken(good.source, good.target, **good.weights())
    with pytest.raises(AssertionError, match=message):
        check_link(link, X.copy())
    assert replace(good) is not good
