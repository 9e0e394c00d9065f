"""Coverage and width of certificates over simulated days, against the fixed-sample interval.

    python -m benchmarks.certificates [--days 2000] [--frames 8640] [--share 0.04] [--seed 0]

Days are split evenly over the scenarios and the two rules of auditing. "ever missed" is the share of days on which the
interval lost the running mean at any moment, so also at the one where somebody would stop; at 95 % it may be 5 %.
"""

from __future__ import annotations

import time
from typing import Annotated

import numpy as np
import typer

from benchmarks.certificates.simulation import SCENARIOS, adaptive, fixed, simulate


def main(
    days: Annotated[int, typer.Option(help="Simulated days in all.")] = 2000,
    frames: Annotated[int, typer.Option(help="Predicted frames per day; 8640 is one every 10 s.")] = 8640,
    share: Annotated[float, typer.Option(help="Share of frames audited.")] = 0.04,
    seed: int = 0,
) -> None:
    rng, started = np.random.default_rng(seed), time.monotonic()
    rules = {"fixed": fixed(share), "adaptive": adaptive(share)}
    each = max(1, days // (len(SCENARIOS) * len(rules)))
    print(f"{each} days each, {frames} frames, audit share {share}, seed {seed}")
    heads = ("scenario", "audits are", "audits/day", "ever missed", "at the end", "Wilson ever", "width", "Wilson")
    print("{:<10} {:<10} {:>10} {:>12} {:>11} {:>12} {:>7} {:>7} ratio".format(*heads))
    found = []
    for scenario, draw in SCENARIOS.items():
        for name, rule in rules.items():
            o = simulate(rng, draw(rng, each, frames), rule)
            found.append(o)
            figures = f"{o.audits:>10.0f} {o.missed:>12.3f} {o.missed_at_end:>11.3f} {o.wilson_missed:>12.3f}"
            widths = f"{o.width:>7.3f} {o.wilson_width:>7.3f} {o.width / o.wilson_width:>5.2f}"
            print(f"{scenario:<10} {name:<10} {figures} {widths}", flush=True)
    covered = 1.0 - np.mean([o.missed for o in found])
    by_wilson = 1.0 - np.mean([o.wilson_missed for o in found])
    print(f"{each * len(found)} days: at every moment covered {covered:.2%}; by Wilson's interval {by_wilson:.2%}")
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    typer.run(main)
