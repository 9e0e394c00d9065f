"""Runs side by side: the folders that were given, what each came to, and two of them compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from camlink.pipeline.dashboard.costs import Costs, costs_of
from camlink.pipeline.dashboard.rollups import RunRollups
from camlink.pipeline.dashboard.trust import Trust, trust_of_cameras, trust_of_models
from camlink.pipeline.errors import ResultsError
from camlink.pipeline.reports.notes import best_baseline
from camlink.pipeline.run_info import FILE_NAME, RunInfo


@dataclass(frozen=True)
class RunLine:
    """One run in the list: what its header says, or what is wrong with it."""

    name: str
    folder: str
    info: RunInfo | None
    frames: int
    problem: str = ""


@dataclass(frozen=True)
class Compared:
    """One run's figures in a comparison, and those of its models by name."""

    name: str
    info: RunInfo
    frames: int
    since: date | None  # the first day that figures are of, where the run has earlier ones
    dropped: int
    executed_share: float | None
    abstained_share: float | None
    costs: Costs
    trust: Trust | None
    models: dict[str, tuple[float | None, Trust | None]]  # executed share, agreement of predicted outputs

    @property
    def trusts(self) -> list[Trust | None]:
        """The agreements of all models, for the axis that they share."""
        return [found for _, found in self.models.values()]


def find_runs(folders: Iterable[Path]) -> dict[str, Path]:
    """Return the runs in ``folders``, each a run itself or a folder of runs, by a name that is theirs alone."""
    found: dict[str, Path] = {}
    for folder in folders:
        runs = (
            [folder] if (folder / FILE_NAME).exists() else sorted(path.parent for path in folder.glob(f"*/{FILE_NAME}"))
        )
        for run in runs:
            name, number = run.resolve().name, 2
            while name in found and found[name].resolve() != run.resolve():
                name, number = f"{run.resolve().name}-{number}", number + 1
            found[name] = run
    return found


def run_lines(runs: dict[str, Path]) -> list[RunLine]:
    """Return the list of runs, newest first; those that cannot be read come last, with the reason."""
    lines = []
    for name, folder in runs.items():
        try:
            info = RunInfo.load(folder)
            lines.append(RunLine(name, str(folder), info, sum(info.captured.values())))
        except ResultsError as error:
            lines.append(RunLine(name, str(folder), None, 0, str(error)))
    return sorted(lines, key=lambda line: (line.info is None, -(line.info.started_at.timestamp() if line.info else 0)))


@dataclass(frozen=True)
class Outcome:
    """What a run came to, by its own report: cost, and agreement with interval, count and the best baseline."""

    cost: float | None
    agreement: Mapping[str, Any]
    best_baseline: float | None


def outcomes(lines: Iterable[RunLine]) -> dict[str, Outcome]:
    """Return, by name, what runs came to that have ended and left a report; others say more while one looks at them."""
    found = {}
    for line in lines:
        file = Path(line.folder) / "report.json"
        if line.info is not None and line.info.finished_at is not None and file.is_file():
            outcome = _outcome(file, file.stat().st_mtime_ns)
            if outcome is not None:
                found[line.name] = outcome
    return found


@lru_cache(maxsize=256)
def _outcome(file: Path, written_ns: int) -> Outcome | None:
    """Read a report, which may be long, once; None where it is none."""
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        told = report["agreement"]
        agreement = {name: told[name] for name in ("mean", "low", "high", "audit_frames")}
        measured = told["mean"] is not None
        return Outcome(report["cost"]["share"], agreement, best_baseline(told)[1] if measured else None)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def compared(name: str, rollups: RunRollups) -> Compared:
    """Return a run's figures."""
    with rollups.lock:
        info = rollups.info
        cameras = list(rollups.cameras.values())
        states = [state for camera in cameras for state in camera.models.values()]
        served = sum(state.served.total() for state in states)
        executed = sum(state.executions for state in states)
        abstained = sum(state.served["abstained"] for state in states)
        models = {}
        for model in info.models:
            each = [camera.models[model] for camera in cameras if model in camera.models]
            total = sum(state.served.total() for state in each)
            share = sum(state.executions for state in each) / total if total else None
            models[model] = (share, trust_of_models(each, info))
        return Compared(
            name=name,
            info=info,
            frames=sum(camera.frames() for camera in cameras),
            since=rollups.since,
            dropped=sum(camera.dropped.total() for camera in cameras),
            executed_share=executed / served if served else None,
            abstained_share=abstained / served if served else None,
            costs=costs_of(cameras, info),
            trust=trust_of_cameras(cameras, info),
            models=models,
        )


def models_of(pair: Sequence[Compared]) -> list[str]:
    """Return the models of either run, in order."""
    return list(dict.fromkeys(name for one in pair for name in one.models))
