"""`python -m benchmarks.policy.speed TRACE...`: what `policy: camlink` costs per frame, by part, and nothing else.

The policy alone, on outputs that were recorded: no lab, no scoring, and the statistics of the frames (pixel change and
the like), which the ingest measures, are there already. Warm-up, the first tenth, where every model runs and is learnt
from, is counted apart from the frames that the policy decides on. Medians of several runs over the same frames, in time
of this process, so that others on the machine count little.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from statistics import median
from time import process_time
from typing import TypeVar

from camlink.models.trace_arrays import CameraTrace, open_arrays
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import FrameFacts, PolicySetup
from camlink.operators.selection import Budget, Costs
from camlink.operators.warm_up import warm_up
from camlink.pipeline.lab.play import WARM_UP_SHARE
from camlink.pipeline.records import FIRST_STATISTICS, Detections, FrameStats, Value

SHARES = (1 / 4, 1 / 2)
PARTS = ("begin", "choose", "answer", "learn")
T = TypeVar("T")


class Timed:
    """One run over a camera's frames; ``spent_s`` by part."""

    def __init__(self, camera: CameraTrace, policy: PerFrame) -> None:
        self._policy = policy
        self.spent_s = dict.fromkeys(("warm-up", *PARTS), 0.0)
        self.warm_up = ceil(WARM_UP_SHARE * len(camera))
        for row, (facts, values, found) in enumerate(frames_of(camera)):
            if row < self.warm_up:
                self._time("warm-up", policy.begin, facts)
                self._time("warm-up", policy.found, found)
                self._time("warm-up", lambda v: policy.learn(v, chosen=False), values)
            else:
                self._decide(facts, values, found)

    def _decide(self, facts: FrameFacts, values: dict[str, Value], found: dict[str, Detections]) -> None:
        policy, executed = self._policy, dict[str, Value]()
        self._time("begin", policy.begin, facts)
        while (model := self._time("choose", policy.choose, executed)) is not None:
            executed[model] = values[model]
        self._time("answer", policy.answer, executed)
        policy.found({m: boxes for m, boxes in found.items() if m in executed})
        self._time("learn", lambda e: policy.learn(e, chosen=True), executed)

    def _time(self, part: str, call: Callable[..., T], *given: object) -> T:
        start = process_time()
        result = call(*given)
        self.spent_s[part] += process_time() - start
        return result


def frames_of(camera: CameraTrace) -> Iterator[tuple[FrameFacts, dict[str, Value], dict[str, Detections]]]:
    """Yield what is known of each frame beforehand, what each model says of it, and its boxes."""
    known = all(name in camera.stats for name in FIRST_STATISTICS)
    for row in range(len(camera)):
        stats = FrameStats(**{s: float(column[row]) for s, column in camera.stats.items()}) if known else None
        found = {model: drawn.at(row) for model, drawn in camera.detections.items()}
        values = {model: column[row] for model, column in camera.values.items()}
        yield FrameFacts(int(camera.index[row]), float(camera.time_s[row]), stats), values, found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--without-links", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    warm_up()
    print(f"us per frame{'':30s}budget  all parts" + "".join(f"{p:>9s}" for p in (*PARTS, "warm-up")))
    for path in arguments.traces:
        trace = open_arrays(path, detections=True)
        specs = {m: entry.spec for m, entry in trace.models.items()}
        times_ms, memory_gb = zip(*((e.time_ms, e.memory_gb) for e in trace.models.values()), strict=True)
        costs = Costs(dict(zip(specs, times_ms, strict=True)), dict(zip(specs, memory_gb, strict=True)))
        for camera in trace.cameras:
            for share in SHARES:
                setup = PolicySetup(camera.camera_id, specs, costs, Budget(time_share=share))
                runs = [
                    Timed(camera, PerFrame(setup, links=not arguments.without_links)) for _ in range(arguments.runs)
                ]
                decided, first = len(camera) - runs[0].warm_up, runs[0].warm_up
                us = {p: median(r.spent_s[p] for r in runs) / decided * 1e6 for p in PARTS}
                us["warm-up"] = median(r.spent_s["warm-up"] for r in runs) / first * 1e6
                cells = "".join(f"{us[p]:9.0f}" for p in (*PARTS, "warm-up"))
                name = f"{trace.name}, {camera.camera_id}"
                print(f"{name[:41]:42s}{share:6.0%}  {sum(us[p] for p in PARTS):9.0f}{cells}")


if __name__ == "__main__":
    main()
