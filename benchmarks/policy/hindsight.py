"""`python -m benchmarks.policy.hindsight TRACE...`: how much there is to win, for a policy that knows the future.

It knows what every model will say on every frame, executes whichever frames are best under the budget, and repeats
each model's last output in between. No policy that repeats outputs can do better: the figure is the Lagrangian bound,
budget over the whole trace, debt and loading allowed. Answers that are made otherwise (usual values, links) are not
bounded by it. Per camera it takes memory and time with the square of the frames: for clips, not for weeks.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.policy.__main__ import BASELINES, PERIODS, SHARES
from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.models.trace_arrays import CameraTrace, open_arrays
from camlink.operators.policy import FramePolicy, PolicySetup
from camlink.operators.selection import Budget, Costs
from camlink.pipeline.lab.play import Split, play, split
from camlink.pipeline.lab.policies import known_policies

Array = NDArray[np.float64]
DEAREST = 1e4  # frames' worth of agreement per execution: from there on nothing executes
BISECTIONS = 40


def served_until(spec: OutputSpec, values: NDArray[np.float32]) -> Array:
    """Return how much row i of ``values`` (n, size) agrees, in sum, with those after it, up to row j (n, n)."""
    agreed = np.zeros((len(values), len(values)))
    for i, value in enumerate(values):
        agreed[i, i + 1 :] = agreement(spec, np.broadcast_to(value, values[i + 1 :].shape), values[i + 1 :])
    return np.cumsum(agreed, axis=1)


def best_schedule(until: Array, price: float) -> tuple[float, int]:
    """Return the most that agreement less ``price`` per execution adds up to, and how often that executes.

    ``until``: of `served_until`; its first row is an output from before, which is there for nothing.
    """
    frames = len(until)
    value, ran = np.full(frames, -np.inf), np.zeros(frames, np.intp)  # with an execution on each frame, up to it
    value[0] = 0.0
    for j in range(1, frames):
        reached = value[:j] + until[:j, j - 1]
        i = int(reached.argmax())
        value[j], ran[j] = reached[i] + 1.0 - price, ran[i] + 1
    total = value + until[:, -1]
    last = int(total.argmax())
    return float(total[last]), int(ran[last])


def bound(until: Mapping[str, Array], time_ms: Mapping[str, float], budget_ms: float) -> float:
    """Return the least upper bound on the agreements of all models together that executing costs ``budget_ms``."""
    low, high, least = 0.0, DEAREST / min(time_ms.values()), np.inf
    for _ in range(BISECTIONS):
        price = 0.5 * (low + high)
        found = {m: best_schedule(u, price * time_ms[m]) for m, u in until.items()}
        least = min(least, sum(gain for gain, _ in found.values()) + price * budget_ms)
        if sum(time_ms[m] * ran for m, (_, ran) in found.items()) > budget_ms:
            low = price
        else:
            high = price
    return float(least)


def in_hindsight(camera: CameraTrace, cut: Split, costs: Costs, shares: tuple[float, ...] = SHARES) -> list[float]:
    """Return the bound on one camera's agreement, 0..1, after warm-up, at each budget."""
    start = cut.warm_up - 1
    until = {m: served_until(spec, camera.values[m][start:]) for m, spec in camera.specs.items()}
    frames, models = len(camera) - cut.warm_up, len(camera.specs)
    everything = frames * costs.time(tuple(camera.specs))
    return [min(1.0, bound(until, costs.time_ms, share * everything) / (frames * models)) for share in shares]


def played(name: str, camera: CameraTrace, cut: Split, setup: PolicySetup) -> float:
    """Return what a policy of the lab reaches, 0..1."""
    make = known_policies(float(np.ptp(camera.time_s)) / PERIODS + 1e-3)[name].make

    def made(given: PolicySetup) -> FramePolicy:
        return make(camera, given, cut)

    tally = play(camera, made, setup, cut, name=name)
    return float(tally.agreed.sum() / (tally.frames.sum() * len(setup.specs)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="+", type=Path)
    print("agreement in %, mean over cameras: camlink / best baseline of each camera / in hindsight (left to win)")
    for path in parser.parse_args().traces:
        trace = open_arrays(path)
        costs = Costs(
            {m: e.time_ms for m, e in trace.models.items()}, {m: e.memory_gb for m, e in trace.models.items()}
        )
        rows = []
        for camera in trace.cameras:
            cut = split(camera, float(np.ptp(camera.time_s)) / PERIODS + 1.0)
            setup = PolicySetup(camera.camera_id, camera.specs, costs, Budget())
            setups = [replace(setup, budget=Budget(time_share=share)) for share in SHARES]
            reached = [played("camlink", camera, cut, s) for s in setups]
            best = [max(played(name, camera, cut, s) for name in BASELINES) for s in setups]
            rows.append((reached, best, in_hindsight(camera, cut, costs)))
        mean = 100 * np.mean(rows, axis=0)
        cells = (f"{c:6.1f} /{b:6.1f} /{h:6.1f} ({h - b:+5.1f})" for c, b, h in mean.T)
        print(f"{trace.name[:28]:28s}" + "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
