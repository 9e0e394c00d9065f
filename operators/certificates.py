"""Certificates from the stream of results: which frames were predicted, which of them were audited, and how that went.

A ledger takes results in the order of the pipeline and keeps, per camera, model and span of time, the evidence of
`camlink.operators.evidence`. Evidence of several spans and cameras adds up, so that a day, a domain or the fleet has a
certificate of its own:

    ledger = Ledger(specs, timedelta(hours=1))
    ledger.observe(result)
    certify(ledger.evidence(["hall", "yard"], "persons", since=midnight))

Two populations (docs/accuracy.md): a model's certificate is about its *predicted outputs*; that of ``ALL`` is about all
outputs, per frame the mean over the models, where an executed one counts 1 (MLink Eq. 1). An output that abstained
counts 0 in both. Profile and relabel frames belong to neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from camlink.models.base import OutputSpec
from camlink.models.scores import RULES, agreement
from camlink.operators.evidence import Evidence, combined, known, observe
from camlink.pipeline.clock import EPOCH
from camlink.pipeline.records import JUDGED, FrameResult, ModelOutput

ALL = ""  # no model has an empty name
ON_TRIAL = "on trial"  # how the reason of a shadow begins that is not served because its target is not met


@dataclass(frozen=True, slots=True)
class Judged:
    """What one frame says of one model: its agreement, or None where only an audit would tell.

    ``sampled``: the model was predicted, so that a coin decided whether the agreement is known.
    """

    agreement: float | None
    sampled: bool


class RecentFrames:
    """Knows a camera's latest frames again: what is delivered twice must not count twice."""

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._seen: dict[int, None] = {}

    def is_new(self, frame_index: int) -> bool:
        """Note a frame; say whether it was not among the last ``most``."""
        if frame_index in self._seen:
            return False
        self._seen[frame_index] = None
        if len(self._seen) > self._most:
            del self._seen[next(iter(self._seen))]
        return True


class Stream:
    """Evidence that grows frame by frame. Unaudited frames only count up until something else happens."""

    __slots__ = ("_chance", "_evidence", "_waiting")

    def __init__(self, evidence: Evidence | None = None) -> None:
        self._evidence = evidence or Evidence()
        self._chance = 0.0
        self._waiting = 0

    def add(self, judged: Judged, chance: float, *, audited: bool) -> None:
        """Take one frame that was to be audited with ``chance``."""
        if not judged.sampled:
            assert judged.agreement is not None
            self._evidence = self.evidence + known(judged.agreement, audits=int(audited))
        elif judged.agreement is not None:
            self._evidence = observe(self.evidence, chance, judged.agreement)
        else:
            if self._waiting and chance != self._chance:
                self._evidence = self.evidence
            self._chance, self._waiting = chance, self._waiting + 1

    def to_bytes(self) -> bytes:
        """Serialise, so that `from_bytes` goes on to the very same numbers."""
        return np.concatenate(([self._chance, self._waiting], self._evidence.numbers())).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Stream:
        """Read what `to_bytes` wrote. Raises `ValueError` for anything else."""
        numbers = np.frombuffer(data, np.float64)
        stream = cls(Evidence.from_numbers(numbers[2:]))
        stream._chance, stream._waiting = float(numbers[0]), int(numbers[1])
        return stream

    @property
    def evidence(self) -> Evidence:
        """All that was taken so far."""
        if self._waiting:
            self._evidence = observe(self._evidence, self._chance, math.nan, frames=self._waiting)
            self._waiting = 0
        return self._evidence


class Ledger:
    """Evidence per camera, model (or ``ALL``) and span of event time, from results in order."""

    def __init__(self, specs: Mapping[str, OutputSpec], span: timedelta) -> None:
        self._specs = {name: spec for name, spec in specs.items() if spec.task in RULES}
        self._span = span
        self._streams: dict[tuple[str, str, datetime], Stream] = {}
        self._recent: dict[str, RecentFrames] = {}

    def observe(self, result: FrameResult) -> None:
        """Take one frame's outputs; those of profile and relabel frames, and repeats, say nothing here."""
        if result.purpose not in JUDGED:
            return
        if not self._recent.setdefault(result.camera_id, RecentFrames()).is_new(result.frame_index):
            return
        start = result.captured_at - (result.captured_at - EPOCH) % self._span
        judged = judge(result, self._specs)
        for model, one in judged.items():
            if one is not None:
                self._add(result, model, start, one)
        if judged:
            self._add(result, ALL, start, _of_all(judged))

    def evidence(
        self,
        cameras: Iterable[str] | None = None,
        model: str = ALL,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Evidence:
        """Return the evidence of some cameras (default: all) and of the spans that start in [since, until)."""
        chosen = None if cameras is None else set(cameras)
        return combined(
            stream.evidence
            for (camera, name, start), stream in self._streams.items()
            if name == model
            and (chosen is None or camera in chosen)
            and (since is None or start >= since)
            and (until is None or start < until)
        )

    def spans(self, camera: str, model: str = ALL) -> dict[datetime, Evidence]:
        """Return the evidence of each span of one camera, by its start."""
        found = {s: stream.evidence for (c, m, s), stream in self._streams.items() if (c, m) == (camera, model)}
        return dict(sorted(found.items()))

    def forget_before(self, moment: datetime) -> None:
        """Drop spans that start before ``moment``."""
        self._streams = {key: stream for key, stream in self._streams.items() if key[2] >= moment}

    def _add(self, result: FrameResult, model: str, start: datetime, judged: Judged) -> None:
        stream = self._streams.setdefault((result.camera_id, model, start), Stream())
        lost = result.purpose == "audit" and judged.sampled and judged.agreement is None
        chance = 0.0 if lost else result.audit_probability or 0.0  # the coin fell, but the model failed to answer
        stream.add(judged, chance, audited=result.purpose == "audit")


def judge(result: FrameResult, specs: Mapping[str, OutputSpec]) -> dict[str, Judged | None]:
    """Return what a serve or audit frame says of each model of ``specs``; None of one that it executes."""
    served = {o.model: o for o in result.outputs if o.served}
    shadows = {o.model: o for o in result.outputs if not o.served and not is_on_trial(o)}
    return {model: _judge(spec, served[model], shadows.get(model)) for model, spec in specs.items() if model in served}


def is_on_trial(output: ModelOutput) -> bool:
    """Say whether a shadow was made only to see whether its target is met by now."""
    return not output.served and (output.reason or "").startswith(ON_TRIAL)


def _judge(spec: OutputSpec, served: ModelOutput, shadow: ModelOutput | None) -> Judged | None:
    if served.how == "abstained":
        return Judged(0.0, sampled=False)
    if served.how != "executed":
        return Judged(None, sampled=True)
    if shadow is None:
        return None
    if shadow.value is None or served.value is None:
        return Judged(0.0, sampled=False)
    return Judged(float(agreement(spec, shadow.value[None, :], served.value[None, :])[0]), sampled=True)


def _of_all(judged: Mapping[str, Judged | None]) -> Judged:
    """Return the mean over the models; unknown as a whole where one is."""
    each = [1.0 if one is None else one.agreement for one in judged.values()]
    told = [agreement for agreement in each if agreement is not None]
    sampled = any(one is not None and one.sampled for one in judged.values())
    return Judged(float(np.mean(told)) if len(told) == len(each) else None, sampled)
