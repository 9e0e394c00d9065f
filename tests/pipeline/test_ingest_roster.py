"""Cameras that are added, removed and changed while others run, with fake feeds and a manual clock."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice

import numpy as np
import pytest

from camlink.pipeline.clock import ManualClock
from camlink.pipeline.errors import SourceError
from camlink.pipeline.ingest import Reading, Roster, SourceSpec
from camlink.pipeline.ingest.feed import Beat, Item, Opened, Sampled
from camlink.pipeline.ingest.live import LiveSource
from camlink.pipeline.ingest.order import Order
from camlink.pipeline.ingest.reader import Reader
from camlink.pipeline.ingest.roster import is_in_share
from camlink.pipeline.records import Frame, FrameDropped

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class SteadyFeed:
    """Gives a new picture at every other call."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._calls = 0

    def next(self, timeout_s: float) -> Item:
        self._calls += 1
        if self._calls == 1:
            return Opened("h264")
        if self._calls % 2:
            return Beat()
        return Sampled(np.full((4, 4, 3), self._calls % 250, np.uint8), self._clock.now())

    def close(self) -> None: ...


class StepRunner:
    """Runs a reader when told to."""

    def __init__(self, reader: Reader, delay_s: float) -> None:
        self.reader = reader

    def is_alive(self) -> bool:
        return True

    def stop(self) -> None: ...

    def join(self, timeout_s: float) -> None: ...


class Site:
    """A roster whose cameras all give frames, and whose edits are queued by the test."""

    def __init__(self, *specs: SourceSpec, waiting: int = 1) -> None:
        self.waiting = waiting
        self.clock = ManualClock(START)
        self.opened: list[SourceSpec] = []
        self.runners: dict[str, StepRunner] = {}
        self.edits: list[list[SourceSpec]] = []
        self.told: list[str] = []
        self.roster = Roster(
            specs,
            edits=lambda: self.edits.pop(0) if self.edits else None,
            open_source=self.open,
            wait=self.clock.advance,
            tell=self.told.append,
        )
        self._readings = iter(self.roster)

    def open(self, spec: SourceSpec, first_index: int) -> LiveSource:
        self.opened.append(spec)
        return LiveSource(
            spec,
            str(spec.sources[0]),
            clock=self.clock,
            first_index=first_index,
            waiting=self.waiting,
            open_feed=self.feed,
            run=lambda reader, delay_s: self.run(spec.camera_id, reader, delay_s),
        )

    def feed(self, order: Order) -> SteadyFeed:
        return SteadyFeed(self.clock)

    def run(self, camera_id: str, reader: Reader, delay_s: float) -> StepRunner:
        self.runners[camera_id] = StepRunner(reader, delay_s)
        return self.runners[camera_id]

    def rounds(self, number: int) -> list[Reading]:
        """Return the readings of so many rounds."""
        taken: list[Reading] = []
        for _ in range(number):
            self.clock.advance(0.1)
            for runner in self.runners.values():
                runner.reader.step()
            taken += iter_until_none(self._readings)
        return taken


def iter_until_none(readings: Iterator[Reading | None]) -> Iterator[Reading]:
    while (reading := next(readings, None)) is not None:
        yield reading


def camera(camera_id: str, fps: float | None = None) -> SourceSpec:
    return SourceSpec(camera_id, (f"rtsp://cam/{camera_id}",), fps=fps)


def indexes(readings: Iterable[Reading], camera_id: str) -> list[int]:
    return [r.index for r in readings if isinstance(r, Frame) and r.camera_id == camera_id]


def test_a_camera_that_is_added_joins_without_the_others_being_opened_anew() -> None:
    site = Site(camera("hall"))
    site.rounds(6)
    site.edits.append([camera("hall"), camera("door")])
    readings = site.rounds(20)
    assert [spec.camera_id for spec in site.opened] == ["hall", "door"]
    assert indexes(readings, "door")[:3] == [0, 1, 2]
    assert len(indexes(readings, "hall")) >= 9


def test_a_camera_that_is_removed_ends_and_the_others_go_on() -> None:
    site = Site(camera("hall"), camera("door"))
    site.rounds(6)
    site.edits.append([camera("hall")])
    readings = site.rounds(20)
    assert len(indexes(readings, "door")) <= 1  # what it had given already
    assert len(indexes(readings, "hall")) >= 9


def test_a_camera_that_is_changed_is_opened_anew_and_its_indexes_go_on() -> None:
    site = Site(camera("hall"), camera("door"))
    before = site.rounds(10)
    site.edits.append([replace(camera("hall"), crop=(0.0, 0.0, 0.5, 0.5)), camera("door")])
    after = site.rounds(10)
    assert [spec.camera_id for spec in site.opened] == ["hall", "door", "hall"]
    seen = indexes(before + after, "hall")
    assert seen == list(range(len(seen))) and len(seen) >= 8
    assert site.roster.captured()["hall"] == len(seen)


def test_a_camera_that_comes_back_goes_on_counting() -> None:
    site = Site(camera("hall"), camera("door"))
    readings = site.rounds(8)
    site.edits.append([camera("hall")])
    readings += site.rounds(4)
    site.edits.append([camera("hall"), camera("door")])
    readings += site.rounds(8)
    seen = indexes(readings, "door")
    assert seen == list(range(len(seen))) and len(seen) >= 5


def test_an_edit_that_changes_nothing_opens_nothing() -> None:
    site = Site(camera("hall"))
    site.edits.append([camera("hall")])
    site.rounds(3)
    assert len(site.opened) == 1


def test_the_last_camera_may_go_and_another_come() -> None:
    site = Site(camera("hall"))
    site.edits += [[], [camera("door")]]
    assert indexes(site.rounds(20), "door")


def test_what_comes_of_each_edited_camera_is_told_in_a_line_without_its_password() -> None:
    site = Site(camera("hall"), camera("door"), camera("yard"))
    gate = SourceSpec("gate", ("rtsp://admin:hunter2@cam/gate",), shown="rtsp://***@cam/gate")
    site.edits.append([camera("hall"), replace(camera("yard"), fps=2.0), gate])
    site.rounds(3)
    assert site.told[0] == 'camera "door" let go'
    assert [line.partition(":")[0] for line in site.told[1:]] == ['camera "yard" reopened', 'camera "gate" taken up']
    assert "rtsp://***@cam/gate" in site.told[2] and "hunter2" not in site.told[2]


def test_a_new_camera_that_cannot_be_live_is_reported_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(camera("hall"))
    site.edits.append([camera("hall"), camera("door")])
    opens = site.open

    def refuse(spec: SourceSpec, first_index: int) -> LiveSource:
        if spec.camera_id == "door":
            raise SourceError('camera "door": there is no file clip.mp4')
        return opens(spec, first_index)

    site.roster._open = refuse
    assert indexes(site.rounds(10), "hall")
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == [
        'camera "door": there is no file clip.mp4; going on without it'
    ]


def test_the_newest_frames_of_all_cameras_come_together_after_those_that_they_overtook() -> None:
    site = Site(camera("hall"), camera("yard"), waiting=3)
    for runner in site.runners.values():
        for _ in range(9):
            runner.reader.step()  # four pictures
    readings = iter(site.roster)
    overtaken, newest = list(iter_until_none(readings)), list(iter_until_none(readings))
    assert [(r.camera_id, r.overtaken) for r in newest if isinstance(r, Frame)] == [("hall", False), ("yard", False)]
    assert all(r.overtaken for r in overtaken if isinstance(r, Frame))
    for name in ("hall", "yard"):
        assert indexes(overtaken, name) == [1, 2] and indexes(newest, name) == [3]
        assert sum(r.count for r in overtaken if isinstance(r, FrameDropped) and r.camera_id == name) == 1


def test_a_camera_that_is_as_fast_as_its_frames_are_answered_keeps_no_other_waiting() -> None:
    site = Site(camera("hall"), camera("yard"), waiting=3)
    came: Counter[tuple[str, bool]] = Counter()
    for reading in islice(iter(site.roster), 60):
        for _ in range(2):
            site.runners["hall"].reader.step()
        site.runners["yard"].reader.step()
        if isinstance(reading, Frame):
            came[reading.camera_id, reading.overtaken] += 1
    assert came["hall", False] >= 5 and came["yard", False] >= 5


def test_closing_ends_the_iteration() -> None:
    site = Site(camera("hall"))
    site.rounds(3)
    site.roster.close()
    assert list(site._readings) == []


def test_every_camera_is_in_exactly_one_share_whoever_else_is_there() -> None:
    for n in range(200):
        assert [is_in_share(f"camera-{n}", number, 3) for number in (1, 2, 3)].count(True) == 1
    counts = [sum(is_in_share(f"camera-{n}", number, 3) for n in range(200)) for number in (1, 2, 3)]
    assert min(counts) > 40
