"""How much of executing everything a machine has time for, found while it works.

A time budget says what cameras may take; whether the machine can give that much depends on what else it does, on how
many cameras there are and on how well their frames share batches. Where it cannot, frames come faster than they are
dealt with, and a policy that went on choosing as before would leave every other frame without a choice at all. Told of
less, it spends that little where it matters most, on all frames.

Every few seconds there is an estimate: of the time that passed, `BUSY` may be used; what full frames took of it, such
as audits, cannot be chosen, nor can what passed beside models, which shows where frames had to wait: nobody was idle
then. What is left is for all frames, those too on which nothing could be chosen, and cameras share it by what they gain
from it (`camlink.operators.shares`).
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import astuple, dataclass
from statistics import median_low

from camlink.operators.shares import Demand, Shares

logger = logging.getLogger(__name__)

BUSY = 0.9  # of the time may be used up; the rest is for bursts
EVERY_S, FEWEST = 5.0, 50  # the share is found anew so often, where there were so many frames
KEPT = 0.7  # of what was seen before: audits are few, and one takes long
FASTEST = 0.7, 1.25  # that the share changes by at once
LEAST = 0.01
GAPS = 51


@dataclass
class _Seen:
    frames: float = 0.0
    chosen: float = 0.0  # those on which policies chose
    cost_ms: float = 0.0  # of what was chosen, by the models' costs
    took_ms: float = 0.0  # the same by the clock
    full_ms: float = 0.0  # what all else took that models did
    passed_ms: float = 0.0
    beside_ms: float = 0.0  # what passed beside models


class Throttle:
    """Follows one worker's frames, by ``seconds``, and what its models take of the time (``busy_ms``, rising).

    Frames come in waves: `choosing`, then `chose`, then `see`.
    """

    def __init__(
        self,
        time_ms: Mapping[str, float],
        busy_ms: Callable[[], float],
        seconds: Callable[[], float],
        asked: float | None = None,
    ) -> None:
        """``time_ms``: what each model costs on a frame; ``asked``: the time share that cameras may take, if any."""
        self._time_ms, self._busy_ms, self._seconds, self._asked = time_ms, busy_ms, seconds, asked
        self.share = 1.0  # of the mean over all frames
        self.shares: Mapping[str, float] = {}  # of it, each camera's
        self._among = Shares()
        self._is_told = False
        self._seen = _Seen()
        self._last_s, self._was_behind = seconds(), False  # when the last wave ended, and whether it had to wait
        self._due_s = self._last_s + EVERY_S
        self._gap_ms = self._until_ms = 0.0
        self._gaps_ms = deque[float](maxlen=GAPS)  # before waves that had to wait: nobody was idle then
        self._usual_ms = 0.0  # of these

    def choosing(self, frames: int) -> None:
        """Take in that policies are about to choose on so many frames of a wave."""
        self._gap_ms = 1000.0 * min(self._seconds() - self._last_s, EVERY_S)
        self._until_ms = self._busy_ms()
        self._seen.chosen += frames

    def chose(self, executed: Iterable[str]) -> None:
        """Take in what they chose; what models do after that, they do on full frames."""
        self._seen.took_ms += self._since()
        self._seen.cost_ms += sum(self._time_ms[model] for model in executed)

    def see(self, frames: Collection[tuple[str, str]]) -> bool:
        """Take in that a wave is over, and whose frames they were and what for; say whether to share anew from here on.

        Frames to learn from are taken for such as policies chose everything on: they will choose after that.
        """
        self._among.see(camera for camera, _ in frames)
        came = Counter(purpose for _, purpose in frames)
        seen, full_ms, now_s = self._seen, self._since(), self._seconds()
        learnt = came["profile"] / max(came["profile"] + came["audit"], 1)
        seen.chosen += came["profile"]
        seen.cost_ms += came["profile"] * sum(self._time_ms.values())
        seen.took_ms += learnt * full_ms
        seen.full_ms += (1.0 - learnt) * full_ms
        seen.frames += came.total()
        seen.passed_ms += 1000.0 * min(now_s - self._last_s, EVERY_S)  # a night without frames says nothing of the day
        if came["overtaken"] or self._was_behind:  # the newest frames come right after those that they overtook
            self._gaps_ms.append(self._gap_ms)
            seen.beside_ms += self._gap_ms
        else:
            seen.beside_ms += min(self._gap_ms, self._usual_ms)
        self._last_s, self._was_behind = now_s, came["overtaken"] > 0
        if now_s < self._due_s or seen.frames < FEWEST or not seen.chosen:
            return False
        before, self.share = self.share, self._next(seen)
        self._due_s = now_s + EVERY_S
        self._seen = _Seen(*(KEPT * value for value in astuple(seen)))
        self._among.age()
        self._tell(before)
        return min(before, self.share) < 1.0

    def shared(self, demands: Mapping[str, Demand | None]) -> Mapping[str, float]:
        """Return the share of each camera, by what these would take; None where that is not known yet."""
        self.shares = self._among.of(self.share, demands)
        return self.shares

    def _since(self) -> float:
        """Return what models took since this was asked for last, in ms."""
        before, self._until_ms = self._until_ms, self._busy_ms()
        return self._until_ms - before

    def _next(self, seen: _Seen) -> float:
        self._usual_ms = median_low(self._gaps_ms) if self._gaps_ms else 0.0  # one that was long says nothing of others
        left_ms = max(0.0, BUSY * seen.passed_ms - seen.full_ms - seen.beside_ms) / seen.frames
        least, most = (change * self.share for change in FASTEST)
        if seen.took_ms:
            used = seen.cost_ms / (seen.chosen * sum(self._time_ms.values()))  # of executing everything
            found = used * left_ms * seen.chosen / seen.took_ms
        else:
            found = most if left_ms else least
        return min(1.0, max(LEAST, least, min(found, most)))

    def _tell(self, before: float) -> None:
        """Say, once, that less executes than was asked for."""
        if self._asked is not None and self.share < self._asked < 1.0 and self._asked <= before and not self._is_told:
            self._is_told = True
            logger.warning(
                "this machine has no time for the %.0f %% of executing every model on every frame that "
                "budgets.time_share allows: what it has time for executes where it matters most",
                100.0 * self._asked,
            )
