"""What a per-frame policy knows of one model: its executions, how fresh they stay, and what it usually says."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.scores import agrees_by_degrees
from camlink.operators.belief import Belief, Frequencies, Guess, Levels, Reading
from camlink.operators.freshness import Freshness
from camlink.operators.graded import Graded
from camlink.operators.leveled import Leveled
from camlink.operators.link_pool import Known
from camlink.operators.own_evidence import OwnEvidence
from camlink.operators.policy_state import State, array
from camlink.operators.recalibration import Recalibration
from camlink.operators.scene import Moment
from camlink.operators.worth import Outlook
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Detections, Value

BACK = (1, 2, 4, 8, 16, 32)  # executions back that a fully executed frame is compared with
BACK_CHOSEN = (1, 2)
WEIGHT = 0.4  # of such a comparison where all of `BACK` are made: they are not independent
OWN_BACK = (2, 4, 8)  # executions back that its own evidence is learnt from besides, on a fully executed frame


def belief_of(spec: OutputSpec) -> Belief:
    """Return the belief that fits the task of ``spec``."""
    return Graded(spec) if agrees_by_degrees(spec) else Leveled(spec)


class Execution(NamedTuple):
    """One of a model.

    ``stale``: its belief's, then; ``others``: what the others had said last, this frame included; ``sure``: how sure
    the model was (`OwnEvidence.read`), where that is known.
    """

    at: Moment
    said: Reading
    stale: float
    others: Mapping[str, Levels]
    sure: NDArray[np.float64] | None = None


class Told(NamedTuple):
    """What links told of a model on a frame on which it did not execute. ``chances``: P(level), (E, levels)."""

    at: Moment
    chances: Frequencies


class PutOff(NamedTuple):
    """A frame of which more will be learnt later: when it was, and what was answered on it."""

    at: Moment
    time_s: float
    stated: Mapping[str, Guess]


@dataclass(eq=False)
class KnownModel:
    """What is known of one model."""

    name: str
    spec: OutputSpec
    time_ms: float
    belief: Belief
    freshness: Freshness = field(default_factory=Freshness)
    past: deque[Execution] = field(default_factory=lambda: deque(maxlen=max(BACK)))
    told: Told | None = None  # by links, since it last executed
    outlook: Outlook | None = None
    recalibration: Recalibration = field(default_factory=Recalibration)
    own: OwnEvidence = field(init=False)

    def __post_init__(self) -> None:
        self.own = OwnEvidence(self.spec)

    def known(self, now: Moment, time_s: float, then: Execution, gone: float | None = None) -> Known:
        """Return what is known of it on a frame without links, had it last executed ``then``.

        ``gone``: the chance that this has changed since, where that is known already.
        """
        holds = 1.0 - (self.freshness.gone(now.since(then.at)) if gone is None else gone)
        fresh = self.freshness.steady * holds
        return self.own.known(self.belief.usual, self.belief.levels(then.said), fresh, then.sure, holds, time_s)

    def learn_own(
        self,
        now: Moment,
        time_s: float,
        value: Value,
        detections: Detections | None,
        known: Known | None,
        *,
        chosen: bool,
    ) -> NDArray[np.float64] | None:
        """Learn what its own outputs tell, before `learn`, and return how sure this one is.

        ``known``: what was known of it on this frame, if anything.
        """
        said, weight = self.belief.levels(self.belief.read(value)), 1.0 if chosen else WEIGHT
        if known is not None and self.own.is_weighed():
            self.own.weigh(known, said, weight)
            for back in () if chosen else OWN_BACK:
                if back <= len(self.past):
                    self.own.weigh(self.known(now, time_s, self.past[-back]), said, weight)
        self.own.take(said, time_s)
        return self.own.read(value, detections)

    def learn(
        self, now: Moment, value: Value, others: Mapping[str, Levels], sure: NDArray[np.float64] | None, chosen: bool
    ) -> None:
        belief, past = self.belief, self.past
        reading = belief.read(value)
        for back in BACK_CHOSEN if chosen else BACK:
            if back <= len(past):
                then = past[-back]
                weight = (1.0 if back == 1 else 0.5) if chosen else WEIGHT
                disagreed = belief.disagreement(then.said, reading)
                self.freshness.observe(now.since(then.at), then.stale, disagreed, weight)
        belief.take(value)
        self.told = None
        past.append(Execution(now, reading, belief.stale, others, sure))

    def look(self, activity: float) -> Outlook:
        self.outlook = Outlook(
            self.belief.stale,
            self.belief.renewed,
            self.freshness.steady,
            self.freshness.hazard(activity),
            self.time_ms,
        )
        return self.outlook

    def state(self) -> State:
        """Return all of it, for a snapshot."""
        past = self.past
        return {
            "belief": self.belief.state(),
            "freshness": self.freshness.state(),
            "at": [list(e.at) for e in past],
            "said": self.belief.put_readings([e.said for e in past]),
            "stale": [e.stale for e in past],
            "sure": [e.sure for e in past],
            "others": {name: np.array([e.others[name] for e in past]) for name in (past[0].others if past else ())},
            "told": None if self.told is None else {"at": list(self.told.at), "chances": self.told.chances},
            "outlook": None if self.outlook is None else astuple(self.outlook),
            "recalibration": self.recalibration.state(),
            "own": self.own.state(),
        }

    def resume(self, state: State, readings: Mapping[str, Levels]) -> None:
        """Take up what `state` told; ``readings``: what the levels of the others look like.

        Raises `StateError`, and `KeyError` for others that are not there.
        """
        self.belief.resume(state["belief"])
        self.freshness.resume(state["freshness"])
        self.past.clear()
        if state["at"]:
            said = self.belief.get_readings(state["said"])
            others = {m: array(state["others"][m], like[None], free=(0,)) for m, like in readings.items()}
            for i, (at, stale, sure) in enumerate(zip(state["at"], state["stale"], state["sure"], strict=True)):
                beside = {m: levels[i] for m, levels in others.items()}
                self.past.append(Execution(Moment(*at), said[i], float(stale), beside, self._sure(sure)))
        self.told = self._told(state["told"])
        self.outlook = None if state["outlook"] is None else Outlook(*state["outlook"])
        self.recalibration.resume(state["recalibration"])
        self.own.resume(state["own"])

    def _sure(self, state: object) -> NDArray[np.float64] | None:
        return None if state is None else array(state, self.own.shape())

    def _told(self, state: State | None) -> Told | None:
        if state is None:
            return None
        if not self.past:
            raise StateError(f"not a snapshot: links told of {self.name}, which never executed")
        return Told(Moment(*state["at"]), array(state["chances"], self.belief.usual))
