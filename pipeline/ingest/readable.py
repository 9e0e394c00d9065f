"""Sorts out the clips of a folder that cannot be read, so that one broken file does not keep a hundred from replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from camlink.pipeline.errors import SourceError
from camlink.pipeline.ingest.base import SourceSpec
from camlink.pipeline.ingest.clips import check_clip
from camlink.pipeline.ingest.opening import holds_stills


def only_readable(specs: Sequence[SourceSpec]) -> tuple[list[SourceSpec], list[str]]:
    """Return the cameras with those of their clips that give a frame, and why each of the others does not.

    A camera without any is left out. Stills are not looked at: one that is broken is a dropped frame.
    """
    kept: list[SourceSpec] = []
    unreadable: list[str] = []
    for spec in specs:
        sources: list[str | int] = []
        for source in spec.sources:
            why = _trouble(spec.camera_id, Path(str(source)))
            if why is None:
                sources.append(source)
            else:
                unreadable.append(why)
        if sources:
            kept.append(replace(spec, sources=tuple(sources)))
    return kept, unreadable


def _trouble(camera_id: str, path: Path) -> str | None:
    if holds_stills(camera_id, path):
        return None
    try:
        check_clip(camera_id, path)
    except SourceError as error:
        return str(error)
    return None
