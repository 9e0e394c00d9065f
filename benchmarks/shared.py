"""Live cameras of one machine that has no time for all of them, in virtual time: shares alike, and by what they gain.

    python -m benchmarks.shared TRACE+TRACE TRACE@10+TRACE@2 --demand 2 3 6

The cameras of traces joined by ``+``, which know the same models, are watched at once, at ``--fps`` frames a second or
at what follows ``@``; shorter ones go back and forth. Executing every model on every frame would take ``--demand``
seconds of each second (`benchmarks.overload`). On the later part of frames, what each model would have said is held
against what was answered last: the mean over cameras, and the worst; then each camera's gain.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean

from benchmarks.overload import known, played
from camlink.models.base import Inference
from camlink.models.recorded import RecordedModel, Trace, open_trace
from camlink.operators import shares
from camlink.pipeline.records import Frame, FrameResult, Record

START = datetime(2026, 1, 1, tzinfo=UTC)
ALIKE = 1.0  # as `shares.LEAST`: of an equal share, each camera has all


def together(named: Sequence[str], fps: float, frames: int) -> Trace:
    """Return one trace of the cameras of all that are ``named``, the fastest of them with so many ``frames``."""
    traces = [(open_trace(Path(path)), float(rate or fps)) for path, _, rate in (name.partition("@") for name in named)]
    cameras = [
        (trace, camera, rate) for trace, rate in traces for camera in dict.fromkeys(f.camera_id for f in trace.frames)
    ]
    seconds = frames / max(rate for *_, rate in cameras)
    answers: dict[str, dict[str, dict[int, Inference]]] = defaultdict(dict)
    shown: list[Frame] = []
    for place, (trace, camera, rate) in enumerate(cameras):
        name = f"{place}-{trace.path.name}-{camera}"
        own = [frame for frame in trace.frames if frame.camera_id == camera]
        late_s = place / len(cameras) / rate  # frames of two cameras hardly ever come at the very same time
        sources = []
        for index, (source, stats) in zip(range(int(seconds * rate)), _back_and_forth(own), strict=False):
            at = START + timedelta(seconds=late_s + index / rate)
            shown.append(replace(source, camera_id=name, index=index, captured_at=at, stats=stats.stats))
            sources.append(source.index)
        for model in trace.models:
            said = {i: model.answer(camera, s) for i, s in enumerate(sources) if model.knows(camera, s)}
            answers[model.spec.model][name] = said
    first = traces[0][0]
    models = [RecordedModel(m.spec, m.time_ms, m.memory_gb, answers[m.spec.model], "joined") for m in first.models]
    return replace(first, models=tuple(models), frames=tuple(sorted(shown, key=lambda f: f.captured_at)))


def _back_and_forth(frames: Sequence[Frame]) -> Iterator[tuple[Frame, Frame]]:
    """Yield frames, again and again, each with the one whose statistics say how it differs from that before it."""
    yield frames[0], frames[0]
    while True:
        yield from ((frame, frame) for frame in frames[1:])
        yield from ((frames[i], frames[i + 1]) for i in reversed(range(len(frames) - 1)))


def agreements(trace: Trace, records: Sequence[Record]) -> dict[str, float]:
    """Return how far what is known agrees with the models, by camera, in per cent."""
    found = {}
    for camera in sorted({frame.camera_id for frame in trace.frames}):
        own = replace(trace, frames=tuple(frame for frame in trace.frames if frame.camera_id == camera))
        found[camera] = known(own, [r for r in records if isinstance(r, FrameResult) and r.camera_id == camera])
    return found


def overtaken(trace: Trace, records: Sequence[Record]) -> float:
    """Return on how many frames of 100 no model could run."""
    return 100.0 * sum(isinstance(r, FrameResult) and r.purpose == "overtaken" for r in records) / len(trace.frames)


def shared(trace: Trace, demand: float, least: float) -> list[Record]:
    """Play a trace with each camera given no less than ``least`` of an equal share."""
    before, shares.LEAST = shares.LEAST, least
    try:
        return played(trace, demand, "throttled")
    finally:
        shares.LEAST = before


def _row(alike: Mapping[str, float], by_gain: Mapping[str, float]) -> str:
    cells = (f"{mean(each.values()):.1f}, {min(each.values()):.1f}" for each in (alike, by_gain))
    gains = ", ".join(f"{by_gain[camera] - alike[camera]:+.1f}" for camera in alike)
    return f"{' | '.join(cells)} | {mean(by_gain.values()) - mean(alike.values()):+.2f} | {gains}"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="TRACE+TRACE")
    parser.add_argument("--demand", nargs="+", type=float, default=[2.0, 3.0, 6.0])
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--frames", type=int, default=1500, help="of the fastest camera")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    print("| cameras | demand | alike: mean, worst | by gain: mean, worst | gain | of each camera | overtaken |")
    print("|---" * 7 + "|")
    for joined in asked.sets:
        trace = together(joined.split("+"), asked.fps, asked.frames)
        for demand in asked.demand:
            runs = [shared(trace, demand, least) for least in (ALIKE, shares.LEAST)]
            row = _row(*(agreements(trace, records) for records in runs))
            late = ", ".join(f"{overtaken(trace, records):.0f}" for records in runs)
            print(f"| {joined} | {demand:g} | {row} | {late} |", flush=True)


if __name__ == "__main__":
    main()
