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
from camlink.models.scores import agrees_by_degrees
from camlink.operators.belief import Frequencies, Levels, entries_of
from camlink.operators.compiled import compiled
from camlink.operators.link_pool import LEAST, OWN, Known, Pool
from camlink.operators.policy_state import State, array
from camlink.operators.usual import highest
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
NEXT_HOUR = 0.5  # how much executions of the hour before and of the next one count
Array = NDArray[np.float64]
_UNSURE, _NEVER = np.zeros((0, 0)), np.zeros(0)


def chance_to_count(scores: Array, confidence: float) -> Array:
    """Return the chance (n,) that boxes of these ``scores`` reach ``confidence`` when the model looks again.

    >>> chance_to_count(np.array([0.1, 0.25, 0.5, 0.9]), 0.25).round(2).tolist()
    [0.08, 0.5, 0.92, 0.97]
    """
    return np.array([_chance_to_count(score, confidence) for score in scores.tolist()])


class OwnEvidence:
    """One model on one camera."""

    def __init__(self, spec: OutputSpec) -> None:
        self._spec, self._is_count = spec, spec.task == "count"
        self._entries = entries_of(spec)
        self._labels = spec.size if spec.task == "single_label" else 2
        self._counted, self._left = 1.0, 0.0  # lowest score that counted, highest that did not
        self._by_hour = np.zeros((HOURS, self._entries, 2))
        self._since: float | None = None  # event time of the first execution
        self._hourly: tuple[object, int, Array] | None = None  # the usual levels and the hour that it was found for
        self._learnt = 0
        self._pool = Pool(0)

    def read(self, value: Value, detections: Detections | None) -> Array | None:
        """Return how sure an output is: (2, entries), mean and variance of counts; (entries, levels), logs, of labels.

        None where nothing tells: labels that are no chances, counts without detections or with fewer than were counted,
        whatever agrees by degrees.
        """
        if agrees_by_degrees(self._spec):
            return None
        if self._spec.task != "count":
            chances = value.astype(np.float64)
            return _logs_of_labels(chances, self._spec.task == "single_label") if _are_chances(chances) else None
        if detections is None or (counted := round(sum(value.tolist()))) > len(detections.scores):
            return None
        scores, classes = detections.scores.astype(np.float64), detections.classes.astype(np.intp)
        sure, self._counted, self._left = _how_sure(scores, classes, counted, self._counted, self._left, self._entries)
        return sure

    @property
    def confidence(self) -> float:
        """The score at which boxes seem to count: the usual one, unless some were counted below or left out above."""
        return _confidence(self._left, self._counted)

    def known(
        self, usual: Frequencies, last: Levels, fresh: float, sure: Array | None, holds: float, time_s: float
    ) -> Known:
        """Return what is known of the model on a frame.

        ``usual``: P(level) in general (E, levels); ``last`` (E,): what it said, which is still ``fresh``; ``sure``: how
        sure it was, as `read`; ``holds``: the chance that this has not changed; ``time_s``: of the frame.
        """
        knows_hours, is_sure = self._knows_hours(time_s), sure is not None
        hourly = self._at_hour(usual, time_s) if knows_hours else _NEVER
        made_of = _UNSURE if sure is None else sure
        features = _features(1 + OWN, usual, last, fresh, LEAST, made_of, is_sure, self._is_count, holds, hourly)
        return Known(features, usual, last, is_sure or knows_hours)

    def _knows_hours(self, time_s: float) -> bool:
        return self._since is not None and time_s - self._since >= DAY_S

    def _at_hour(self, usual: Frequencies, time_s: float) -> Array:
        hour = _hour(time_s)
        if self._hourly is None or self._hourly[0] is not usual or self._hourly[1] != hour:
            self._hourly = usual, hour, _likelier_at(hour, self._by_hour, usual)
        return self._hourly[2]

    def chances(self, known: Known) -> Frequencies:
        """Return P(level) (entries, levels) from what is known of the model and its own evidence."""
        return self._pool.mix(known.features, self._entries)

    def is_weighed(self) -> bool:
        """Say whether `weigh` should be told of this execution."""
        return self._learnt < WEIGH_ALL or self._learnt % WEIGH_EVERY == 0

    def weigh(self, known: Known, said: Levels, weight: float) -> None:
        """Learn how far this is to be believed from what was ``known`` of the model that then ``said`` (entries,)."""
        if known.tells and highest(said) < known.usual.shape[1]:
            stands_for = 1 if self._learnt < WEIGH_ALL else WEIGH_EVERY
            self._pool.learn(known.features, said, weight, stands_for)

    def take(self, said: Levels, time_s: float) -> None:
        """Take in an executed output."""
        self._learnt += 1
        if self._since is None:
            self._since = time_s
        hour = _hour(time_s)
        if not _see(self._by_hour, hour, said):
            more = highest(said) + 1 - self._by_hour.shape[2]
            self._by_hour = np.pad(self._by_hour, ((0, 0), (0, 0), (0, more)))
            _see(self._by_hour, hour, said)
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
        self._hourly = None


def _hour(time_s: float) -> int:
    return int(time_s // 3600.0) % HOURS


@compiled
def _chance_to_count(score: float, confidence: float) -> float:
    score = min(max(score, _SCORES[0]), _SCORES[1])
    odds = np.log(score / (1.0 - score)) - np.log(confidence / (1.0 - confidence))
    chance: float = 1.0 / (1.0 + np.exp(-STEEP * odds))
    return min(max(chance, BOUNDS[0]), BOUNDS[1])


@compiled
def _between(scores: Array, counted: int, lowest_counted: float, highest_left: float) -> tuple[float, float]:
    """Return the lowest score that counted and the highest that did not, where the highest ones did."""
    falling = scores.copy()
    for i in range(1, len(falling)):  # by insertion: detectors say the surest boxes first
        score, at = falling[i], i
        while at > 0 and falling[at - 1] < score:
            falling[at] = falling[at - 1]
            at -= 1
        falling[at] = score
    if counted:
        lowest_counted = min(lowest_counted, max(falling[counted - 1], _SCORES[0]))
    if counted < len(falling):
        highest_left = max(highest_left, min(falling[counted], _SCORES[1]))
    return lowest_counted, highest_left


@compiled
def _confidence(highest_left: float, lowest_counted: float) -> float:
    between: float = 0.5 * (highest_left + lowest_counted)
    return CONFIDENCE if highest_left <= CONFIDENCE <= lowest_counted else between


@compiled
def _how_sure(
    scores: Array, classes: Levels, counted: int, lowest_counted: float, highest_left: float, entries: int
) -> tuple[Array, float, float]:
    """Return mean and variance of each count (2, entries), and what scores now tell of where boxes count."""
    lowest_counted += LOOSEN * (1.0 - lowest_counted)  # the model may be told to count from another score on
    highest_left -= LOOSEN * highest_left
    lowest_counted, highest_left = _between(scores, counted, lowest_counted, highest_left)
    sure = _mean_and_variance(scores, classes, _confidence(highest_left, lowest_counted), entries)
    return sure, lowest_counted, highest_left


@compiled
def _mean_and_variance(scores: Array, classes: Levels, confidence: float, entries: int) -> Array:
    sure = np.zeros((2, entries))
    for e in range(entries):
        sure[1, e] = SPREAD
    for i in range(len(scores)):
        if 0 <= classes[i] < entries:
            chance = _chance_to_count(scores[i], confidence)
            sure[0, classes[i]] += chance
            sure[1, classes[i]] += chance * (1.0 - chance)
    return sure


@compiled
def _are_chances(labels: Array) -> bool:
    inside = True
    for label in labels:
        inside = inside and 0.0 <= label <= 1.0
    return inside


@compiled
def _logs_of_labels(chances: Array, single: bool) -> Array:
    """Return (1, labels) of a single label; (labels, 2) of several, of their being out and in."""
    if single:
        single_logs = np.empty((1, len(chances)))
        for label in range(len(chances)):
            single_logs[0, label] = np.log(chances[label] + LEAST_CHANCE)
        return single_logs
    logs = np.empty((len(chances), 2))
    for label in range(len(chances)):
        chance = min(max(chances[label], LEAST_CHANCE), 1.0 - LEAST_CHANCE)
        logs[label, 0], logs[label, 1] = np.log(1.0 - chance), np.log(chance)
    return logs


@compiled
def _features(
    rows: int,
    usual: Frequencies,
    last: Levels,
    fresh: float,
    least: float,
    sure: Array,
    is_sure: bool,
    is_count: bool,
    holds: float,
    hourly: Array,
) -> Array:
    """Return what is known of a model (rows, E * levels)."""
    entries, levels = usual.shape
    features = np.zeros((rows, entries * levels))
    for e in range(entries):
        for level in range(levels):
            at = e * levels + level
            chance = (1.0 - fresh) * usual[e, level]
            if level == last[e]:
                chance += fresh
            features[0, at] = np.log(chance + least)
            if is_sure and is_count:
                off = level - sure[0, e]
                features[1, at] = holds * max(-0.5 * off * off / sure[1, e], LEAST_LOG)
            elif is_sure:
                features[1, at] = holds * sure[e, level]
    for at in range(len(hourly)):
        features[2, at] = hourly[at]
    return features


@compiled
def _likelier_at(hour: int, by_hour: Array, usual: Frequencies) -> Array:
    """Return how much likelier each level is at an hour of the day (E * levels,), in logs."""
    entries, levels = usual.shape
    likelier, seen = np.empty(entries * levels), np.zeros(levels)
    for e in range(entries):
        total = TRUST
        for level in range(min(levels, by_hour.shape[2])):
            beside = by_hour[(hour - 1) % HOURS, e, level] + by_hour[(hour + 1) % HOURS, e, level]
            seen[level] = by_hour[hour, e, level] + NEXT_HOUR * beside
            total += seen[level]
        for level in range(levels):
            likely = (seen[level] + TRUST * usual[e, level]) / total
            likelier[e * levels + level] = np.log((likely + _LEAST) / (usual[e, level] + _LEAST))
    return likelier


@compiled
def _see(by_hour: Array, hour: int, said: Levels) -> bool:
    """Take in what was said (entries,) at an hour of the day; not, and return False, where there is no room for it."""
    for level in said:
        if level >= by_hour.shape[2]:
            return False
    for e in range(len(said)):
        for level in range(by_hour.shape[2]):
            by_hour[hour, e, level] *= FADE
        by_hour[hour, e, said[e]] += 1.0
    return True
