"""What a run costs as it goes on: model time against executing everything, and against the time that was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from camlink.pipeline.dashboard.rollups import CameraState
from camlink.pipeline.reports.spending import budget_words, latency_limit, over_spent, time_budget
from camlink.pipeline.run_info import RunInfo


@dataclass(frozen=True)
class Costs:
    """Shares of the time of executing everything, at the models' profiled costs; None where no frame was seen."""

    whole: float | None  # of all frames that models saw
    served: float | None  # of frames served under a decision alone, which is what a budget limits
    asked: float | None  # None: no time budget
    latency_ms: float | None = None  # that models may take on a frame
    relabelled: bool = False  # whether models ran again on served frames

    @property
    def over_spent(self) -> bool:
        """Whether served frames take more than was asked for."""
        return over_spent(self.asked, self.served)

    @property
    def words(self) -> str:
        """The same in a sentence or two, as the report has it."""
        return budget_words(self.asked, self.served, self.whole, self.latency_ms, relabelled=self.relabelled)


def costs_of(cameras: Iterable[CameraState], info: RunInfo) -> Costs:
    """Return what some cameras of a run cost."""
    used = everything = served = all_served = 0.0
    relabelled = False
    for camera in cameras:
        for name, state in camera.models.items():
            time_ms = float(info.models.get(name, {}).get("time_ms") or 0.0)
            used += time_ms * state.executions
            everything += time_ms * state.served.total()
            served += time_ms * state.executed_when_served
            all_served += time_ms * state.frames_served
            relabelled |= state.relabelled > 0
    return Costs(
        used / everything if everything else None,
        served / all_served if all_served else None,
        time_budget(info),
        latency_limit(info),
        relabelled,
    )
