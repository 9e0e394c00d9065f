"""Alerts as people see them beside all else that happened: once for each, with what became of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from camlink.pipeline.alerts import raised
from camlink.pipeline.alerts.alert import Alert, Confirmed
from camlink.pipeline.alerts.outbox import FILE_NAME, Outbox
from camlink.pipeline.alerts.raised import raised_alerts
from camlink.pipeline.dashboard.happened import happened
from camlink.pipeline.dashboard.rollups import CameraState
from camlink.pipeline.testing import START

CROWD = Alert("crowd", "hall", "count_above", START, START + timedelta(seconds=9), "predicted", "persons counts 9")


def test_an_alert_for_two_places_is_listed_once_with_the_one_that_it_has_not_reached(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(CROWD, ["https://a#1", "mqtt://b#2"], now_s=1.0)
    outbox.put(replace(CROWD, camera_id="yard"), ["https://a#1"], now_s=1.0)
    (found,) = raised_alerts(tmp_path, "hall")
    assert (found.at, found.rule, found.detail, found.delivery) == (
        *(CROWD.at, "crowd", "persons counts 9"),
        "not delivered yet",
    )
    first, second = (outbox.due(2.0, place)[0] for place in ("https://a#1", "mqtt://b#2"))
    outbox.told(first, 2.0)
    outbox.failed(second, "mqtt://b: cannot be reached", 2.0)
    assert raised_alerts(tmp_path, "hall")[0].delivery == "not delivered after 1 try: mqtt://b: cannot be reached"
    outbox.told(second, 3.0)
    assert raised_alerts(tmp_path, "hall")[0].delivery == ""
    outbox.close()


@pytest.mark.parametrize(
    ("confirmed", "known"),
    [
        ("not asked", "predicted"),
        ("by execution", "predicted, and confirmed by execution"),
        ("not possible", "predicted, could not be confirmed"),
    ],
)
def test_how_it_was_known_is_said(tmp_path: Path, confirmed: Confirmed, known: str) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(replace(CROWD, confirmed=confirmed), ["https://a#1"], now_s=1.0)
    assert raised_alerts(tmp_path, "hall")[0].known == known
    outbox.close()


def test_without_an_outbox_or_with_one_that_is_none_there_are_no_alerts(tmp_path: Path) -> None:
    assert raised_alerts(tmp_path, "hall") == []
    (tmp_path / FILE_NAME).write_text("no database " * 100)
    assert raised_alerts(tmp_path, "hall") == []


def test_the_newest_are_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Outbox(tmp_path)
    for second in range(3):
        outbox.put(
            replace(CROWD, since=START + timedelta(seconds=second), rule=f"r{second}"), ["a"], now_s=float(second)
        )
    assert [alert.rule for alert in raised_alerts(tmp_path, "hall")] == ["r2", "r1", "r0"]
    monkeypatch.setattr(raised, "NEWEST", 2)
    assert [alert.rule for alert in raised_alerts(tmp_path, "hall")] == ["r2", "r1"]
    outbox.close()


def test_a_cameras_page_tells_alerts_among_what_happened(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(CROWD, ["https://a#1"], now_s=1.0)
    camera = CameraState("hall", {})
    for second, kind in ((1, "down"), (20, "recovered")):
        camera.events.append({"at": START + timedelta(seconds=second), "kind": kind, "detail": ""})
    told = happened(camera, links=False, alerts=raised_alerts(tmp_path, "hall"))
    assert [event["what"] for event in told] == ["camera recovered", "alert: crowd", "camera down"]
    assert told[1]["detail"] == "persons counts 9 (predicted); not delivered yet"
    outbox.close()
