"""Aims at an accuracy instead of a budget: moves the price until what is served is expected to agree as asked.

The outlook of each model says at which price a target would just be met (`camlink.operators.worth.Prices`). That is a
forecast; the aim holds it against what the policy states of its answers, frame by frame, as put right by what became of
such answers (`camlink.operators.recalibration`, which learns from executions and from audits):

    log price += gain * (allowed - expected) / allowed

That adds up over the whole period: what was missed so far is made up for. So the mean of what is expected comes to
what is allowed, but for the log of the price over gain times frames, and where answers prove worse than stated, more
is executed. Allowed is a part (`Pace.caution`) of what the target leaves: what looks uncertain is executed, so that
what is answered looks surer than it is, which only audits tell.

The mean over models and frames, executions included, which the lab asks for, has a pace of its own (`OF_MEAN`): it is
of clips, whose forecast begins too hopeful, and which are over before a slow price has followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import NamedTuple

from camlink.operators.policy import PolicySetup
from camlink.operators.policy_state import State
from camlink.operators.worth import Outlook, Prices, price_for_answers

REACH = 4.0  # farthest from the forecast, in logs
RETURN = 0.01  # of the way back up to the forecast, per frame without an answer


class Pace(NamedTuple):
    """How far beyond its target an aim aims, and how fast it moves the price.

    ``worst``: times what is allowed, as which anything worse counts: one frame should not throw the price over. But
    what is cut off there is not made up for.
    """

    caution: float  # of what the target leaves: allowed
    gain: float  # per frame
    worst: float


OF_ANSWERS = Pace(caution=0.75, gain=0.02, worst=4.0)  # of one model; set on three clips
OF_MEAN = Pace(caution=0.65, gain=0.04, worst=10.0)  # set on tuned traces, clips and cars: docs/policy-results.md


class Aim:
    """At an agreement of ``target``.

    >>> aim = Aim(0.9)
    >>> for _ in range(10): aim.told(0.2)
    >>> aim.factor < 1.0
    True
    """

    def __init__(self, target: float, pace: Pace = OF_ANSWERS) -> None:
        self.target = target
        self.aimed = 1.0 - pace.caution * (1.0 - target)
        self._pace = pace
        self._off = 0.0

    @property
    def factor(self) -> float:
        """By how much the forecast price is to be multiplied."""
        return exp(self._off)

    def told(self, wrong: float) -> None:
        """Take in the expected disagreement, 0..1, of what was served."""
        allowed = max(1.0 - self.aimed, 1e-6)
        self._off += self._pace.gain * (1.0 - min(wrong / allowed, self._pace.worst))
        self._off = min(max(self._off, -REACH), REACH)

    def rest(self) -> None:
        """Nothing was answered: from below come back to the forecast slowly, or a model always executed for ever."""
        if self._off < 0.0:
            self._off *= 1.0 - RETURN

    def state(self) -> State:
        """Return where it stands, for a snapshot."""
        return {"target": self.target, "off": self._off}

    def resume(self, state: State) -> None:
        """Take up what `state` told, if it was of the same target."""
        if state["target"] == self.target:
            self._off = float(state["off"])


class Aims:
    """The aims of one camera: one for the mean over its models and frames, or one for the answers of each model."""

    def __init__(self, setup: PolicySetup) -> None:
        self._models = len(setup.specs)
        self._all = None if setup.target_agreement is None else Aim(setup.target_agreement, OF_MEAN)
        self._each = {name: Aim(target) for name, target in setup.targets.items() if name in setup.specs}
        self._forecast: dict[str, float] = {}

    def __bool__(self) -> bool:
        return self._all is not None or bool(self._each)

    def look(self, outlooks: Mapping[str, Outlook]) -> float:
        """Forecast the price per ms of each model at which the targets are just met, and return the highest.

        Models without a target, where others have one, execute on every frame.
        """
        if self._all is not None:
            self._forecast = dict.fromkeys(outlooks, Prices(list(outlooks.values())).for_agreement(self._all.aimed))
        else:
            aimed = {name: (outlooks[name], aim) for name, aim in self._each.items() if name in outlooks}
            self._forecast = {name: price_for_answers(o, aim.aimed) for name, (o, aim) in aimed.items()}
        return max(self._forecast.values(), default=0.0)

    def price(self, name: str) -> float:
        """Return the price per ms that executing a model has to be worth."""
        aim = self._all or self._each.get(name)
        return 0.0 if aim is None else self._forecast.get(name, 0.0) * aim.factor

    def served(self, wrong: Mapping[str, float]) -> None:
        """Take in a frame's answers: the expected disagreement of each; models that are not there were executed."""
        if self._all is not None:
            self._all.told(sum(wrong.values()) / self._models)
        for name, aim in self._each.items():
            if name in wrong:
                aim.told(wrong[name])
            else:
                aim.rest()

    def state(self) -> State:
        """Return where they stand, for a snapshot."""
        return {
            "all": None if self._all is None else self._all.state(),
            "each": {name: aim.state() for name, aim in self._each.items()},
            "forecast": self._forecast,
        }

    def resume(self, state: State) -> None:
        """Take up what `state` told of the same targets."""
        if self._all is not None and state["all"] is not None:
            self._all.resume(state["all"])
        for name in self._each.keys() & state["each"].keys():
            self._each[name].resume(state["each"][name])
        self._forecast = {str(name): float(price) for name, price in state["forecast"].items()}
