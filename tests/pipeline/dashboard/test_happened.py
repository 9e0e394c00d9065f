"""What happened at a camera: the newest first, and a flood of one kind as one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from camlink.pipeline.dashboard.happened import LISTED, happened
from camlink.pipeline.dashboard.rollups import CameraState
from camlink.pipeline.testing import START


def at(second: float) -> dict[str, Any]:
    return {"captured_at": START + timedelta(seconds=second), "at": START + timedelta(seconds=second)}


def dropped(second: float, reason: str = "overload", count: int = 1) -> dict[str, Any]:
    return at(second) | {"reason": reason, "count": count}


def test_drops_that_follow_each_other_are_one_event_with_their_count_and_span() -> None:
    camera = CameraState("hall", {})
    camera.drops.extend(dropped(second) for second in range(100))
    camera.drops.extend([dropped(100, "corrupt", 3), *(dropped(200 + second) for second in range(10))])
    camera.events.append(at(204.5) | {"kind": "slow", "detail": "2 frames/s"})
    told = [(event["what"], event["detail"]) for event in happened(camera, links=False)]
    since = [(START + timedelta(seconds=second)).strftime("%d %b %H:%M:%S") for second in (205, 200, 0)]
    assert told == [
        ("5 frames dropped", f"overload, 5 times since {since[0]}"),
        ("camera slow", "2 frames/s"),
        ("5 frames dropped", f"overload, 5 times since {since[1]}"),
        ("3 frames dropped", "corrupt"),
        ("100 frames dropped", f"overload, 100 times since {since[2]}"),
    ]
    assert [event["at"] for event in happened(camera, links=False)][-1] == START + timedelta(seconds=99)


def test_only_the_newest_are_listed_once_drops_are_folded() -> None:
    camera = CameraState("hall", {})
    camera.drops.extend(dropped(1000 + second) for second in range(300))
    camera.events.extend(at(second) | {"kind": "resolution", "detail": ""} for second in range(2 * LISTED))
    told = happened(camera, links=False)
    assert len(told) == LISTED and [event["kind"] for event in told[:2]] == ["dropped", "resolution"]


def test_what_became_of_links_is_told_only_where_they_are_read() -> None:
    camera = CameraState("hall", {})
    camera.adaptation.append(at(1) | {"kind": "rolled_back", "target": "persons", "version": 2, "detail": ""})
    assert [event["what"] for event in happened(camera, links=True)] == ["links to persons v2 rolled back"]
    assert not happened(camera, links=False)
