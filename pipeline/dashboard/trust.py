"""How far outputs agree with the models', as a page states it: a certificate, and the best baseline beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from camlink.operators.evidence import LADDER, Evidence, bounds, certify, combined, mean
from camlink.pipeline.dashboard.audits import Weighted
from camlink.pipeline.dashboard.rollups import CameraState, ModelState


@dataclass(frozen=True)
class Trust:
    """Agreement in [0, 1] with its anytime-valid 95 % interval, the audits behind it, and the best baseline."""

    mean: float
    low: float
    high: float
    audits: int
    baseline: str
    baseline_mean: float


def trust(evidence: Evidence, baselines: Weighted) -> Trust | None:
    """Return what the audits say; None without any ("not measured")."""
    found, best = certify(evidence), baselines.best()
    if found.estimate is None or found.low is None or found.high is None or best is None:
        return None
    return Trust(found.estimate, found.low, found.high, found.audits, *best)


def trust_of_models(models: Iterable[ModelState]) -> Trust | None:
    """Return what audits say of the predicted outputs of one model on several cameras."""
    each = list(models)
    return trust(combined(m.audit.evidence for m in each), _sum(m.audit.predicted for m in each))


def trust_of_cameras(cameras: Iterable[CameraState]) -> Trust | None:
    """Return what audits say of all outputs of some cameras."""
    each = list(cameras)
    baselines = _sum(model.audit.everything for camera in each for model in camera.models.values())
    return trust(combined(camera.evidence for camera in each), baselines)


def _sum(parts: Iterable[Weighted]) -> Weighted:
    return sum(parts, Weighted())


def trusts_of_cameras(cameras: Sequence[CameraState]) -> list[Trust | None]:
    """Return what `trust_of_cameras` says of each camera by itself, all in one computation."""
    measured = [camera for camera in cameras if camera.evidence.audits]
    stacked = _stacked([camera.evidence for camera in measured])
    (low, high), means = bounds(stacked), mean(stacked)
    found: dict[str, Trust | None] = {}
    for place, camera in enumerate(measured):
        best = _sum(model.audit.everything for model in camera.models.values()).best()
        at = float(means[place])
        lowest, highest = min(float(low[place]), at), max(float(high[place]), at)
        audits = int(camera.evidence.audits)
        found[camera.camera_id] = None if best is None else Trust(at, lowest, highest, audits, *best)
    return [found.get(camera.camera_id) for camera in cameras]


def _stacked(each: Sequence[Evidence]) -> Evidence:
    """Return the evidence of many streams as arrays, which the functions of `evidence` broadcast over."""
    shapes = {name: (len(LADDER),) if name.startswith(("more", "less")) else () for name in vars(Evidence())}
    return Evidence(
        **{
            name: np.array([np.broadcast_to(getattr(one, name), shape) for one in each]).reshape(len(each), *shape)
            for name, shape in shapes.items()
        }
    )
