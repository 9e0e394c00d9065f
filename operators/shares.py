"""The time that a machine has, shared among its cameras by what they gain from it.

The most agreement for a given time is had at one price: as long as a millisecond gains more on one camera than on
another, it is better spent there. What a policy would take at which price follows from its outlooks
(`camlink.operators.demands`), and at some price all together take what there is. Each camera counts alike, whatever its
frame rate: where frames come twice as often, one is worth half.

An outlook follows the scene within seconds, and may be wrong. So no camera has less than `LEAST` of an equal share, and
what each has moves but slowly towards what was found: one that is quiet now needs it when somebody walks in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from math import exp, log

LEAST = 0.25  # of an equal share, that each camera has whatever it seems to gain
SETTLES = 0.07  # of the way to what was found, each time; frame rates are means over as many
DEAREST, CHEAPEST = 10.0, 1e-9  # prices looked at, in expected agreement per ms, as in `camlink.operators.worth`
_BISECTIONS = 20
_FORGOTTEN = 0.01  # frames
_TINY = 1e-9

Demand = Callable[[float], float]  # price per ms -> share of executing everything


class Shares:
    """What each camera of one worker may execute, as a share of executing everything on each of its frames."""

    def __init__(self) -> None:
        self._frames: dict[str, float] = defaultdict(float)  # of late
        self._ratios: dict[str, float] = {}  # of what a camera has to an equal share

    def see(self, cameras: Iterable[str]) -> None:
        """Take in that a frame of each of these cameras has come, and of one as often as it is named."""
        for camera in cameras:
            self._frames[camera] += 1.0

    def age(self) -> None:
        """Let what was seen so far count for less; with each estimate of the time."""
        kept = {camera: (1.0 - SETTLES) * frames for camera, frames in self._frames.items() if frames > _FORGOTTEN}
        self._frames = defaultdict(float, kept)

    def of(self, share: float, demands: Mapping[str, Demand | None]) -> dict[str, float]:
        """Return what each camera may execute, where there is time for ``share`` on the mean of their frames.

        One that cannot say yet what it would take, as while it learns, has just that.
        """
        if share >= 1.0:
            self._ratios = {}
            return dict.fromkeys(demands, 1.0)
        known = {c: (self._frames[c], demand) for c, demand in demands.items() if demand and c in self._frames}
        ratios = {camera: self._ratios.get(camera, 1.0) for camera in known}
        for camera, found in _at_one_price(share, known).items():
            ratios[camera] += SETTLES * (found / share - ratios[camera])
        self._ratios = ratios
        rates = {camera: rate for camera, (rate, _) in known.items()}
        return dict.fromkeys(demands, share) | _fitted(share, {c: share * r for c, r in ratios.items()}, rates)


def _at_one_price(share: float, cameras: Mapping[str, tuple[float, Demand]]) -> dict[str, float]:
    """Return what each camera takes at the price at which all take what there is; of each, its rate and demand."""
    most = max((rate for rate, _ in cameras.values()), default=0.0)
    total = share * sum(rate for rate, _ in cameras.values())

    def at(price: float) -> dict[str, float]:
        return {c: max(LEAST * share, demand(price * rate / most)) for c, (rate, demand) in cameras.items()}

    low, high = log(CHEAPEST), log(DEAREST)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        if sum(cameras[c][0] * each for c, each in at(exp(middle)).items()) <= total:
            high = middle
        else:
            low = middle
    return at(exp(high))


def _fitted(share: float, shares: Mapping[str, float], rates: Mapping[str, float]) -> dict[str, float]:
    """Return ``shares`` moved towards the least, or towards all, by as much as makes ``share`` of their mean."""
    frames, least = sum(rates.values()), LEAST * share
    shares = {c: min(1.0, each) for c, each in shares.items()}
    above = sum(rates[c] * each for c, each in shares.items()) - share * frames
    end = least if above > 0.0 else 1.0
    room = sum(rates[c] * abs(each - end) for c, each in shares.items())
    moved = min(1.0, abs(above) / max(room, _TINY))
    return {c: each + moved * (end - each) for c, each in shares.items()}
