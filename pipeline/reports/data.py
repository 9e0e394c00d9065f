"""The report as data: everything that the terminal, ``report.json`` and the HTML page say, computed once.

Top-level keys: ``run``, ``cameras``, ``models``, ``executions``, ``abstentions``, ``agreement``, ``certificates``,
``frames``, ``cost``, ``calibrated``. Each camera holds ``executions`` to ``cost`` for itself. Shares and
agreements lie in [0, 1]; an agreement without audit frames is null.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from camlink.models.base import OutputSpec
from camlink.operators.evidence import Evidence, bounds
from camlink.pipeline.accuracy import BASELINES, AuditScores, Comparison, Counted, compare
from camlink.pipeline.reports.calibrated import calibrated
from camlink.pipeline.reports.certificates import CameraProof, Proof, camera_proof, rolled_up
from camlink.pipeline.reports.notes import looks, note, promise
from camlink.pipeline.reports.rows import CameraRows, ModelRows, read_camera
from camlink.pipeline.reports.spending import latency_limit, spent, spent_in_all, still_learning, time_budget
from camlink.pipeline.results import RunInfo, RunResults
from camlink.pipeline.whole_answers import whole_answers

log = logging.getLogger(__name__)

Report = dict[str, Any]
HOWS = ("executed", "linked", "reused", "abstained")
IN_RUN = (
    *("name", "camlink_version", "seed", "policy"),
    *("started_at", "finished_at", "complete", "stopped_by", "wall_s", "taken_up"),
)


def build_report(run_dir: Path) -> Report:
    """Return the report of a run, finished or not. Raises `ResultsError` when the folder holds no run."""
    return survey(RunResults(run_dir), lambda rows, entry: None)


def survey(results: RunResults, visit: Callable[[CameraRows, Report], None]) -> Report:
    """Build the report, showing ``visit`` each camera's rows and entry on the way; one camera in memory at a time."""
    cameras: dict[str, Report] = {}
    scores: dict[str, list[AuditScores]] = {name: [] for name in results.info.models}
    pooled: list[list[AuditScores]] = []
    proofs: list[CameraProof] = []
    for camera_id in results.cameras():
        rows = read_camera(results, camera_id)
        proofs.append(camera_proof(rows, results.info))
        cameras[camera_id] = _camera(rows, results.info, proofs[-1])
        pooled.append(rows.scores())
        for name, model in rows.models.items():
            scores[name] += [model.scores] if model.scores is not None else []
        visit(rows, cameras[camera_id])
    report = _whole(results.info, cameras, pooled, proofs)
    report["calibrated"] = calibrated(results)
    report["models"] = {
        name: _model(results.info, name, cameras, scores[name], [p.models[name] for p in proofs if name in p.models])
        for name in results.info.models
    }
    for violation in report["frames"]["violations"]:
        log.error("frames are not conserved: %s", violation)
    return report


def _whole(
    info: RunInfo,
    cameras: Mapping[str, Report],
    pooled: Sequence[Sequence[AuditScores]],
    proofs: Sequence[CameraProof],
) -> Report:
    frames = _sum_frames([camera["frames"] for camera in cameras.values()], info)
    executions = _sum_executions(camera["executions"] for camera in cameras.values())
    cost = _cost([camera["cost"] for camera in cameras.values()])
    cost["parts"] = spent_in_all([camera["cost"]["parts"] for camera in cameras.values()])
    cost |= {"time_budget": time_budget(info), "latency_limit_ms": latency_limit(info)}
    return {
        "run": {name: _plain(getattr(info, name)) for name in IN_RUN}
        | {"loads": info.loads, "interval": _kind(info), "per_frame": info.per_frame, "synthetic": info.synthetic},
        "executions": executions,
        "abstentions": _abstentions(frames),
        "agreement": _agreement(pooled, Proof.of_all(p.whole for p in proofs), info),
        "certificates": rolled_up(proofs),
        "frames": frames,
        "cost": cost | _measured(info, cost["model_seconds"]),
        "cameras": dict(cameras),
    }


def _kind(info: RunInfo) -> str:
    """Return which interval the figures carry: a run that came to its own end is looked at once."""
    return "fixed-sample" if info.complete else "anytime-valid"


def _camera(rows: CameraRows, info: RunInfo, proof: CameraProof) -> Report:
    """Return one camera's entry."""
    frames = _frames(rows, info)
    models: dict[str, Report] = {}
    for name, model in rows.models.items():
        scored = [model.scores] if model.scores is not None else []
        agreement = _agreement([[each] for each in scored], proof.models.get(name), info)
        models[name] = {
            "executions": _executions(model, frames["per_model"][name]),
            "agreement": agreement,
            "whole_answers": _whole_answers(model.spec, scored),
            "noise_floor": asdict(floor) if (floor := model.noise_floor()) is not None else None,
            "outputs": (outputs := _outputs(rows, model)),
            "note": note(name, agreement, outputs),
        }
    costs = _cost([_model_cost(info, name, models[name]["executions"]) for name in rows.models])
    costs |= {"parts": spent_in_all([spent(rows, info)])}
    costs |= {"time_budget": time_budget(info), "latency_limit_ms": latency_limit(info)}
    return {
        **{key: info.cameras.get(rows.camera_id, {}).get(key) for key in ("domain", "source", "fps")},
        "executions": _sum_executions(model["executions"] for model in models.values()),
        "abstentions": _abstentions(frames),
        "agreement": (agreement := _agreement([rows.scores()], proof.whole, info)),
        "certificates": list(proof.entries),
        "expected_agreement": _expected(rows, agreement, info),
        "frames": frames,
        "cost": costs,
        "models": models,
        "learning": still_learning(
            costs["parts"], info.learning_frames(rows.camera_id), ended=info.finished_at is not None
        ),
        "decisions": [_decision(row) for row in rows.decisions],
        "drops": [_plain_row(row) for row in rows.drops],
        "events": [_plain_row(row) for row in rows.events],
        "adaptation": [_plain_row(row) | {"scores": json.loads(row["scores"])} for row in rows.adaptation],
    }


def _expected(rows: CameraRows, measured: Report, info: RunInfo) -> Report | None:
    """Return what the decisions expected, as a mean over the frames served under them, and what became of it."""
    expected = rows.expected_agreements()
    if not expected.size:
        return None
    mean = float(expected.mean())
    return {
        "mean": mean,
        "lowest": float(expected.min()),
        "highest": float(expected.max()),
        "measured": measured["mean"],
        "text": promise(mean, measured, looks(info.complete)),
    }


def _model(
    info: RunInfo, name: str, cameras: Mapping[str, Report], scores: Sequence[AuditScores], proofs: Sequence[Proof]
) -> Report:
    """Return one model's entry over all cameras."""
    agreement = _agreement([[each] for each in scores], Proof.of_all(proofs), info)
    outputs = _sum_outputs([camera["models"][name]["outputs"] for camera in cameras.values()])
    fields = ("task", "size", "labels", "time_ms", "memory_gb", "description", "licence")
    return {
        **{field: info.models[name].get(field) for field in fields},
        "executions": _sum_executions(camera["models"][name]["executions"] for camera in cameras.values()),
        "agreement": agreement,
        "whole_answers": _whole_answers(info.specs()[name], scores),
        "outputs": outputs,
        "note": note(name, agreement, outputs),
    }


def _whole_answers(spec: OutputSpec, scores: Sequence[AuditScores]) -> Report | None:
    found = whole_answers(spec, scores)
    return None if found is None else asdict(found)


def _outputs(rows: CameraRows, model: ModelRows) -> Report:
    """Return how many of a model's served outputs came about in which way, and why it abstained."""
    counts = {how: model.served_count(how) for how in HOWS}
    return {
        "served": sum(counts.values()),
        "predicted": counts["linked"] + counts["reused"],
        "abstained": counts["abstained"],
        "nothing_fits": model.abstained_while(rows.without_executions(model.times_us)),
        "usual_reason": model.usual_reason,
    }


def _sum_outputs(parts: Sequence[Report]) -> Report:
    numbers = {key: sum(part[key] for part in parts) for key in ("served", "predicted", "abstained", "nothing_fits")}
    most = max(parts, key=lambda part: part["abstained"], default={"usual_reason": ""})
    return numbers | {"usual_reason": most["usual_reason"]}


def _abstentions(frames: Report) -> Report:
    """Return how many served outputs gave no answer, and their share of all served ones."""
    served = sum(frames[how] for how in HOWS)
    return {"served": frames["abstained"], "share": frames["abstained"] / served if served else None}


def _frames(rows: CameraRows, info: RunInfo) -> Report:
    """Return what became of a camera's frames, per model, and every breach of the conservation law.

    Only a run that is still going on may have frames on their way; its header, written now and then, may lag behind
    the rows. One that has finished, whatever ended it, must account for every frame.
    """
    dropped: Counter[str] = Counter()
    for drop in rows.drops:
        dropped[drop["reason"]] += drop["count"]
    seen = rows.frames_seen + dropped.total()
    captured = info.captured.get(rows.camera_id)
    going_on = info.finished_at is None
    total = seen if captured is None else max(captured, seen) if going_on else captured
    per_model = {}
    violations, in_flight = [], 0
    for name, model in rows.models.items():
        counts = {how: model.served_count(how) for how in HOWS}
        missing = total - sum(counts.values()) - dropped.total()
        waiting = max(missing, 0) if going_on else 0
        per_model[name] = {"captured": total, **counts, "dropped": dict(dropped), "in_flight": waiting}
        in_flight = max(in_flight, waiting)
        if missing != waiting:
            violations.append(_violation(rows.camera_id, name, total, counts, dropped.total()))
    totals = {how: sum(model.served_count(how) for model in rows.models.values()) for how in HOWS}
    return {
        "captured": total,
        "captured_counted": captured is not None,  # False: taken from the rows, so the law cannot be checked
        **totals,
        "dropped": dict(dropped),
        "in_flight": in_flight,
        "per_model": per_model,
        "violations": violations,
    }


def _violation(camera_id: str, model: str, captured: int, counts: Mapping[str, int], dropped: int) -> str:
    parts = " + ".join(f"{count} {how}" for how, count in counts.items())
    total = sum(counts.values()) + dropped
    return f'camera "{camera_id}", model "{model}": captured {captured}, but {parts} + {dropped} dropped = {total}'


def _sum_frames(parts: Sequence[Report], info: RunInfo) -> Report:
    dropped: Counter[str] = Counter()
    for part in parts:
        dropped.update(part["dropped"])
    per_model = {}
    for name in info.models:
        models = [part["per_model"][name] for part in parts]
        per_model[name] = {key: sum(model[key] for model in models) for key in ("captured", *HOWS, "in_flight")}
        per_model[name]["dropped"] = dict(dropped)
    return {
        **{key: sum(part[key] for part in parts) for key in ("captured", *HOWS, "in_flight")},
        "captured_counted": all(part["captured_counted"] for part in parts),
        "dropped": dict(dropped),
        "per_model": per_model,
        "violations": [violation for part in parts for violation in part["violations"]],
    }


def _executions(model: ModelRows, frames: Report) -> Report:
    """Return one model's executions made of those possible on frames of which it is known what became of them."""
    possible = frames["captured"] - frames["in_flight"]
    reached = possible - sum(frames["dropped"].values())
    return _of_possible(model.executions_made, model.executions_failed, possible, reached)


def _of_possible(made: int, failed: int, possible: int, reached: int) -> Report:
    """Dropped frames are no savings, so a second share leaves them out; nor is an execution that ``failed``."""
    return {
        "made": made,
        "failed": failed,
        "possible": possible,
        "saved_share": _saved(made, possible),
        "possible_without_drops": reached,
        "saved_share_without_drops": _saved(made, reached),
    }


def _sum_executions(parts: Iterable[Report]) -> Report:
    kept = list(parts)
    keys = ("made", "failed", "possible", "possible_without_drops")
    return _of_possible(*(int(sum(part[key] for part in kept)) for key in keys))


def _saved(made: int, possible: int) -> float | None:
    return 1.0 - made / possible if possible else None


def _model_cost(info: RunInfo, name: str, executions: Report) -> Report:
    seconds = float(info.models[name].get("time_ms") or 0.0) / 1000.0
    possible = executions["possible_without_drops"]
    return {"model_seconds": executions["made"] * seconds, "model_seconds_of_everything": possible * seconds}


def _cost(parts: Sequence[Report]) -> Report:
    """Add up costs by the models' time per frame, as measured when they were profiled, not in this run.

    Dropped frames cost nothing on either side.
    """
    used, everything = (sum(part[key] for part in parts) for key in ("model_seconds", "model_seconds_of_everything"))
    return {
        "model_seconds": used,
        "model_seconds_of_everything": everything,
        "share": used / everything if everything else None,
    }


def _measured(info: RunInfo, expected_s: float) -> Report:
    """Return what the models really took, and how many times what was to be expected from their profiled costs."""
    per_model = {name: ms / 1000.0 for name, ms in info.busy_ms.items()}
    total = sum(per_model.values())
    ratio = total / expected_s if total and expected_s else None
    return {"measured_busy_s": total, "measured_busy_s_per_model": per_model, "measured_ratio": ratio}


def _agreement(cameras: Sequence[Sequence[AuditScores]], proof: Proof | None, info: RunInfo) -> Report:
    anytime = _kind(info) == "anytime-valid"

    def figure(counted: Counted) -> Report:
        proved = proof.of[counted] if proof is not None and anytime else None
        return _figure(compare(cameras, counted=counted, anytime=anytime), proved)

    everything = figure("all")
    answers = figure("answered") if everything["abstained"] else None
    return everything | {"predicted_only": figure("predicted"), "answers_only": answers}


def _figure(found: Comparison | None, proof: Evidence | None = None) -> Report:
    """Return one figure; its interval is that of ``proof`` where there is one, else the fixed-sample one."""
    if found is None:
        nothing: Report = {"mean": None, "low": None, "high": None, "audit_frames": 0, "abstained": 0}
        return nothing | {"baselines": dict.fromkeys(BASELINES), "leads": dict.fromkeys(BASELINES)}
    own = asdict(found.camlink)
    own["audit_frames"] = own.pop("frames")
    if proof is not None:
        low, high = bounds(proof)
        own |= {"low": min(float(low), own["mean"]), "high": max(float(high), own["mean"])}
    baselines = {name: baseline.mean for name, baseline in found.baselines.items()}
    leads = {name: asdict(lead) for name, lead in found.leads.items()}
    return own | {"abstained": found.abstained, "baselines": baselines, "leads": leads}


def _decision(row: Mapping[str, Any]) -> Report:
    texts = ("activation", "budget", "link_scores", "target_states", "certificates", "trial")
    return {
        key: json.loads(value or "{}") if key in texts else _plain(value)
        for key, value in row.items()
        if key != "camera_id"
    }


def _plain_row(row: Mapping[str, Any]) -> Report:
    return {key: _plain(value) for key, value in row.items() if key != "camera_id"}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
