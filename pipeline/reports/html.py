"""Renders the report as one HTML file that works offline: plotly.js, styles, data and pictures all inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camlink.models.base import OutputSpec
from camlink.models.scores import agreement, is_wrong
from camlink.pipeline.accuracy import PREDICTED
from camlink.pipeline.quantities import counted
from camlink.pipeline.reports import notes, plots
from camlink.pipeline.reports.calibrated import ABOUT, calibrated_lines
from camlink.pipeline.reports.rows import CameraRows, ModelRows
from camlink.pipeline.reports.spending import (
    KINDS,
    asked_words,
    failed_sentence,
    learning_sentence,
    over_spent,
    overtaken_in,
    shown_adds,
)
from camlink.pipeline.reports.strip import decision_strip
from camlink.pipeline.reports.words import value_words
from camlink.pipeline.results import RunResults

if TYPE_CHECKING:
    from jinja2 import Environment

OPEN_CAMERAS = 3  # cameras beyond these start folded
LISTED_CAMERAS = 12  # named in the page's contents; of more, the table of cameras is the list
POINTS_PER_PAGE = 60_000  # markers a browser still handles well, shared out over cameras and models
PICTURES_PER_CAMERA, PICTURES_PER_PAGE = 12, 240
BRIEF_ROWS = 8  # of events, before the rest is folded away
LIST_ROWS = 50  # of events and drops; the JSON report has them all


class Page:
    """Collects what the page shows of each camera while the report is being built, then renders it."""

    def __init__(self, results: RunResults) -> None:
        self._results = results
        self._looks = notes.looks(results.info.complete)
        cameras = max(1, len(results.cameras()))
        models = max(1, len(results.info.models))
        self._points = int(np.clip(POINTS_PER_PAGE / cameras / models, 60, 240))
        self._pictures = int(np.clip(PICTURES_PER_PAGE // cameras, 2, PICTURES_PER_CAMERA))
        self._views: dict[str, dict[str, Any]] = {}

    def add_camera(self, rows: CameraRows, entry: Mapping[str, Any]) -> None:
        """Keep what the page needs of one camera: plots and pictures, no rows."""
        scored = [d for d in entry["decisions"] if d["link_scores"]]
        figures = {
            "outputs": plots.outputs_over_time(rows, self._points),
            "strip": decision_strip(rows),
            "agreement": plots.agreement_by_model(entry["models"], self._looks),
            "links": plots.link_matrix(scored[-1]["link_scores"], list(rows.models)) if scored else None,
        }
        self._views[rows.camera_id] = {
            "figures": figures,  # None where there is nothing to show
            "gallery": _gallery(rows, self._results.pictures(rows.camera_id), self._pictures),
        }

    def render(self, report: Mapping[str, Any]) -> str:
        """Return the page. Everything that came from users, cameras or models is escaped."""
        from plotly.offline import get_plotlyjs

        return (
            page_environment()
            .get_template("template.html")
            .render(
                report=report,
                name=notes.run_words(report["run"]["name"], synthetic=report["run"]["synthetic"]),
                config=self._results.info.config,
                headline=notes.headline(report),
                learning=bool(learning_sentence(report)),
                looks=self._looks,
                ending=notes.ending(report),
                dropped=notes.dropped_sentence(report["frames"]),
                overtaken=overtaken_in(report["cost"]["parts"]),
                failed=failed_sentence((name, model["executions"]) for name, model in report["models"].items()),
                kinds=KINDS,
                adds=shown_adds(report["cost"]["parts"]),
                over_spent=over_spent(report["cost"]["time_budget"], report["cost"]["parts"]["serve"]["share"]),
                calibrated=calibrated_lines(report),
                about_calibrated=ABOUT,
                pace=notes.pace(report["cost"]),
                views=self._views,
                overview=self._overview(report),
                comparison=_comparison(report["agreement"]),
                open_cameras=OPEN_CAMERAS,
                listed_cameras=LISTED_CAMERAS,
                list_rows=LIST_ROWS,
                brief_rows=BRIEF_ROWS,
                style=style(),
                script=_asset("report.js"),
                plotlyjs=get_plotlyjs(),
            )
        )

    def _overview(self, report: Mapping[str, Any]) -> plots.Figure | None:
        """Return the models' agreement over all cameras; of a single one, the camera's own plot says the same."""
        return plots.agreement_by_model(report["models"], self._looks) if len(report["cameras"]) > 1 else None


def page_environment() -> Environment:
    """Return what renders the templates beside this file; everything in a page is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("camlink.pipeline.reports", package_path="."),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"too_few": notes.too_few, "told": notes.is_told}
    environment.filters |= {
        "percent": notes.percent,
        "interval": notes.interval,
        "executed": notes.executed_words,
        "standing": notes.standing,
        "asked": asked_words,
        "counted": counted,
        "whole": notes.whole_words,
        "moment": _moment,
        "rate": rate,
        "memory": memory,
    }
    return environment


def style() -> str:
    """Return the styles of a page that is whole by itself."""
    return _asset("colours.css") + _asset("report.css")  # the dashboard has the same colours


def _asset(name: str) -> str:
    return files("camlink.pipeline.reports").joinpath(name).read_text(encoding="utf-8")


def _moment(iso: str | None, form: str = "%d %b %H:%M:%S") -> str:
    """Return an ISO time in UTC as people read it.

    >>> _moment("2026-03-02T08:00:00+00:00")
    '02 Mar 08:00:00'
    """
    return "" if iso is None else datetime.fromisoformat(iso).strftime(form)


def rate(fps: float) -> str:
    """Return a sampling rate as people say it, also a slow one.

    >>> rate(10.0), rate(0.5), rate(0.000477), rate(1 / 7200)
    ('10 frames per second', '1 frame per 2 s', '1 frame per 35 min', '1 frame per 2 h')
    """
    if fps >= 1.0:
        return f"{fps:.3g} frame{'' if fps == 1.0 else 's'} per second"
    gap_s = 1.0 / fps
    for unit, seconds in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if gap_s >= 1.5 * seconds:
            return f"1 frame per {gap_s / seconds:.2g} {unit}"
    return f"1 frame per {gap_s:.2g} s"


def memory(gigabytes: float) -> str:
    """Return a model's memory with a unit that fits it.

    >>> memory(1.3), memory(0.031)
    ('1.3 GB', '31 MB')
    """
    return f"{gigabytes:.2g} GB" if gigabytes >= 0.1 else f"{gigabytes * 1000:.2g} MB"


def _comparison(figure: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return camlink and its baselines as places on one axis, in per cent of its width; None if not measured."""
    if figure["mean"] is None:
        return None
    rows = [("camlink", figure["mean"], figure["low"], figure["high"])]
    rows += [(plots.BASELINE_MARKS[name][0], mean, None, None) for name, mean in figure["baselines"].items()]
    lowest = min(value for _, mean, low, _ in rows for value in (mean, low) if value is not None)
    start = max(0.0, np.floor((lowest - 0.02) * 20) / 20)

    def place(value: float | None) -> float | None:
        return None if value is None else round(100.0 * (value - start) / (1.0 - start), 2)

    places = [
        {"name": name, "mean": mean, "at": place(mean), "low": place(low), "high": place(high)}
        for name, mean, low, high in rows
    ]
    return {"start": start, "rows": places}


def _gallery(rows: CameraRows, pictures: Mapping[int, Path], most: int) -> dict[str, Any]:
    """Return the worst audit disagreements of a camera with their pictures, and how many there were."""
    wrong: dict[int, list[dict[str, Any]]] = {}
    moments: dict[int, int] = {}
    for name, model in rows.models.items():
        for index, time_us, item in _disagreements(name, model):
            wrong.setdefault(index, []).append(item)
            moments[index] = time_us

    def rank(index: int) -> tuple[bool, float, int]:
        return index not in pictures, -sum(1.0 - item["agreement"] for item in wrong[index]), index

    worst = sorted(wrong, key=rank)
    shown = [
        {"index": index, "at": _stamp(moments[index]), "wrong": wrong[index], "jpeg": _inline(pictures.get(index))}
        for index in sorted(worst[:most])
    ]
    return {"frames": len(wrong), "shown": shown}


def _disagreements(name: str, model: ModelRows) -> list[tuple[int, int, dict[str, Any]]]:
    """Return (frame index, time, what was said) for each audit frame on which a prediction was wrong."""
    if model.scores is None:
        return []
    audit, scores = model.audit, model.scores.camlink
    wrong = np.flatnonzero((audit.shadow == PREDICTED) & is_wrong(model.spec, scores))
    return [
        (
            int(audit.frame_index[row]),
            int(audit.times_us[row]),
            {"model": name, "agreement": float(scores[row])}
            | said(model.spec, audit.predicted[row], audit.executed[row]),
        )
        for row in wrong
    ]


def said(spec: OutputSpec, predicted: Any, executed: Any) -> dict[str, str]:
    """Return both values in words; of a long count vector only the entries that differ."""
    differ = np.arange(spec.size)
    if spec.task == "count" and spec.size > 1:
        apart = [agreement(_entry(spec), predicted[i : i + 1][None], executed[i : i + 1][None])[0] < 1 for i in differ]
        differ = differ[np.array(apart)]
    return {"predicted": value_words(spec, predicted, differ), "executed": value_words(spec, executed, differ)}


def _entry(spec: OutputSpec) -> OutputSpec:
    return OutputSpec(spec.model, spec.kind, 1, spec.task, scale=spec.scale)


def _stamp(time_us: int) -> str:
    return str(np.datetime64(time_us, "us").astype("datetime64[s]")).replace("T", " ")


def _inline(file: Path | None) -> str | None:
    """Return a picture as base64, or None when it was not kept, or in a run that goes on no longer is."""
    try:
        return None if file is None else base64.b64encode(file.read_bytes()).decode("ascii")
    except FileNotFoundError:
        return None
