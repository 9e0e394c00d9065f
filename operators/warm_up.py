"""Has all that `policy: camlink` calls compiled before the first frame comes, or takes it up from the last process."""

from __future__ import annotations

import logging
from functools import cache
from time import monotonic

import numpy as np

from camlink.models.base import OutputSpec
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import FrameFacts, PolicySetup
from camlink.operators.selection import Budget, Costs
from camlink.pipeline.records import STATISTICS, Detections, FrameStats, Value

FRAMES = 80
NOTICED_S = 1.0
SPECS = {
    "counts": OutputSpec("counts", "vector", 2, "count", ("car", "person")),
    "label": OutputSpec("label", "vector", 3, "single_label"),
    "labels": OutputSpec("labels", "vector", 2, "multi_label"),
    "person": OutputSpec("person", "vector", 1, "count", ("person",)),
    "number": OutputSpec("number", "vector", 1, "regression"),
}
logger = logging.getLogger(__name__)


@cache
def warm_up() -> None:
    """Play a camera of chance outputs to a policy: some 20 s on a machine's first time, afterwards under 1 s."""
    began = monotonic()
    rng = np.random.default_rng(0)
    costs = Costs(dict.fromkeys(SPECS, 10.0), dict.fromkeys(SPECS, 1.0))
    for targets in ({}, dict.fromkeys(SPECS, 0.9)):
        policy = PerFrame(PolicySetup("warm-up", SPECS, costs, Budget(time_share=0.5), targets=targets))
        for index in range(FRAMES):
            _show(policy, index, rng)
    if (took := monotonic() - began) > NOTICED_S:
        logger.info("the policy's loops were compiled for this machine in %.0f s", took)


def _show(policy: PerFrame, index: int, rng: np.random.Generator) -> None:
    values = {name: _output(rng, spec) for name, spec in SPECS.items()}
    found = {name: _boxes(rng, values[name]) for name in ("counts", "person")}
    # A frame an hour: what is said at an hour of the day is read from the second day on.
    policy.begin(FrameFacts(index, 3600.0 * index, FrameStats(*rng.random(len(STATISTICS)))))
    executed: dict[str, Value] = {}
    while index > FRAMES // 2 and (model := policy.choose(executed)) is not None:
        executed[model] = values[model]
    policy.answer(executed)
    chosen = bool(executed)
    executed = executed or values  # an audit frame
    policy.found({name: boxes for name, boxes in found.items() if name in executed})
    policy.learn(executed, chosen=chosen)


def _output(rng: np.random.Generator, spec: OutputSpec) -> Value:
    made = rng.integers(0, 4, spec.size) if spec.task == "count" else rng.dirichlet(np.ones(spec.size))
    return made.astype(np.float32)


def _boxes(rng: np.random.Generator, counts: Value) -> Detections:
    number = int(counts.sum()) + 2
    scores, classes = rng.random(number).astype(np.float32), rng.integers(0, 2, number).astype(np.int32)
    return Detections(np.zeros((number, 4), np.float32), scores, classes)
