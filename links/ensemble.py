"""The multi-source ensemble h_{A,j} of MLink (Sec. 3.5): a weighted sum over whichever sources ran, then activation.

The learned weights are positive and are renormalised over the sources that ran, so that one set of weights serves
every subset, and a single source stands as it is ("the ensemble simply fits as an identity layer", Sec. 3.6).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from math import erf

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array
from camlink.links.vec_to_vec import PARAMETERS, VecToVec
from camlink.models.base import OutputSpec
from camlink.models.scores import rules
from camlink.pipeline.errors import LinkError

_erf = np.vectorize(erf, otypes=[np.float64])


@dataclass(frozen=True, eq=False)
class Ensemble:
    """All links towards one target, ready to predict from any subset of the sources.

    ``spread`` (target.size,) is the root mean square error per entry on frames held out from training;
    ``held_out_agreement`` the mean agreement there.
    """

    target: OutputSpec
    links: Mapping[str, VecToVec]
    weights: Mapping[str, float]
    spread: Array
    held_out_agreement: float

    def combine(self, pre_activations: Mapping[str, Array]) -> Array:
        """Weigh and activate: source -> (..., target.size), at least one -> value (..., target.size)."""
        if len(pre_activations) == 1:
            (mixed,) = pre_activations.values()
        else:
            total = sum(self.weights[s] for s in pre_activations)
            shares = (z * np.float32(self.weights[s] / total) for s, z in pre_activations.items())
            mixed = reduce(np.add, shares)
        return rules(self.target).activate(mixed)

    def finish(self, value: Array) -> Array:
        """Bring an activated value into the form that is served: counts are whole and not negative."""
        return rules(self.target).finish(value)

    def predict(self, values: Mapping[str, Array]) -> tuple[Array, NDArray[np.float64]]:
        """Predict the target from executed values: source -> (..., size).

        Returns the served value (..., target.size) and its confidence (...,): the estimated agreement, 0..1.
        Sources without a link are ignored. Raises `LinkError` if none is left, or if values do not fit.
        """
        pre = {s: self.links[s].predict(v) for s, v in values.items() if s in self.links}
        if not pre:
            known = ", ".join(self.links) or "nothing"
            got = ", ".join(values) or "nothing"
            raise LinkError(f"no link to {self.target.model} from {got}; links exist from {known}")
        activated = self.combine(pre)
        return self.finish(activated), self.confidence(activated)

    def confidence(self, activated: Array) -> NDArray[np.float64]:
        """Estimate the agreement of an activated value (..., size) -> (...,), from its own shape and `spread`."""
        task = self.target.task
        if task == "single_label":
            return np.asarray(activated.max(axis=-1), dtype=np.float64)
        if task == "multi_label":
            return np.asarray(np.maximum(activated, 1.0 - activated).mean(axis=-1), dtype=np.float64)
        if task == "count":  # chance that the count, normal around the prediction, rounds to what is served
            offset = activated - self.finish(activated)
            high, low = (_erf((half - offset) / (self.spread * np.sqrt(2.0))) for half in (0.5, -0.5))
            return np.asarray(((high - low) / 2.0).mean(axis=-1), dtype=np.float64)
        closeness = max(0.0, 1.0 - float(self.spread.mean()) / self.target.scale)
        return np.full(activated.shape[:-1], closeness)

    def to_bytes(self) -> bytes:
        """Serialise without pickle: a zip of arrays and one JSON header. `from_bytes` reads it."""
        header = {
            "format": 1,
            "target": asdict(self.target),
            "sources": {s: asdict(link.source) for s, link in self.links.items()},
            "weights": dict(self.weights),
            "held_out_agreement": self.held_out_agreement,
        }
        arrays = {f"{s}/{name}": value for s, link in self.links.items() for name, value in link.weights().items()}
        buffer = io.BytesIO()
        meta = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        np.savez(buffer, allow_pickle=False, header=meta, spread=self.spread, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, payload: bytes) -> Ensemble:
        """Read what `to_bytes` wrote. Raises `LinkError` for anything else."""
        try:
            with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
                header = json.loads(arrays["header"].tobytes())
                target = _spec(header["target"])
                links = {
                    s: VecToVec(_spec(source), target, *(arrays[f"{s}/{name}"] for name in PARAMETERS))
                    for s, source in header["sources"].items()
                }
                spread = arrays["spread"]
            return cls(target, links, header["weights"], spread, float(header["held_out_agreement"]))
        except Exception as error:  # zip, array and JSON readers each have their own errors for damaged bytes
            raise LinkError(f"not a saved ensemble: {error}") from error


def _spec(fields: dict[str, object]) -> OutputSpec:
    labels = tuple(str(label) for label in fields.pop("labels", ()))  # type: ignore[attr-defined]
    return OutputSpec(**fields, labels=labels)  # type: ignore[arg-type]
