"""Rows of a comparison, put together for people: mean and spread over seeds, who wins where, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Any

from camlink.models.base import OutputSpec

Row = Mapping[str, Any]
REFERENCES = ("all", "oracle")  # they do not keep to the budget, or have seen the future: they win nothing
AGREEMENT, BOXES = "agreement", "mean average precision of boxes"
TIE = 5e-4  # as much as tables round away
WORSE = 0.05  # of a chance to be the best: below, a policy is worse by more than chance
_NESTED = (
    "agreement_per_model",
    "answers_by_least_confidence",
    "measure_per_model",
    "mean_average_precision",
    "per_camera",
    "per_period",
)


@dataclass(frozen=True)
class Cell:
    """One policy at one budget on one trace, over its seeds. Shares are 0..1."""

    trace: str
    policy: str
    budget: str
    agreement: float
    spread: float  # standard deviation over seeds
    cost: float
    per_model: Mapping[str, float]
    per_period: Sequence[float]
    measures: Mapping[str, str]  # model -> `AGREEMENT` or `BOXES`
    memory_gb: float | None = None
    time_share: float | None = None
    latency_ms: float | None = None
    # Least confidence -> share of answers that have it, and their agreement; empty where none was stated.
    answers: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    synthetic: bool = False  # no camera has seen the trace
    chance: float | None = None  # that it is as good as the best (`camlink.pipeline.lab.chance`)

    @property
    def may_be_best(self) -> bool:
        """Whether what it is behind the best may be chance."""
        return self.chance is not None and self.chance >= WORSE

    @property
    def measure(self) -> str:
        """What the figure is the mean of, over models."""
        return measure_name(self.measures)

    @property
    def short(self) -> str:
        """The same for an axis."""
        kinds = dict.fromkeys("mAP" if measure == BOXES else AGREEMENT for measure in self.measures.values())
        return " and ".join(kinds) or AGREEMENT


def measure_of(spec: OutputSpec) -> str:
    """Return how tables call what a model is judged by."""
    return BOXES if spec.task == "detections" else AGREEMENT


def measure_name(measures: Mapping[str, str]) -> str:
    """Return what a mean over models is a mean of; which models are judged by boxes, where not all are.

    >>> measure_name({"objects": BOXES, "weather": AGREEMENT})
    'mean average precision of boxes (objects) and agreement (weather)'
    """
    boxed = [model for model, measure in measures.items() if measure == BOXES]
    others = [model for model in measures if model not in boxed]
    if not boxed or not others:
        return BOXES if boxed else AGREEMENT
    return f"{BOXES} ({', '.join(boxed)}) and {AGREEMENT} ({', '.join(others)})"


def cells(rows: Iterable[Row]) -> list[Cell]:
    """Put the seeds of each trace, policy and budget together, in the order of the rows."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["trace"], row["policy"], budget_name(row)), []).append(row)
    return [_cell(key, group) for key, group in groups.items()]


def _cell(key: tuple[str, str, str], rows: Sequence[Row]) -> Cell:
    agreement = [row["agreement"] for row in rows]
    models = rows[0]["agreement_per_model"]
    periods = range(len(rows[0]["per_period"]))
    return Cell(
        *key,
        fmean(agreement),
        pstdev(agreement),
        fmean(row["cost"] for row in rows),
        {m: fmean(row["agreement_per_model"][m] for row in rows) for m in models},
        [fmean(row["per_period"][i] for row in rows) for i in periods],
        rows[0].get("measure_per_model") or dict.fromkeys(models, AGREEMENT),
        rows[0]["budget_gb"],
        rows[0]["budget_time"],
        rows[0].get("latency_ms"),
        _answers([row.get("answers_by_least_confidence") or {} for row in rows]),
        rows[0].get("synthetic", False),
        rows[0].get("chance_to_be_best"),
    )


def _answers(seeds: Sequence[Mapping[str, Mapping[str, float | None]]]) -> dict[str, tuple[float, float]]:
    found = {}
    for least in seeds[0]:
        each = [seed[least] for seed in seeds]
        shares = [float(one["share"] or 0.0) for one in each]
        agreed = sum(share * float(one["agreement"] or 0.0) for share, one in zip(shares, each, strict=True))
        if sum(shares):
            found[least] = fmean(shares), agreed / sum(shares)
    return found


def budget_name(row: Row) -> str:
    """Return how tables call a row's budget.

    >>> budget_name({"budget_gb": 5.0, "budget_time": 0.33})
    '5 GB, 33% time'
    """
    return budget_words(row["budget_gb"], row["budget_time"], row.get("latency_ms"))


def budget_words(memory_gb: float | None, time_share: float | None, latency_ms: float | None = None) -> str:
    """Return how a budget is called; two that differ are never called the same.

    >>> budget_words(None, 0.125), budget_words(None, 0.25, 60.0), budget_words(None, None)
    ('12.5% time', '25% time, 60 ms a frame', 'unlimited')
    """
    parts = [f"{memory_gb:g} GB"] if memory_gb is not None else []
    parts += [f"{100 * time_share:g}% time"] if time_share is not None else []
    parts += [f"{latency_ms:g} ms a frame"] if latency_ms is not None else []
    return ", ".join(parts) or "unlimited"


def trace_words(trace: str, *, synthetic: bool) -> str:
    """Return how a trace is called, so that a made-up one never passes for footage."""
    return f"{trace} (SYNTHETIC)" if synthetic else trace


def winner(of: Iterable[Cell]) -> Cell | None:
    """Return the cell with the highest agreement among policies that keep to the budget without foresight; None where
    fewer than two do, since nobody wins alone.
    """
    contestants = [c for c in of if c.policy not in REFERENCES]
    return max(contestants, key=lambda c: c.agreement) if len(contestants) > 1 else None


def ties(cell: Cell, best: Cell | None) -> bool:
    """Say whether a contestant is as good as the winner: to the tenth of a point that tables show, or to within the
    spread over seeds of either.
    """
    if best is None or cell.policy in REFERENCES:
        return False
    behind = best.agreement - cell.agreement
    return behind < TIE or behind <= max(best.spread, cell.spread)


def tied(found: Sequence[Cell]) -> list[list[Cell]]:
    """Return, for every trace and budget, all contestants that tie for the highest agreement."""
    places: dict[tuple[str, str], list[Cell]] = {}
    for cell in found:
        places.setdefault((cell.trace, cell.budget), []).append(cell)
    return [[c for c in place if ties(c, best)] for place in places.values() if (best := winner(place)) is not None]


def as_csv(rows: Sequence[Row]) -> str:
    """Return one line per row: what is nested becomes a column per model, camera; periods are in the JSON only."""
    flat = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(column for row in flat for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    flat = {key: value for key, value in row.items() if key not in _NESTED}
    measures = row.get("measure_per_model") or {}
    if measures:
        flat["measure"] = measure_name(measures)
    flat |= {f"{measures.get(m, AGREEMENT)} of {m}": value for m, value in row["agreement_per_model"].items()}
    flat |= {f"mean average precision of {m}": value for m, value in row.get("mean_average_precision", {}).items()}
    return flat | {f"{measure_name(measures)} on {camera}": value for camera, value in row["per_camera"].items()}
