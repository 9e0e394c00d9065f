"""What can be said of a run while it goes on: frames, share of executions, agreement so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.operators.certificates import is_on_trial
from camlink.pipeline.quantities import counted, learning_words
from camlink.pipeline.records import EXECUTIONS, CameraEvent, Decision, FrameDropped, FrameResult, Record

AWAY = {"down": "down", "frozen": "frozen", "recovered": None, "thawed": None, "ended": None}  # what events come to


@dataclass
class Progress:
    """Counters over the records that reach the results log. Raw means: the report has the weighted ones."""

    specs: Mapping[str, OutputSpec]
    frames: int = 0  # served or dropped
    dropped: int = 0  # of these, those that no model saw
    overtaken: int = 0  # of these, those answered without a model as the next frame was there already
    executions: int = 0
    audit_frames: int = 0
    agreement_sum: float = 0.0
    learning_frames: dict[str, int] = field(default_factory=dict)  # camera -> frames before its first decision
    away: dict[str, str] = field(default_factory=dict)  # cameras that give no frames now -> "down" or "frozen"
    _models: int = field(init=False)
    _learning: dict[str, int] = field(default_factory=dict)  # cameras without a decision -> frames so far
    _decided: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._models = len(self.specs)

    def observe(self, records: Sequence[Record]) -> None:
        """Count what has come."""
        for record in records:
            if isinstance(record, FrameResult):
                self.executions += sum(o.how in EXECUTIONS for o in record.outputs)
                self.frames += record.purpose != "relabel"
                self.overtaken += record.purpose == "overtaken"
                if record.purpose == "profile" and record.camera_id not in self._decided:
                    self._learning[record.camera_id] = self._learning.get(record.camera_id, 0) + 1
                if record.purpose == "audit":
                    self._score(record)
            elif isinstance(record, FrameDropped):
                self.frames += record.count
                self.dropped += record.count
            elif isinstance(record, CameraEvent) and record.kind in AWAY:
                self._note(record.camera_id, AWAY[record.kind])
            elif isinstance(record, Decision):
                self._decided.add(record.camera_id)
                self._learning.pop(record.camera_id, None)

    @property
    def executed_share(self) -> float:
        """Share of the model executions made of those possible on frames that models saw: a dropped one saves none."""
        possible = (self.frames - self.dropped) * self._models
        return self.executions / possible if possible else 1.0

    @property
    def learning(self) -> str:
        """Say how far cameras are that have no decision yet, so that every model runs; empty where all have one."""
        if not self._learning:
            return ""
        asked = [self.learning_frames.get(camera, 0) for camera in self._learning]
        words = learning_words(sum(self._learning.values()), sum(asked) if all(asked) else 0)
        return f"{counted(len(self._learning), 'camera')} still {words}" if self._decided else words

    @property
    def all_learning(self) -> bool:
        """Whether no camera has a decision yet, so that nothing can have been saved or measured."""
        return bool(self._learning) and not self._decided

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
