"""The report in a terminal: the headline, models, cameras, and what a person should worry about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from camlink.pipeline.reports.calibrated import calibrated_lines
from camlink.pipeline.reports.notes import (
    ALWAYS,
    ANYTIME,
    ending,
    headline,
    interval,
    last_targets,
    looks,
    percent,
    run_words,
    standing,
    whole_words,
)
from camlink.pipeline.reports.spending import budget_words
from camlink.pipeline.tables import print_table

if TYPE_CHECKING:
    from rich.console import Console

TARGET_STYLES = {"met": "green", "not met": "red", "not known": "yellow"}
VERDICT_STYLES = {"better": "green", "similar": "yellow", "worse": "red", "budget": "red", "abstained": "red"}


def spending_words(report: Mapping[str, Any]) -> str:
    """Say what was asked for and what was spent; empty where nothing was served."""
    cost, parts = report["cost"], report["cost"]["parts"]
    return budget_words(
        *(cost["time_budget"], parts["serve"]["share"], cost["share"], cost["latency_limit_ms"]),
        relabelled=parts["relabel"]["frames"] > 0,
    )


def target_words(report: Mapping[str, Any]) -> str:
    """Say how many targets there are and how they stand; empty where there are none."""
    states = Counter(standing(entry) for _, entry in last_targets(report))
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return f"Targets, one for each camera and model: {told}." if states else ""


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Print the report. Names of cameras and models are printed as they are, never read as markup."""
    from rich.text import Text

    run = report["run"]
    console.print()
    console.print(Text(run_words(run["name"], synthetic=run["synthetic"]), style="bold"))
    console.print(Text(headline(report)))
    if ended := ending(report):
        console.print(Text(ended["text"], style="" if ended["kind"] == "stopped" else "yellow"))
    for violation in report["frames"]["violations"]:
        console.print(Text(f"Frames are not conserved: {violation}", style="bold red"))
    console.print()
    _models(report, console)
    _notes(report, console)
    if spending := spending_words(report):
        console.print(Text(f"  {spending}"))
    console.print()
    _cameras(report, console)
    for name, camera in report["cameras"].items():
        if camera["learning"]:
            console.print(Text(f"  {name}: {camera['learning']}"))
    for line, style in target_lines(report):
        console.print(Text(line, style=style))
    for line in calibrated_lines(report):
        console.print(Text(f"  {line}"))
    if report["run"]["interval"] == "anytime-valid":
        console.print(Text("The run has not come to its own end: its intervals hold at any time.", style="dim"))


def target_lines(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a line, and its style, for each camera and model with a target."""
    lines = []
    for name, entry in last_targets(report):
        state = standing(entry)
        proven = "; nothing to prove" if state == ALWAYS else ""
        if entry["estimate"] is not None:
            proven = f" on {entry['day']}: {percent(entry['estimate'])} ({ANYTIME}: {interval(entry)})"
        text = f"  {name}, {entry['model']}: target {percent(entry['target'])} {state}{proven}"
        lines.append((text, TARGET_STYLES.get(state, "")))
    return lines


def _models(report: Mapping[str, Any], console: Console) -> None:
    """Agreement here is that of predicted outputs only, with the baselines on the same audit frames."""
    heads = (
        "Model",
        "saved",
        "predicted outputs agree",
        looks(report["run"]["complete"]),
        "constant",
        "hourly",
        "persistence",
        "n",
    )
    rows = []
    for name, model in report["models"].items():
        figure = model["agreement"]["predicted_only"]
        baselines = [_share(figure["baselines"][key]) for key in ("constant", "hourly_mode", "persistence")]
        saved = _share(model["executions"]["saved_share_without_drops"])
        rows.append((name, saved, *_agreement(figure), *baselines, str(figure["audit_frames"])))
    print_table(console, heads, rows)


def _notes(report: Mapping[str, Any], console: Console) -> None:
    from rich.text import Text

    for name, model in report["models"].items():
        style = VERDICT_STYLES.get(model["note"]["verdict"], "")
        console.print(Text(f"  {name}: {model['note']['text']}", style=style))
        if whole := whole_words(model["whole_answers"]):
            console.print(Text(f"  {name}: {whole}"))


def _cameras(report: Mapping[str, Any], console: Console) -> None:
    """Agreement here is that of all outputs, beside what the decisions expected it to be."""
    heads = [
        "Camera",
        "frames",
        "saved",
        "expected",
        "all outputs agree",
        looks(report["run"]["complete"]),
        "abstained",
        "dropped",
    ]
    expects = any(camera["expected_agreement"] for camera in report["cameras"].values())
    rows: list[list[str]] = []
    for name, camera in report["cameras"].items():
        frames = camera["frames"]
        dropped = ", ".join(f"{count} {reason}" for reason, count in frames["dropped"].items()) or "0"
        saved = _share(camera["executions"]["saved_share_without_drops"])
        counts = (str(frames["abstained"]), dropped)
        expected = _share((camera["expected_agreement"] or {"mean": None})["mean"])
        rows.append([name, f"{frames['captured']:,}", saved, expected, *_agreement(camera["agreement"]), *counts])
    if not expects:  # as with a policy that decides on every frame
        for cells in (heads, *rows):
            del cells[3]
    print_table(console, heads, rows)


def _agreement(figure: Mapping[str, Any]) -> tuple[str, str]:
    return ("not measured", "") if figure["mean"] is None else (percent(figure["mean"]), interval(figure))


def _share(share: float | None) -> str:
    return "–" if share is None else percent(share)
