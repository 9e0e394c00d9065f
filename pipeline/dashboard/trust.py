"""How far outputs agree with the models', as a page states it: a certificate, and the best baseline beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from camlink.operators.evidence import Evidence, certify, combined
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
    name, mean = best
    return Trust(found.estimate, found.low, found.high, found.audits, name, mean)


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


class TrustOfCamera:
    """What audits say of one camera, computed when it changed and kept until it changes again."""

    def __init__(self) -> None:
        self._version = -1
        self.everything: Trust | None = None
        self.models: dict[str, Trust | None] = {}

    def update(self, camera: CameraState) -> TrustOfCamera:
        """Bring the figures up to date."""
        if camera.version != self._version:
            self._version = camera.version
            self.everything = trust_of_cameras([camera])
            self.models = {name: trust_of_models([model]) for name, model in camera.models.items()}
        return self
