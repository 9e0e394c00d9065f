"""Durations, rates and sizes as people write them, with the unit said.

A bare number says nothing of its unit, so ``period: 60`` is refused rather than guessed; the message names the fix.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from camlink.pipeline.suggestions import suggest

SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
GIGABYTES = {"KB": 1e-6, "MB": 1e-3, "GB": 1.0, "TB": 1e3, "MIB": 2**20 / 1e9, "GIB": 2**30 / 1e9}
SHORTEST, LONGEST = timedelta(milliseconds=1), timedelta(days=36_500)  # what can be written, and added to any time

_NUMBER = r"\d+(?:\.\d+)?"
DURATION_PATTERN = rf"^(?:{_NUMBER}(?:ms|s|min|h|d))+$"
RATE_PATTERN = rf"^{_NUMBER}/(?:{_NUMBER})?(?:ms|s|min|h|d)$"
_LOOSE_UNITS = {  # what people write, and which unit they mean
    "milli": "ms",
    "msec": "ms",
    "sec": "s",
    "min": "min",
    "m": "min",
    "hour": "h",
    "hr": "h",
    "h": "h",
    "day": "d",
    "d": "d",
    "s": "s",
}


def parse_duration(value: Any) -> timedelta:
    """Read ``"20s"``, ``"10min"``, ``"1h30min"`` or ``"1d"``; a timedelta passes through.

    Raises ValueError that suggests the right spelling.

    >>> parse_duration("1h30min")
    datetime.timedelta(seconds=5400)
    >>> parse_duration("1 hour")
    Traceback (most recent call last):
    ValueError: "1 hour" is not a duration; did you mean "1h"?
    """
    if isinstance(value, timedelta):
        duration = value
    elif isinstance(value, str) and re.match(DURATION_PATTERN, value):
        parts = re.findall(rf"({_NUMBER})(ms|s|min|h|d)", value)
        seconds = sum(float(number) * SECONDS[unit] for number, unit in parts)
        duration = timedelta(seconds=min(seconds, 2.0 * LONGEST.total_seconds()))
    else:
        raise ValueError(_duration_advice(value))
    if duration <= timedelta(0):
        raise ValueError(f'"{value}" is not longer than nothing')
    if not SHORTEST <= duration <= LONGEST:
        raise ValueError(f'"{str(value)[:40]}" is not usable; a duration lies between 1ms and {LONGEST.days}d')
    return duration


def _duration_advice(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = f"{_float(value):g}"
        return f'{number} has no unit; write "{number}s", "{number}min", "{number}h" or "{number}d"'
    match = re.match(rf"^\s*({_NUMBER})\s*([a-z]+)\s*$", str(value).lower())
    if match:
        number, word = match.groups()
        for beginning, unit in _LOOSE_UNITS.items():
            if word == beginning or (len(beginning) > 1 and word.startswith(beginning)):
                return f'"{value}" is not a duration; did you mean "{number}{unit}"?'
    return f'"{value}" is not a duration; write a number and a unit (ms, s, min, h, d) such as "20s" or "1h30min"'


def format_duration(duration: timedelta) -> str:
    """Write a duration in the form that `parse_duration` reads, in the fewest whole units.

    >>> format_duration(timedelta(minutes=90))
    '1h30min'
    """
    milliseconds = round(duration.total_seconds() * 1000)
    parts = []
    for unit in ("d", "h", "min", "s", "ms"):
        count, milliseconds = divmod(milliseconds, round(SECONDS[unit] * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_rate(value: Any) -> float:
    """Read a rate as frames per second: a number, or ``"1/min"``, ``"30/h"``, ``"1/10s"``.

    >>> parse_rate("6/min")
    0.1
    """
    if isinstance(value, str) and re.match(RATE_PATTERN, value):
        match = re.match(rf"^({_NUMBER})/({_NUMBER})?(\w+)$", value)
        assert match is not None  # a stricter pattern has matched already
        count, span, unit = match.groups()
        seconds = float(span or 1) * SECONDS[unit]
        rate = float(count) / seconds if seconds else 0.0
    elif isinstance(value, int | float) and not isinstance(value, bool):
        rate = _float(value)
    else:
        raise ValueError(f'"{value}" is not a rate; write frames per second such as 2 or 0.5, or "1/min"')
    if not 0 < rate <= 1000:
        raise ValueError(f"{value!s:.20} is not a usable rate; it must be above 0 and at most 1000 frames per second")
    return rate


def parse_gigabytes(value: Any) -> float:
    """Read a size in GB: a number, or text such as ``"500 MB"``.

    >>> parse_gigabytes("500 MB")
    0.5
    """
    match = re.match(rf"^\s*({_NUMBER})\s*([a-zA-Z]+)\s*$", value) if isinstance(value, str) else None
    if match and match.group(2).upper() in GIGABYTES:
        size = float(match.group(1)) * GIGABYTES[match.group(2).upper()]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        size = _float(value)
    else:
        raise ValueError(f'"{value}" is not a size; write GB as a number such as 4, or "500 MB"')
    if not 0 < size < 1e6:
        raise ValueError(f"{value!s:.20} is not a usable size; it must be above 0 GB")
    return size


def parse_share(value: Any) -> float:
    """Read a share in 0..1; a percentage is refused with the number that was meant.

    >>> parse_share("40%")
    Traceback (most recent call last):
    ValueError: "40%" is a percentage; write 0.4
    """
    match = re.match(rf"^\s*({_NUMBER})\s*%\s*$", value) if isinstance(value, str) else None
    if match:
        raise ValueError(f'"{value}" is a percentage; write {float(match.group(1)) / 100:g}')
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f'"{value}" is not a share; write a number from 0 to 1')
    share = _float(value)
    if 2 <= share <= 100:
        raise ValueError(f"{share:g} is above 1; a share lies in 0..1 (for {share:g} per cent write {share / 100:g})")
    if not 0 <= share <= 1:
        raise ValueError(f"{share:g} is not a share; it must lie in 0..1")
    return share


def parse_crop(value: Any) -> tuple[float, float, float, float]:
    """Read ``[x, y, width, height]`` as shares of the picture; it must lie inside.

    >>> parse_crop([0, 0, 1, 0.8])
    (0.0, 0.0, 1.0, 0.8)
    """
    parts = value if isinstance(value, list | tuple) else []
    if len(parts) == 4 and all(type(part) in (int, float) and math.isfinite(_float(part)) for part in parts):
        x, y, width, height = map(float, parts)
        slack = 1e-6  # 0.7 + 0.3 may be a little above 1
        if min(x, y) >= 0 and min(width, height) > 0 and max(x + width, y + height) <= 1 + slack:
            return x, y, width, height
    got = f"[{', '.join(f'{part!s:.20}' for part in parts[:8])}]" if parts else f'"{value}"'
    raise ValueError(
        f"{got} is not a crop; write [x, y, width, height] as shares (0..1) of the picture and inside it, "
        "such as [0, 0, 1, 0.8] for all but the lowest fifth"
    )


def _float(number: float) -> float:
    """Return a number as a float, infinity where it is too large for one."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def parse_timezone(name: str) -> str:
    """Return the name of a time zone that is known. Raises ValueError with the nearest name.

    >>> parse_timezone("asia/singapore")
    Traceback (most recent call last):
    ValueError: "asia/singapore" is not a known time zone; did you mean "Asia/Singapore"?
    """
    if name in _time_zones():
        return name
    close = suggest(name, sorted(_time_zones()))
    advice = close if close.startswith("did") else 'write one like "Asia/Singapore"'
    raise ValueError(f'"{name}" is not a known time zone; {advice}')


@cache
def _time_zones() -> frozenset[str]:
    """Finding them takes some 20 ms of looking through folders, which a site of 5000 cameras would do for each."""
    return frozenset(available_timezones())


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, as a person says it.

    >>> counted(1, "audit frame"), counted(1200, "camera")
    ('1 audit frame', '1,200 cameras')
    """
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def learning_words(frames: int, of: int) -> str:
    """Say how far a camera is with its first frames, on which every model runs; ``of``: their number, 0 if not known.

    >>> learning_words(40, 172), learning_words(40, 0)
    ('learning: 40 of 172 frames', 'learning: 40 frames')
    """
    return (
        f"learning: {frames:,} of {counted(of, 'frame')}" if of >= frames else f"learning: {counted(frames, 'frame')}"
    )
