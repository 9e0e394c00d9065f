"""What in a sound configuration is hardly meant: keys that its policy does not read, and nothing that saves any cost.

Links that adaptation trains answer under `mlink` and `mlink-exact`. Others do not answer by them, so that none are
trained and no frames are executed for links to learn from. Without a budget, and for `camlink` without a target, every
policy executes every model on every frame; only `all` says so by its name. So does a camera of which a period brings
hardly more frames than it profiles, and a memory budget that holds all models, alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from math import ceil
from pathlib import Path

from camlink.pipeline.config.checks import WITH_LINKS, Found
from camlink.pipeline.config.site import SiteConfig, model_names, read_config
from camlink.pipeline.errors import Problem
from camlink.pipeline.footage import FRAMES_PER_PERIOD
from camlink.pipeline.quantities import format_duration

RELABELLING = ("policy", "interval", "frames", "label_fraction", "confidence_threshold")
LEARNING = ("retrain_after_frames", "shadow_frames")
LINKS = ("kind", "context", "min_train_frames", "history_frames")


def warnings_of(site: SiteConfig) -> list[Problem]:
    """Return what a start should tell of and go on, in the order of the file."""
    return _in_order(site, (*_unlimited(site), *_unbound(site), *_alone(site), *_profiled(site), *_unread(site)))


def memory_warnings(site: SiteConfig, needed_gb: float) -> list[Problem]:
    """Return what is to be told once it is known what all models take in memory together."""
    if not _has_memory_budget_alone(site) or needed_gb > (site.budgets.memory_gb or 0.0):
        return []
    message = f"all models fit, {needed_gb:.2f} GB together, and there is no other budget, {_saved_nothing(site)}"
    return [site.problem_at(("budgets", "memory_gb"), message)]


def config_warnings(path: str | Path) -> list[Problem]:
    """Return `warnings_of` the sound part of a file; nothing where it is not known what its policy is to be.

    A missing budget is not told of where something was wrong, which may have been it. Where it is known what the models
    take, `memory_warnings` are among them.
    """
    from camlink.pipeline.config.start_checks import known_memory_gb

    read = read_config(path)
    gone = read.origin.left_out
    if read.sound is None or gone.touches("policy"):
        return []
    if gone.paths:
        return _in_order(read.sound, _unread(read.sound))
    needed_gb = known_memory_gb(read.sound) if _has_memory_budget_alone(read.sound) else None
    roomy = [] if needed_gb is None else memory_warnings(read.sound, needed_gb)
    return sorted([*warnings_of(read.sound), *roomy], key=_line)


def _in_order(site: SiteConfig, found: Iterable[Found]) -> list[Problem]:
    return sorted((site.problem_at(path, message) for path, message in found), key=_line)


def _line(problem: Problem) -> int:
    return problem.line or 0


def _unlimited(site: SiteConfig) -> Iterator[Found]:
    if site.budgets.memory_gb is None and not _saves(site):
        target = " and no target" if site.policy == "camlink" else ""
        yield ("budgets",), f"{site.shown_policy()} has no budget{target}, {_saved_nothing(site)}"


def _has_memory_budget_alone(site: SiteConfig) -> bool:
    return site.budgets.memory_gb is not None and not _saves(site)


def _saves(site: SiteConfig) -> bool:
    """Say whether anything but a memory budget keeps models from executing on every frame, or nothing is meant to."""
    if site.policy == "all" or site.budgets.time_share or site.budgets.latency_ms:
        return True
    targets = (site.target_agreement, site.targets, *(camera.target_agreement for camera in site.cameras))
    return site.policy == "camlink" and any(targets)


def _saved_nothing(site: SiteConfig) -> str:
    advice = ", or target_agreement" if site.policy == "camlink" else ""
    return f"so every model executes on every frame and nothing is saved; set budgets.time_share, such as 0.4{advice}"


def _unbound(site: SiteConfig) -> Iterator[Found]:
    if site.policy == "all" and site.budgets.time_share is not None:
        yield (
            ("budgets", "time_share"),
            "policy all executes every model on every frame, whatever this is; leave it out",
        )


def _alone(site: SiteConfig) -> Iterator[Found]:
    if site.policy in (*WITH_LINKS, "standalone") and site.budgets.time_share and len(model_names(site.models)) == 1:
        yield (
            ("models",),
            f"{site.shown_policy()} has one model, and no other to tell what it would say, so that it executes on "
            "every frame, whatever budgets.time_share is; choose policy camlink, or name more models",
        )


def _profiled(site: SiteConfig) -> Iterator[Found]:
    """Tell of the slowest camera whose frames are mostly profile frames, for which the period is too short."""
    slowest, camera = min(enumerate(site.cameras), key=lambda each: each[1].fps, default=(0, None))
    if site.policy == "all" or camera is None:
        return
    frames, (_, least) = camera.fps * site.period.total_seconds(), site.profile_frames
    if frames < 2 * least:
        period = timedelta(hours=ceil(FRAMES_PER_PERIOD * least / camera.fps / 3600.0))
        yield (
            ("cameras", slowest, "fps"),
            f"{frames:.3g} frames come in a period of {format_duration(site.period)}, and every model executes on the "
            f"first {least} of each (profile.min_frames); set period: {format_duration(period)}",
        )


def _unread(site: SiteConfig) -> Iterator[Found]:
    if site.policy in WITH_LINKS:
        return
    off = site.adaptation.policy == "off"  # what it asks for is what happens
    for section, names in {"links": LINKS, "adaptation": LEARNING if off else RELABELLING + LEARNING}.items():
        given = [name for name in names if site.states(section, name)]
        if given:
            which, them = ("this", "it") if len(given) == 1 else (", ".join(given), "them")
            yield (
                (section, given[0]) if len(given) == 1 else (section,),
                f"{site.shown_policy()} does not read {which}, since it does not answer by the links that adaptation "
                f"trains; leave {them} out, or choose policy {' or '.join(WITH_LINKS)}",
            )
