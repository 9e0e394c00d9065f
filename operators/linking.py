"""Linking: gathers a frame's executed outputs and predicts the rest, or abstains with a reason.

MLink Algorithm 1, line 8: y_i <- h_{A,i}({y_j}, j in A), for the models that the decision leaves out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from camlink.links.base import Array
from camlink.links.ensemble import Ensemble
from camlink.links.inputs import LinkInputs
from camlink.links.memory import Recall
from camlink.operators.base import Outputs, StateStore
from camlink.operators.certificates import ON_TRIAL, is_on_trial
from camlink.operators.inference import state_key
from camlink.operators.oracle import OracleNode
from camlink.operators.recall import LastExecuted
from camlink.pipeline.clock import Clock
from camlink.pipeline.errors import LinkError, StateError
from camlink.pipeline.records import NOT_FULL, FrameResult, How, LinkPromotion, ModelOutput, OutputReady, Record, Value

logger = logging.getLogger(__name__)

NOT_CHOSEN = "not chosen, and the policy does not predict"
DEADLINE = timedelta(seconds=10)  # how long a frame waits for outputs that were announced but cannot be found


@dataclass(frozen=True)
class _InForce:
    version: int
    ensemble: Ensemble


class LinkingOperator:
    """Word of executed outputs in, complete frame results out: every model executed, linked or abstained."""

    def __init__(
        self,
        models: Sequence[str],
        state: StateStore,
        clock: Clock | None = None,
        inputs: LinkInputs | None = None,
        oracle: OracleNode | None = None,
        least_confidence: Callable[[str], float] | None = None,
    ) -> None:
        """With a ``clock``, frames wait for lost outputs from when they come; without, from when they were captured.

        ``inputs``: what links read of a frame, where that is more than the executed values. ``oracle``: what says
        beside each result what a person would. ``least_confidence``: what an answer for a model must have to be given.
        """
        self._clock = clock
        self._oracle = oracle
        self._least_confidence = least_confidence or (lambda model: 0.0)
        self._inputs = inputs or LinkInputs({})
        self._models = tuple(models)
        self._state = state
        self._links: dict[str, dict[str, _InForce]] = {}  # camera -> target -> links
        self._last: dict[str, LastExecuted] = {}  # camera -> what each model said last
        self._last_checked: dict[str, LastExecuted] = {}  # the same without frames that ran on a decision's word
        self._waiting: list[tuple[datetime, OutputReady]] = []
        self._came: dict[str, datetime] = {}

    def expect(self, ready: OutputReady) -> None:
        """Count the wait for a frame's outputs from now on, though the frame itself may be handed over later.

        Frames wait for one another; if each began to wait for lost outputs in its turn, there would be no end to it.
        """
        if self._clock is not None:
            self._came.setdefault(_key_of(ready), self._clock.now())

    def on_records(self, records: Sequence[Record]) -> Iterable[Record]:
        ready: list[OutputReady] = []
        for record in records:
            if isinstance(record, LinkPromotion):
                in_force = _InForce(record.version, Ensemble.from_bytes(record.payload))
                self._links.setdefault(record.camera_id, {})[record.target] = in_force
            elif isinstance(record, OutputReady):
                ready.append(record)
        for record, outputs in zip(ready, self._gather(ready), strict=True):
            if outputs is None and record.ran:
                self._waiting.append((self._since(record) + DEADLINE, record))
            else:
                yield from self._told(self._result(record, outputs or ()))

    def on_time(self, now: datetime) -> Iterable[Record]:
        late, self._waiting = self._waiting, []
        for (deadline, record), outputs in zip(late, self._gather([r for _, r in late]), strict=True):
            if outputs is not None:
                yield from self._told(self._result(record, outputs))
            elif deadline <= now:
                yield self._result(record, (), lost="executed output was lost before it could be used")
            else:
                self._waiting.append((deadline, record))

    def next_time(self) -> datetime | None:
        return min((deadline for deadline, _ in self._waiting), default=None)

    def on_end(self) -> Iterable[Record]:
        for _, record in self._waiting:
            yield self._result(record, (), lost="executed output was lost before it could be used")
        self._waiting = []

    def forget(self, camera_id: str) -> None:
        """Drop a camera that another worker has now."""
        self._links.pop(camera_id, None)
        self._last.pop(camera_id, None)
        self._last_checked.pop(camera_id, None)
        self._waiting = [entry for entry in self._waiting if entry[1].camera_id != camera_id]
        self._came = {key: at for key, at in self._came.items() if not key.startswith(f"{camera_id}/")}

    def _told(self, result: FrameResult) -> Iterable[Record]:
        yield result
        calibrated = None if self._oracle is None else self._oracle.of(result)
        if calibrated is not None:
            yield calibrated

    def _since(self, ready: OutputReady) -> datetime:
        if self._clock is None:
            return ready.captured_at
        return self._came.get(_key_of(ready), self._clock.now())

    def _gather(self, ready: Sequence[OutputReady]) -> Sequence[Outputs | None]:
        if not ready:
            return ()
        to_find = {_key_of(r): None for r in ready if not r.outputs}
        found: dict[str, Outputs | None] = {}
        try:
            found = dict(zip(to_find, self._state.get_many(list(to_find)), strict=True))
        except StateError as error:
            logger.warning("state store: %s", error)
        return [r.outputs or found.get(_key_of(r)) for r in ready]

    def _result(self, ready: OutputReady, outputs: Outputs, lost: str | None = None) -> FrameResult:
        self._came.pop(_key_of(ready), None)
        executed = {o.model: o.value for o in outputs if o.value is not None}
        read = self._inputs.of_outputs(outputs, ready.captured_at, ready.stats)
        rows = list(outputs)
        last = self._last.setdefault(ready.camera_id, LastExecuted())
        checked = self._last_checked.setdefault(ready.camera_id, LastExecuted())
        last.show(ready.captured_at)
        checked.show(ready.captured_at)
        if ready.purpose == "relabel":  # it was asked for after its frame was answered, and maybe others
            rows = [o if o.known_after else replace(o, known_after=last.after(ready.captured_at)) for o in outputs]
        else:
            if ready.answers or lost is None:
                rows += map(self._if_sure, self._predicted(ready, executed, read, last, checked))
            rows += [_abstain(ready, model, NOT_CHOSEN, served=model not in executed) for model in ready.abstain]
            known = {row.model for row in rows if row.served}  # a shadow answers for nothing
            reasons = {m: ready.failed.get(m, lost or NOT_CHOSEN) for m in self._models}
            rows += [_abstain(ready, model, reasons[model]) for model in self._models if model not in known]
        in_vain = {**ready.failed, **(dict.fromkeys(ready.ran, lost) if lost is not None else {})}
        rows += [_without_value(ready, model, "failed", why, served=False) for model, why in in_vain.items()]
        last.update(ready.captured_at, executed)  # after predicting: a frame never tells its own answer
        if ready.purpose not in NOT_FULL:
            checked.update(ready.captured_at, executed)
        return FrameResult(
            ready.camera_id,
            ready.frame_index,
            ready.captured_at,
            ready.purpose,
            tuple(rows),
            ready.audit_probability,
            ready.stats,
            ready.profile_ends,
            tuple(ready.trial),
            ready.prospects,
        )

    def _predicted(
        self,
        ready: OutputReady,
        executed: Mapping[str, Value],
        read: Mapping[str, Array],
        last: LastExecuted,
        checked: LastExecuted,
    ) -> list[ModelOutput]:
        """Return the answers of the policy that decides on every frame, if there is one; else what links predict.

        Where a model did not answer on an audit frame, what stood beside it is served, as on any other frame; where
        that was no answer either, it abstains because it failed.
        """
        if ready.answers:
            return [
                row if row.served or row.model in executed or is_on_trial(row) else replace(row, served=True)
                for row in ready.answers
                if row.served or row.model in executed or row.value is not None
            ]
        values = {m: v for m, v in read.items() if m not in ready.predict}
        made = [
            self._predict(ready, model, executed, values, last.of(model, ready.captured_at)) for model in ready.predict
        ]
        return made + (self._on_trial(ready, executed, read, checked) if ready.purpose == "audit" else [])

    def _if_sure(self, row: ModelOutput) -> ModelOutput:
        """Return the row, one that abstains where it is less sure than is asked."""
        least = self._least_confidence(row.model)
        if row.value is None or row.confidence is None or row.confidence >= least:
            return row
        why = f"less sure than asked (abstain_below: {least:g})"
        reason = why if row.reason is None else f"{row.reason}: {why}"
        return replace(row, value=None, how="abstained", reason=reason)

    def _on_trial(
        self,
        ready: OutputReady,
        executed: Mapping[str, Value],
        read: Mapping[str, Array],
        checked: LastExecuted,
    ) -> list[ModelOutput]:
        """Predict what executes only because it has to, as it would be predicted: never served, never shown as such.

        It may know what the model said on profile, audit and relabel frames: it would not run on any others.
        """
        made = [
            self._predict(
                ready,
                target,
                executed,
                {m: read[m] for m in sources if m in read},
                checked.of(target, ready.captured_at),
            )
            for target, sources in ready.trial.items()
            if target in executed
        ]
        return [replace(row, reason=ON_TRIAL + (f": {row.reason}" if row.reason else "")) for row in made]

    def _predict(
        self,
        ready: OutputReady,
        target: str,
        executed: Mapping[str, Value],
        values: Mapping[str, Array],
        recall: Recall | None,
    ) -> ModelOutput:
        """Predict one target from what links read in ``values``; on audit frames as a shadow beside the truth."""
        shadow = target in executed
        in_force = self._links.get(ready.camera_id, {}).get(target)
        if in_force is None:
            return _abstain(ready, target, f"no links to {target} were learnt yet", served=not shadow)
        try:
            # Where nothing was executed at all, nothing is predicted: that is for a policy to allow, not for links.
            value, confidence = in_force.ensemble.predict(values, recall if values else None)
        except LinkError as error:
            return _abstain(ready, target, str(error), served=not shadow)
        return ModelOutput(
            ready.camera_id,
            ready.frame_index,
            ready.captured_at,
            target,
            value,
            ready.purpose,
            "linked",
            served=not shadow,
            sources=tuple(s for s in values if s in in_force.ensemble.links),
            link_version=in_force.version,
            confidence=float(confidence),
            audit_probability=ready.audit_probability,
        )


def _key_of(ready: OutputReady) -> str:
    return state_key(ready.camera_id, ready.frame_index, ready.purpose)


def _abstain(ready: OutputReady, model: str, reason: str, *, served: bool = True) -> ModelOutput:
    return _without_value(ready, model, "abstained", reason, served=served)


def _without_value(ready: OutputReady, model: str, how: How, reason: str, *, served: bool) -> ModelOutput:
    return ModelOutput(
        ready.camera_id,
        ready.frame_index,
        ready.captured_at,
        model,
        None,
        ready.purpose,
        how,
        served=served,
        audit_probability=ready.audit_probability,
        reason=reason,
    )
