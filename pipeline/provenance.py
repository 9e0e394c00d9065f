"""How one answer came about: executed, linked from what, reused from when, or why there is none; from a run's rows.

explain(RunResults(folder), "hall", 1207, "persons")["text"]
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from camlink.models.base import OutputSpec
from camlink.models.scores import RULES, agreement
from camlink.operators.certificates import ON_TRIAL
from camlink.pipeline.errors import RequestError
from camlink.pipeline.records import EXECUTIONS, NOT_FULL
from camlink.pipeline.reports.notes import ALWAYS, percent, standing
from camlink.pipeline.reports.words import value_words
from camlink.pipeline.results import RunResults
from camlink.pipeline.suggestions import suggest

Row = Mapping[str, Any]
PURPOSES = {
    "bootstrap": "a bootstrap frame, one of the camera's first: every model runs, to learn from",
    "profile": "a profile frame, one of the first of its period: every model runs, to see what each tells of others",
    "audit": "an audit frame, drawn with a chance of {chance}: every model runs, what would have been served is kept",
    "serve": "an ordinary frame",
    "overtaken": "overtaken: the machine was behind, and the camera's next frame was there already, so no model ran",
}


def explain(results: RunResults, camera: str, frame: int, model: str) -> dict[str, Any]:
    """Return everything that led to an answer: JSON-ready facts, and ``text``, a list of lines to read.

    Raises `RequestError` when the run has no such camera, model or frame, saying what it has.
    """
    spec = _known(results, camera, model)
    rows = [row for row in results.outputs(camera, f"frame_index = {int(frame)}").to_pylist() if row["model"]]
    served = next((row for row in rows if row["served"] and row["model"] == model), None)
    if served is None:
        return _dropped(results, camera, frame, model)
    decision = _decision(results, camera, served["captured_at"]) if served["purpose"] != "profile" else None
    shadow = next((r for r in rows if not r["served"] and r["model"] == model and r["how"] not in EXECUTIONS), None)
    failed = next((r["reason"] for r in rows if r["model"] == model and r["how"] == "failed"), None)
    facts = {
        "camera": camera,
        "frame": frame,
        "captured_at": served["captured_at"].isoformat(),
        "model": model,
        "purpose": _purpose(results, served),
        "answer": _answer(results, rows, served, spec),
        "failed": failed,
        "audit": _audit(results, rows, served, shadow, spec),
        "decision": decision,
    }
    return facts | {"text": _text(facts, served)}


def _known(results: RunResults, camera: str, model: str) -> OutputSpec:
    specs = results.info.specs()
    for name, names, what in ((camera, results.cameras(), "camera"), (model, list(specs), "model")):
        if name not in names:
            raise RequestError(f'{results.run_dir}: no {what} "{name}" in this run; {suggest(name, names)}')
    return specs[model]


def _purpose(results: RunResults, served: Row) -> str:
    """Return why the frame was processed: as its row says, but for bootstrap frames, which are stored as profile."""
    if served["purpose"] != "profile":
        return str(served["purpose"])
    before = (
        f"SELECT count(DISTINCT frame_index) FROM outputs WHERE captured_at < '{served['captured_at']}' AND purpose = "
    )
    full, others = (
        results.query(f"{before}'{purpose}'", "outputs", served["camera_id"]).column(0)[0].as_py()
        for purpose in ("profile", "serve")
    )
    first = results.info.bootstrap_frames(served["camera_id"])
    return "bootstrap" if not others and full < first else "profile"


def _dropped(results: RunResults, camera: str, frame: int, model: str) -> dict[str, Any]:
    """Explain a frame without an answer, or raise `RequestError` for one that never was."""
    for drop in results.drops(camera).to_pylist():
        if drop["first_index"] <= frame < drop["first_index"] + drop["count"]:
            at, reason = drop["captured_at"].isoformat(), drop["reason"]
            text = [f"{camera}, frame {frame}: dropped, so no model answered. Reason: {reason} ({at})."]
            facts = {"camera": camera, "frame": frame, "model": model, "captured_at": at, "purpose": None}
            return facts | {
                "answer": {"how": "dropped", "reason": reason},
                "failed": None,
                "audit": None,
                "decision": None,
                "text": text,
            }
    found = results.query("SELECT min(frame_index), max(frame_index) FROM outputs", "outputs", camera)
    first, last = (column[0].as_py() for column in found.columns)
    held = "no frames at all" if first is None else f"frames {first} to {last}"
    raise RequestError(f'{results.run_dir}: camera "{camera}" has no frame {frame} in this run, but {held}')


def _answer(results: RunResults, rows: Sequence[Row], row: Row, spec: OutputSpec) -> dict[str, Any]:
    """Return one output with all that it was made from."""
    said = {"how": row["how"], "value": row["value"], "said": _said(spec, row["value"]), "reason": row["reason"]}
    if row["how"] == "executed":
        return said
    before = _last_executed(results, row, spec)
    if row["how"] != "linked":
        return said | {"confidence": row["confidence"], "last_executed": before}
    specs = results.info.specs()
    executed = {r["model"]: r["value"] for r in rows if r["how"] == "executed"}
    sources = {s: {"value": executed.get(s), "said": _said(specs[s], executed.get(s))} for s in row["sources"]}
    linked = row["link_version"] is not None  # else a policy that decides on every frame made it from its sources
    version = {"version": row["link_version"], "promoted_at": _promoted(results, row)} if linked else None
    return said | {"sources": sources, "link": version, "confidence": row["confidence"], "last_executed": before}


def _audit(
    results: RunResults, rows: Sequence[Row], served: Row, shadow: Row | None, spec: OutputSpec
) -> dict[str, Any] | None:
    """Return what an audit found; None on other frames."""
    if served["purpose"] != "audit":
        return None
    found: dict[str, Any] = {"probability": served["audit_probability"], "prediction": None, "agreement": None}
    if shadow is None:
        return found
    found["prediction"] = _answer(results, rows, shadow, spec)
    found["on_trial"] = (shadow["reason"] or "").startswith(ON_TRIAL)
    if shadow["value"] is None:
        found["agreement"] = 0.0
    elif served["value"] is not None and spec.task in RULES:
        pair = (np.array([row["value"]], np.float32) for row in (shadow, served))
        found["agreement"] = float(agreement(spec, *pair)[0])
    return found


def _last_executed(results: RunResults, row: Row, spec: OutputSpec) -> dict[str, Any] | None:
    """Return what the model itself said last that was known by this frame: what is reused, and links may remember."""
    at: datetime = row["captured_at"]
    known = f"coalesce(known_after, captured_at) < '{at}'"  # some run late: loaded in turn, or relabelled
    if results.info.per_frame:
        known += " AND purpose <> 'relabel'"  # such policies never hear of these
    where = f"model = '{row['model'].replace(chr(39), 2 * chr(39))}' AND how = 'executed' AND {known}"
    sql = f"SELECT frame_index, captured_at, value FROM outputs WHERE {where} ORDER BY captured_at DESC LIMIT 1"
    for found in results.query(sql, "outputs", row["camera_id"]).to_pylist():
        age_s = (at - found["captured_at"]).total_seconds()
        return {
            "frame": found["frame_index"],
            "age_s": age_s,
            "value": found["value"],
            "said": _said(spec, found["value"]),
        }
    return None


def _promoted(results: RunResults, row: Row) -> str | None:
    events = results.adaptation(row["camera_id"]).to_pylist()
    at = [
        e["at"]
        for e in events
        if e["kind"] == "promoted" and e["target"] == row["model"] and e["version"] == row["link_version"]
    ]
    return max(at).isoformat() if at else None


def _decision(results: RunResults, camera: str, at: datetime) -> dict[str, Any] | None:
    """Return the decision that inference followed: the last one made before the frame."""
    made = [d for d in results.decisions(camera).to_pylist() if d["start"] < at]
    if not made:
        return None
    last = max(made, key=lambda decision: decision["start"])
    kept = {key: last[key] for key in ("execute", "predict", "reason", "audit_share", "expected_agreement")}
    told = {key: json.loads(last[key] or "{}") for key in ("target_states", "certificates")}
    return {"start": last["start"].isoformat(), "end": last["end"].isoformat(), **kept, **told}


def _said(spec: OutputSpec, value: Sequence[float] | None) -> str:
    return "nothing" if value is None else value_words(spec, np.asarray(value, np.float32), most=None)


def _seconds(age_s: float) -> str:
    """Return how long ago something was, never as nothing.

    >>> _seconds(0.04), _seconds(331139.98)
    ('0.04 s', '331140 s')
    """
    return f"{age_s:.0f} s" if age_s >= 100 else f"{age_s:.3g} s"


def _text(facts: Mapping[str, Any], served: Row) -> list[str]:
    """Put the facts into lines that a person can read."""
    chance = percent(served["audit_probability"])
    lines = [
        f"{facts['camera']}, frame {facts['frame']}, {facts['captured_at']}, {facts['model']}",
        f"It was {PURPOSES[facts['purpose']].format(chance=chance)}.",
        *_answer_text(facts["answer"], "Answer"),
    ]
    if facts["failed"] is not None and facts["failed"] != facts["answer"]["reason"]:
        lines.append(f"It was executed on this frame, and failed: {facts['failed']}")
    if facts["purpose"] in NOT_FULL:
        lines.append(f"It was not audited; the chance was {chance}.")
    audit = facts["audit"]
    if audit and audit["prediction"]:
        kind = "On trial, not served" if audit["on_trial"] else "What would have been served"
        lines += _answer_text(audit["prediction"], kind)
        lines.append(f"Agreement with the model itself: {percent(audit['agreement'])}.")
    decision = facts["decision"]
    if decision is None:
        every = "" if facts["purpose"] == "overtaken" else ": every model ran"
        return [*lines, f"No decision was in force{every}."]
    lines.append(f"Decision of {decision['start']}: {decision['reason']}.")
    state = decision["target_states"].get(facts["model"])
    if state is not None:
        target = decision["certificates"][facts["model"]]["target"]
        told = {"frames": decision["certificates"][facts["model"]].get("frames"), "target_state": state}
        never = ": nothing had been predicted of it yet" if standing(told) == ALWAYS else ""
        lines.append(f"When that decision was made, its target, {percent(target)}, was {state}{never}.")
    return lines


def _answer_text(answer: Mapping[str, Any], head: str) -> list[str]:
    lines = [f"{head}: {answer['said']}, {answer['how']}."]
    if answer["reason"]:
        lines.append(f"  reason: {answer['reason']}")
    for source, told in answer.get("sources", {}).items():
        lines.append(f"  from {source}, executed on this frame: {told['said']}")
    if answer.get("link") is not None:
        link, promoted = answer["link"], answer["link"]["promoted_at"]
        since = f", in force since {promoted}" if promoted else ""
        lines.append(f"  by links of version {link['version']}{since}, confidence {percent(answer['confidence'])}")
    elif answer.get("confidence") is not None:
        lines.append(f"  by the policy that decides on every frame, confidence {percent(answer['confidence'])}")
    last = answer.get("last_executed")
    if last is not None:
        lines.append(
            f"  the model itself last said {last['said']} on frame {last['frame']}, {_seconds(last['age_s'])} before"
        )
    return lines
