"""The part of `camlink replay` that replays recorded outputs: no pixels, no weights, no GPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from camlink.pipeline.commands.console import out_console, print_fitted

if TYPE_CHECKING:
    from camlink.models.recorded import RecordedModel, Trace
    from camlink.pipeline.commands.earlier_run import EarlierRun
    from camlink.pipeline.config import SiteConfig


def replay_trace(
    path: Path, config: SiteConfig, out: EarlierRun, models: str | None, *, fit: bool, answers: str | None
) -> int:
    """Replay the trace at ``path``, or only the named models of it, and return the exit code."""
    from camlink.models.recorded import open_trace
    from camlink.models.trace_files import is_synthetic
    from camlink.pipeline.assembly import check_budgets
    from camlink.pipeline.commands.answering import told_answers
    from camlink.pipeline.commands.running import pool_under_budget, run_and_report
    from camlink.pipeline.config.checks import WITH_LINKS
    from camlink.pipeline.every_frame import EveryFrame
    from camlink.pipeline.footage import Footage, fit_rules, rate_of
    from camlink.pipeline.recording import TraceReadings, check_replayable
    from camlink.pipeline.session import Camera, Session

    trace = open_trace(path)
    chosen = chosen_models(trace, models)
    check_replayable(trace, chosen, named_folders=config.policy in WITH_LINKS)
    frames = sorted(trace.frames, key=lambda frame: (frame.captured_at, frame.camera_id))
    rates = rate_of(frames)
    if fit:
        counts = Counter(frame.camera_id for frame in frames)
        config, changes = fit_rules(config, [Footage(camera, counts[camera], rate) for camera, rate in rates.items()])
        print_fitted(changes)
    pool = pool_under_budget(config, chosen)
    cameras = {camera: Camera("trace", str(path), rate) for camera, rate in rates.items()}
    check_budgets(config, pool)
    readings, every_frame = TraceReadings(frames), EveryFrame(chosen)
    with told_answers(answers, pool.specs) as listeners:
        folder = out.cleared()
        session = Session(
            *(config, pool, cameras, folder),
            tick=len(cameras),
            synthetic=is_synthetic(path),
            listeners=[*listeners, every_frame.observe],
        )
        code = run_and_report(session, readings, lambda: dict(readings.captured), len(frames), folder, readings.close)
        if words := every_frame.words:
            out_console().print(words, highlight=False)
        return code


def chosen_models(trace: Trace, text: str | None) -> list[RecordedModel]:
    """Return the models of ``trace`` that ``--models`` names: a set, or names; all when it was not given.

    Raises `typer.BadParameter` for one the trace does not hold.
    """
    from camlink.models import catalogue
    from camlink.pipeline.suggestions import suggest

    if text is None:
        return list(trace.models)
    names: list[str] = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if text not in trace.specs and text in catalogue.sets():
        names = list(catalogue.sets()[text])
    unknown = [name for name in names if name not in trace.specs]
    if unknown or not names:
        wrong = f'"{unknown[0]}" is not in' if unknown else "no model is named of"
        advice = suggest(unknown[0] if unknown else "", list(trace.specs))
        raise typer.BadParameter(f"{wrong} the trace {trace.path}; {advice}", param_hint="--models")
    return [trace.model(name) for name in names]
