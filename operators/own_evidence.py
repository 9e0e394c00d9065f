"""What a model's own outputs tell beside the last level: how sure it was, and what it says at this time of day.

A count whose boxes are all far above the confidence at which they count will stand; one with boxes just above and below
it is as likely to be another on the next frame, whatever happens in view. A label that won narrowly is soon lost. So
of each execution is kept, beside its levels, how likely each level would be if the model looked again:

- counts, where the detections are at hand: a normal distribution with the mean and the variance of the number of boxes
  that count, where each counts with a chance that follows from its score (`chance_to_count`);
- labels: the model's own chances.

That holds as long as the output does. And from a camera's second day on: how often each level was said at this hour of
the day. Both are pooled with the belief by weights that are learnt online, as those of links are
(`camlink.operators.link_pool`). Without either nothing changes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.operators.belief import Frequencies, Levels
from camlink.operators.link_evidence import Known
from camlink.operators.link_pool import OWN, Pool
from camlink.operators.policy_state import State, array
from camlink.pipeline.records import Detections, Value

STEEP = 2.2  # of the chance to count again, per unit of log odds between a score and the confidence
BOUNDS = (0.02, 0.97)  # of that chance: boxes come and go
CONFIDENCE = 0.25  # at which boxes count, until they tell otherwise
LOOSEN = 0.01  # of what is known of that, per execution
SPREAD = 0.02  # least variance of a count
LEAST_LOG = -6.0
LEAST_CHANCE = 0.01  # of a label
HOURS = 24
DAY_S = 86400.0
TRUST = 4.0  # executions at an hour, before they count for half
FADE = 0.995  # of an hour's, per execution in it
WEIGH_ALL, WEIGH_EVERY = 300, 4  # executions that weights learn from: the first ones, then every 4th, for four
_SCORES = (0.05, 0.98)
_LEAST = 1e-4
_NEAR_HOURS = np.array([0.5, 1.0, 0.5])  # how much executions of the hour before, of this and of the next count
Array = NDArray[np.float64]


def chance_to_count(scores: Array, confidence: float) -> Array:
    """Return the chance (n,) that boxes of these ``scores`` reach ``confidence`` when the model looks again.

    >>> chance_to_count(np.array([0.1, 0.25, 0.5, 0.9]), 0.25).round(2).tolist()
    [0.08, 0.5, 0.92, 0.97]
    """
    odds = np.log(scores / (1.0 - scores)) - np.log(confidence / (1.0 - confidence))
    chance: Array = 1.0 / (1.0 + np.exp(-STEEP * odds))
    return np.minimum(np.maximum(chance, BOUNDS[0]), BOUNDS[1])


class OwnEvidence:
    """One model on one camera, whose outputs have levels."""

    def __init__(self, spec: OutputSpec) -> None:
        self._spec = spec
        self._entries = 1 if spec.task == "single_label" else spec.size
        self._labels = spec.size if spec.task == "single_label" else 2
        self._rows = np.arange(self._entries)
        self._counted, self._left = 1.0, 0.0  # lowest score that counted, highest that did not
        self._by_hour = np.zeros((HOURS, self._entries, 2))
        self._since: float | None = None  # event time of the first execution
        self._hourly: tuple[object, int, Array] | None = None  # the usual levels and the hour that it was found for
        self._likely: tuple[object, Array] | None = None  # how sure an output was, and what that says of the levels
        self._learnt = 0
        self._pool = Pool(0)

    def read(self, value: Value, detections: Detections | None) -> Array | None:
        """Return how sure an output is: (2, entries), mean and variance of counts; (entries, levels), logs, of labels.

        None where nothing tells: labels that are no chances, counts without detections or with fewer than were counted.
        """
        if self._spec.task != "count":
            return self._read_labels(value.astype(np.float64))
        counted = round(float(value.sum()))
        if detections is None or counted > len(detections.scores):
            return None
        scores = np.minimum(np.maximum(detections.scores.astype(np.float64), _SCORES[0]), _SCORES[1])
        self._learn_confidence(scores, counted)
        chance = chance_to_count(scores, self.confidence)
        known = detections.classes < self._entries
        classes, chance = detections.classes[known], chance[known]
        sure = np.empty((2, self._entries))
        sure[0] = np.bincount(classes, chance, self._entries)
        sure[1] = np.bincount(classes, chance * (1.0 - chance), self._entries) + SPREAD
        return sure

    def _read_labels(self, chances: Array) -> Array | None:
        if chances.min() < 0.0 or chances.max() > 1.0:
            return None
        if self._spec.task == "single_label":
            return np.log(chances + LEAST_CHANCE)[None]
        chances = np.clip(chances, LEAST_CHANCE, 1.0 - LEAST_CHANCE)
        return np.log(np.stack([1.0 - chances, chances], axis=1))

    @property
    def confidence(self) -> float:
        """The score at which boxes seem to count: the usual one, unless some were counted below or left out above."""
        if self._left <= CONFIDENCE <= self._counted:
            return CONFIDENCE
        return 0.5 * (self._left + self._counted)

    def _learn_confidence(self, scores: Array, counted: int) -> None:
        best_first = np.sort(scores)[::-1]
        self._counted += LOOSEN * (1.0 - self._counted)  # the model may be told to count from another score on
        self._left -= LOOSEN * self._left
        if counted:
            self._counted = min(self._counted, float(best_first[counted - 1]))
        if counted < len(best_first):
            self._left = max(self._left, float(best_first[counted]))

    def features(self, usual: Frequencies, sure: Array | None, holds: float, time_s: float) -> Array | None:
        """Return logs of how likely each level is (OWN, entries * levels), or None where there is nothing to tell.

        ``sure``: how sure the last output was, as `read`; ``holds``: the chance that it still stands.
        """
        if not self.tells(sure, time_s):
            return None
        told = np.zeros((OWN, usual.size))
        if sure is not None:
            np.multiply(self._logs(sure, usual.shape[1]), holds, out=told[0])
        if self._knows_hours(time_s):
            told[1] = self._at_hour(usual, time_s)
        return told

    def tells(self, sure: Array | None, time_s: float) -> bool:
        """Say whether there is anything to tell beside the last level."""
        return sure is not None or self._knows_hours(time_s)

    def _knows_hours(self, time_s: float) -> bool:
        return self._since is not None and time_s - self._since >= DAY_S

    def _logs(self, sure: Array, levels: int) -> Array:
        if self._likely is None or self._likely[0] is not sure or len(self._likely[1]) != levels * self._entries:
            found = sure
            if self._spec.task == "count":
                mean, variance = sure[0][:, None], sure[1][:, None]
                off = np.arange(levels) - mean
                found = np.maximum(-0.5 * off * off / variance, LEAST_LOG)
            self._likely = sure, found.reshape(-1)
        return self._likely[1]

    def _at_hour(self, usual: Frequencies, time_s: float) -> Array:
        hour = _hour(time_s)
        if self._hourly is None or self._hourly[0] is not usual or self._hourly[1] != hour:
            near = self._by_hour.take((hour - 1, hour, hour + 1), axis=0, mode="wrap")
            seen, levels = np.zeros_like(usual), min(usual.shape[1], self._by_hour.shape[2])
            seen[:, :levels] = np.tensordot(_NEAR_HOURS, near[:, :, :levels], 1)
            likely = (seen + TRUST * usual) / (seen.sum(axis=1, keepdims=True) + TRUST)
            self._hourly = usual, hour, np.log((likely + _LEAST) / (usual + _LEAST)).reshape(-1)
        return self._hourly[2]

    def chances(self, known: Known) -> Frequencies:
        """Return P(level) (entries, levels) from what is known of the model and its own evidence."""
        return self._pool.mix(known.features(), self._entries)

    def is_weighed(self) -> bool:
        """Say whether `weigh` should be told of this execution."""
        return self._learnt < WEIGH_ALL or self._learnt % WEIGH_EVERY == 0

    def weigh(self, known: Known, said: Levels, weight: float) -> None:
        """Learn how far this is to be believed from what was ``known`` of the model that then ``said`` (entries,)."""
        if known.own is not None and int(said.max()) < known.usual.shape[1]:
            stands_for = 1 if self._learnt < WEIGH_ALL else WEIGH_EVERY
            self._pool.learn(known.features(), said, weight, stands_for)

    def take(self, said: Levels, time_s: float) -> None:
        """Take in an executed output."""
        self._learnt += 1
        if self._since is None:
            self._since = time_s
        if (more := int(said.max()) + 1 - self._by_hour.shape[2]) > 0:
            self._by_hour = np.pad(self._by_hour, ((0, 0), (0, 0), (0, more)))
        table = self._by_hour[_hour(time_s)]
        table *= FADE
        table[self._rows, said] += 1.0
        self._hourly = None

    def shape(self) -> Array:
        """Return an array of the shape that `read` gives."""
        return np.zeros((2, self._entries) if self._spec.task == "count" else (self._entries, self._labels))

    def state(self) -> State:
        """Return what was learnt, for a snapshot."""
        return {
            "counted": [self._counted, self._left],
            "by_hour": self._by_hour,
            "since": self._since,
            "learnt": self._learnt,
            "pool": self._pool.state(),
        }

    def resume(self, state: State) -> None:
        """Take up what `state` told. Raises `StateError`."""
        self._counted, self._left = map(float, state["counted"])
        self._by_hour = array(state["by_hour"], self._by_hour, free=(2,))
        self._since = None if state["since"] is None else float(state["since"])
        self._learnt = int(state["learnt"])
        self._pool.resume(state["pool"])
        self._hourly = self._likely = None


def _hour(time_s: float) -> int:
    return int(time_s // 3600.0) % HOURS
