"""Recorded clips: decoded, sampled, and timed by their own time stamps, so that a replay repeats exactly."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from camlink.pipeline.errors import SourceError
from camlink.pipeline.ingest.base import Reading, SourceSpec
from camlink.pipeline.ingest.framing import FrameCounter, SampleGrid, Stopwatch
from camlink.pipeline.ingest.names import DEFAULT_START, parse_name, to_utc
from camlink.pipeline.quantities import counted
from camlink.pipeline.records import CameraEvent

if TYPE_CHECKING:
    from camlink.pipeline.ingest.opencv import Capture

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".m2ts", ".flv", ".wmv", ".3gp", ".mjpeg"}
)
_COUNTED_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".3gp", ".avi"})  # their frame count is stored, not estimated
_FROM_ZERO_SUFFIXES = frozenset({".mkv", ".webm"})  # their duration counts from 0, wherever their first frame is
_FALLBACK_FPS = 25.0
_ATTEMPTS_MOST = 1000


@dataclass(frozen=True, slots=True)
class Clip:
    """A file and when it starts; None: right after the clip before it."""

    path: Path
    start: datetime | None


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """What a clip's container says of itself."""

    fps: float
    frames: int | None
    is_counted: bool  # ``frames`` is stored in the container rather than estimated from its duration

    def sampling_rate(self, fps: float | None) -> float | None:
        """Return the rate to sample at, or None for every frame."""
        return None if fps is None or fps >= self.fps * 0.999 else fps

    def sampled(self, frames: int, fps: float | None) -> int:
        """Return how many of the first ``frames`` are sampled, were they evenly spaced."""
        rate = self.sampling_rate(fps)
        return frames if rate is None or frames < 1 else int((frames - 1) / self.fps * rate + 1e-6) + 1


class FrameTimes:
    """Seconds since a clip's first frame, never running backwards.

    Time stamps are believed, so variable frame rates survive, except where they stand still, run back (containers
    without them give 0, AVI with B-frames does so at its end) or leap beyond the clip: there the nominal rate steps in.
    """

    def __init__(self, info: ClipInfo) -> None:
        self.step_s = 1 / info.fps
        self.frames = 0
        self.lost = 0  # frames known to be missing between those counted
        self.breaks = 0  # places where they are missing
        self.irregular = 0  # intervals that differ from the nominal one by half
        self.widest_gap = (0.0, 0.0)  # seconds, and where
        self.last_s = -self.step_s
        self._origin_s = 0.0
        self._limit_s = 60 + 2 * info.frames * self.step_s if info.frames else float("inf")

    def next(self, stamp_s: float) -> float:
        """Return the time of the next frame, whose container time stamp is ``stamp_s``."""
        if self.frames == 0:
            self._origin_s = stamp_s
        seconds = stamp_s - self._origin_s
        if not self.last_s < seconds < self._limit_s:
            seconds = self.last_s + self.step_s
        interval = seconds - self.last_s
        if abs(interval - self.step_s) > 0.5 * self.step_s:
            self.irregular += 1
            self.widest_gap = max(self.widest_gap, (interval, self.last_s))
        self.frames += 1
        self.last_s = seconds
        return seconds


class ClipSource:
    """Reads one camera's clips one after the other. Made by `open_source`.

    A clip that breaks in the middle, or a later one that does not open, is reported and survived: an event, the
    estimated loss as dropped frames, and on with the next.
    """

    def __init__(self, spec: SourceSpec, paths: Sequence[Path], with_stats: bool = True) -> None:
        self.camera_id = spec.camera_id
        self._spec = spec
        self._clips = planned(spec, paths)
        self._counter = FrameCounter(spec.camera_id, spec.crop, with_stats)
        self._now = self._clips[0].start or DEFAULT_START  # where the next clip begins, unless its name tells
        self._closed = False
        _check(spec.camera_id, [clip.path for clip in self._clips])

    @property
    def captured(self) -> int:
        """Sampled frames yielded so far, dropped ones included."""
        return self._counter.captured

    def __iter__(self) -> Iterator[Reading]:
        for clip in self._clips:
            if self._closed:
                return
            yield from self._read(clip)
        if not self._closed:
            detail = f"after {counted(self.captured, 'frame')} of {counted(len(self._clips), 'clip')}"
            yield CameraEvent(self.camera_id, self._now, "ended", detail)

    def close(self) -> None:
        self._closed = True  # the reading generator releases its clip when it sees this or is itself closed

    def _read(self, clip: Clip) -> Iterator[Reading]:
        start = self._begin(clip)
        try:
            capture, info = open_sampled(self._spec, clip.path)
        except SourceError as error:
            logger.warning("%s; going on without it", error)
            yield CameraEvent(self.camera_id, start, "corrupt", f"{clip.path.name} cannot be opened")
            return
        times = FrameTimes(info)
        try:
            yield from self._sample(clip.path.name, capture, info, times, start)
        finally:
            capture.release()
        if not self._closed:
            self._now = start + timedelta(seconds=times.last_s + times.step_s)
            yield from self._lost(clip, info, times)

    def _sample(
        self, name: str, capture: Capture, info: ClipInfo, times: FrameTimes, start: datetime
    ) -> Iterator[Reading]:
        from camlink.pipeline.ingest.opencv import position_s, retrieve

        grid = SampleGrid(info.sampling_rate(self._spec.fps), slack_s=0.1 * times.step_s)
        watch = Stopwatch()
        while not self._closed:
            with watch:
                attempts = grab_past_damage(capture, (info.frames or 0) - times.frames - times.lost)
            if attempts is None:
                return
            before_s = times.last_s
            seconds = times.next(position_s(capture))
            if attempts > 1:
                yield from self._damaged(name, before_s, times, grid, start)
            if not grid.is_due(seconds):
                continue
            at = start + timedelta(seconds=seconds)
            with watch:
                pixels = retrieve(capture)
            decode_s = watch.taken_s()
            if pixels is None:
                yield self._counter.dropped(1, at, "corrupt")
            else:
                yield from self._counter.frame(pixels, at, decode_s)

    def _damaged(
        self, name: str, before_s: float, times: FrameTimes, grid: SampleGrid, start: datetime
    ) -> Iterator[Reading]:
        """Yield the loss of the frames between ``before_s`` and the frame at which decoding took up again."""
        lost = round((times.last_s - before_s) / times.step_s) - 1  # 0 where the container's times do not tell (AVI)
        if lost <= 0:
            return
        times.lost += lost
        times.breaks += 1
        at = start + timedelta(seconds=before_s + times.step_s)
        if times.breaks == 1:  # a clip may be broken in a hundred places: the rest is summed up at its end
            detail = f"{name}: {lost} frames between {before_s:.2f} s and {times.last_s:.2f} s cannot be decoded"
            yield CameraEvent(self.camera_id, at, "corrupt", detail)
        count = sum(grid.is_due(before_s + number * times.step_s) for number in range(1, lost + 1))
        if count:
            yield self._counter.dropped(count, at, "corrupt")

    def _begin(self, clip: Clip) -> datetime:
        if clip.start is None or clip.start >= self._now:
            return clip.start or self._now
        overlap_s = (self._now - clip.start).total_seconds()
        if overlap_s > 1:  # names tell whole seconds, and recorders cut a little late
            logger.warning(
                'camera "%s": %s starts %.1f s before the clip ahead of it ends; its frames are moved to follow it',
                *(self.camera_id, clip.path.name, overlap_s),
            )
        return self._now

    def _lost(self, clip: Clip, info: ClipInfo, times: FrameTimes) -> Iterator[Reading]:
        lost = lost_frames(info, times)
        if lost == 0 and times.breaks < 2:  # whole, or its one break has been told
            return
        gap_s, gap_at_s = times.widest_gap
        where = f"; widest gap {gap_s:.1f} s at {gap_at_s:.1f} s" if gap_s > 2 * times.step_s else ""
        detail = f"{clip.path.name}: {lost + times.lost} of {info.frames} frames cannot be decoded{where}"
        yield CameraEvent(self.camera_id, self._now, "corrupt", detail)
        told = times.frames + times.lost
        count = info.sampled(told + lost, self._spec.fps) - info.sampled(told, self._spec.fps)
        if count > 0:
            yield self._counter.dropped(count, self._now, "corrupt")


def lost_frames(info: ClipInfo, times: FrameTimes) -> int:
    """Return about how many more frames a clip should have given than it did; 0 within 1 % (containers count loosely).

    The count is taken where the container stores it or frames are evenly spaced; elsewhere (Matroska, transport
    streams) it is only estimated from the duration, and a variable frame rate would look like loss: there, only what
    is missing at the end counts.
    """
    if info.frames is None:
        return 0
    is_even = times.irregular <= max(2, 0.02 * times.frames)
    by_time = round(info.frames - (times.last_s + times.step_s) * info.fps)
    lost = info.frames - times.frames - times.lost if info.is_counted or is_even else by_time
    return lost if lost > max(2, 0.01 * info.frames) else 0


def planned(spec: SourceSpec, paths: Sequence[Path]) -> list[Clip]:
    """Return the clips with their starts: ``spec.start``, else times in the names, else `DEFAULT_START`.

    When every name carries a time the clips are put in that order, and keep their distances under ``spec.start``.
    """
    named = [parse_name(path.stem, spec.timezone) for path in paths]
    times = [name.at for name in named if name is not None]
    if len(times) == len(paths):
        ordered = sorted(zip(times, paths, strict=True))
        shift = timedelta(0) if spec.start is None else to_utc(spec.start, spec.timezone) - ordered[0][0]
        return [Clip(path, at + shift) for at, path in ordered]
    if spec.start is not None:
        return [Clip(path, to_utc(spec.start, spec.timezone) if n == 0 else None) for n, path in enumerate(paths)]
    if named[0] is None:
        logger.info(
            'camera "%s": neither a start nor a time in the name of %s; event times start at %s',
            *(spec.camera_id, paths[0].name, DEFAULT_START.isoformat()),
        )
    return [Clip(path, name.at if name is not None else None) for path, name in zip(paths, named, strict=True)]


def open_clip(camera_id: str, path: Path) -> tuple[Capture, ClipInfo]:
    """Open a clip. Raises `SourceError` if it is missing or is no video that can be decoded."""
    from camlink.pipeline.ingest.opencv import first_number, frame_count, frame_rate, open_file

    if not path.is_file():
        raise SourceError(f'camera "{camera_id}": there is no file {path}')
    capture = open_file(path)
    if not capture.isOpened():
        capture.release()
        raise SourceError(f'camera "{camera_id}": {path} cannot be decoded as video; is it cut off or another kind?')
    fps = frame_rate(capture)
    if fps is None:
        logger.warning('camera "%s": %s tells no frame rate; taking %g', camera_id, path, _FALLBACK_FPS)
    frames, suffix = frame_count(capture), path.suffix.lower()
    if frames is not None and suffix in _FROM_ZERO_SUFFIXES:
        frames = max(1, frames - first_number(path))
    return capture, ClipInfo(fps or _FALLBACK_FPS, frames, suffix in _COUNTED_SUFFIXES)


def open_sampled(spec: SourceSpec, path: Path) -> tuple[Capture, ClipInfo]:
    """Open a clip as ``spec.decode`` says: all frames, or key frames only. Raises `SourceError` as `open_clip` does."""
    if spec.decode == "all":
        return open_clip(spec.camera_id, path)
    from camlink.pipeline.ingest.keyframes import is_installed, key_frames_of, open_key_frames

    if spec.decode == "auto" and not is_installed():
        return open_clip(spec.camera_id, path)
    keys = key_frames_of(path)
    if not keys.suffice(spec.fps) and (spec.decode == "auto" or not keys.count):
        return open_clip(spec.camera_id, path)
    rate = (keys.count - 1) / keys.span_s if keys.span_s > 0 else _FALLBACK_FPS
    return open_key_frames(str(path)), ClipInfo(max(rate, 1e-6), keys.count, is_counted=True)


def expected_of_clips(spec: SourceSpec, paths: Sequence[Path]) -> int | None:
    """Return how many frames will be sampled by what the containers say, without decoding; None if one does not say."""
    total = 0
    for path in paths:
        capture, info = open_sampled(spec, path)
        capture.release()
        if info.frames is None:
            return None
        total += info.sampled(info.frames, spec.fps)
    return total


def grab_past_damage(capture: Capture, missing: int) -> int | None:
    """Step to the next frame that can be decoded; return the attempts it took, None at the end of the clip.

    A failed grab is not yet the end: after damaged bytes FFmpeg takes up again at a later picture. ``missing`` frames
    are still to come by the container's word, which is how many attempts are worth making.
    """
    from camlink.pipeline.ingest.opencv import grab

    for attempt in range(1, 2 + min(max(missing, 0), _ATTEMPTS_MOST)):
        if grab(capture):
            return attempt
    return None


def _check(camera_id: str, paths: Sequence[Path]) -> None:
    """Raise `SourceError` unless all files exist and the first gives a frame (opening thousands would take long)."""
    for path in paths:
        if not path.is_file():
            raise SourceError(f'camera "{camera_id}": there is no file {path}')
    check_clip(camera_id, paths[0])


def check_clip(camera_id: str, path: Path) -> None:
    """Raise `SourceError` unless ``path`` is a video of which at least one frame can be decoded."""
    capture, info = open_clip(camera_id, path)
    try:
        if grab_past_damage(capture, info.frames or 0) is None:
            raise SourceError(f'camera "{camera_id}": {path} opens as video but not one frame can be decoded')
    finally:
        capture.release()
