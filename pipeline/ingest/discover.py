"""What a user points at, turned into cameras: a clip, a folder of clips, stills with times, or a tree of these."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from camlink.pipeline.errors import SourceError
from camlink.pipeline.ingest.base import SourceSpec
from camlink.pipeline.ingest.clips import VIDEO_SUFFIXES
from camlink.pipeline.ingest.masking import mask_url
from camlink.pipeline.ingest.names import camera_id_from, parse_name
from camlink.pipeline.ingest.opening import videos_in
from camlink.pipeline.ingest.stills import IMAGE_SUFFIXES, MANIFEST, images_in, named_stills, read_manifest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Find:
    """A file or folder that belongs to one camera; ``at`` is None where its name tells no time."""

    camera_id: str
    path: Path
    at: datetime | None
    kind: str  # "clip" or "stills"


def discover(path: Path, *, fps: float | None, timezone: str, camera_id: str | None = None) -> list[SourceSpec]:
    """Return the cameras whose recordings lie at ``path``, by id. Raises `SourceError` if there are none.

    Clips whose names carry the same camera and a time are one camera, in time order; a clip without a time is a
    camera of its own, named after it. Stills belong to the camera their manifest or name tells, else to their folder.
    ``camera_id`` renames the one camera found, or picks it among several. Subfolders are searched too.
    """
    path = Path(path)
    if not path.exists():
        advice = "; cameras are read by `camlink run`, from a configuration" if ":/" in str(path) else ""
        raise SourceError(f"there is no file or folder {mask_url(path)}{advice}")
    finds = list(_search(path, timezone) if path.is_dir() else _file(path, timezone))
    if not finds:
        raise SourceError(
            f"{path}: no videos ({', '.join(sorted(VIDEO_SUFFIXES))}) and no images found{_instead(path)}"
        )
    specs = [
        SourceSpec(camera, tuple(str(find.path) for find in group), fps=fps, timezone=timezone)
        for camera, group in sorted(_by_camera(finds).items())
    ]
    return specs if camera_id is None else [_chosen(specs, camera_id, path)]


def _instead(path: Path) -> str:
    """Say what a folder without footage holds, where that is something of camlink's."""
    if (path / "trace.yaml").is_file():
        return "; it is a trace, which `camlink replay` and `compare` take by itself"
    return "; it holds a run's results, see `camlink report`" if (path / "run.json").is_file() else ""


def _search(folder: Path, timezone: str) -> Iterable[_Find]:
    if (folder / MANIFEST).is_file():
        stills = read_manifest(folder / MANIFEST, timezone)
        for camera in sorted({still.camera_id or camera_id_from(folder.name) for still in stills}):
            yield _Find(camera, folder, None, "stills")
        return
    for clip in videos_in(folder):
        yield from _clip(clip, timezone)
    yield from _images(folder, timezone)
    for inner in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if os.access(inner, os.R_OK | os.X_OK):
            yield from _search(inner, timezone)
        else:
            logger.warning("%s may not be read and is left out", inner)


def _file(path: Path, timezone: str) -> Iterable[_Find]:
    if path.name == MANIFEST:
        yield from _search(path.parent, timezone)
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        yield from _clip(path, timezone)
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        named = parse_name(path.stem, timezone)
        camera = (named.camera_id if named else None) or camera_id_from(path.stem)
        yield _Find(camera, path, named.at if named else None, "stills")
    else:
        raise SourceError(f"{path}: neither a video nor an image nor a {MANIFEST}, by its name")


def _clip(path: Path, timezone: str) -> Iterable[_Find]:
    named = parse_name(path.stem, timezone)
    if named is None:
        yield _Find(camera_id_from(path.stem), path, None, "clip")
    else:
        yield _Find(named.camera_id or camera_id_from(path.parent.name), path, named.at, "clip")


def _images(folder: Path, timezone: str) -> Iterable[_Find]:
    images = images_in(folder)
    stills = named_stills(images, timezone)
    if images and len({still.camera_id for still in stills}) <= 1:  # one camera's folder: one source
        camera = stills[0].camera_id if stills else None
        yield _Find(camera or camera_id_from(folder.name), folder, None, "stills")
    else:
        for still in stills:
            yield _Find(still.camera_id or camera_id_from(folder.name), still.path, still.at, "stills")


def _by_camera(finds: Iterable[_Find]) -> dict[str, list[_Find]]:
    """Group by camera; namesakes without times (hall/clip.mp4, yard/clip.mp4) get their folder's name too."""
    groups: dict[str, list[_Find]] = defaultdict(list)
    for find in finds:
        groups[find.camera_id].append(find)
    cameras: dict[str, list[_Find]] = {}
    for camera, group in groups.items():
        if len(group) == 1 or (len({f.kind for f in group}) == 1 and all(f.at is not None for f in group)):
            cameras[camera] = sorted(group, key=lambda find: (find.at is not None and find.at.timestamp(), find.path))
            continue
        for find in group:
            cameras[_free_name(f"{find.path.parent.name}-{camera}", {*groups, *cameras})] = [find]
    return cameras


def _free_name(wanted: str, taken: Iterable[str]) -> str:
    name, number, names = camera_id_from(wanted), 2, set(taken)
    while name in names:
        name, number = f"{camera_id_from(wanted)[:60]}-{number}", number + 1
    return name


def _chosen(specs: list[SourceSpec], camera_id: str, path: Path) -> SourceSpec:
    if len(specs) == 1:
        return replace(specs[0], camera_id=camera_id)
    for spec in specs:
        if spec.camera_id == camera_id:
            return spec
    ids = ", ".join(spec.camera_id for spec in specs)
    raise SourceError(f'{path} holds {len(specs)} cameras ({ids}) and none is "{camera_id}"; use one of these ids')
