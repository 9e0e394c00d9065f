"""One day of every camera: what was executed and predicted, how sure it is, what was dropped and what happened."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camlink.pipeline.accuracy import Comparison, compare
from camlink.pipeline.durable import write_text
from camlink.pipeline.exports import known_day
from camlink.pipeline.quantities import counted
from camlink.pipeline.records import EXECUTIONS
from camlink.pipeline.reports.certificates import camera_proof, daily_certificates
from camlink.pipeline.reports.notes import (
    ANYTIME,
    SYNTHETIC,
    dropped_sentence,
    interval,
    missed_targets,
    percent,
    standing,
)
from camlink.pipeline.reports.rows import CameraRows, read_camera
from camlink.pipeline.reports.spending import failed_sentence
from camlink.pipeline.results import RunResults
from camlink.pipeline.tables import print_table
from camlink.pipeline.whole_answers import whole_answers

if TYPE_CHECKING:
    from rich.console import Console

Day = dict[str, Any]
LISTED = 200  # events of a camera on the page
HOWS = ("executed", "linked", "reused", "abstained")


def daily_report(results: RunResults, day: date, cameras: Sequence[str] | None = None) -> Day:
    """Return the day's report of some cameras, or of all: ``day``, ``fleet`` (their certificate of all outputs) and
    ``cameras``.

    Each camera has ``models`` (served outputs by how, all executions, those of them that ``failed``, and the
    certificate of the predicted outputs with target and state), ``dropped`` by reason, ``decisions`` and ``events``; a
    model has ``whole_answers``, too. A camera without any frame on that day is named in ``without_frames`` instead.
    Raises `ResultsError` when the run has nothing of that day.
    """
    known_day(results, day)
    proofs, told, audited, without = [], {}, [], []
    for camera_id in results.cameras() if cameras is None else cameras:
        rows = read_camera(results, camera_id, day)
        if not _had_frames(rows, day):
            without.append(camera_id)
            continue
        proof = camera_proof(rows, results.info)
        proofs.append(proof)
        audited.append(rows.scores())
        certificates = {entry["model"]: entry for entry in proof.entries if entry["day"] == day.isoformat()}
        dropped: Counter[str] = Counter()
        for drop in rows.drops:
            dropped[drop["reason"]] += drop["count"] if _is_on(drop["captured_at"], day) else 0
        learnt = [] if results.info.per_frame else rows.adaptation  # of links that it would not read
        happened = [e | {"at": e["at"].isoformat()} for e in rows.events + learnt if _is_on(e["at"], day)]
        told[camera_id] = {
            "models": {
                name: counts | {"certificate": certificates.get(name), "whole_answers": _whole(rows, name)}
                for name, counts in _counts(results, camera_id, day).items()
            },
            "dropped": {reason: count for reason, count in dropped.items() if count},
            "decisions": sum(_is_on(decision["start"], day) for decision in rows.decisions),
            "events": sorted(happened, key=lambda event: str(event["at"])),
        }
    fleet = next((entry for entry in daily_certificates(proofs) if entry["day"] == day.isoformat()), None)
    fleet = fleet and fleet | _estimated(fleet, compare(audited))
    return {
        "run": results.info.name,
        "synthetic": results.info.synthetic,
        "day": day.isoformat(),
        "fleet": fleet,
        "cameras": told,
        "without_frames": without,
    }


def _had_frames(rows: CameraRows, day: date) -> bool:
    """Say whether a camera gave anything on a day; an event, as of a camera that is down all day, counts too."""
    happened = [event["at"] for event in rows.events] + [drop["captured_at"] for drop in rows.drops]
    return any(model.served.any() for model in rows.models.values()) or any(_is_on(at, day) for at in happened)


def _whole(rows: CameraRows, model: str) -> Day | None:
    """Return how many whole answers of a model were right, without baselines: they would know this one day only."""
    scores = rows.models[model].scores
    found = None if scores is None else whole_answers(rows.models[model].spec, [scores])
    return None if found is None else {"frames": found.frames, "right": found.right}


def _estimated(proven: Mapping[str, Any], found: Comparison | None) -> Day:
    """Return the agreement on audit frames, as the run's report has it, with what the certificate proves around it."""
    if found is None or proven["low"] is None:
        return {}
    mean = found.camlink.mean
    return {"estimate": mean, "low": min(proven["low"], mean), "high": max(proven["high"], mean)}


def _is_on(moment: datetime, day: date) -> bool:
    return moment.date() == day


def _counts(results: RunResults, camera_id: str, day: date) -> dict[str, dict[str, int]]:
    """Return, per model of the run, served outputs by how, executions for whatever purpose, and those that failed."""
    sql = "SELECT model, how, served, count(*) AS rows FROM outputs GROUP BY ALL"
    counts = {model: dict.fromkeys((*HOWS, "executions", "failed"), 0) for model in results.info.models}
    for row in results.query(sql, "outputs", camera_id, day).to_pylist():
        if row["model"] in counts:
            own = counts[row["model"]]
            own[row["how"]] += row["rows"] if row["served"] or row["how"] == "failed" else 0
            own["executions"] += row["rows"] if row["how"] in EXECUTIONS else 0
    return counts


def render_daily(report: Mapping[str, Any], *, today: date | None = None, linked: bool = False, back: str = "") -> str:
    """Return the day as a page; what came from users, cameras or models is escaped.

    ``today``: so that the page can say that the day is not over. ``linked``: styles are served beside the page, as the
    dashboard does, with ``back`` as the way back; else they are within, and the page is whole by itself.
    """
    from camlink.pipeline.reports.html import page_environment, style

    proven = report["fleet"]
    return (
        page_environment()
        .get_template("day.html")
        .render(
            report=report,
            title=f"{date.fromisoformat(report['day']):%A, %d %B %Y}",
            going_on=report["day"] == str(today or datetime.now(UTC).date()),
            troubles=troubles(report),
            proven=proven if proven and proven["estimate"] is not None else None,
            listed=LISTED,
            style="" if linked else style(),
            back=back,
        )
    )


def troubles(report: Mapping[str, Any]) -> list[str]:
    """Say, in a sentence each, what a day lost or missed: failed executions, frames that no model saw, and targets.

    Of a simulated trace it says so first.
    """
    cameras = report["cameras"]
    dropped = sum((Counter(camera["dropped"]) for camera in cameras.values()), Counter[str]())
    seen = sum(
        max((sum(m[how] for how in HOWS) for m in camera["models"].values()), default=0) for camera in cameras.values()
    )
    lost = dropped_sentence({"dropped": dropped, "captured": seen + dropped.total()})
    found = [
        (name, counts["certificate"])
        for name, camera in cameras.items()
        for counts in camera["models"].values()
        if counts["certificate"] is not None
    ]
    made: dict[str, Counter[str]] = {}
    for camera in cameras.values():
        for name, counts in camera["models"].items():
            made.setdefault(name, Counter()).update(made=counts["executions"], failed=counts["failed"])
    told = (SYNTHETIC if report["synthetic"] else "", failed_sentence(made.items()), lost, missed_targets(found))
    return [text for text in told if text]


def write_daily(results: RunResults, report: Mapping[str, Any]) -> Path:
    """Write ``days/DAY.json`` and ``days/DAY.html`` into the run folder; return the page. Raises `ResultsError`."""
    page = results.run_dir / "days" / f"{report['day']}.html"
    write_text(page.with_suffix(".json"), json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False))
    write_text(page, render_daily(report))
    return page


def print_daily(report: Mapping[str, Any], console: Console) -> None:
    """Print the day's report; names are printed as they are, never read as markup."""
    from rich.text import Text

    console.print(Text(f"{report['run']}, {report['day']} (UTC)", style="bold"))
    for text in troubles(report):
        console.print(Text(text, style="yellow"))
    heads = ("Camera", "Model", *HOWS, "predicted agree", ANYTIME, "whole answer right", "audits", "target")
    rows = []
    for name, camera in report["cameras"].items():
        for model, counts in camera["models"].items():
            cells = (name, model, *(f"{counts[how]:,}" for how in HOWS), *_proven(counts))
            rows.append(cells)
    print_table(console, heads, rows, names=2)
    console.print(Text("Intervals are of the day's certificates, not those of the whole run's report.", style="dim"))
    for name, camera in report["cameras"].items():
        dropped = ", ".join(f"{count} {reason}" for reason, count in camera["dropped"].items()) or "none"
        happened = f"{counted(camera['decisions'], 'decision')}, {counted(len(camera['events']), 'event')}"
        console.print(Text(f"  {name}: {happened}; frames dropped: {dropped}"))
    if report["without_frames"]:
        console.print(Text(f"  No frames on this day: {', '.join(report['without_frames'])}"))


def _proven(counts: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    certificate, whole = counts["certificate"], counts["whole_answers"]
    right = f"{whole['right']} of {whole['frames']}" if whole else ""
    if certificate is None or certificate["estimate"] is None:
        audits = "0" if certificate is None else str(certificate["audits"])
        return "not measured", "", right, audits, _target(certificate)
    figures = (percent(certificate["estimate"]), interval(certificate), right, str(certificate["audits"]))
    return *figures, _target(certificate)


def _target(certificate: Mapping[str, Any] | None) -> str:
    if certificate is None or certificate["target"] is None:
        return ""
    return f"{percent(certificate['target'])} {standing(certificate)}"
