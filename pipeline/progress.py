"""What can be said of a run while it goes on: frames, share of executions, agreement so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.operators.certificates import is_on_trial
from camlink.pipeline.records import CameraEvent, Decision, FrameDropped, FrameResult, Record

AWAY = {"down": "down", "frozen": "frozen", "recovered": None, "thawed": None, "ended": None}  # what events come to


@dataclass
class Progress:
    """Counters over the records that reach the results log. Raw means: the report has the weighted ones."""

    specs: Mapping[str, OutputSpec]
    frames: int = 0  # served or dropped
    dropped: int = 0  # of these, those that no model saw
    executions: int = 0
    audit_frames: int = 0
    agreement_sum: float = 0.0
    last_decision: str = ""
    away: dict[str, str] = field(default_factory=dict)  # cameras that give no frames now -> "down" or "frozen"
    _models: int = field(init=False)

    def __post_init__(self) -> None:
        self._models = len(self.specs)

    def observe(self, records: Sequence[Record]) -> None:
        """Count what has come."""
        for record in records:
            if isinstance(record, FrameResult):
                self.executions += sum(o.how == "executed" for o in record.outputs)
                self.frames += record.purpose != "relabel"
                if record.purpose == "audit":
                    self._score(record)
            elif isinstance(record, FrameDropped):
                self.frames += record.count
                self.dropped += record.count
            elif isinstance(record, CameraEvent) and record.kind in AWAY:
                self._note(record.camera_id, AWAY[record.kind])
            elif isinstance(record, Decision):
                self.last_decision = f"{record.camera_id}: {record.reason}"

    @property
    def executed_share(self) -> float:
        """Share of the model executions made of those possible on frames that models saw: a dropped one saves none."""
        possible = (self.frames - self.dropped) * self._models
        return self.executions / possible if possible else 1.0

    @property
    def agreement(self) -> float | None:
        """Mean agreement over all models of the audit frames so far; None before the first."""
        return self.agreement_sum / self.audit_frames if self.audit_frames else None

    def _note(self, camera_id: str, state: str | None) -> None:
        if state is None:
            self.away.pop(camera_id, None)
        else:
            self.away[camera_id] = state

    def _score(self, result: FrameResult) -> None:
        executed = result.executed()
        wrong = 0.0
        for shadow in result.outputs:
            if shadow.served or shadow.model not in executed or is_on_trial(shadow):
                continue
            if shadow.value is None:
                wrong += 1.0
            else:
                spec = self.specs[shadow.model]
                wrong += 1.0 - float(agreement(spec, shadow.value[None], executed[shadow.model][None])[0])
        self.audit_frames += 1
        self.agreement_sum += 1.0 - wrong / self._models
