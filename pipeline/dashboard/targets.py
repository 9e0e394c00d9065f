"""What agreement was asked for, from a run's header, and how the scheduler found it when it last decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from camlink.pipeline.dashboard.rollups import CameraState
from camlink.pipeline.reports.notes import ALWAYS, standing
from camlink.pipeline.run_info import RunInfo

WORST_FIRST = ("not met", "not known", ALWAYS, "met")


def target_of(info: RunInfo, camera_id: str, model: str) -> float | None:
    """Return the target of a model on a camera; None where none is asked. As `SiteConfig.target_of`."""
    config: Mapping[str, Any] = info.config
    own = next((c.get("target_agreement") for c in config.get("cameras") or () if c.get("id") == camera_id), None)
    named = [target for target in (own, (config.get("targets") or {}).get(model)) if target is not None]
    found = max(named) if named else config.get("target_agreement")
    return None if found is None else float(found)


def target_states(camera: CameraState) -> dict[str, str]:
    """Return, per model with a target, what the last decision found: met, not met or not known.

    Of a model that nothing was ever predicted of there is nothing to know: it is `ALWAYS` executed.
    """
    last = camera.decisions[-1] if camera.decisions else {}
    return {
        name: standing({"frames": _predicted(camera, name), "target_state": state})
        for name, state in (last.get("target_states") or {}).items()
    }


def _predicted(camera: CameraState, model: str) -> int:
    """Return how many of a model's served outputs were left to prediction, abstained ones included."""
    known = camera.models.get(model)
    return sum(known.served[how] for how in ("linked", "reused", "abstained")) if known else 0


def worst(states: Mapping[str, str]) -> str | None:
    """Return the state that a camera as a whole is in; None without any target."""
    return min(states.values(), key=WORST_FIRST.index, default=None)
