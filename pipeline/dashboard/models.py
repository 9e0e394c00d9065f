"""The models of a run: what they cost, whether they are in memory, how they were batched, how often they ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from camlink.pipeline.dashboard.health import learning_of
from camlink.pipeline.dashboard.rollups import HOWS, RunRollups
from camlink.pipeline.dashboard.trust import Trust, trust_of_models


@dataclass(frozen=True)
class ModelLine:
    """What the models page says of one model."""

    name: str
    facts: Mapping[str, Any]
    loaded: bool | None  # None: not told by this run
    served: Mapping[str, int]
    executions: int  # with or without an answer
    failed: int  # of these, those without
    executed_share: float | None
    busy_ms: float | None  # measured per execution in this run
    batches: list[tuple[int, int, float]]  # frames in a batch, batches, share of the commonest
    trust: Trust | None  # of predicted outputs


@dataclass(frozen=True)
class ModelsView:
    """All models, and what holds for all of them."""

    lines: list[ModelLine]
    loads: int
    memory_gb: float
    loaded_gb: float | None
    budget_gb: float | None
    learning: bool  # no camera has come past its first frames, on which every model runs
    ended: bool
    waiting: int  # frames read but without outputs in the folder, at the header's last writing


def models_view(rollups: RunRollups) -> ModelsView:
    """Return the models as they stand."""
    with rollups.lock:
        info = rollups.info
        lines = [_line(rollups, name) for name in info.models]
        memory = {name: float(entry.get("memory_gb") or 0.0) for name, entry in info.models.items()}
        told = bool(info.busy_ms)
        waiting = 0
        if info.finished_at is None:
            cameras = rollups.cameras.values()
            waiting = sum(max(0, info.captured.get(c.camera_id, 0) - c.frames() - c.dropped.total()) for c in cameras)
        return ModelsView(
            lines=lines,
            loads=info.loads,
            memory_gb=sum(memory.values()),
            loaded_gb=sum(memory.get(name, 0.0) for name in info.loaded) if told else None,
            budget_gb=(info.config.get("budgets") or {}).get("memory_gb"),
            learning=all(learning_of(camera, info) for camera in rollups.cameras.values() if camera.frames()),
            ended=info.finished_at is not None,
            waiting=waiting,
        )


def _line(rollups: RunRollups, name: str) -> ModelLine:
    info = rollups.info
    states = [camera.models[name] for camera in rollups.cameras.values() if name in camera.models]
    served = {how: sum(state.served[how] for state in states) for how in HOWS}
    executions = sum(state.executions for state in states)
    total = sum(served.values())
    sizes = {int(size): count for size, count in info.batch_sizes.get(name, {}).items()}
    most = max(sizes.values(), default=1)
    frames = sum(size * count for size, count in sizes.items())
    return ModelLine(
        name=name,
        facts={**dict.fromkeys(("description", "licence", "time_ms", "memory_gb")), **info.models[name]},
        loaded=name in info.loaded if info.busy_ms else None,
        served=served,
        executions=executions,
        failed=sum(state.failed for state in states),
        executed_share=executions / total if total else None,
        busy_ms=info.busy_ms[name] / frames if frames and info.busy_ms.get(name) else None,
        batches=[(size, count, count / most) for size, count in sorted(sizes.items())],
        trust=trust_of_models(states, info),
    )
