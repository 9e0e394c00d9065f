"""What `replay` and `run` have in common: building models, showing progress, ending cleanly, reporting."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from camlink.pipeline.commands.console import (
    DONE,
    FAILED,
    STOPPED,
    note_console,
    out_console,
    print_error,
    print_warnings,
)
from camlink.pipeline.errors import CamlinkError, ConfigError, ModelError, WeightsError
from camlink.pipeline.quantities import counted

if TYPE_CHECKING:
    from camlink.models.base import Model
    from camlink.models.pool import ModelPool
    from camlink.pipeline.config import SiteConfig
    from camlink.pipeline.embedded import Reading
    from camlink.pipeline.progress import Progress
    from camlink.pipeline.records import Frame
    from camlink.pipeline.session import Session

PICTURE_WIDTH = 480
MOST_NAMED = 3  # cameras that give no frames, on one line
PLAIN_EVERY_S = 10.0  # progress lines where there is no terminal


def build_pool(config: SiteConfig) -> tuple[ModelPool, dict[str, dict[str, str]]]:
    """Fetch, build and price the models; return the pool and what reports say of each model.

    Raises `ConfigError` where the memory budget is too small for them, or where a model of the site's own cannot be run
    or gives something else than it is said to.
    """
    from camlink.models import catalogue

    notes = note_console()
    models, descriptions = [], {}
    for number, definition in enumerate(config.model_definitions()):
        with notes.status(f"model {definition.name}: fetching and measuring") as status:

            def show(what: str, done: int, total: int | None, name: str = definition.name, line: Any = status) -> None:
                size = f" {done / 1e6:.0f}" + (f" of {total / 1e6:.0f}" if total else "") + " MB" if done else ""
                line.update(f"model {name}: {what}{size}")

            try:
                model = catalogue.build(definition, device=config.device, progress=show)
            except WeightsError:
                raise
            except ModelError as error:
                if catalogue.is_built_in(definition):
                    raise
                message = str(error).removeprefix(f'model "{definition.name}": ')
                raise ConfigError([config.problem_at(("models", number), message)]) from error
        notes.print(f"model {definition.name}: {model.time_ms:.0f} ms a frame, {model.memory_gb:.2f} GB", style="dim")
        models.append(model)
        descriptions[definition.name] = {"description": definition.description, "licence": definition.licence}
    return pool_under_budget(config, models), descriptions


def pool_under_budget(config: SiteConfig, models: Sequence[Model]) -> ModelPool:
    """Return the models under the site's memory budget; warn where it holds them all and nothing else saves any cost.

    Raises `ConfigError` where it is too small for them.
    """
    from camlink.pipeline.assembly import pool_of
    from camlink.pipeline.config.warnings import memory_warnings

    pool = pool_of(config, models)
    print_warnings(memory_warnings(config, sum(model.memory_gb for model in models)))
    return pool


def encode_picture(frame: Frame) -> bytes:
    """Return a small JPEG of a frame, for the gallery of audit disagreements.

    Averaging over areas takes 15 times longer for odd factors than for 2, so it is halved first and interpolated last.
    """
    import cv2
    import numpy as np

    picture, (height, width) = frame.picture, frame.picture.shape[:2]
    small = picture if isinstance(picture, np.ndarray) else picture.at_least(PICTURE_WIDTH)
    scale = min(1.0, PICTURE_WIDTH / width)
    while small.shape[1] >= 2 * PICTURE_WIDTH:
        half = small.shape[1] // 2, max(1, small.shape[0] // 2)
        small = cv2.resize(small, half, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    small = cv2.resize(small, (round(width * scale), max(1, round(height * scale))))  # type: ignore[assignment]
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def run_and_report(
    session: Session,
    readings: Iterable[Reading | None],
    captured: Callable[[], Mapping[str, int]],
    total_frames: int | None,
    out: Path,
    on_stop: Callable[[], None] = lambda: None,
) -> int:
    """Run to the end or to Ctrl-C, write the report, print headline and paths; return the exit code.

    A run that an error ends has a report too, of what was done until then.
    """
    try:
        with stop_on_interrupt(on_stop) as stopped, shown_progress(session.progress, total_frames) as tick:
            info = session.run(readings, captured, stop=stopped, on_tick=tick)
    except CamlinkError as error:
        print_error(error)
        finish(out)
        return FAILED
    finish(out)
    if info.stopped_by:
        note_console().print(f"Stopped by {info.stopped_by}; all that was done until then is kept and reported.")
        return STOPPED
    return DONE


def finish(out: Path) -> None:
    """Write report.json and report.html of a run; print the headline, what was spent, how targets stand, the path."""
    from camlink.pipeline.reports import build_page, headline, save_report
    from camlink.pipeline.reports.terminal import spending_words, target_words

    report, html = build_page(out)
    page = save_report(out, report, html)
    console = out_console()
    console.print()
    console.print(headline(report), style="bold", highlight=False)
    for words in filter(None, (spending_words(report), target_words(report))):
        console.print(words, highlight=False)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)


@contextmanager
def stop_on_interrupt(on_stop: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM) into a clean end; a second one interrupts at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        note_console().print("\nstopping after this frame; press Ctrl-C again to break off", style="yellow")
        on_stop()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shown_progress(
    progress: Progress, total: int | None, say: Callable[[Progress], str] | None = None
) -> Iterator[Callable[[], None]]:
    """Show frames, what there is to ``say`` (`facts`) and time left: a bar on a terminal, lines elsewhere."""
    if sys.stderr.isatty():
        with _bar(progress, total, say or facts) as tick:
            yield tick
    else:
        yield _lines(progress, total, say or facts)


@contextmanager
def _bar(progress: Progress, total: int | None, say: Callable[[Progress], str]) -> Iterator[Callable[[], None]]:
    from rich import progress as rich_progress

    columns = (
        rich_progress.BarColumn(bar_width=24),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[facts]}"),
        rich_progress.TimeRemainingColumn() if total else rich_progress.TimeElapsedColumn(),
    )
    with rich_progress.Progress(*columns, console=note_console()) as bar:
        task = bar.add_task("frames", total=total, facts="")
        shown = 0.0

        def tick() -> None:
            nonlocal shown
            if time.monotonic() - shown >= 0.2:
                shown = time.monotonic()
                bar.update(task, completed=progress.frames, facts=say(progress))

        yield tick
        bar.update(task, completed=progress.frames, facts=say(progress))


def _lines(progress: Progress, total: int | None, say: Callable[[Progress], str]) -> Callable[[], None]:
    due = time.monotonic() + PLAIN_EVERY_S

    def tick() -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + PLAIN_EVERY_S
            note_console().print(_line(progress, total, say))

    return tick


def _line(progress: Progress, total: int | None, say: Callable[[Progress], str]) -> str:
    if not progress.frames:
        return f"no frame has come yet; still trying{_away(progress)}"
    frames = f"{progress.frames} of {counted(total, 'frame')}" if total else counted(progress.frames, "frame")
    words = say(progress)
    return f"{frames}, {words}" if words else frames


def facts(progress: Progress) -> str:
    """Return how a run goes, in a few words: what was executed, at what agreement, and what no model saw.

    While all cameras are on their first frames, on which every model runs, how far they are with these.
    """
    if not progress.frames:
        return f"no frame yet{_away(progress)}"
    lost = f", {progress.overtaken:,} overtaken" if progress.overtaken else ""
    lost += f", {progress.dropped:,} dropped" if progress.dropped else ""
    if progress.all_learning:
        return f"{progress.learning}{lost}{_away(progress)}"
    agreement = "not measured yet" if progress.agreement is None else f"{progress.agreement:.0%}"
    learning = f", {progress.learning}" if progress.learning else ""
    return f"{progress.executed_share:.0%} executed, agreement {agreement}{learning}{lost}{_away(progress)}"


def _away(progress: Progress) -> str:
    """Name the cameras that give no frames now, a few of them, with what is wrong."""
    named = [f"{camera} {state}" for camera, state in sorted(progress.away.items())]
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return "".join(f", {name}" for name in named[:MOST_NAMED]) + more
