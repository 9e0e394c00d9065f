"""How often a camera's frames are audited, period by period: a fixed share, or more where intervals are widest.

``widest`` audits up to four times the share in a period that begins with a wide interval, and down to a quarter where
all intervals are narrow. What it spends is what it saved before: over its life a camera is never audited on more than
its share of frames, up to the frames that a period turned out to have more than the one before. Each frame's chance is
recorded, so that estimates stay unbiased whatever the rule. Cameras do not share: what is known of one camera would
then depend on the others, and rows would depend on how cameras are spread over workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from camlink.operators.evidence import Certificate
from camlink.operators.snapshots import reading

Spend = Literal["fixed", "widest"]
NARROW = 0.1  # width of an interval that needs no more than the share
LEAST, MOST = 0.25, 4.0  # times the share


@dataclass
class AuditAccount:
    """One camera's audits: ``saved`` counts the audits that its share allowed and its chances did not use."""

    share: float
    saved: float = 0.0
    frames: int = 0  # served since the last decision

    def observe(self, chance: float) -> None:
        """Note a frame that was to be audited with ``chance``."""
        self.saved += self.share - chance
        self.frames += 1

    def state(self) -> dict[str, float]:
        """Return what `resume` reads, as plain numbers."""
        return {"saved": self.saved, "frames": self.frames}

    def resume(self, told: Mapping[str, Any]) -> None:
        """Go on with what another worker had saved. Raises `StateError`, and changes nothing, for what is no state."""
        with reading():
            saved, frames = float(told["saved"]), int(told["frames"])
        self.saved, self.frames = saved, frames

    def next_share(self, certificates: Iterable[Certificate]) -> float:
        """Return the chance for the frames of the next period, taken to be as many as in the last."""
        width = max((_width(certificate) for certificate in certificates), default=1.0)  # nothing is known yet
        wanted = self.share * min(max(width / NARROW, LEAST), MOST)
        allowed = self.share + max(self.saved, 0.0) / self.frames if self.frames else self.share
        self.frames = 0
        return min(wanted, max(allowed, self.share * LEAST), 1.0)


def _width(certificate: Certificate) -> float:
    return 1.0 if certificate.low is None or certificate.high is None else certificate.high - certificate.low
