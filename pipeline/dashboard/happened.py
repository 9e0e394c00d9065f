"""What happened to one camera, as its page lists it: events, alerts, drops, and what became of links."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from camlink.pipeline.alerts.raised import Raised
from camlink.pipeline.dashboard.rollups import CameraState
from camlink.pipeline.quantities import counted

LISTED = 40
Row = Mapping[str, Any]


def happened(camera: CameraState, *, links: bool, alerts: Iterable[Raised] = ()) -> Sequence[Row]:
    """Return the newest events of all kinds, newest first: ``at``, ``kind``, ``what`` and ``detail``.

    Drops that follow each other for one reason are one event: an overload drops frames one by one, and would bury all
    else. ``links``: also what became of links.
    """
    told = [{**_plain(e), "what": f"camera {e['kind']}"} for e in camera.events]
    told += [{"at": a.at, "kind": "alert", "what": f"alert: {a.rule}", "detail": _alerted(a)} for a in alerts]
    told += [{**_plain(e), "what": _learnt(e)} for e in camera.adaptation] if links else []
    told += [
        {"at": d["captured_at"], "kind": "dropped", "count": d["count"], "detail": d["reason"]} for d in camera.drops
    ]
    return list(_folded(sorted(told, key=lambda event: event["at"])))[::-1][:LISTED]


def _plain(event: Row) -> dict[str, Any]:
    return {key: event[key] for key in ("at", "kind", "detail")}


def _folded(events: Iterable[Row]) -> Iterator[Row]:
    """Yield events by time, with neighbouring drops of one reason as one, at the time of the last."""
    for dropped, group in groupby(events, key=lambda event: event["kind"] == "dropped" and event["detail"]):
        if not dropped:
            yield from group
            continue
        drops = list(group)
        first, last = drops[0], drops[-1]
        what = f"{counted(sum(drop['count'] for drop in drops), 'frame')} dropped"
        times = f", {len(drops):,} times since {first['at']:%d %b %H:%M:%S}" if len(drops) > 1 else ""
        yield {**last, "what": what, "detail": f"{last['detail']}{times}"}


def _alerted(alert: Raised) -> str:
    return f"{alert.detail} ({alert.known})" + (f"; {alert.delivery}" if alert.delivery else "")


def _learnt(event: Row) -> str:
    if event["kind"] == "relabel_missed":
        return "relabelling came too late"
    return f"links to {event['target']} v{event['version']} {str(event['kind']).replace('_', ' ')}"
