"""`reducto`: filter frames by low-level features, and repeat the last value of a model until enough has changed.

After Li et al., "Reducto: on-camera filtering for resource-efficient real-time video analytics" (SIGCOMM 2020), as the
MLink paper uses it (Sec. 6.5): per model one feature and one threshold, the best on the warm-up under the budget.
Its features are Reducto's pixel (``pixel_change``), area (``changed_area``), edge (change of ``edge_density``) and
corner differences (change of ``corner_density``), and the change of ``mean_luma``; those that a trace lacks or that
never move fall out. Changes add up since the model last executed.
Without statistics the only feature is the number of frames that passed, which is periodic refresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.operators.baselines.options import Option, within_memory
from camlink.operators.baselines.repeating import Repeating
from camlink.operators.baselines.warmup import Array, WarmUp
from camlink.operators.policy import FrameFacts, PolicySetup
from camlink.pipeline.records import STATISTICS, FrameStats

Trigger = tuple[str, float]  # feature, threshold
FRAMES = "frames"  # the feature that is always there: one per frame
DIFFERENCES = ("pixel_change", "changed_area")  # from the frame before: they are changes as they stand
NEVER: Trigger = (FRAMES, inf)
THRESHOLDS = 32  # tried per feature
TUNED_ON = 4000  # newest frames of the warm-up that thresholds are tried on


class Reducto(Repeating[Trigger]):
    """One camera's frame filter: each model's feature and threshold."""

    def __init__(self, setup: PolicySetup) -> None:
        super().__init__(setup)
        self._seen: FrameStats | None = None

    def begin(self, frame: FrameFacts) -> None:
        """Take in the next frame: add up what changed."""
        self._frame = frame
        if self._how is not None:
            change = change_of(frame.stats, self._seen)
            for model, (feature, _) in self._how.items():
                self._since[model] += change[feature]
        self._seen = frame.stats

    def _tune(self) -> dict[str, Trigger]:
        triggers = tune(self._setup, self._warm_up.samples(), changes(self._warm_up))
        self._since = {m: change_of(self._seen, None)[f] for m, (f, _) in triggers.items()}
        return triggers

    def _is_ever(self, how: Trigger) -> bool:
        return how != NEVER

    def _due(self) -> dict[str, float]:
        return {m: self._since[m] / max(t, 1e-12) for m, (_, t) in self._tuned().items() if self._since[m] >= t}


def change_of(now: FrameStats | None, before: FrameStats | None) -> dict[str, float]:
    """Return how far each feature moved from one frame to the next."""
    if now is None:
        return {FRAMES: 1.0, **dict.fromkeys(STATISTICS, 0.0)}
    last = before or now
    return {
        FRAMES: 1.0,
        "pixel_change": now.pixel_change,
        "changed_area": now.changed_area,
        "edge_density": abs(now.edge_density - last.edge_density),
        "corner_density": abs(now.corner_density - last.corner_density),
        "mean_luma": abs(now.mean_luma - last.mean_luma),
    }


def changes(warm_up: WarmUp) -> dict[str, NDArray[np.float64]]:
    """Return feature -> (n,) change from frame to frame: the image features, or only the number of frames."""
    found = {}
    for name, seen in warm_up.features().items():
        moved = seen if name in DIFFERENCES else np.abs(np.diff(seen, prepend=seen[:1]))
        if moved.any():
            found[name] = moved
    return found or {FRAMES: np.ones(len(warm_up))}


def tune(
    setup: PolicySetup, samples: Mapping[str, Array], moved: Mapping[str, NDArray[np.float64]]
) -> dict[str, Trigger]:
    """Return each model's feature and threshold: the best together under the budget, on the warm-up.

    A model that others have samples beside, and itself has none, failed: it would run in vain.
    """
    if not samples:
        return dict.fromkeys(setup.specs, (FRAMES, 1.0))
    options = {
        m: [
            *(
                option
                for feature, change in moved.items()
                for option in threshold_options(spec, samples[m], change, setup.costs.time_ms[m], feature)
            ),
            _never(spec, samples[m]),
        ]
        if m in samples
        else [Option(0.0, 0.0, NEVER)]
        for m, spec in setup.specs.items()
    }
    return {m: option.how for m, option in within_memory(options, setup.costs, setup.budget).items()}


def threshold_options(
    spec: OutputSpec, values: Array, change: NDArray[np.float64], time_ms: float, feature: str
) -> list[Option[Trigger]]:
    """Return what thresholds on one feature cost and give, by filtering the warm-up: values (n, size), change (n,)."""
    values, change = values[-TUNED_ON:], change[-TUNED_ON:]
    total = np.cumsum(change)
    options = []
    if total[-1] <= 0.0:  # nothing moved: no threshold tells frames apart
        return [Option(time_ms, 1.0, (feature, 0.0))]
    lowest = max(float(np.median(change)) / 2.0, float(total[-1]) / len(change) / 4.0)
    for threshold in np.geomspace(lowest, total[-1], THRESHOLDS):
        last = last_executed(total, float(threshold))
        executions = int((last == np.arange(len(last))).sum())
        given = float(agreement(spec, values[last], values).mean())
        options.append(Option(time_ms * executions / len(last), given, (feature, float(threshold))))
    return [*options, Option(time_ms, 1.0, (feature, 0.0))]


def last_executed(total: NDArray[np.float64], threshold: float) -> NDArray[np.intp]:
    """Return for every frame the last one that executed, if one does whenever ``total`` has grown by ``threshold``.

    ``total`` (n,) is the running sum of changes; the first frame executes.
    """
    executed, at = [0], 0
    while (at := int(np.searchsorted(total, total[at] + threshold))) < len(total):
        at = max(at, executed[-1] + 1)
        if at >= len(total):
            break
        executed.append(at)
    return np.repeat(executed, np.diff([*executed, len(total)]))


def _never(spec: OutputSpec, values: Array) -> Option[Trigger]:
    """Staying at one value: what frames half the warm-up apart have in common."""
    half = max(1, len(values) // 2)
    kept = agreement(spec, values[:-half], values[half:])
    return Option(0.0, float(kept.mean()) if len(kept) else 0.0, NEVER)
