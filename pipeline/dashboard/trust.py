"""How far the outputs of a camera agree with the models', as a page states it: estimate, interval, count, baselines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from camlink.pipeline.accuracy import AuditScores, compare
from camlink.pipeline.dashboard.rollups import CameraState


@dataclass(frozen=True)
class Trust:
    """Agreement in [0, 1] with its 95 % interval, the audit frames behind it, and the best baseline beside it."""

    mean: float
    low: float
    high: float
    audits: int
    baseline: str
    baseline_mean: float
    abstained: int = 0


def trust(cameras: Iterable[Sequence[AuditScores]], *, predicted_only: bool = False) -> Trust | None:
    """Return what audit frames say; None without any ("not measured")."""
    found = compare(cameras, predicted_only=predicted_only)
    if found is None:
        return None
    name = max(found.baselines, key=lambda baseline: found.baselines[baseline].mean)
    ours = found.camlink
    return Trust(
        ours.mean, ours.low, ours.high, ours.frames, name, found.baselines[name].mean, found.abstained
    )


def scores_of(camera: CameraState) -> list[AuditScores]:
    """Return the audit scores of all models of a camera that have some."""
    return [scores for model in camera.models.values() if (scores := model.audit.scores()) is not None]


class TrustOfCamera:
    """What audits say of one camera, computed when it changed and kept until it changes again."""

    def __init__(self) -> None:
        self._version = -1
        self.everything: Trust | None = None
        self.models: dict[str, Trust | None] = {}

    def update(self, camera: CameraState) -> TrustOfCamera:
        """Bring the figures up to date."""
        if camera.audit_version != self._version:
            self._version = camera.audit_version
            self.everything = trust([scores_of(camera)])
            each = {name: model.audit.scores() for name, model in camera.models.items()}
            self.models = {
                name: None if scores is None else trust([[scores]], predicted_only=True)
                for name, scores in each.items()
            }
        return self
