"""What the oracle node said of a person's labels: how often, how much of what, and how far to believe it.

A calibrated output is a prediction. How far it holds is known from labelled frames that taught nothing, beside what the
best counter says itself on the same frames; where too few were labelled to keep any aside, that is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from camlink.pipeline.quantities import counted
from camlink.pipeline.results import RunResults
from camlink.pipeline.run_info import RunInfo

ABOUT = (
    "What the person would say, predicted from the outputs served. The links' own word is expected, not measured. What "
    "is measured comes from labelled frames that were kept aside, the last of each camera's; neighbouring frames are "
    "alike, so its interval is narrower than it should be. The frames of this run are not compared with labels."
)


def calibrated(results: RunResults) -> list[dict[str, Any]]:
    """Return, per camera, what the oracle node said on average and how it was judged; empty without labels."""
    sql = (
        "SELECT camera_id, name, count(*), avg(confidence), avg(list_sum(value)) FROM calibrated "
        "GROUP BY ALL ORDER BY camera_id, name"
    )
    rows = zip(*(column.to_pylist() for column in results.query(sql, "calibrated").columns), strict=True)
    keys = ("camera", "name", "frames", "mean_confidence", "mean_count")
    found = [dict(zip(keys, row, strict=True)) for row in rows]
    for entry in found:
        entry["unit"] = unit(results.info)
        entry["judged"] = judged = results.info.oracle.get(entry["camera"])
        entry["mean_own"] = _mean_own(results, entry["camera"], judged["source"]) if judged else None
    return found


def unit(info: RunInfo) -> str:
    """Return what is counted: the columns of the labels."""
    return " + ".join((info.config.get("oracle") or {}).get("counts") or ("things",))


def _mean_own(results: RunResults, camera: str, source: str | None) -> float | None:
    """Return what a counter was served as on average, in the terms of the labels (`links.domain.own_value`)."""
    if source is None:
        return None
    counts = (results.info.config.get("oracle") or {}).get("counts") or ()
    labels = results.info.specs()[source].labels
    places = [labels.index(count) + 1 for count in counts] if set(counts) <= set(labels) else []  # SQL counts from 1
    value = f"list_select(value, {places})" if places else "value"
    named = source.replace("'", "''")
    sql = f"SELECT avg(list_sum({value})) FROM outputs WHERE served AND model = '{named}'"
    found = results.query(sql, "outputs", camera).column(0).to_pylist()
    return None if not found or found[0] is None else float(found[0])


def calibrated_lines(report: Mapping[str, Any]) -> list[str]:
    """Say in a line per camera what the oracle node gave, in what unit, and how it was judged."""
    return [f"{entry['camera']}: {calibrated_words(entry)}" for entry in report["calibrated"]]


def calibrated_words(entry: Mapping[str, Any]) -> str:
    """Return one camera's line, without its name; ``mean_own`` is None where no counter says the same thing."""
    own = "" if entry["mean_own"] is None else f" ({entry['judged']['source']} itself {entry['mean_own']:.2f})"
    return (
        f'"{entry["name"]}" says {entry["mean_count"]:.2f} {entry["unit"]} a frame{own}, mean over '
        f"{counted(entry['frames'], 'frame')}, by its own word right on {100 * entry['mean_confidence']:.1f} %. "
        f"{judged_words(entry['judged'])}{own_word(entry['mean_confidence'], entry['judged'])}"
    )


def own_word(stated: float, judged: Mapping[str, Any] | None) -> str:
    """Say where the confidence that links state lies outside the interval of what labels kept aside show.

    >>> own_word(0.947, {"low": 0.08, "high": 0.53})
    ' Its own word is too high: believe the labels kept aside.'
    >>> own_word(0.5, {"low": 0.08, "high": 0.53}), own_word(0.5, None)
    ('', '')
    """
    if judged is None or judged["low"] <= stated <= judged["high"]:
        return ""
    return f" Its own word is too {'high' if stated > judged['high'] else 'low'}: believe the labels kept aside."


def judged_words(judged: Mapping[str, Any] | None) -> str:
    """Say what labelled frames kept aside show, beside the best counter itself and the commonest label.

    >>> judged_words(None)
    'Not measured: too few labelled frames to keep any aside, or the run did not judge them.'
    """
    if judged is None:
        return "Not measured: too few labelled frames to keep any aside, or the run did not judge them."
    own = "" if judged["own"] is None else f"{judged['source']} itself {100 * judged['own']:.1f} %, "
    return (
        f"On {counted(judged['frames'], 'labelled frame')} kept aside ({judged['taught']} taught) right on "
        f"{100 * judged['agreement']:.1f} % ({100 * judged['low']:.1f} – {100 * judged['high']:.1f} %); {own}always "
        f"the commonest label {100 * judged['constant']:.1f} %."
    )
