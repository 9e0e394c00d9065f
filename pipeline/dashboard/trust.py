"""How far outputs agree with the models', as a page states it: figure, interval and baseline.

The figure is the report's: the weighted mean over audit frames (`camlink.pipeline.accuracy`), so that a page and a
report of one run never show two. The interval is the certificate's, which holds however often one looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from camlink.operators.evidence import LADDER, Evidence, bounds, certify, combined
from camlink.pipeline.dashboard.audits import Weighted
from camlink.pipeline.dashboard.rollups import CameraState, ModelState
from camlink.pipeline.reports.notes import against_baselines
from camlink.pipeline.run_info import RunInfo


@dataclass(frozen=True)
class Trust:
    """Agreement in [0, 1] with its anytime-valid 95 % interval, the audits behind it, and the best baseline."""

    mean: float
    low: float
    high: float
    audits: int
    baseline: str
    baseline_mean: float
    answers: Mapping[str, Any] | None = None  # the figure that `verdict` is about

    def verdict(self, model: str) -> Mapping[str, str] | None:
        """Judge one model's answers as the report does; None for several models together, or without answers."""
        return None if self.answers is None else against_baselines(model, self.answers)


def trust(evidence: Evidence, audited: Weighted) -> Trust | None:
    """Return what the audits say; None without any ("not measured")."""
    found, mean, best = certify(evidence), audited.mean(), audited.best()
    if found.low is None or found.high is None or mean is None or best is None:
        return None
    return Trust(mean, min(found.low, mean), max(found.high, mean), found.audits, *best)


def trust_of_models(models: Iterable[ModelState], info: RunInfo) -> Trust | None:
    """Return what audits say of the predicted outputs of one model on several cameras of a run."""
    each = list(models)
    evidence = combined(m.audit.evidence for m in each)
    found = trust(evidence, _sum(m.audit.predicted for m in each))
    if found is None:
        return None
    answered = _sum(m.audit.answered for m in each)
    return replace(found, answers=_figure(answered, int(evidence.checked), anytime=not info.complete))


def _figure(answered: Weighted, audits: int, *, anytime: bool) -> dict[str, Any] | None:
    best = answered.best()
    if best is None:
        return None
    name, mean = best
    leads = {name: asdict(answered.lead(name, anytime=anytime))}
    return {"mean": answered.mean(), "audit_frames": audits, "baselines": {name: mean}, "leads": leads}


def trust_of_cameras(cameras: Iterable[CameraState]) -> Trust | None:
    """Return what audits say of all outputs of some cameras."""
    each = list(cameras)
    audited = _sum(model.audit.everything for camera in each for model in camera.models.values())
    return trust(combined(camera.evidence for camera in each), audited)


def _sum(parts: Iterable[Weighted]) -> Weighted:
    return sum(parts, Weighted())


def trusts_of_cameras(cameras: Sequence[CameraState]) -> list[Trust | None]:
    """Return what `trust_of_cameras` says of each camera by itself, all in one computation."""
    measured = [camera for camera in cameras if camera.evidence.audits]
    low, high = bounds(_stacked([camera.evidence for camera in measured]))
    found: dict[str, Trust | None] = {}
    for place, camera in enumerate(measured):
        audited = _sum(model.audit.everything for model in camera.models.values())
        at, best = audited.mean(), audited.best()
        if at is None or best is None:
            continue
        lowest, highest = min(float(low[place]), at), max(float(high[place]), at)
        found[camera.camera_id] = Trust(at, lowest, highest, int(camera.evidence.audits), *best)
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
