"""Facts of recorded footage that a replay plans with, and rules fitted to footage that is too short for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from camlink.pipeline.clock import EPOCH
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.ingest.base import SourceSpec
from camlink.pipeline.ingest.clips import open_clip
from camlink.pipeline.ingest.opening import clip_paths, expected_frames, holds_stills
from camlink.pipeline.ingest.stills import sampled_stills
from camlink.pipeline.quantities import counted, format_duration
from camlink.pipeline.records import Frame

FEWEST_AUDITS = 20  # fewer audit frames of a camera say next to nothing
MOST_NAMED = 3  # cameras, in a sentence
MOST_AUDITED = 0.1  # share of frames
LEAST_BOOTSTRAP = 20  # frames; what is learnt from fewer is worth nothing
BOOTSTRAP_SHARE = 0.15  # of a camera's frames, at most, when footage is short
PROFILE_SHARE = 0.05  # of a camera's frames, at most, at the start of a period that footage does not fill
LONGER = 1.25  # step of a search for a period
FRAMES_PER_PERIOD = 5  # a period should hold at least so many times its profile frames


@dataclass(frozen=True)
class Footage:
    """One camera's recorded footage: sampled frames and their rate per second of event time (None: unknown).

    ``times``: when each was captured, where that is known beforehand and the rate does not tell, as of stills.
    """

    camera_id: str
    frames: int | None
    fps: float | None
    times: tuple[datetime, ...] = field(default=(), repr=False)


def footage_of(spec: SourceSpec) -> Footage:
    """Return what can be known of a recorded source without decoding it. Raises `SourceError`."""
    if all(_is_clip(spec, source) for source in spec.sources):
        capture, info = open_clip(spec.camera_id, clip_paths(spec)[0])
        capture.release()
        return Footage(spec.camera_id, expected_frames(spec), info.sampling_rate(spec.fps) or info.fps)
    times = [still.at for still in sampled_stills(spec)]
    return Footage(spec.camera_id, len(times), _rate(times), tuple(times))


def rate_of(frames: Sequence[Frame]) -> dict[str, float | None]:
    """Return each camera's frames per second of event time; None for a camera with fewer than two frames."""
    times: dict[str, list[datetime]] = {}
    for frame in frames:
        times.setdefault(frame.camera_id, []).append(frame.captured_at)
    return {camera: _rate(sorted(at)) for camera, at in times.items()}


def _rate(times: Sequence[datetime]) -> float | None:
    """The usual pace: pauses between clips do not count, so the median interval it is."""
    intervals = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    usual_s = median(intervals) if intervals else 0.0
    return 1.0 / usual_s if usual_s > 0 else None


def _is_clip(spec: SourceSpec, source: str | int) -> bool:
    return not holds_stills(spec.camera_id, Path(str(source)))


def fit_rules(config: SiteConfig, footage: Sequence[Footage]) -> tuple[SiteConfig, list[str]]:
    """Shorten the learning at the start, and lengthen the period, where footage would otherwise end before any
    prediction is made. Returns the rules to replay with and a sentence for each that was changed.

    Cameras with too few frames to ever be predicted on set no rules for the others; a sentence names them.
    """
    needed = LEAST_BOOTSTRAP + config.profile_frames[1]
    short = {f.camera_id: f.frames for f in footage if f.frames and f.frames <= needed}
    notes = [_too_short(short, needed)] if short else []
    others = [f for f in footage if f.camera_id not in short]
    counts = [f.frames for f in others if f.frames]
    rates = [f.fps for f in others if f.fps]
    if counts:
        config, note = _fit_bootstrap(config, min(counts))
        notes += note
        config, note = _fit_audit(config, min(counts))
        notes += note
    if rates:
        config, note = _fit_period(config, min(rates), [f.times for f in others if f.frames])
        notes += note
    if counts and rates:
        config, note = _fit_profile(config, min(counts), max(rates))
        notes += note
    return config, notes


def _too_short(held: Mapping[str, int], needed: int) -> str:
    named = [f'"{camera_id}" has only {counted(frames, "frame")}' for camera_id, frames in held.items()]
    more = f" and {counted(len(named) - MOST_NAMED, 'other')} as few" if len(named) > MOST_NAMED else ""
    return (
        f"camera {', '.join(named[:MOST_NAMED])}{more}, and more than {needed} are needed to learn from before "
        "anything is predicted: every model runs on all of them, and nothing is predicted or measured there"
    )


def _fit_bootstrap(config: SiteConfig, frames: int) -> tuple[SiteConfig, list[str]]:
    """Leave most of the shortest footage to be predicted."""
    bootstrap = max(LEAST_BOOTSTRAP, int(BOOTSTRAP_SHARE * frames))
    if bootstrap >= config.links.bootstrap_frames:
        return config, []
    least = min(config.links.min_train_frames, bootstrap)
    links = config.links.model_copy(update={"bootstrap_frames": bootstrap, "min_train_frames": least})
    note = (
        f"every model runs on the first {bootstrap} frames of a camera, to learn from, instead of "
        f"{config.links.bootstrap_frames}, since the shortest footage to learn from has only {frames}"
    )
    return config.model_copy(update={"links": links}), [note]


def _fit_audit(config: SiteConfig, frames: int) -> tuple[SiteConfig, list[str]]:
    """Audit enough frames of short footage to have something to report; a site that audits nothing is left at that."""
    wanted = min(MOST_AUDITED, FEWEST_AUDITS / frames)
    if not 0 < config.audit.fraction < wanted:
        return config, []
    note = f"{wanted:.1%} of frames are audited instead of {config.audit.fraction:.1%}, to have enough to measure on"
    return config.model_copy(update={"audit": config.audit.model_copy(update={"fraction": wanted})}), [note]


def _fit_profile(config: SiteConfig, frames: int, fps: float) -> tuple[SiteConfig, list[str]]:
    """Keep a share of a long period from being most of a short clip."""
    share, least = config.profile_frames
    profiled = share * fps * config.period.total_seconds()
    allowed = max(least, round(PROFILE_SHARE * frames))
    if round(profiled) <= allowed:
        return config, []
    fraction = share * allowed / profiled
    opens = f"a period opens with {counted(allowed, 'profile frame')} instead of {profiled:.0f}"
    note = f"{opens}, since the footage ends before it"
    return config.model_copy(update={"profile": config.profile.model_copy(update={"fraction": fraction})}), [note]


def _fit_period(config: SiteConfig, fps: float, captured: Sequence[Sequence[datetime]]) -> tuple[SiteConfig, list[str]]:
    """Give slow cameras a period that is long beside its profile frames; ``captured``: what is known of their times."""
    least_profiled = config.profile_frames[1]
    wanted = FRAMES_PER_PERIOD * least_profiled
    least = max([timedelta(seconds=wanted / fps), *(_holding(times, wanted, config.period) for times in captured)])
    if config.period >= least:
        return config, []
    hours = -(-least // timedelta(hours=1))
    period = timedelta(hours=hours)
    note = (
        f"a decision holds for {format_duration(period)} instead of {format_duration(config.period)}, since a period "
        f"would hold fewer than {FRAMES_PER_PERIOD} times its {counted(least_profiled, 'profile frame')}"
    )
    return config.model_copy(update={"period": period}), [note]


def _holding(times: Sequence[datetime], wanted: int, least: timedelta) -> timedelta:
    """Return a period, at least ``least``, that holds so many frames on average where there are any.

    Pictures that come in bursts have a usual pace that says nothing of how many a longer period holds.
    """
    if not times:
        return least
    since = np.array([(at - EPOCH).total_seconds() for at in times])
    period_s, span_s = max(least.total_seconds(), 1.0), float(since.max() - since.min())
    while period_s < span_s and len(since) / len(np.unique(since // period_s)) < wanted:
        period_s *= LONGER
    return timedelta(seconds=period_s)
