"""A zoo: what the policies of other cameras with the same models have learnt, as a file that a new camera starts from.

Of each camera it holds, per model, how long outputs stay fresh, what they usually are and how far the stated confidence
was to be believed, and per pair of models the tables and the weights of their links. `camlink zoo build` learns it from
recorded traces (`camlink.pipeline.lab.zoo`); `camlink.operators.newcomer` says what a new camera makes of it.

It is a file, and no exchange between cameras, so that a camera's rows do not depend on how far others happen to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.scores import agrees_by_degrees
from camlink.operators.belief import entries_of
from camlink.operators.freshness import PRIOR
from camlink.operators.link_evidence import Pair
from camlink.operators.link_pool import Pool
from camlink.operators.policy_state import State, array, pack, unpack
from camlink.operators.snapshots import reading
from camlink.pipeline.errors import StateError

VERSION = 2
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ModelExperience:
    """One model on one camera.

    ``freshness`` (5,): the parameters of `camlink.operators.freshness`, and ``certainty`` (5, 5), the information that
    the camera's samples hold on them; ``usual`` (entries, levels): the share of executions at each level, nothing for
    tasks without levels; ``recalibration`` (2,): shift and slope of `camlink.operators.recalibration`.
    """

    freshness: Array
    certainty: Array
    usual: Array
    recalibration: Array


@dataclass(frozen=True, eq=False)
class PairExperience:
    """The tables of `camlink.operators.link_evidence.Pair`, each entry's scaled to one frame."""

    level: Array
    apart: Array
    moved: Array


@dataclass(frozen=True, eq=False)
class Experience:
    """What the policy of one camera has learnt from ``frames`` frames."""

    camera_id: str
    frames: int
    models: Mapping[str, ModelExperience]
    pairs: Mapping[tuple[str, str], PairExperience]  # source, target
    pools: Mapping[tuple[str, ...], Array]  # target, *sources -> weights (1 + OWN + 3 * sources,)


@dataclass(frozen=True, eq=False)
class Zoo:
    """The experience of one camera or more, all with models of these specs."""

    specs: Mapping[str, OutputSpec]
    cameras: tuple[Experience, ...]

    def to_bytes(self) -> bytes:
        """Serialise; no pickle. `from_bytes` reads it."""
        specs = [astuple(spec) for spec in self.specs.values()]
        return pack({"zoo": VERSION, "specs": specs, "cameras": [_told(camera) for camera in self.cameras]})

    @classmethod
    def from_bytes(cls, data: bytes) -> Zoo:
        """Read what `to_bytes` wrote. Raises `StateError` for anything else."""
        state = unpack(data)
        with reading():
            if state.get("zoo") != VERSION:
                raise StateError(f"no zoo of version {VERSION}, which this version of camlink reads")
            specs = {told[0]: _spec(told) for told in state["specs"]}
            cameras = tuple(_experience(told, specs) for told in state["cameras"])
        if not cameras:
            raise StateError("not a zoo: no cameras")
        return cls(specs, cameras)

    def misfits(self, specs: Mapping[str, OutputSpec]) -> list[str]:
        """Return what is wrong with it for cameras with models of these ``specs``: nothing, or a sentence each."""
        return [
            f'model "{name}" is not in it as it is deployed, {_shape(spec)}; it has '
            + (_shape(self.specs[name]) if name in self.specs else ", ".join(self.specs))
            for name, spec in specs.items()
            if self.specs.get(name) != spec
        ]


def leveled(specs: Mapping[str, OutputSpec]) -> tuple[str, ...]:
    """Return the models whose levels mean the same on every camera: all but those whose outputs agree by degrees."""
    return tuple(name for name, spec in specs.items() if not agrees_by_degrees(spec))


def _told(camera: Experience) -> State:
    return {
        "id": camera.camera_id,
        "frames": camera.frames,
        "models": {name: vars(model) for name, model in camera.models.items()},
        "pairs": [[*names, vars(pair)] for names, pair in camera.pairs.items()],
        "pools": [[*names, weights] for names, weights in camera.pools.items()],
    }


def _spec(told: Any) -> OutputSpec:
    name, kind, size, task, labels, *more = told
    return OutputSpec(str(name), kind, int(size), task, tuple(map(str, labels)), *more)


def _experience(told: Mapping[str, Any], specs: Mapping[str, OutputSpec]) -> Experience:
    models = {name: _model(told["models"][name], spec) for name, spec in specs.items()}
    pairs = {(s, t): _pair(tables, specs[s], specs[t]) for s, t, tables in told["pairs"]}
    pools = {tuple(n): array(weights, Pool(len(n) - 1).weights) for *n, weights in told["pools"]}
    if unknown := {name for names in (*pairs, *pools) for name in names} - set(leveled(specs)):
        raise StateError(f"not a zoo: links of {sorted(unknown)}, which are no models with levels")
    return Experience(str(told["id"]), int(told["frames"]), models, pairs, pools)


def _model(told: Mapping[str, Any], spec: OutputSpec) -> ModelExperience:
    like, free = (np.zeros((0, 0)), ()) if agrees_by_degrees(spec) else (np.zeros((entries_of(spec), 1)), (1,))
    return ModelExperience(
        array(told["freshness"], PRIOR),
        array(told["certainty"], np.outer(PRIOR, PRIOR)),
        array(told["usual"], like, free=free),
        array(told["recalibration"], np.zeros(2)),
    )


def _pair(told: Mapping[str, Any], source: OutputSpec, target: OutputSpec) -> PairExperience:
    like = Pair(source, target)
    level = array(told["level"], like.level, free=(1, 2))
    return PairExperience(level, array(told["apart"], like.apart), array(told["moved"], like.moved))


def _shape(spec: OutputSpec) -> str:
    return f"{spec.task} of {spec.size}" + (f" ({', '.join(spec.labels)})" if spec.labels else "")
