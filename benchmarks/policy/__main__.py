"""`python -m benchmarks.policy TRACE...`: what each part of `policy: camlink` brings, and what it costs per frame.

Every variant plays the same traces at the same budgets (docs/compare.md, "Protocol"). "Best baseline" is, for each
camera and budget, the best of standalone, periodic, reducto, drls, mlink and mlink-exact: no single policy does that.
`mlink-exact` chooses by links once a period (hourly) instead of on every frame; `oracle`, the best fixed set of models
in hindsight, is what regret is counted from (below zero: better than any fixed set).

Traces of several counters of the same things come from `python -m benchmarks.policy.counters` and from `camlink record
--config benchmarks/policy/vehicles.yaml`, traces of slower cameras from `python -m benchmarks.policy.thin`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from camlink.models.trace_arrays import CameraTrace, open_arrays
from camlink.operators.belief import Frequencies, Guess
from camlink.operators.frame_guesses import FrameGuesses
from camlink.operators.leveled import Leveled
from camlink.operators.link_evidence import LinkEvidence
from camlink.operators.link_pool import OWN, Pool
from camlink.operators.own_evidence import OwnEvidence
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import FrameFacts, FramePolicy, PolicySetup
from camlink.operators.selection import Budget, Costs
from camlink.pipeline.lab.play import Split, play, split
from camlink.pipeline.lab.policies import known_policies
from camlink.pipeline.records import Detections, Value

SHARES = (1 / 6, 1 / 4, 1 / 3, 1 / 2)
BASELINES = ("standalone", "periodic", "reducto", "drls", "mlink", "mlink-exact")
PERIODS = 10
FOR_GOOD = 1e12  # how firmly weights are held that are never to change


class Myopic(PerFrame):
    """Values this frame only, not those that will reuse what it executes."""

    def _worth(self, name: str) -> float:
        worth = super()._worth(name)
        return worth if worth == float("inf") else self._frame.guess(name).wrong


class Blind(PerFrame):
    """Sees no frame statistics."""

    def begin(self, frame: FrameFacts) -> None:
        super().begin(replace(frame, stats=None))


class LastOnly(Leveled):
    """Always repeats the last output."""

    def settle(self, chances: Frequencies, fresh: float) -> Guess:
        at_last = chances[np.arange(len(self.last)), self.last]
        return Guess(self._value, 1.0 - float(at_last.mean()), True, self.last)


class Repeating(PerFrame):
    """Never answers with the usual value in place of a stale one."""

    def __init__(self, setup: PolicySetup) -> None:
        super().__init__(setup)
        for name, model in self._models.items():
            if isinstance(model.belief, Leveled):
                model.belief = LastOnly(setup.specs[name])


class Forgetting(PerFrame):
    """Takes outputs to have gone stale at once: never reuses them, answers by links and usual values."""

    def _new_guesses(self) -> FrameGuesses:
        return _AllGone(self._models, self._links, self._unloaded)


class _AllGone(FrameGuesses):
    def see_what_is_gone(self) -> None:
        super().see_what_is_gone()
        self.gone = dict.fromkeys(self.gone, 1.0)


class Unsure(PerFrame):
    """Reads nothing but the levels of outputs: not how sure models were, not what they say at which hour."""

    def __init__(self, setup: PolicySetup) -> None:
        super().__init__(setup)
        for model in self._models.values():
            if model.own is not None:
                model.own = _NothingOwn(model.spec)


class _NothingOwn(OwnEvidence):
    def read(self, value: Value, detections: Detections | None) -> None:
        """Read nothing."""

    def _knows_hours(self, time_s: float) -> bool:
        return False


class WithoutDelta(PerFrame):
    """Links only say what goes with what, not how far the target moves when the source does."""

    def _new_links(self) -> LinkEvidence:
        return _StillLinks(self._setup.specs)


class _StillLinks(LinkEvidence):
    def _new_pool(self, sources: int) -> Pool:
        pool = Pool(sources)
        moves, (weights, _, first, firm) = slice(1 + OWN + 2, None, 3), pool.held
        weights[moves], first[moves], firm[moves] = 0.0, 0.0, FOR_GOOD
        return pool


class Uncalibrated(PerFrame):
    """Believes links as much as in the beginning, whether they prove right or not."""

    def _new_links(self) -> LinkEvidence:
        return _FirmLinks(self._setup.specs)


class _FirmLinks(LinkEvidence):
    def _new_pool(self, sources: int) -> Pool:
        pool = Pool(sources)
        firm = pool.held[3]
        firm[:] = FOR_GOOD
        return pool


Make = Callable[[CameraTrace, PolicySetup, Split], FramePolicy]


def _made(make: Make, camera: CameraTrace, cut: Split, setup: PolicySetup) -> FramePolicy:
    return make(camera, setup, cut)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="+", type=Path)
    known = known_policies(3600.0)
    full = known["camlink"].make
    variants = {
        "camlink": full,
        "without links": lambda camera, setup, cut: PerFrame(setup, links=False),
        "without delta links": lambda camera, setup, cut: WithoutDelta(setup),
        "without calibration": lambda camera, setup, cut: Uncalibrated(setup),
        "without movement": lambda camera, setup, cut: Blind(setup),
        "without own evidence": lambda camera, setup, cut: Unsure(setup),
        "without reuse": lambda camera, setup, cut: Forgetting(setup),
        "without usual values": lambda camera, setup, cut: Repeating(setup),
        "without the future": lambda camera, setup, cut: Myopic(setup),
    } | {name: known[name].make for name in (*BASELINES, "oracle")}
    found: dict[str, list[list[float]]] = {name: [] for name in variants}
    spent: dict[str, list[float]] = {name: [] for name in variants}
    for path in parser.parse_args().traces:
        trace = open_arrays(path, detections=True)
        specs = {m: entry.spec for m, entry in trace.models.items()}
        costs = Costs(
            {m: e.time_ms for m, e in trace.models.items()}, {m: e.memory_gb for m, e in trace.models.items()}
        )
        for camera in trace.cameras:
            cut = split(camera, float(np.ptp(camera.time_s)) / PERIODS + 1.0)
            for name, make in variants.items():
                row = []
                for share in SHARES:
                    setup = PolicySetup(camera.camera_id, specs, costs, Budget(time_share=share))
                    start = time.process_time()
                    tally = play(camera, partial(_made, make, camera, cut), setup, cut, name=name)
                    spent[name].append((time.process_time() - start) / len(camera) * 1e6)
                    row.append(float(tally.agreed.sum() / (tally.frames.sum() * len(specs))))
                found[name].append(row)
    best = np.max([found[name] for name in BASELINES], axis=0)
    print(f"agreement in %, mean over {len(best)} cameras; in brackets the difference to the best baseline of each")
    print(f"{'':22s}" + "".join(f"{share:>16.0%}" for share in SHARES) + "   us/frame")
    for name, rows in found.items():
        mean, gap = 100 * np.mean(rows, axis=0), 100 * np.mean(np.array(rows) - best, axis=0)
        cells = "".join(f"{m:8.1f} ({g:+5.1f})" for m, g in zip(mean, gap, strict=True))
        print(f"{name:22s}{cells}   {np.median(spent[name]):8.0f}")
    regret = 100 * np.mean(np.array(found["oracle"]) - np.array(found["camlink"]), axis=0)
    print(f"{'regret of camlink':22s}" + "".join(f"{r:+8.1f}        " for r in regret))
    print(f"{'best baseline':22s}" + "".join(f"{100 * m:8.1f}        " for m in best.mean(axis=0)))


if __name__ == "__main__":
    main()
