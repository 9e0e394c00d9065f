"""Editing the configuration of a running site."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from camlink.pipeline.config import SiteConfig, load_config
from camlink.pipeline.config.watch import ConfigWatch, WatchedCameras, WatchedFacts

SITE = "models: building\ncameras:\n  - {id: hall, source: 'rtsp://u:hunter2@cam/1', fps: 1}\n"
DOOR = "  - {id: door, source: 'rtsp://u:hunter2@cam/2', fps: 3}\n"


class Edited:
    """A configuration file, a watch on it, and a clock that the test advances."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "site.yaml"
        self.edits = 0
        self.write(SITE)
        self.now_s = 0.0
        self.watch = ConfigWatch(str(self.file), load_config(self.file), lambda: self.now_s)

    def write(self, text: str) -> None:
        self.file.write_text(text)
        self.edits += 1
        os.utime(self.file, ns=(self.edits * 10**9, self.edits * 10**9))  # two edits may fall into one tick of the disk

    def looks(self, seconds: int) -> list[SiteConfig]:
        found = []
        for _ in range(seconds):
            self.now_s += 1.01
            found.append(self.watch.poll())
        return [site for site in found if site is not None]


@pytest.fixture
def edited(tmp_path: Path) -> Edited:
    return Edited(tmp_path)


def test_a_file_that_is_not_edited_is_not_news(edited: Edited) -> None:
    assert edited.looks(5) == []


def test_an_edit_is_told_once_within_a_few_seconds(edited: Edited) -> None:
    edited.write(SITE + DOOR)
    (site,) = edited.looks(3)
    assert [camera.id for camera in site.cameras] == ["hall", "door"]
    assert edited.looks(5) == []


def test_a_file_that_is_still_being_written_is_waited_for(edited: Edited) -> None:
    edited.write(SITE[:30])
    assert edited.looks(1) == []
    edited.write(SITE + DOOR)
    (site,) = edited.looks(3)
    assert len(site.cameras) == 2


def test_a_broken_edit_is_reported_once_with_file_and_line_and_changes_nothing(
    edited: Edited, caplog: pytest.LogCaptureFixture
) -> None:
    edited.write(SITE + "  - {id: door, source: 'rtsp://u:hunter2@cam/2', fsp: 3}\n")
    assert edited.looks(10) == []
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert f"{edited.file}:4" in record.getMessage() and 'did you mean "fps"' in record.getMessage()
    assert "hunter2" not in caplog.text
    edited.write(SITE + DOOR)
    assert len(edited.looks(3)) == 1


def test_a_file_that_is_gone_for_a_while_changes_nothing(edited: Edited, caplog: pytest.LogCaptureFixture) -> None:
    edited.file.unlink()
    assert edited.looks(5) == []
    assert str(edited.file) in caplog.text
    edited.write(SITE + DOOR)
    assert len(edited.looks(3)) == 1


def test_what_needs_a_restart_is_told_and_left_as_it_was(edited: Edited, caplog: pytest.LogCaptureFixture) -> None:
    edited.write((SITE + DOOR).replace("models: building", "models: traffic\nseed: 3"))
    (site,) = edited.looks(3)
    assert site.models == "building" and len(site.cameras) == 2
    assert "models, seed takes effect when camlink is restarted" in caplog.text


def test_facts_of_a_camera_that_was_added_are_found_when_it_is_first_seen(edited: Edited) -> None:
    facts = WatchedFacts(str(edited.file), load_config(edited.file))
    assert dict(facts).keys() == {"hall"} and facts.get("door") is None
    edited.write(SITE + DOOR)
    assert facts["door"].fps == 3.0 and len(facts) == 2


def test_who_writes_results_hears_of_cameras_that_come_and_go(edited: Edited) -> None:
    told: list[list[str]] = []
    cameras = WatchedCameras(
        str(edited.file), load_config(edited.file), lambda present: told.append([*present]), lambda: edited.now_s
    )

    def waits() -> None:
        for _ in range(3):
            edited.now_s += 1.01
            assert cameras.observe(()) == ()

    waits()
    assert told == []
    edited.write(SITE + DOOR)
    waits()
    assert told == [["hall", "door"]]
    assert cameras.described()["door"] == {"domain": "default", "source": "rtsp://***@cam/2", "fps": 3.0}
    edited.write(SITE)
    assert cameras.described().keys() == {"hall"}, "looked at at once"
    waits()
    assert told == [["hall", "door"], ["hall"]]
