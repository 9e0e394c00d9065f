"""Turns views into HTML: the templates, and the words and numbers that they are filled with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import camlink
from camlink.pipeline.dashboard import svg
from camlink.pipeline.dashboard.library import OpenRun
from camlink.pipeline.reports.calibrated import ABOUT
from camlink.pipeline.reports.html import memory, rate
from camlink.pipeline.reports.notes import BASELINE_WORDS, interval, is_told, looks, percent, standing, too_few


class Pages:
    """The templates, compiled once."""

    def __init__(self, *, signed_in: bool) -> None:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        self._environment = Environment(
            loader=PackageLoader("camlink.pipeline.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "percent": percent, "memory": memory, "rate": rate, "ms": milliseconds, "moment": moment, "iso": iso,
            "share": share, "standing": standing, "interval": interval,
            "at_words": lambda time_us: moment(datetime.fromtimestamp(time_us / 1e6, UTC), "%d %b %Y %H:%M:%S"),
            "at_iso": lambda time_us: iso(datetime.fromtimestamp(time_us / 1e6, UTC)),
        }  # fmt: skip
        self._environment.globals |= {
            "link": link,
            "too_few": too_few,
            "told": is_told,
            "looks": looks,
            "drawn_interval": svg.interval,
            "baselines": BASELINE_WORDS,
            "signed_in": signed_in,
            "version": camlink.__version__,
            "axis_start": axis_start,
            "about_calibrated": ABOUT,
        }

    def render(self, template: str, run: OpenRun | None, **values: Any) -> str:
        """Return the page. Everything in ``values`` is escaped; drawings are `Markup`, escaped where they were made."""
        return self._environment.get_template(template).render(run=run, **values)


def link(path: str, run: OpenRun | str | None = None, **query: str | None) -> str:
    """Return an address on this site.

    >>> link("/camera", "night", id="hall & yard")
    '/camera?run=night&id=hall+%26+yard'
    """
    name = run.name if isinstance(run, OpenRun) else run
    given = {key: value for key, value in {"run": name, **query}.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def share(value: float | None) -> str:
    """Return a share without decimals, as tables show it.

    >>> share(0.314), share(None), share(0.004)
    ('31 %', '–', '<1 %')
    """
    if value is None:
        return "–"
    return "<1 %" if 0.0 < value < 0.005 else f"{100.0 * value:.0f} %"


def milliseconds(value: float) -> str:
    """Return a time as people read it.

    >>> milliseconds(0.42), milliseconds(33.1), milliseconds(2418.3)
    ('0.42 ms', '33 ms', '2,418 ms')
    """
    return f"{value:,.0f} ms" if value >= 10.0 else f"{value:.2g} ms"


def moment(at: datetime, form: str = "%d %b %H:%M:%S") -> str:
    """Return a time in UTC as people read it."""
    return at.astimezone(UTC).strftime(form)


def iso(at: datetime) -> str:
    """Return a time as scripts read it."""
    return at.astimezone(UTC).isoformat(timespec="seconds")


def axis_start(figures: list[Any]) -> float:
    """Return where an axis of agreements begins, so that the intervals on it can be told apart.

    >>> axis_start([]), axis_start([None])
    (0.0, 0.0)
    """
    lows = [min(figure.low, figure.baseline_mean) for figure in figures if figure is not None]
    return max(0.0, (min(lows) - 0.02) // 0.05 * 0.05) if lows else 0.0
