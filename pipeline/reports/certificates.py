"""Certificates as the report shows them: per camera, model and day, for each domain and for all cameras.

A run that has come to its own end is looked at once, so its headline figures carry the fixed-sample interval. One that
still goes on, or that somebody stopped, may have been looked at before; there the headline figures carry the interval
that holds at any time, and so do the daily certificates of every run: they decide about targets from hour to hour, and
a day that was decided by one is told by the same. The pages of the dashboard do alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from camlink.operators.evidence import Certificate, Evidence, certify, combined
from camlink.operators.targets import MIN_AUDITS
from camlink.pipeline.accuracy import Counted
from camlink.pipeline.certificates import Answers, camera_answers, camera_evidence, model_evidence
from camlink.pipeline.reports.rows import CameraRows
from camlink.pipeline.results.tables import DAY_US, microseconds
from camlink.pipeline.run_info import RunInfo

Entry = dict[str, Any]
FIGURES: tuple[Counted, ...] = ("all", "predicted", "answered")


@dataclass(frozen=True)
class Proof:
    """The evidence behind one figure, by the outputs that count."""

    of: Mapping[Counted, Evidence]

    @classmethod
    def of_model(cls, told: Answers) -> Proof:
        """Return the proof for one model of one camera."""
        return cls({counted: model_evidence(told, counted=counted) for counted in FIGURES})

    @classmethod
    def of_camera(cls, told: Mapping[str, Answers]) -> Proof:
        """Return the proof for all models of one camera."""
        return cls({counted: camera_evidence(told.values(), counted=counted) for counted in FIGURES})

    @classmethod
    def of_all(cls, parts: Iterable[Proof]) -> Proof:
        """Return the proof for several cameras."""
        kept = list(parts)
        return cls({counted: combined(p.of[counted] for p in kept) for counted in FIGURES})


@dataclass(frozen=True)
class CameraProof:
    """What one camera's rows prove, and its certificates by day."""

    domain: str
    whole: Proof
    models: Mapping[str, Proof]
    days: Mapping[str, Evidence]  # of all outputs
    entries: Sequence[Entry]


def camera_proof(rows: CameraRows, info: RunInfo) -> CameraProof:
    """Return what one camera's rows prove."""
    told = camera_answers(rows)
    spans = _days(told.values())
    days = {day: camera_evidence(told.values(), since, since + DAY_US) for day, since in spans.items()}
    entries = [
        daily_entry(certify(model_evidence(told[name], since, since + DAY_US)), day, name, _target(rows, name, since))
        for day, since in spans.items()
        for name in told
    ]
    domain = str(info.cameras.get(rows.camera_id, {}).get("domain") or "default")
    models = {name: Proof.of_model(part) for name, part in told.items()}
    return CameraProof(domain, Proof.of_camera(told), models, days, entries)


def rolled_up(cameras: Sequence[CameraProof]) -> Entry:
    """Return the daily certificates of all outputs, of the fleet and of each domain."""
    domains = sorted({camera.domain for camera in cameras})
    return {
        "fleet": daily_certificates(cameras),
        "domains": {domain: daily_certificates([c for c in cameras if c.domain == domain]) for domain in domains},
    }


def daily_certificates(cameras: Sequence[CameraProof]) -> list[Entry]:
    """Return the certificates of all outputs of some cameras, day by day."""
    days = sorted({day for camera in cameras for day in camera.days})
    return [_entry(combined(c.days[day] for c in cameras if day in c.days)) | {"day": day} for day in days]


def _entry(evidence: Evidence) -> Entry:
    found = certify(evidence)
    return asdict(found) | {"state": found.state}


def daily_entry(found: Certificate, day: str, model: str, target: float | None) -> Entry:
    """Return a model's certificate of a day, and by that alone how the day stands towards the target."""
    asked = {"target": target, "target_state": found.against(target)}
    return asdict(found) | {"state": found.state, "day": day, "model": model} | asked


def deciding(entries: Iterable[Entry]) -> Entry | None:
    """Return the certificate that says how one model stands towards its target, of its days in order.

    It is that of the latest day on which something was predicted. A day that missed the target stands until a later one
    meets it or has the audits that could have missed it again, as it does for who decides (`operators.targets`).
    """
    found: Entry | None = None
    for entry in entries:
        if found is None or _takes_over(entry, found):
            found = entry
    return found


def _takes_over(later: Entry, found: Entry) -> bool:
    if not later["frames"]:
        return not found["frames"]
    settled = later["target_state"] != "not known" or int(later["audits"]) >= MIN_AUDITS
    return settled or found["target_state"] != "not met"


def _days(parts: Iterable[Answers]) -> dict[str, int]:
    """Return the days in UTC on which there were answers: ISO date -> start in microseconds."""
    numbers = sorted({int(day) for part in parts for day in np.unique(part.times_us // DAY_US)})
    return {str(np.datetime64(day, "D")): day * DAY_US for day in numbers}


def _target(rows: CameraRows, model: str, since_us: int) -> float | None:
    """Return the target of a model by the last decision of a day, or before it where it has none; None without one."""
    known = [decision for decision in rows.decisions if microseconds(decision["start"]) < since_us + DAY_US]
    of_day = [decision for decision in known if microseconds(decision["start"]) >= since_us]
    for decision in reversed(of_day or known[-1:]):
        if model in json.loads(decision.get("target_states") or "{}"):
            return float(json.loads(decision["certificates"])[model]["target"])
    return None
