"""Keys of a configuration that its policy does not read: nothing is wrong with them, but nothing comes of them.

Links that adaptation trains answer under `mlink` and `mlink-exact`. A policy that decides on every frame learns from
what it executes, has no frames executed for links to learn from, and does not answer by these links.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from camlink.operators.gate import PER_FRAME_POLICIES
from camlink.pipeline.config.checks import WITH_LINKS, Found
from camlink.pipeline.config.site import SiteConfig, read_config
from camlink.pipeline.errors import Problem

RELABELLING = ("policy", "interval", "frames", "label_fraction", "confidence_threshold")
LEARNING = {
    "adaptation": ("retrain_after_frames", "shadow_frames"),
    "links": ("kind", "context", "min_train_frames", "history_frames"),
}


def warnings_of(site: SiteConfig) -> list[Problem]:
    """Return what a start should tell of and go on, in the order of the file: keys that the policy does not read."""
    found = [site.problem_at(path, message) for path, message in _unread(site)]
    return sorted(found, key=lambda problem: problem.line or 0)


def config_warnings(path: str | Path) -> list[Problem]:
    """Return `warnings_of` the sound part of a file; nothing where it is not known what its policy is to be."""
    read = read_config(path)
    unknown = read.sound is None or read.origin.left_out.touches("policy")
    return [] if unknown or read.sound is None else warnings_of(read.sound)


def _unread(site: SiteConfig) -> Iterator[Found]:
    if site.policy not in PER_FRAME_POLICIES:
        return
    keys = {"links": _learning(site, "links"), "adaptation": _learning(site, "adaptation")}
    if site.adaptation.policy != "off":  # what "off" asks for is what happens
        keys["adaptation"] = [*RELABELLING, *keys["adaptation"]]
    for section, names in keys.items():
        given = [name for name in names if site.states(section, name)]
        if given:
            which, them = ("this", "it") if len(given) == 1 else (", ".join(given), "them")
            yield (
                (section, given[0]) if len(given) == 1 else (section,),
                f"{site.shown_policy()} does not read {which}, since it does not answer by the links that adaptation "
                f"trains; leave {them} out, or choose policy {' or '.join(WITH_LINKS)}",
            )


def _learning(site: SiteConfig, section: str) -> list[str]:
    """Return the keys of how links are learnt; none under a memory budget, where they may say what is loaded."""
    return list(LEARNING[section]) if site.budgets.memory_gb is None else []
