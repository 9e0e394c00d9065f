"""`python -m benchmarks.policy.zoo TRACE...`: what a new camera gains from a zoo of others (docs/policy-results.md).

Each camera is left out in turn. The zoo is learnt from the first halves of all others, of all traces; the camera left
out begins in its second half, with a warm-up of so many frames, and counts from then on, with the zoo and without, at
the same budgets. The policy draws no lots: a seed says where in the second half the camera begins.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from camlink.models.trace_arrays import CameraTrace, open_arrays
from camlink.operators.experience import experience_of
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import PolicySetup
from camlink.operators.selection import Budget, Costs
from camlink.operators.zoo import Experience, Zoo
from camlink.pipeline.lab.compare import costs_of, usable_cameras
from camlink.pipeline.lab.play import Split, play
from camlink.pipeline.lab.tally import BINS, calibration_error
from camlink.pipeline.lab.zoo import shown

SHARES = (1 / 6, 1 / 4, 1 / 3, 1 / 2)
WARM_UPS = (10, 30, 100)
FEWEST = 15  # frames that count
Table = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Member:
    """One camera: what it taught the zoo, and the half that it is judged on."""

    taught: Experience
    later: CameraTrace
    costs: Costs


def members(paths: Sequence[Path], most: int | None) -> Iterator[Member]:
    """Let every camera of these traces teach by the ``most`` newest frames of its first half."""
    for path in paths:
        trace = open_arrays(path, detections=True)
        for camera in usable_cameras(trace, print):
            costs, half = costs_of(trace, camera), len(camera) // 2
            first = cut(camera, 0, half)
            taught = experience_of(f"{trace.name}/{camera.camera_id}", shown(first, most), camera.specs, costs)
            yield Member(taught, cut(camera, half, len(camera)), costs)


def cut(camera: CameraTrace, start: int, end: int) -> CameraTrace:
    """Return the frames of a camera from row ``start`` to before ``end``."""
    part = slice(start, end)
    stats = {name: column[part] for name, column in camera.stats.items()}
    values = {name: value[part] for name, value in camera.values.items()}
    boxes = {name: drawn.take(np.arange(start, end)) for name, drawn in camera.detections.items()}
    index, time_s = camera.index[part], camera.time_s[part]
    return replace(camera, index=index, time_s=time_s, stats=stats, values=values, detections=boxes)


def beginning(frames: int, warm_up: int, counted: int | None, seed: int) -> tuple[int, int]:
    """Return from which to which row a new camera is played: anywhere that leaves three quarters, or ``counted``.

    >>> beginning(1000, 10, 200, 0)[1] - beginning(1000, 10, 200, 0)[0]
    210
    """
    free = frames - warm_up
    start = int(np.random.default_rng(seed).uniform() * (free - (min(counted, free) if counted else 0.75 * free)))
    return start, min(frames, start + warm_up + (counted or frames))


def played(camera: CameraTrace, costs: Costs, warm_up: int, share: float, zoo: Zoo | None) -> tuple[float, Table]:
    """Return a new camera's agreement, 0..1, and what it stated against what came of it (`Tally.stated`)."""
    setup = PolicySetup(camera.camera_id, camera.specs, costs, Budget(time_share=share), zoo=zoo)
    split = Split(warm_up, np.zeros(len(camera) - warm_up, np.intp))
    tally = play(camera, PerFrame, setup, split, name="camlink")
    return float(tally.agreed.sum() / tally.hows.sum()), tally.stated


def differences(
    cameras: Sequence[Member], warm_up: int, seeds: Sequence[int], counted: int | None
) -> tuple[Table, Table]:
    """Return agreement (2, cameras, budgets), without and with a zoo, mean over seeds, and calibration error (2,
    budgets) of the answers on all cameras.
    """
    agreement = np.zeros((2, len(cameras), len(SHARES)))
    stated = np.zeros((2, len(SHARES), BINS, 3))
    for i, member in enumerate(cameras):
        zoo = Zoo(member.later.specs, tuple(other.taught for other in cameras if other is not member))
        for seed in seeds:
            camera = cut(member.later, *beginning(len(member.later), warm_up, counted, seed))
            for k, known in enumerate((None, zoo)):
                for j, share in enumerate(SHARES):
                    agreed, told = played(camera, member.costs, warm_up, share, known)
                    agreement[k, i, j] += agreed / len(seeds)
                    stated[k, j] += told
    return agreement, np.array([[calibration_error(told) or 0.0 for told in row] for row in stated])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--warm-up", type=int, nargs="+", default=WARM_UPS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, help="that count after the warm-up; all when not given")
    parser.add_argument("--learn", type=int, help="newest frames of a first half that teach; all when not given")
    arguments = parser.parse_args()
    cameras = list(members(arguments.traces, arguments.learn))
    if len(cameras) < 2 or len({frozenset(member.taught.models) for member in cameras}) > 1:
        parser.error("leaving one camera out needs two or more with the same models")
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds}: a camera begins at least once")
    print(f"agreement in %, mean over cameras and {arguments.seeds} beginnings; in brackets calibration error, points")
    print(f"{'':26s}" + "".join(f"{share:>16.1%}" for share in SHARES))
    for warm_up in arguments.warm_up:
        long = [m for m in cameras if 0.75 * (len(m.later) - warm_up) >= FEWEST]
        if not long:
            print(f"warm-up of {warm_up} frames: no camera has {FEWEST} frames that count after it")
            continue
        agreement, errors = differences(long, warm_up, range(arguments.seeds), arguments.frames)
        print(f"warm-up of {warm_up} frames, {len(long)} cameras")
        for name, mine, error in zip(("without", "with a zoo"), agreement, errors, strict=True):
            cells = "".join(f"{100 * a:8.1f} ({100 * e:4.1f}) " for a, e in zip(mine.mean(axis=0), error, strict=True))
            print(f"  {name:24s}{cells}")
        gain = 100 * (agreement[1] - agreement[0])
        print(f"  {'gain':24s}" + "".join(f"{g:+8.2f}        " for g in gain.mean(axis=0)))
        per_camera = gain.mean(axis=1)
        error = per_camera.std(ddof=1) / sqrt(len(long)) if len(long) > 1 else float("nan")
        print(
            f"  mean gain {per_camera.mean():+.2f} +- {error:.2f}, cameras from {per_camera.min():+.1f} to "
            f"{per_camera.max():+.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
