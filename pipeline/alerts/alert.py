"""One alert: what is said, how it is known, and how sure that is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Literal

from camlink.operators.evidence import Certificate

HowKnown = Literal["executed", "predicted", "measured", "observed"]
Confirmed = Literal["by execution", "not possible", "not asked"]


@dataclass(frozen=True)
class Alert:
    """What is sent. ``how``: the deciding value was executed or predicted; a target is measured, a camera observed."""

    rule: str
    camera_id: str
    kind: str
    since: datetime  # event time at which the condition began to hold
    at: datetime  # event time of the deciding frame or event
    how: HowKnown
    detail: str
    model: str | None = None
    label: str | None = None
    value: float | None = None
    above: float | None = None
    confirmed: Confirmed = "not asked"
    executed_frames: int = 0  # of those since it began
    predicted_frames: int = 0
    confidence: float | None = None  # what the links said of the deciding value, 0..1
    agreement: Certificate | None = None  # measured for this camera and model, at the time

    @property
    def id(self) -> str:
        """The same for the same event, also when it is found again after a crash: receivers may leave out repeats."""
        told = f"{self.rule}\n{self.camera_id}\n{self.since.isoformat()}"
        if self.kind == "target_not_met":  # one rule watches all models, and two may miss their targets on one frame
            told += f"\n{self.model}"
        return blake2b(told.encode(), digest_size=12).hexdigest()

    def to_json(self) -> bytes:
        """Return the body that is sent."""
        told = asdict(self) | {"id": self.id, "since": self.since.isoformat(), "at": self.at.isoformat()}
        if self.agreement is not None:
            names = ("estimate", "low", "high", "audits", "confidence")
            told["agreement"] = {name: getattr(self.agreement, name) for name in names}
        return json.dumps({"source": "camlink", **told}, ensure_ascii=False).encode()
