"""From what a user says of a camera to a source that reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from camlink.pipeline.clock import Clock, WallClock
from camlink.pipeline.errors import SourceError
from camlink.pipeline.ingest.base import Source, SourceSpec
from camlink.pipeline.ingest.clips import VIDEO_SUFFIXES, ClipSource, expected_of_clips
from camlink.pipeline.ingest.live import LiveSource
from camlink.pipeline.ingest.masking import mask_url
from camlink.pipeline.ingest.names import parse_name
from camlink.pipeline.ingest.stills import IMAGE_SUFFIXES, MANIFEST, StillSource, images_in, sampled_stills

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://|/dev/", re.IGNORECASE)
_CLOCK = WallClock()


def open_source(spec: SourceSpec, *, live: bool, clock: Clock = _CLOCK, with_stats: bool = True) -> Source:
    """Open what ``spec`` describes.

    ``live``: frames bear the time at which they came, newest first, and the source never ends; a file then stands in
    for a camera, played once at its own speed. Otherwise files and stills are read whole, at full speed. Raises
    `SourceError` where a file is missing or not decodable; a camera that does not answer is no error but retried for
    ever.
    """
    if live:
        return LiveSource(spec, address_of(spec), clock=clock, with_stats=with_stats)
    return _recorded(spec, with_stats)


def expected_frames(spec: SourceSpec) -> int | None:
    """Return how many frames a recorded source will sample, without decoding; None where that cannot be known."""
    if spec.total_frames is not None:
        return spec.total_frames
    if any(is_address(source) for source in spec.sources):
        return None
    if _is_stills(spec):
        return len(sampled_stills(spec))
    return expected_of_clips(spec, clip_paths(spec))


def is_address(source: str | int) -> bool:
    """Say whether ``source`` is a camera (URL, device path, device number) rather than something recorded."""
    return isinstance(source, int) or source.isdecimal() or _ADDRESS.match(source) is not None


def address_of(spec: SourceSpec) -> str | int:
    """Return the one thing a live camera is read from. Raises `SourceError` if it cannot be live."""
    source = spec.sources[0]
    if len(spec.sources) > 1:
        raise SourceError(f'camera "{spec.camera_id}": a live camera has one source, got {len(spec.sources)}')
    if isinstance(source, str) and source.isdecimal():
        return int(source)
    if not is_address(source) and Path(str(source)).suffix.lower() not in VIDEO_SUFFIXES:
        raise SourceError(
            f'camera "{spec.camera_id}": {mask_url(source)} cannot be a live camera; expected a URL, a device or a'
            " video file. Replay folders and stills with `camlink replay`"
        )
    if not is_address(source) and not Path(str(source)).is_file():
        raise SourceError(f'camera "{spec.camera_id}": there is no file {source}')
    return source


def clip_paths(spec: SourceSpec) -> list[Path]:
    """Return the clips of ``spec``; of a folder, those in it that are this camera's."""
    paths: list[Path] = []
    for path in (Path(str(source)) for source in spec.sources):
        paths.extend(_clips_in(path, spec) if path.is_dir() else [path])
    return paths


def videos_in(folder: Path) -> list[Path]:
    """Return the videos directly in ``folder``, by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith("."))


def _recorded(spec: SourceSpec, with_stats: bool) -> ClipSource | StillSource:
    addresses = [mask_url(source) for source in spec.sources if is_address(source)]
    if addresses:
        raise SourceError(
            f'camera "{spec.camera_id}": {addresses[0]} is a live camera and cannot be replayed; use `camlink run`'
        )
    if _is_stills(spec):
        return StillSource(spec, with_stats)
    return ClipSource(spec, clip_paths(spec), with_stats)


def _is_stills(spec: SourceSpec) -> bool:
    are_stills = {holds_stills(spec.camera_id, Path(str(source))) for source in spec.sources}
    if len(are_stills) > 1:
        raise SourceError(f'camera "{spec.camera_id}": clips and stills are mixed; make two cameras of them')
    return are_stills.pop()


def holds_stills(camera_id: str, path: Path) -> bool:
    """Say whether ``path`` holds stills rather than clips. Raises `SourceError` where it holds neither."""
    if not path.exists():
        raise SourceError(f'camera "{camera_id}": there is no file or folder {path}')
    if not path.is_dir():
        return path.name == MANIFEST or path.suffix.lower() in IMAGE_SUFFIXES
    if (path / MANIFEST).is_file() or images_in(path):
        return True
    if not videos_in(path):
        raise SourceError(f'camera "{camera_id}": {path} holds neither a {MANIFEST} nor images nor videos')
    return False


def _clips_in(folder: Path, spec: SourceSpec) -> Sequence[Path]:
    clips = videos_in(folder)
    named = {clip: parse_name(clip.stem, spec.timezone) for clip in clips}
    cameras = {name.camera_id for name in named.values() if name is not None}
    if len(cameras) <= 1:
        return clips
    mine = [clip for clip, name in named.items() if name is not None and name.camera_id == spec.camera_id]
    if not mine:
        ids = ", ".join(sorted(str(camera) for camera in cameras))
        raise SourceError(f'camera "{spec.camera_id}": {folder} holds clips of {ids}, none of that name; use one')
    return mine
