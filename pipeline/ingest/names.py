"""Event times and camera names out of file names, as cameras and recorders write them.

Understood, with any of ``- _ . :`` or nothing between the parts:

* ``2019-06-28_13-02-35.503167_00001.03601.mp4``: time, then camera;
* ``2701_20260122T082046_sgt.jpg``: camera, then time;
* ``2022-10-28_11_57.jpg``, ``20260122082046Z.jpg``, ``hall_20260122T082046+0800.jpg``.

A time without a zone is read in the camera's timezone. Zone abbreviations (``sgt``) are not read: most are ambiguous.
File modification times are never used: they differ between copies, and replays must repeat.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from unicodedata import combining, normalize
from zoneinfo import ZoneInfo

DEFAULT_START = datetime(2026, 1, 1, tzinfo=UTC)  # event time of footage that carries no time of its own

_TIME = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)[-_.]?(?P<month>\d\d)[-_.]?(?P<day>\d\d)"
    r"[T_ .-]*(?P<hour>\d\d)(?P<mark>[-_:.]?)(?P<minute>\d\d)"
    r"(?:(?P=mark)(?P<second>\d\d)(?:\.(?P<fraction>\d{1,6})\d*)?)?"
    r"(?P<zone>(?:Z|[+-](?:0\d|1[0-4]):?[0-5]\d)(?![0-9A-Za-z]))?(?!\d)"  # strict: a hash may follow a time
)
_GENERIC = frozenset({"clip", "frame", "image", "img", "photo", "pic", "rec", "recording", "snapshot", "vid", "video"})
_NOT_IN_ID = re.compile(r"[^A-Za-z0-9_.-]+")
_SEPARATORS = " _-.@"


@dataclass(frozen=True, slots=True)
class NamedTime:
    """What a file name tells: when, and which camera (None when it names none)."""

    at: datetime
    camera_id: str | None


def parse_name(stem: str, timezone: str) -> NamedTime | None:
    """Return what a file's stem tells, or None when there is no complete time in it.

    >>> parse_name("2701_20260122T082046_sgt", "Asia/Singapore")
    NamedTime(at=datetime.datetime(2026, 1, 22, 0, 20, 46, tzinfo=datetime.timezone.utc), camera_id='2701')
    >>> parse_name("campus-crossing", "UTC") is None
    True
    """
    for match in _TIME.finditer(stem):
        at = _moment(match, timezone)
        if at is None:
            continue
        before, after = stem[: match.start()].strip(_SEPARATORS), stem[match.end() :].strip(_SEPARATORS)
        return NamedTime(at, _camera(before) or (_camera(after) if not before else None))
    return None


def parse_moment(text: str, timezone: str) -> datetime:
    """Return an ISO 8601 time as UTC; a naive one is read in ``timezone``. Raises ValueError."""
    return to_utc(datetime.fromisoformat(text.strip()), timezone)


def to_utc(moment: datetime, timezone: str) -> datetime:
    """Return ``moment`` in UTC; a naive one is read in ``timezone``."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(timezone))
    return moment.astimezone(UTC)


def camera_id_from(text: str) -> str:
    """Return ``text`` as a camera id. Where that loses letters, a hash of the whole keeps different names apart.

    >>> camera_id_from("Hall (north)")
    'Hall-north'
    >>> camera_id_from("Eingang Süd"), camera_id_from("Eingang Sud")
    ('Eingang-Sud-a1bd9b', 'Eingang-Sud')
    """
    latin = "".join(letter for letter in normalize("NFKD", text) if not combining(letter))
    plain = _NOT_IN_ID.sub("-", latin).strip("-")
    plain = "" if set(plain) <= {"."} else plain
    if normalize("NFC", text).isascii() and len(plain) <= 64:
        return plain or "camera"
    mark = blake2b(normalize("NFC", text).encode("utf-8", "surrogateescape"), digest_size=3).hexdigest()
    return f"{plain[:57].rstrip('-') or 'camera'}-{mark}"


def _moment(match: re.Match[str], timezone: str) -> datetime | None:
    part = match.groupdict(default="")
    iso = f"{part['year']}-{part['month']}-{part['day']}T{part['hour']}:{part['minute']}:{part['second'] or '00'}"
    try:
        return parse_moment(f"{iso}.{part['fraction'].ljust(6, '0')}{part['zone']}", timezone)
    except ValueError:  # digits that only look like a time, such as month 13
        return None


def _camera(text: str) -> str | None:
    return camera_id_from(text) if text and text.lower() not in _GENERIC else None
