"""Online training of one link, segment by segment, at a fixed label budget (MLink extended, Sec. 4.1 and 6.4, Fig. 6).

A label is a frame on which source and target both run. All strategies may label the same share of the frames, 1 % as in
the paper, and differ in which:

- ``offline``: the first ones; the link is never trained again;
- ``periodic``: at equal distances;
- ``uncertainty``: where the link's own confidence is lowest (Lewis and Gale's threshold, carried over from the segment
  before);
- ``loss-prediction``: where a small network expects the highest loss (Yoo and Kweon; `camlink.links.loss_prediction`);
- ``drift``: periodic, and when ADWIN (Bifet and Gavaldà, 2007; river's) finds that the link agrees with the labels
  differently than before, older labels are forgotten.

Every frame is predicted, and scored, by the link in force, before any label of its segment has been learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from camlink.links.ensemble import Ensemble
from camlink.links.loss_prediction import fit_loss_predictor
from camlink.links.train import MIN_FRAMES, train_ensembles
from camlink.links.vec_to_vec import VecToVec
from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.models.trace_arrays import CameraTrace
from camlink.pipeline.errors import TraceError

Strategy = Literal["offline", "periodic", "uncertainty", "loss-prediction", "drift"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
Array = NDArray[np.float32]
Rows = NDArray[np.intp]
Urgency = Callable[[Array], NDArray[np.float64]]  # source values (n, size) -> how much a label is wanted (n,)
HELD_OUT = 3  # every third label teaches the loss predictor and not the link that it watches
ADWIN_DELTA = 0.01


@dataclass(frozen=True)
class Adapted:
    """What one strategy reached: mean agreement per segment, the number of labels, and where drift was found."""

    strategy: Strategy
    agreement: tuple[float, ...]
    labels: int
    drifts: tuple[int, ...] = ()  # segments

    @property
    def mean(self) -> float:
        """The mean agreement over all segments."""
        return float(np.mean(self.agreement))


@dataclass(frozen=True, eq=False)
class _Pair:
    """One link's data: x (n, source size), y (n, target size)."""

    source: OutputSpec
    target: OutputSpec
    x: Array
    y: Array
    seed: int

    def train(self, rows: Rows) -> Ensemble:
        specs = {self.source.model: self.source, self.target.model: self.target}
        samples = {self.source.model: self.x[rows], self.target.model: self.y[rows]}
        return train_ensembles(specs, samples, seed=self.seed, targets=[self.target.model])[self.target.model]

    def predict(self, link: Ensemble, rows: slice) -> tuple[Array, NDArray[np.float64]]:
        return link.predict({self.source.model: self.x[rows]})


def adapt(
    camera: CameraTrace,
    source: str,
    target: str,
    strategy: Strategy,
    *,
    share: float = 0.01,
    segments: int = 48,
    seed: int = 0,
) -> Adapted:
    """Train the link ``source`` -> ``target`` as ``strategy`` says, with labels on ``share`` of the camera's frames.

    A tenth of the labels, at least 10, are the first frames: links start from them. Scored are the frames after those
    that ``offline`` learns from, the same for all. Raises `TraceError` if the share is too small for that.
    """
    pair = _Pair(camera.specs[source], camera.specs[target], camera.values[source], camera.values[target], seed)
    frames = len(camera)
    budget = int(share * frames)
    start = max(MIN_FRAMES, budget // 10)
    if budget < 2 * MIN_FRAMES:
        raise TraceError(
            f'camera "{camera.camera_id}": {share:.1%} of {frames} frames are {budget} labels; '
            f"comparing strategies takes {2 * MIN_FRAMES}, so use a longer trace or a larger share"
        )
    edges = np.linspace(budget, frames, segments + 1).astype(int)
    if strategy == "offline":
        return _offline(pair, edges, budget)
    return _Online(pair, edges, start, budget, strategy).run()


def _offline(pair: _Pair, edges: NDArray[np.int64], budget: int) -> Adapted:
    link = pair.train(np.arange(budget))
    scores = [_score(pair, link, slice(int(a), int(b))) for a, b in pairwise(edges)]
    return Adapted("offline", tuple(float(s.mean()) for s in scores), budget)


def _score(pair: _Pair, link: Ensemble, rows: slice) -> Array:
    return agreement(pair.target, pair.predict(link, rows)[0], pair.y[rows])


class _Online:
    """A link in training: its labels so far, and how urgently another is wanted."""

    def __init__(self, pair: _Pair, edges: NDArray[np.int64], start: int, budget: int, strategy: Strategy) -> None:
        self._pair, self._edges, self._strategy = pair, edges, strategy
        self._labelled: list[int] = list(range(start))
        self._left = budget - len(self._labelled)
        self._threshold = np.inf  # urgency from which a frame is labelled; nothing is known before the first segment
        self._detector = _adwin() if strategy == "drift" else None
        self._drifts: list[int] = []
        self._forgotten = 0  # labels that are no longer learnt from

    def run(self) -> Adapted:
        """Go through all segments."""
        means = []
        count = len(self._edges) - 1
        link, urgency = self._train()
        for number in range(count):
            rows = slice(int(self._edges[number]), int(self._edges[number + 1]))
            scores = _score(self._pair, link, rows)
            means.append(float(scores.mean()))
            quota = self._left // (count - number)
            wanted = self._wanted(rows, quota, urgency)
            for row in wanted:
                self._labelled.append(int(row))
                self._watch(number, float(scores[row - rows.start]))
            self._left -= len(wanted)
            if len(wanted):
                link, urgency = self._train()
        return Adapted(self._strategy, tuple(means), len(self._labelled), tuple(self._drifts))

    def _train(self) -> tuple[Ensemble, Urgency | None]:
        rows = np.array(self._labelled[self._forgotten :], np.intp)
        link = self._pair.train(rows)
        if self._strategy == "uncertainty":
            return link, lambda x: 1.0 - link.predict({self._pair.source.model: x})[1]
        if self._strategy == "loss-prediction":
            return link, self._expected_loss(rows)
        return link, None

    def _expected_loss(self, rows: Rows) -> Urgency | None:
        """Learn losses from labels that a second link was not fitted on."""
        held = np.arange(len(rows)) % HELD_OUT == HELD_OUT - 1
        if (~held).sum() < MIN_FRAMES or held.sum() < 2:
            return None
        pair, watched = self._pair, self._pair.train(rows[~held])
        y, inner = pair.y[rows[held]], watched.links[pair.source.model]
        if not isinstance(inner, VecToVec):  # only these have a hidden layer to read
            return None
        coded = y if watched.code is None else watched.code.encode(y)
        predictor = fit_loss_predictor(inner, pair.x[rows[held]], coded, seed=pair.seed)
        return lambda x: predictor.predict(x).astype(np.float64)

    def _wanted(self, rows: slice, quota: int, urgency: Urgency | None) -> Rows:
        """Return up to ``quota`` rows to label: those above the threshold as they come, or evenly spread ones."""
        frames = rows.stop - rows.start
        quota = min(quota, frames)
        if quota <= 0:
            return np.empty(0, np.intp)
        even = np.unique(np.linspace(rows.start, rows.stop - 1, quota + 2).astype(int)[1:-1])
        if urgency is None:
            return even
        wanted = urgency(self._pair.x[rows])
        first = not np.isfinite(self._threshold)
        above = np.flatnonzero(wanted >= self._threshold)[:quota] + rows.start
        self._threshold = float(np.quantile(wanted, 1.0 - quota / frames))
        return even if first else above

    def _watch(self, number: int, score: float) -> None:
        """Tell the detector how the link agreed with the newest label; at drift, forget the labels before."""
        if self._detector is None:
            return
        self._detector.update(score)
        if self._detector.drift_detected:
            self._drifts.append(number)
            keep = max(MIN_FRAMES, int(self._detector.width))
            self._forgotten = max(self._forgotten, len(self._labelled) - keep)


def _adwin() -> Any:
    from river.drift import ADWIN

    make: Any = ADWIN  # river's classes carry no annotations
    return make(delta=ADWIN_DELTA, clock=1, min_window_length=4, grace_period=MIN_FRAMES)  # labels are few
