"""What a live site asks of its machine, told at the start: seconds of model time for each second of its cameras."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from camlink.operators.gate import PER_FRAME_POLICIES
from camlink.operators.selection import Costs
from camlink.operators.throttle import BUSY
from camlink.pipeline.assembly import relabels, sampling_rules
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.config.checks import Found


@dataclass(frozen=True)
class Demand:
    """Seconds of models per second, frame by frame: batches may take less, a machine that is busy otherwise more."""

    frames_s: float
    full: float  # where every model runs on every frame
    always: float  # the part of it on frames on which every model runs at all times: profile, audit, to learn from
    time_share: float | None
    policy: str = "camlink"

    @property
    def served(self) -> float | None:
        """What is taken once the cameras have learnt, at most; None where no time budget tells."""
        return None if self.time_share is None else self.always + (self.full - self.always) * self.time_share

    @property
    def words(self) -> str:
        """Say it in a line."""
        later = "" if self.served in (None, self.full) else f" while cameras learn, {self.served:.2g} s after that"
        later += f"; some will be {self.left_out}" if self.full > 1.0 and self.policy in PER_FRAME_POLICIES else ""
        rate = f"{self.frames_s:.3g} frame{'' if self.frames_s == 1 else 's'} a second"
        return f"{rate}: models take {self.full:.2g} s of each second{later}"

    @property
    def left_out(self) -> str:
        """Say what becomes of frames that there is no time for."""
        return "answered without a model" if self.policy in PER_FRAME_POLICIES else "dropped as overload"

    @property
    def fitting_share(self) -> float:
        """The highest time share, in full per cents, that leaves no more than a second per second; 0: there is none."""
        left = (BUSY if self.policy == "camlink" else 1.0) - self.always
        return max(0, int(100.0 * left / (self.full - self.always))) / 100.0 if self.full > self.always else 0.0


def demand_of(config: SiteConfig, costs: Costs) -> Demand:
    """Return what a site's cameras ask for, with models of these costs."""
    rules, total_s = sampling_rules(config), costs.time(costs.models) / 1000.0
    frames_s = full_runs_s = 0.0
    for camera in config.cameras:
        profiled = rules.profile_frames(camera.fps) / (camera.fps * rules.period.total_seconds())
        frames_s += camera.fps
        full_runs_s += camera.fps * min(1.0, profiled + rules.audit_fraction + _relabelled(config, camera.fps))
    share = 1.0 if config.policy == "all" else config.budgets.time_share
    return Demand(frames_s, frames_s * total_s, full_runs_s * total_s, share, config.policy)


def _relabelled(config: SiteConfig, fps: float) -> float:
    """Return the share of frames that are executed for links to learn from."""
    rules = config.adaptation
    if not relabels(config):
        return 0.0
    return rules.frames / (fps * rules.interval.total_seconds()) if rules.policy == "periodic" else rules.label_fraction


def demand_warnings(demand: Demand) -> Iterator[Found]:
    """Yield by key what is more than one second of models per second, so that not every frame is what was asked for.

    A policy that decides on every frame answers those of the time while cameras learn; camlink, where all that there
    is time for was asked for, those after it too, as well as can be.
    """
    served, per_frame, frames = demand.served, demand.policy in PER_FRAME_POLICIES, f"{demand.frames_s:.3g} frames"
    if demand.full <= 1.0 or (per_frame and (demand.policy == "camlink" if served is None else served <= 1.0)):
        return
    if served is None or served <= 1.0:
        yield (
            ("cameras",),
            f"{frames} a second with every model take {demand.full:.2g} s of each second: while cameras learn, and as "
            f"each period begins, some will be {demand.left_out}; look at fewer (fps), or learn from fewer "
            "(links.bootstrap_frames)",
        )
        return
    share = demand.fitting_share
    too_much = f"{frames} a second take {served:.2g} s of each second after cameras have learnt, too"
    if demand.policy == "camlink" and share:
        if demand.time_share != 1.0:
            told = f"{too_much}: there is time for a budgets.time_share of about {share:g}, and no more will execute"
            yield (("budgets", "time_share"), f"{told}; look at fewer (fps), or with fewer models")
        return
    lower = f"lower budgets.time_share to {share:g}, " if share and demand.time_share != 1.0 else ""
    yield (
        ("budgets", "time_share") if lower else ("cameras",),
        f"{too_much}: some will be {demand.left_out} for as long as this runs; {lower}look at fewer (fps), or with "
        "fewer models",
    )
