"""One camera in full: what it shows, what was served, what was decided, where predictions were wrong, what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from markupsafe import Markup

from camlink.pipeline.alerts.raised import raised_alerts
from camlink.pipeline.dashboard import svg
from camlink.pipeline.dashboard.costs import Costs, costs_of
from camlink.pipeline.dashboard.fleet import FleetView, drawn_model, telling_span, troubles
from camlink.pipeline.dashboard.happened import happened
from camlink.pipeline.dashboard.health import Health, health_of, learning_of
from camlink.pipeline.dashboard.rollups import HOWS, SECOND_US, CalibratedState, CameraState, RunRollups
from camlink.pipeline.dashboard.targets import target_of, targets
from camlink.pipeline.dashboard.trust import Trust, trust_of_models
from camlink.pipeline.reports.calibrated import calibrated_words, unit
from camlink.pipeline.reports.notes import whole_words
from camlink.pipeline.results.latest import read_latest
from camlink.pipeline.results.tables import microseconds
from camlink.pipeline.run_info import RunInfo

SPAN_S = {"1m": 60, "1h": 3600, "24h": 86_400}
SPANS = {"1m": "1 minute", "1h": "1 hour", "24h": "24 hours", "all": "All"}


@dataclass(frozen=True)
class ModelView:
    """What the page says of one model on this camera."""

    name: str
    caption: str
    chart: Markup | None
    trust: Trust | None  # of predicted outputs alone
    whole: str  # on how many audit frames its whole answer was right, in a sentence; empty where it is one entry
    served: Mapping[str, int]
    executions: int
    executed_share: float | None
    link_version: int | None
    confidence: float | None  # mean of what the links said of themselves
    target: float | None
    standing: Mapping[str, Any] | None  # the day's certificate that says how it stands towards its target


@dataclass(frozen=True)
class CameraView:
    """Everything on one camera's page."""

    camera_id: str
    facts: Mapping[str, Any]
    health: Health
    learning: str  # how far it is with the frames before its first decision; empty for one that has come past them
    span: str
    trust: Trust | None
    costs: Costs
    troubles: Sequence[str]  # what must not be overlooked, in sentences
    models: list[ModelView]
    drawn: str
    per_frame: bool  # a policy decides on every frame, and reads no links
    strip: Markup | None  # decisions over time; of such a policy, on which share of frames models executed
    decision: Mapping[str, Any] | None
    calibrated: Sequence[str]  # what a person would say, by the oracle node, in sentences
    matrix: list[tuple[str, list[tuple[str, float | None]]]]
    latest: Mapping[str, Any] | None
    happened: Sequence[Mapping[str, Any]]
    dropped: Mapping[str, int]
    frames: int
    in_flight: int


def camera_view(view: FleetView, rollups: RunRollups, camera_id: str, span: str, now: datetime) -> CameraView | None:
    """Return the page of a camera; None if the run has no such camera.

    ``span`` is one of `SPANS`, or empty: then the one that shows something.
    """
    latest = read_latest(rollups.run_dir, camera_id) if camera_id in rollups.cameras else None
    alerts = raised_alerts(rollups.run_dir, camera_id)
    with rollups.lock:
        camera = rollups.up_to_date(camera_id)
        if camera is None:
            return None
        span = span or telling_span(camera)
        window = _window(camera, span)
        asked = targets(rollups.info, camera)
        decisions = [_placed(decision) for decision in camera.decisions]
        scored = next((d for d in reversed(decisions) if d["link_scores"]), None)
        captured = rollups.info.captured.get(camera_id, 0)
        return CameraView(
            camera_id=camera_id,
            facts={**dict.fromkeys(("domain", "source", "fps")), **rollups.info.cameras.get(camera_id, {})},
            health=health_of(camera, rollups.info, now),
            learning=learning_of(camera, rollups.info),
            span=span,
            trust=view.trust_of(camera),
            costs=(costs := costs_of([camera], rollups.info)),
            troubles=troubles(rollups.info, [camera], costs),
            models=[_model(rollups.info, camera, name, span, window, asked.get(name)) for name in camera.models],
            drawn=drawn_model(camera),
            per_frame=rollups.info.per_frame,
            strip=_strip(rollups.info, camera, decisions, span, window) if decisions and window else None,
            decision=decisions[-1] if decisions else None,
            matrix=_matrix(scored["link_scores"], list(camera.models)) if scored else [],
            calibrated=[_calibrated(rollups.info, camera_id, state) for state in camera.calibrated.values()],
            latest=latest,
            happened=happened(camera, links=not rollups.info.per_frame, alerts=alerts),
            dropped=dict(camera.dropped.most_common()),
            frames=camera.frames(),
            in_flight=_in_flight(rollups.info, captured, camera),
        )


def _model(
    info: RunInfo,
    camera: CameraState,
    name: str,
    span: str,
    window: tuple[int, int] | None,
    standing: Mapping[str, Any] | None,
) -> ModelView:
    model = camera.models[name]
    total = model.served.total()
    filled = model.series[span].read()
    return ModelView(
        name=name,
        caption=_caption(model.spec),
        chart=svg.over_time(model.spec, filled, window) if window and len(filled.starts_us) else None,
        trust=trust_of_models([model], info),
        whole=whole_words(asdict(model.audit.whole) if model.audit.whole else None),
        served={how: model.served[how] for how in HOWS},
        executions=model.executions,
        executed_share=model.executions / total if total else None,
        link_version=model.link_version,
        confidence=model.confidence_sum / model.confidences if model.confidences else None,
        target=target_of(info, camera.camera_id, name),
        standing=standing,
    )


def _calibrated(info: RunInfo, camera_id: str, state: CalibratedState) -> str:
    frames = max(state.frames, 1)
    means = {"mean_count": state.count_sum / frames, "mean_confidence": state.confidence_sum / frames}
    judged = {"judged": info.oracle.get(camera_id), "unit": unit(info), "mean_own": None}
    return calibrated_words({"name": state.name, "frames": state.frames, **means, **judged})


def _caption(spec: Any) -> str:
    if spec.task == "count":
        return f"count of {spec.labels[0]}" if spec.size == 1 and spec.labels else "count, all labels together"
    if spec.task in ("single_label", "multi_label"):
        return "labels given"
    return str(spec.labels[0] if spec.labels else "first entry")


def _window(camera: CameraState, span: str) -> tuple[int, int] | None:
    if camera.first_us is None or camera.last_us is None:
        return None
    first, last = camera.first_us, camera.last_us + SECOND_US // 10
    if span in SPAN_S:
        first = max(first, last - SPAN_S[span] * SECOND_US)
        seen = [model.series[span].read().starts_us for model in camera.models.values()]
        first = max(first, min((int(starts[0]) for starts in seen if len(starts)), default=first))
    return first, last


def _placed(decision: Mapping[str, Any]) -> dict[str, Any]:
    return {**decision, "start_us": microseconds(decision["start"]), "end_us": microseconds(decision["end"])}


def _matrix(
    scores: Mapping[str, Mapping[str, float]], models: list[str]
) -> list[tuple[str, list[tuple[str, float | None]]]]:
    """Return, per source, how well it predicts each target."""
    return [(source, [(target, scores.get(source, {}).get(target)) for target in models]) for source in models]


def _strip(
    info: RunInfo, camera: CameraState, decisions: Sequence[Mapping[str, Any]], span: str, window: tuple[int, int]
) -> Markup:
    if info.per_frame:
        return svg.shares({name: model.series[span].read() for name, model in camera.models.items()}, window)
    return svg.strip(decisions, list(camera.models), window)


def _in_flight(info: RunInfo, captured: int, camera: CameraState) -> int:
    """Return frames that were read but have no outputs in the folder yet, as of the header's last writing."""
    if info.finished_at is not None:
        return 0
    return max(0, captured - camera.frames() - camera.dropped.total())
