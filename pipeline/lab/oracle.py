"""`oracle`: the best fixed set of models in hindsight. It has seen what the others are judged by, and is a yardstick.

Every set that the budget pays for on each frame, with the links of the warm-up, is scored on the frames that count (on
a sample of a long trace), and the most promising are played, with the profile frames that `mlink` takes, for those
refresh what links remember. Beyond 12 models one set is played, that of Algorithm 1 with these scores. Where not even
one model is paid for on every frame, single models are tried, executed as often as the budget pays.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import combinations

import numpy as np

from camlink.models.trace_arrays import CameraTrace
from camlink.operators.baselines.mlink import MLink, always
from camlink.operators.baselines.warm_links import LinkTrainer
from camlink.operators.policy import FramePolicy, MakePolicy, PolicySetup
from camlink.operators.profiling import LinkScorer
from camlink.operators.selection import EXACT_UP_TO, CameraScores, expected_agreement, select
from camlink.pipeline.lab.play import Split, play

JUDGED_ON = 1000  # frames, spread evenly over those that count
PLAYED = 8  # sets


def oracle(
    camera: CameraTrace, setup: PolicySetup, cut: Split, *, period_s: float, trainer: LinkTrainer
) -> FramePolicy:
    """Return the policy that always executes the set that proves best on the frames of ``camera`` that count."""
    scores = hindsight(camera, setup, cut.warm_up, trainer)
    models = tuple(setup.specs)
    worth = {s: expected_agreement(s, models, scores.subset) for s in _candidates(setup, scores)}
    promising = sorted(worth, key=lambda s: -worth[s])[:PLAYED]
    played = {s: play(camera, _fixed(s, period_s, trainer), setup, cut, name="oracle") for s in promising}
    best = max(played, key=lambda s: (float(played[s].agreed.sum()), -setup.costs.time(s)), default=())
    return _fixed(best, period_s, trainer)(setup)


def _fixed(models: tuple[str, ...], period_s: float, trainer: LinkTrainer) -> MakePolicy:
    return partial(MLink, choose=always(models), period_s=period_s, trainer=trainer)


def hindsight(camera: CameraTrace, setup: PolicySetup, warm_up: int, trainer: LinkTrainer) -> CameraScores:
    """Score the warm-up's links on frames that count."""
    samples = {m: camera.values[m][:warm_up] for m in setup.specs}
    links = trainer.train(setup.specs, samples, camera.time_s[:warm_up], seed=setup.seed)
    scorer = LinkScorer(setup.specs, JUDGED_ON)
    for row in np.unique(np.linspace(warm_up, len(camera) - 1, JUDGED_ON).astype(int)):
        values = {m: camera.values[m][row] for m in setup.specs}
        scorer.observe(datetime.fromtimestamp(camera.time_s[row], UTC), values, links.ensembles)
    return scorer.scores()


def _candidates(setup: PolicySetup, scores: CameraScores) -> Iterator[tuple[str, ...]]:
    models, costs, budget = tuple(setup.specs), setup.costs, setup.budget
    time_ms, memory_gb = budget.time_ms(costs) + 1e-9, budget.memory_limit() + 1e-9

    def fits(models: tuple[str, ...]) -> bool:
        return costs.time(models) <= time_ms and costs.memory(models) <= memory_gb

    single = [m for m in budget.in_time(costs) if costs.memory_gb[m] <= memory_gb]
    if not any(fits((m,)) for m in single):
        yield from ((m,) for m in single)
    elif len(models) <= EXACT_UP_TO:
        yield from (s for n in range(1, len(models) + 1) for s in combinations(models, n) if fits(s))
    else:
        yield select("mlink", {setup.camera_id: scores}, costs, budget).execute[setup.camera_id]
