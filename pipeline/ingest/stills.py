"""Stills with true capture times: a folder with a ``manifest.csv``, or files whose names carry the time."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from camlink.pipeline.errors import SourceError
from camlink.pipeline.ingest.base import Reading, SourceSpec
from camlink.pipeline.ingest.framing import FrameCounter, SampleGrid, Stopwatch
from camlink.pipeline.ingest.names import DEFAULT_START, camera_id_from, parse_moment, parse_name, to_utc
from camlink.pipeline.records import CameraEvent

logger = logging.getLogger(__name__)

MANIFEST = "manifest.csv"
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
_CAMERA_COLUMNS = ("camera_id", "camera")
_FILE_COLUMNS = ("file", "path")
_TIME_COLUMNS = ("captured_at", "capture_time", "timestamp", "time")  # as a prefix: "capture_time_sgt" is one


@dataclass(frozen=True, slots=True, order=True)
class Still:
    """One picture of one camera; ``camera_id`` is None where neither manifest nor name tells it."""

    at: datetime
    path: Path
    camera_id: str | None = None


class StillSource:
    """Reads one camera's stills in the order of their capture times. Made by `open_source`."""

    def __init__(self, spec: SourceSpec, with_stats: bool = True) -> None:
        self.camera_id = spec.camera_id
        self._spec = spec
        self._stills = sampled_stills(spec)
        self._counter = FrameCounter(spec.camera_id, spec.crop, with_stats)
        self._closed = False

    @property
    def captured(self) -> int:
        """Frames yielded so far, dropped ones included."""
        return self._counter.captured

    def __iter__(self) -> Iterator[Reading]:
        for still in self._stills:
            if self._closed:
                return
            yield from self._read(still)
        if self._stills and not self._closed:
            yield CameraEvent(self.camera_id, self._stills[-1].at, "ended", f"after {len(self._stills)} stills")

    def close(self) -> None:
        self._closed = True

    def _read(self, still: Still) -> Iterator[Reading]:
        from camlink.pipeline.ingest.opencv import read_image

        watch = Stopwatch()
        with watch:
            pixels = read_image(still.path)
        if pixels is None:
            yield CameraEvent(self.camera_id, still.at, "corrupt", f"{still.path.name} cannot be decoded")
            yield self._counter.dropped(1, still.at, "corrupt")
        else:
            yield from self._counter.frame(pixels, still.at, watch.taken_s())


def sampled_stills(spec: SourceSpec) -> list[Still]:
    """Return the stills that ``spec`` samples, by time. Raises `SourceError` when there are none."""
    stills = sorted(still for path in spec.sources for still in _stills_at(Path(str(path)), spec))
    if not stills:
        raise SourceError(f'camera "{spec.camera_id}": no stills with a capture time in {_listed(spec.sources)}')
    grid = SampleGrid(spec.fps)
    return [still for still in stills if grid.is_due((still.at - stills[0].at).total_seconds())]


def read_folder(folder: Path, timezone: str) -> list[Still]:
    """Return a folder's stills of all cameras, from its manifest if it has one, else from the file names.

    Raises `SourceError` with file and line where the manifest is wrong. Images whose names carry no time are left
    out, with a warning, unless none carries one: see `evenly_spaced`.
    """
    manifest = folder / MANIFEST
    return read_manifest(manifest, timezone) if manifest.is_file() else named_stills(images_in(folder), timezone)


def images_in(folder: Path) -> list[Path]:
    """Return the images directly in ``folder``, by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def named_stills(images: Sequence[Path], timezone: str) -> list[Still]:
    """Return the images whose names carry a time, with that time and the camera they name."""
    stills, untimed = [], []
    for image in images:
        named = parse_name(image.stem, timezone)
        if named is None:
            untimed.append(image)
        else:
            stills.append(Still(named.at, image, named.camera_id))
    if stills and untimed:
        logger.warning("%d images have no capture time in their names and are left out: %s", len(untimed), untimed[0])
    return stills


def evenly_spaced(images: Sequence[Path], spec: SourceSpec) -> list[Still]:
    """Return images without any time, spaced by the sampling rate (1 s when none) from ``spec.start``."""
    start = DEFAULT_START if spec.start is None else to_utc(spec.start, spec.timezone)
    logger.info(
        'camera "%s": no capture times in names and no %s; event times start at %s, %g s apart',
        *(spec.camera_id, MANIFEST, start.isoformat(), 1 / (spec.fps or 1.0)),
    )
    return [Still(start + timedelta(seconds=n / (spec.fps or 1.0)), image) for n, image in enumerate(images)]


def read_manifest(path: Path, timezone: str) -> list[Still]:
    """Return the stills a ``manifest.csv`` lists; paths are relative to it. Raises `SourceError` with its line.

    Names of cameras become ids as those in file names do.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as text:
            return list(_listed_stills(path, csv.DictReader(text), timezone))
    except UnicodeDecodeError as cause:
        raise SourceError(f"{path}: is not UTF-8 ({cause.reason}); save it as UTF-8") from cause


def _listed_stills(path: Path, rows: csv.DictReader[str], timezone: str) -> Iterator[Still]:
    columns = rows.fieldnames or []
    file_column = _column(path, columns, "the file", _FILE_COLUMNS, str.__eq__)
    time_column = _column(path, columns, "the capture time", _TIME_COLUMNS, str.startswith)
    camera_column = next((c for c in columns if c.strip().lower() in _CAMERA_COLUMNS), None)
    for row in rows:
        camera = (row[camera_column] or "").strip() if camera_column is not None else ""  # None: the line is short
        yield Still(
            _time_of(path, rows.line_num, row[time_column], timezone),
            _file_of(path, rows.line_num, row[file_column]),
            camera_id_from(camera) if camera else None,
        )


def _stills_at(path: Path, spec: SourceSpec) -> list[Still]:
    if path.is_dir() or path.name == MANIFEST:
        folder = path if path.is_dir() else path.parent
        return _of_camera(read_folder(folder, spec.timezone), spec, folder) or evenly_spaced(images_in(folder), spec)
    if not path.is_file():
        raise SourceError(f'camera "{spec.camera_id}": there is no file {path}')
    return named_stills([path], spec.timezone) or evenly_spaced([path], spec)


def _of_camera(stills: Sequence[Still], spec: SourceSpec, folder: Path) -> list[Still]:
    cameras = {still.camera_id for still in stills}
    if len(cameras) <= 1:  # one camera's folder may be given any name
        return list(stills)
    own = camera_id_from(folder.name)  # of those that name no camera
    mine = [still for still in stills if (still.camera_id or own) == spec.camera_id]
    if not mine:
        raise SourceError(
            f'camera "{spec.camera_id}": {folder} holds stills of the cameras {_listed(sorted(map(str, cameras)))}'
            f" and none of that name; use one of these ids"
        )
    return mine


def _column(
    path: Path, columns: Sequence[str], meaning: str, names: Sequence[str], matches: Callable[[str, str], bool]
) -> str:
    for name in names:  # by preference: captured_at before time
        for column in columns:
            if matches(column.strip().lower(), name):
                return column
    raise SourceError(
        f"{path}:1: no column for {meaning}; expected one named {' or '.join(names)}, got {_listed(columns)}"
    )


def _time_of(manifest: Path, line: int, text: str | None, timezone: str) -> datetime:
    try:
        return parse_moment(text or "", timezone)
    except ValueError as cause:
        raise SourceError(f'{manifest}:{line}: capture time "{text}" is not ISO 8601 (2026-01-22T08:20:46)') from cause


def _file_of(manifest: Path, line: int, name: str | None) -> Path:
    file = manifest.parent / (name or "")
    if not file.is_file():
        raise SourceError(f'{manifest}:{line}: there is no file "{name}" in {manifest.parent}')
    return file


def _listed(names: Iterable[object], most: int = 8) -> str:
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
