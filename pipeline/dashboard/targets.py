"""What agreement was asked for, from a run's header, and on which day's certificate it was met or missed.

A page says of a target what the report says: state and figure are those of the day that decides
(`camlink.pipeline.reports.certificates`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from camlink.operators.evidence import Evidence, certify
from camlink.pipeline.dashboard.rollups import CameraState
from camlink.pipeline.reports.certificates import Entry, daily_entry, deciding
from camlink.pipeline.reports.notes import ALWAYS, standing
from camlink.pipeline.results.tables import DAY_US
from camlink.pipeline.run_info import RunInfo

WORST_FIRST = ("not met", "not known", ALWAYS, "met")


def target_of(info: RunInfo, camera_id: str, model: str) -> float | None:
    """Return the target of a model on a camera; None where none is asked. As `SiteConfig.target_of`."""
    config: Mapping[str, Any] = info.config
    own = next((c.get("target_agreement") for c in config.get("cameras") or () if c.get("id") == camera_id), None)
    named = [target for target in (own, (config.get("targets") or {}).get(model)) if target is not None]
    found = max(named) if named else config.get("target_agreement")
    return None if found is None else float(found)


def targets(info: RunInfo, camera: CameraState) -> dict[str, Entry]:
    """Return, per model with a target, the day's certificate that says how it stands.

    Models that can have no certificate are left out, and all of a camera on which nothing was decided yet.
    """
    deciders = {}
    decided = (camera.decisions[-1].get("target_states") or {}) if camera.decisions else {}
    for name, model in camera.models.items():
        target = target_of(info, camera.camera_id, name)
        if target is not None and name in decided:
            days = model.audit.certificates() or {(camera.last_us or 0) // DAY_US: certify(Evidence())}
            entries = (daily_entry(found, str(np.datetime64(day, "D")), name, target) for day, found in days.items())
            if entry := deciding(entries):
                deciders[name] = entry
    return deciders


def worst(entries: Iterable[Entry]) -> str | None:
    """Return the state that a camera as a whole is in; None without any target."""
    return min(map(standing, entries), key=WORST_FIRST.index, default=None)
