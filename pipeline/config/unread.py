"""Keys of a configuration that its policy does not read: nothing is wrong with them, but nothing comes of them.

Links that adaptation trains answer under `mlink` and `mlink-exact`. Others do not answer by them, so that none are
trained and no frames are executed for links to learn from.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from camlink.pipeline.config.checks import WITH_LINKS, Found
from camlink.pipeline.config.site import SiteConfig, read_config
from camlink.pipeline.errors import Problem

RELABELLING = ("policy", "interval", "frames", "label_fraction", "confidence_threshold")
LEARNING = ("retrain_after_frames", "shadow_frames")
LINKS = ("kind", "context", "min_train_frames", "history_frames")


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
