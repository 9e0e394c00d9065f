"""How far outputs agree with the models', as a page states it: figure, interval and baseline.

Figure and interval are the report's, so that a page and a report of one run never show two: the weighted mean over
audit frames (`camlink.pipeline.accuracy`) and, once a run has come to its own end, the interval for one look. Before
that, and of a run that somebody stopped, it is the certificate's, which holds however often one looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from camlink.operators.evidence import LADDER, Evidence, bounds, combined
from camlink.pipeline.accuracy import wilson
from camlink.pipeline.dashboard.audits import Weighted, Weights
from camlink.pipeline.dashboard.rollups import CameraState, ModelState
from camlink.pipeline.reports.notes import against_baselines, looks
from camlink.pipeline.run_info import RunInfo


@dataclass(frozen=True)
class Trust:
    """Agreement in [0, 1] with its 95 % interval, the audits behind it, and the best baseline."""

    mean: float
    low: float
    high: float
    audits: int
    baseline: str
    baseline_mean: float
    looks: str  # what the interval is
    answers: Mapping[str, Any] | None = None  # the figure that `verdict` is about

    def verdict(self, model: str) -> Mapping[str, str] | None:
        """Judge one model's answers as the report does; None for several models together, or without answers."""
        return None if self.answers is None else against_baselines(model, self.answers)


def _trust(
    evidence: Evidence, audited: Weighted, weights: Weights, info: RunInfo, proven: tuple[float, float] | None = None
) -> Trust | None:
    """Return what the audits say; None without any ("not measured").

    ``weights`` are those of the audit frames; ``proven`` are the bounds of ``evidence``, if known already.
    """
    mean, best = audited.mean(), audited.best()
    if mean is None or best is None:
        return None
    if info.complete:
        low, high = wilson(mean, weights.effective_frames())
    else:
        low, high = proven or map(float, bounds(evidence))
    return Trust(mean, min(low, mean), max(high, mean), int(evidence.audits), *best, looks(info.complete))


def trust_of_models(models: Iterable[ModelState], info: RunInfo) -> Trust | None:
    """Return what audits say of the predicted outputs of one model on several cameras of a run."""
    each = list(models)
    evidence, audited = combined(m.audit.evidence for m in each), _sum(m.audit.predicted for m in each)
    found = _trust(evidence, audited, audited.weights(), info)
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


def trust_of_cameras(cameras: Iterable[CameraState], info: RunInfo) -> Trust | None:
    """Return what audits say of all outputs of some cameras."""
    each = list(cameras)
    weights = sum((camera.audited.weights for camera in each), Weights())
    return _trust(combined(camera.evidence for camera in each), _of_all_models(each), weights, info)


def trusts_of_cameras(cameras: Sequence[CameraState], info: RunInfo) -> list[Trust | None]:
    """Return what `trust_of_cameras` says of each camera by itself, all in one computation."""
    measured = [camera for camera in cameras if camera.evidence.audits and not info.complete]
    low, high = bounds(_stacked([camera.evidence for camera in measured]))
    ids = [camera.camera_id for camera in measured]
    proven = dict(zip(ids, zip(low.tolist(), high.tolist(), strict=True), strict=True))
    return [_trust(c.evidence, _of_all_models([c]), c.audited.weights, info, proven.get(c.camera_id)) for c in cameras]


def _of_all_models(cameras: Iterable[CameraState]) -> Weighted:
    return _sum(model.audit.everything for camera in cameras for model in camera.models.values())


def _sum(parts: Iterable[Weighted]) -> Weighted:
    return sum(parts, Weighted())


def _stacked(each: Sequence[Evidence]) -> Evidence:
    """Return the evidence of many streams as arrays, which the functions of `evidence` broadcast over."""
    shapes = {name: (len(LADDER),) if name.startswith(("more", "less")) else () for name in vars(Evidence())}
    return Evidence(
        **{
            name: np.array([np.broadcast_to(getattr(one, name), shape) for one in each]).reshape(len(each), *shape)
            for name, shape in shapes.items()
        }
    )
