"""How far a stated chance of being wrong is to be believed, learnt online from what models then said (Platt scaling).

    logit(calibrated) = shift + slope * logit(stated)

Learnt from executed outputs: what would have been answered is stated first, held against the execution, and only then
learnt from. Models execute where the stated chance is high, which is no random sample; but given that chance, which is
all that the two numbers are fitted on, it nearly is. The answers on audit frames are a random sample of what is served,
and count twice.
Starts a little less sure than was stated, since what looks likely to be wrong is executed and what is answered looks
surer than it is; is held there as by a few executions that fitted; and forgets.
"""

from __future__ import annotations

from math import exp, log

from camlink.operators.compiled import compiled
from camlink.operators.policy_state import State

FIRST = (0.15, 0.95)  # shift and slope to begin with
FIRM = (5.0, 5.0)  # how firmly they are held there, in units of information
FORGET = 0.99  # per execution
AUDITED = 2.0  # weight of what an audit found, where an execution that was chosen has 1
LONGEST_STEP = 0.3
SLOPES = (0.2, 2.0)
_LEAST = 1e-4
_FLAT = 0.01  # information of a chance of 0 or 1


class Recalibration:
    """Of one model on one camera.

    >>> known = Recalibration()
    >>> round(known(0.2), 2)
    0.24
    >>> for _ in range(100): known.learn(0.2, 0.5)
    >>> round(known(0.2), 1)
    0.5
    """

    def __init__(self) -> None:
        self._shift, self._slope = FIRST
        self._information = (0.0, 0.0, 0.0)  # shift, both, slope
        self._held = FIRST  # at these

    def __call__(self, stated: float) -> float:
        """Return the calibrated chance of being wrong, 0..1."""
        return _calibrated(self._shift, self._slope, stated)

    def learn(self, stated: float, disagreed: float, weight: float = 1.0) -> None:
        """Take a Newton step: ``stated`` was the chance (or share) that turned out as ``disagreed``, 0..1."""
        self._shift, self._slope, self._information = _step(
            self._shift, self._slope, self._information, self._held, stated, disagreed, weight
        )

    def start_from(self, shift: float, slope: float) -> None:
        """Hold the two numbers at these, before anything was learnt."""
        self._shift, self._slope = self._held = shift, slope

    def state(self) -> State:
        """Return what was learnt, for a snapshot."""
        return {
            "shift": self._shift,
            "slope": self._slope,
            "information": list(self._information),
            "held": list(self._held),
        }

    def resume(self, state: State) -> None:
        """Take up what `state` told."""
        self._shift, self._slope = float(state["shift"]), float(state["slope"])
        one, both, two = map(float, state["information"])
        self._information = one, both, two
        self._held = float(state["held"][0]), float(state["held"][1])


@compiled
def _step(
    shift: float,
    slope: float,
    information: tuple[float, float, float],
    held: tuple[float, float],
    stated: float,
    disagreed: float,
    weight: float,
) -> tuple[float, float, tuple[float, float, float]]:
    """Return shift and slope after a Newton step, and the information on them."""
    x = _logit(stated)
    chance = _chance(shift + slope * x)
    new, off = weight * max(chance * (1.0 - chance), _FLAT), weight * (disagreed - chance)
    one = FORGET * information[0] + new
    both = FORGET * information[1] + new * x
    two = FORGET * information[2] + new * x * x
    firm_one, firm_two = one + FIRM[0], two + FIRM[1]
    pull_one = off + (1.0 - FORGET) * FIRM[0] * (held[0] - shift)
    pull_two = off * x + (1.0 - FORGET) * FIRM[1] * (held[1] - slope)
    area = firm_one * firm_two - both * both
    shift += _within((firm_two * pull_one - both * pull_two) / area, -LONGEST_STEP, LONGEST_STEP)
    slope += _within((firm_one * pull_two - both * pull_one) / area, -LONGEST_STEP, LONGEST_STEP)
    return shift, _within(slope, SLOPES[0], SLOPES[1]), (one, both, two)


@compiled
def _calibrated(shift: float, slope: float, stated: float) -> float:
    return _chance(shift + slope * _logit(stated))


@compiled
def _logit(chance: float) -> float:
    chance = _within(chance, _LEAST, 1.0 - _LEAST)
    return log(chance / (1.0 - chance))


@compiled
def _chance(logit: float) -> float:
    return 1.0 / (1.0 + exp(-_within(logit, -30.0, 30.0)))


@compiled
def _within(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)
