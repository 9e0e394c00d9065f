"""What a run's frames cost, by why models ran on them, beside the budget that was asked for.

A time budget limits what decisions execute, so it is to be held against served frames alone. Bootstrap, profile and
audit frames, on which every model runs, come on top, and so does what is run again on relabelled ones. On overtaken
frames nothing runs: they allow for nothing either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camlink.pipeline.quantities import counted
from camlink.pipeline.reports.rows import CameraRows, ModelRows
from camlink.pipeline.run_info import RunInfo

Part = dict[str, Any]
KINDS = {
    "serve": "served",
    "overtaken": "overtaken",
    "bootstrap": "bootstrap",
    "profile": "profile",
    "audit": "audit",
    "relabel": "relabelled",
}
SLACK = 0.005  # of the time share; what rounding may bring


def spent(rows: CameraRows, info: RunInfo) -> dict[str, Part]:
    """Return, for each of `KINDS`, one camera's ``frames``, ``model_seconds`` and what executing everything on these
    very frames takes.
    """
    return {kind: _of_kind(rows, info, kind) for kind in KINDS}


def _of_kind(rows: CameraRows, info: RunInfo, kind: str) -> Part:
    frames: set[int] = set()
    used, each = 0.0, 0.0
    for name, model in rows.models.items():
        seconds = float(info.models[name].get("time_ms") or 0.0) / 1000.0
        chosen = _frames_of(kind, rows, model)
        frames.update(model.frame_index[chosen].tolist())
        used += seconds * int((chosen & model.tried).sum())
        each += seconds
    return {"frames": len(frames), "model_seconds": used, "model_seconds_of_everything": each * len(frames)}


def _frames_of(kind: str, rows: CameraRows, model: ModelRows) -> NDArray[np.bool_]:
    if kind == "bootstrap":
        return np.asarray((model.purpose == "profile") & (model.times_us < rows.bootstrap_until_us))
    if kind == "profile":
        return np.asarray((model.purpose == "profile") & (model.times_us >= rows.bootstrap_until_us))
    return np.asarray(model.purpose == kind)


def spent_in_all(cameras: Sequence[Mapping[str, Part]]) -> dict[str, Part]:
    """Add up what cameras spent, with each part's ``share`` of executing everything on its frames.

    ``adds`` is what a part adds to the cost of the run, as a share of executing everything on all frames; these add up
    to the run's cost.
    """
    names = ("frames", "model_seconds", "model_seconds_of_everything")
    total = {kind: {name: sum(camera[kind][name] for camera in cameras) for name in names} for kind in KINDS}
    whole = sum(part["model_seconds_of_everything"] for kind, part in total.items() if kind != "relabel")
    return {
        kind: part
        | {
            "share": _share(part["model_seconds"], part["model_seconds_of_everything"]),
            "adds": _share(part["model_seconds"], whole),
        }
        for kind, part in total.items()
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def shown_adds(parts: Mapping[str, Part]) -> dict[str, str]:
    """Return what each part adds in per cent, rounded so that the figures shown add up to the rounded whole.

    >>> shown_adds({"serve": {"adds": 0.2004}, "audit": {"adds": 0.1004}, "relabel": {"adds": 0.1003}})
    {'serve': '20.1 %', 'audit': '10.0 %', 'relabel': '10.0 %'}
    """
    exact = {kind: 1000.0 * (part["adds"] or 0.0) for kind, part in parts.items()}
    tenths = {kind: int(value) for kind, value in exact.items()}
    missing = round(sum(exact.values())) - sum(tenths.values())
    for kind in sorted(exact, key=lambda kind: tenths[kind] - exact[kind])[:missing]:
        tenths[kind] += 1
    return {kind: f"{value / 10:.1f} %" for kind, value in tenths.items()}


def learning_frames(parts: Mapping[str, Part]) -> int:
    """Return on how many frames every model ran to learn from, where none was served under a decision yet; else 0.

    >>> learning_frames({"bootstrap": {"frames": 45}, "profile": {"frames": 5}, "serve": {"frames": 0}})
    50
    """
    return 0 if parts["serve"]["frames"] else parts["bootstrap"]["frames"] + parts["profile"]["frames"]


def learning_sentence(report: Mapping[str, Any]) -> str:
    """Say that nothing could be saved as no camera has a decision yet; empty where any has come that far."""
    frames = learning_frames(report["cost"]["parts"])
    if not frames:
        return ""
    ended = report["run"]["finished_at"] is not None
    first = "The run ended while cameras were still learning" if ended else "The cameras are still learning"
    if overtaken := overtaken_in(report["cost"]["parts"]):
        return f"{first}: every model ran on {counted(frames, 'frame')}, to learn from. {overtaken}"
    so_far = f"all {counted(frames, 'frame')} {'were' if ended else 'so far are'} bootstrap or profile frames"
    return f"{first}: {so_far}, on which every model runs, so nothing could be saved yet."


def still_learning(parts: Mapping[str, Part], of: int, *, ended: bool) -> str:
    """Explain a camera that has no decision yet; empty for any other. ``of``: on how many frames it is to learn.

    >>> parts = {kind: {"frames": 10 * (kind == "bootstrap")} for kind in KINDS}
    >>> still_learning(parts, 20, ended=True).split(":")[0]
    "It ended while it was still learning, within a camera's first 20 frames"
    """
    seen = learning_frames(parts)
    if not seen:
        return ""
    first = f"It {'ended while it was' if ended else 'is'} still learning"
    within = f", within a camera's first {counted(of, 'frame')}" if of >= seen else ""
    if parts["overtaken"]["frames"]:
        return f"{first}{within}: every model ran on {seen:,}, and the others were overtaken."
    return f"{first}{within}: every model ran on all {seen:,}, so nothing could be predicted or measured."


def overtaken_in(parts: Mapping[str, Part]) -> str:
    """Return `overtaken_sentence` of what all cameras spent."""
    frames = sum(part["frames"] for kind, part in parts.items() if kind != "relabel")
    return overtaken_sentence(parts["overtaken"]["frames"], frames)


def overtaken_sentence(overtaken: int, frames: int) -> str:
    """Say on how many of the ``frames`` no model could run; empty where there was none.

    >>> overtaken_sentence(280, 1000)
    '280 of 1,000 frames (28.0 %) were overtaken: the machine was behind, so they were answered without a model.'
    """
    if not overtaken:
        return ""
    told = f"{overtaken:,} of {counted(frames, 'frame')} ({100 * overtaken / frames:.1f} %)"
    were = (
        "was overtaken: the machine was behind, so it was"
        if overtaken == 1
        else ("were overtaken: the machine was behind, so they were")
    )
    return f"{told} {were} answered without a model."


def time_budget(info: RunInfo) -> float | None:
    """Return the time share that was asked for; None: no limit."""
    asked = (info.config.get("budgets") or {}).get("time_share")
    return None if asked is None else float(asked)


def latency_limit(info: RunInfo) -> float | None:
    """Return what models were to take on a frame at most, in ms; None: no limit."""
    asked = (info.config.get("budgets") or {}).get("latency_ms")
    return None if asked is None else float(asked)


def failed_sentence(models: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """Say how many executions, ``made`` for nothing, ``failed``, and of which models; empty where all gave an answer.

    >>> failed_sentence([("persons", {"made": 40, "failed": 40}), ("bags", {"made": 30, "failed": 1})])
    '41 executions failed and gave no answer: persons all 40, bags 1 of 30.'
    """
    counts = sorted(((name, e["failed"], e["made"]) for name, e in models if e["failed"]), key=lambda one: -one[1])
    if not counts:
        return ""
    total = counted(sum(failed for _, failed, _ in counts), "execution")
    each = ", ".join(
        f"{name} {'all' if failed == made else f'{failed:,} of'} {made:,}" for name, failed, made in counts
    )
    return f"{total} failed and gave no answer: {each}."


def asked_words(share: float) -> str:
    """Return a budget as it was asked for, rather than rounded.

    >>> asked_words(0.4), asked_words(0.125)
    ('40 %', '12.5 %')
    """
    return f"{100 * share:.4g} %"


def over_spent(asked: float | None, served: float | None) -> bool:
    """Say whether served frames took more than the time share that was asked for."""
    return asked is not None and served is not None and served > asked + SLACK


def budget_words(
    asked: float | None,
    served: float | None,
    whole: float | None,
    latency_ms: float | None = None,
    *,
    relabelled: bool = False,
) -> str:
    """Say what was asked for, what served frames took, and why the whole differs; empty where nothing was served.

    ``relabelled``: whether models ran again on served frames, for links to learn from or to confirm an alert.

    >>> budget_words(0.4, 0.332, 0.541).split(". ")[0]
    'Time budget 40 %: frames served under a decision took 33.2 %'
    >>> budget_words(None, 0.332, 0.541, 60.0).split(":")[0]
    'No time budget, latency limit 60 ms'
    """
    if served is None or whole is None:
        return ""
    head = "No time budget" if asked is None else f"Time budget {asked_words(asked)}"
    head += "" if latency_ms is None else f", latency limit {latency_ms:g} ms"
    over = ", more than it allows" if over_spent(asked, served) else ""
    again = ", and relabelled ones" if relabelled else ""
    return (
        f"{head}: frames served under a decision took {100 * served:.1f} %{over}. With bootstrap, profile and audit "
        f"frames, on which every model runs{again}, the cost is {100 * whole:.1f} % of executing all."
    )
