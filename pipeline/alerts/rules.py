"""Turns results into alerts. No I/O: records in, alerts and requests for executions out, in event time.

A condition must hold on every answer for as long as the rule says. A frame without an answer neither holds it up nor
breaks it, but where answers are missing for longer than `GAP`, it starts anew: nothing is claimed of what nobody saw.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from camlink.models.base import OutputSpec
from camlink.operators.certificates import Ledger
from camlink.operators.evidence import Certificate, certify
from camlink.pipeline.alerts.alert import Alert
from camlink.pipeline.config.alerts import AlertRule
from camlink.pipeline.records import CameraEvent, FrameResult, ModelOutput, Record, RelabelRequest, Value

logger = logging.getLogger(__name__)

GAP = timedelta(minutes=2)  # or as long as the rule asks for, if that is longer
CONFIRM_WITHIN = timedelta(seconds=20)  # event time after which an execution that was asked for is not coming
TRIES = 3  # frames on which an execution is asked for
DAY = timedelta(days=1)
DOWN = {"down": True, "frozen": True, "recovered": False, "thawed": False, "ended": False}

Targets = Callable[[str, str], float | None]  # camera, model -> target agreement
Found = Alert | RelabelRequest


@dataclass
class _Watch:
    """One rule on one camera (and, for targets, one model)."""

    since: datetime | None = None  # the condition holds from then on
    last: datetime | None = None  # the last answer
    told: datetime | None = None
    executed: int = 0
    predicted: int = 0
    pending: Alert | None = None  # waits for an execution
    frame_index: int = -1  # which is asked for on this frame
    tries: int = 0

    def reset(self) -> None:
        self.since = self.pending = None
        self.executed = self.predicted = self.tries = 0


class AlertRules:
    """Watches a site's cameras. Cameras' records come in order; different cameras' in any.

    A clock that is set back is a gap, as one that is set ahead: nothing waits for the time that was there before.
    """

    def __init__(
        self,
        rules: Sequence[AlertRule],
        specs: Mapping[str, OutputSpec],
        targets: Targets = lambda camera, model: None,
    ) -> None:
        self._rules, self._specs, self._targets = tuple(rules), specs, targets
        self._watches: dict[tuple[str, str, str], _Watch] = {}
        self._ledgers: dict[str, Ledger] = {}

    def observe(self, records: Iterable[Record]) -> Iterator[Found]:
        """Take what has come; yield what is to be told, and frames that are to be executed first."""
        for record in records:
            if isinstance(record, FrameResult):
                yield from self._result(record)
            elif isinstance(record, CameraEvent) and record.kind in DOWN:
                self._camera_event(record)
            if isinstance(record, FrameResult | CameraEvent):
                yield from self.on_time(record.captured_at if isinstance(record, FrameResult) else record.at)

    def on_time(self, now: datetime) -> Iterator[Found]:
        """Tell of cameras that have been down for long enough, and give up waiting for executions, at event time."""
        for (name, camera_id, _), watch in list(self._watches.items()):
            rule = next(rule for rule in self._rules if rule.name == name)
            if rule.when == "camera_down" and watch.since is not None and watch.pending is not None:
                if abs(now - watch.since) >= rule.lasting and self._may_tell(rule, watch, now):
                    yield self._tell(watch, replace(watch.pending, at=now))
            elif watch.pending is not None and abs(now - watch.pending.at) > CONFIRM_WITHIN:
                yield from self._unconfirmed(rule, camera_id, watch)

    def certificate(self, camera_id: str, model: str) -> Certificate | None:
        """Return what audits say of a model's predicted outputs at a camera, today and yesterday in event time."""
        ledger = self._ledgers.get(camera_id)
        found = certify(ledger.evidence(model=model)) if ledger is not None else None
        return found if found is not None and found.estimate is not None else None

    def _result(self, result: FrameResult) -> Iterator[Found]:
        if result.purpose != "relabel":
            ledger = self._ledgers.setdefault(result.camera_id, Ledger(self._specs, DAY))
            ledger.observe(result)
            ledger.forget_before(result.captured_at - 2 * DAY)
        for rule in self._rules:
            if rule.cameras and result.camera_id not in rule.cameras:
                continue
            if rule.when in ("count_above", "label_seen"):
                yield from self._value(rule, result)
            elif rule.when == "target_not_met" and result.purpose == "audit":
                yield from self._target(rule, result)

    def _value(self, rule: AlertRule, result: FrameResult) -> Iterator[Found]:
        watch = self._watches.setdefault((rule.name, result.camera_id, ""), _Watch())
        if result.purpose == "relabel":
            yield from self._confirm(rule, result, watch)
            return
        output = next((o for o in result.outputs if o.served and o.model == rule.model), None)
        if output is None or output.value is None or watch.pending is not None:
            return
        if watch.last is not None and abs(result.captured_at - watch.last) > max(GAP, rule.lasting):
            watch.reset()
        watch.last = result.captured_at
        value = self._value_of(rule, output.value)
        if value is None or not _holds(rule, value):
            watch.reset()
            return
        watch.since = watch.since or result.captured_at
        watch.executed += output.how == "executed"
        watch.predicted += output.how != "executed"
        if result.captured_at - watch.since >= rule.lasting and self._may_tell(rule, watch, result.captured_at):
            yield from self._decide(rule, watch, output, value)

    def _decide(self, rule: AlertRule, watch: _Watch, output: ModelOutput, value: float) -> Iterator[Found]:
        assert watch.since is not None
        executed = output.how == "executed"
        alert = Alert(
            rule=rule.name,
            camera_id=output.camera_id,
            kind=rule.when,
            since=watch.since,
            at=output.captured_at,
            how="executed" if executed else "predicted",
            detail=_said(rule, value),
            model=rule.model,
            label=rule.label,
            value=value,
            above=rule.above,
            executed_frames=watch.executed,
            predicted_frames=watch.predicted,
            confidence=output.confidence,
            agreement=self.certificate(output.camera_id, str(rule.model)),
        )
        if executed or not rule.confirm:
            yield self._tell(watch, alert)
            return
        watch.pending, watch.frame_index, watch.tries = alert, output.frame_index, watch.tries + 1
        reason = f'alert "{rule.name}" is to be confirmed'
        yield RelabelRequest(output.camera_id, output.frame_index, output.captured_at, (output.model,), reason)

    def _confirm(self, rule: AlertRule, result: FrameResult, watch: _Watch) -> Iterator[Found]:
        """Judge the execution that was asked for: it tells, or takes back, what was predicted."""
        pending = watch.pending
        executed = result.executed().get(str(rule.model))
        if pending is None or result.frame_index != watch.frame_index or executed is None:
            return
        value = self._value_of(rule, executed)
        if value is not None and _holds(rule, value):
            said = _said(rule, value)
            yield self._tell(
                watch,
                replace(pending, how="executed", value=value, detail=said, confirmed="by execution", confidence=None),
            )
        else:
            logger.info('alert "%s" at camera "%s" was not confirmed: %s', rule.name, result.camera_id, value)
            watch.reset()

    def _unconfirmed(self, rule: AlertRule, camera_id: str, watch: _Watch) -> Iterator[Found]:
        """The execution did not come: try a later frame, and in the end tell, saying so; nothing is swallowed."""
        pending = watch.pending
        assert pending is not None
        watch.pending = None
        if watch.tries >= TRIES:
            logger.warning('alert "%s" at camera "%s" could not be confirmed by execution', rule.name, camera_id)
            yield self._tell(watch, replace(pending, confirmed="not possible"))

    def _target(self, rule: AlertRule, result: FrameResult) -> Iterator[Found]:
        for model in self._specs if rule.model is None else (rule.model,):
            target = self._targets(result.camera_id, model)
            found = self.certificate(result.camera_id, model)
            watch = self._watches.setdefault((rule.name, result.camera_id, model), _Watch())
            if target is None or found is None or found.against(target) != "not met":
                watch.reset()
                continue
            watch.since = watch.since or result.captured_at
            lasted = abs(result.captured_at - watch.since)
            if lasted >= rule.lasting and self._may_tell(rule, watch, result.captured_at):
                detail = f"agreement of {model} is at most {found.high:.1%}, below the target of {target:.1%}"
                yield self._tell(
                    watch,
                    Alert(
                        rule.name, result.camera_id, rule.when, watch.since, result.captured_at, "measured", detail,
                        model=model, value=found.estimate, agreement=found,
                    ),
                )  # fmt: skip

    def _camera_event(self, event: CameraEvent) -> None:
        for rule in self._rules:
            if rule.when != "camera_down" or (rule.cameras and event.camera_id not in rule.cameras):
                continue
            watch = self._watches.setdefault((rule.name, event.camera_id, ""), _Watch())
            if not DOWN[event.kind]:
                watch.reset()
            elif watch.since is None:
                watch.since = event.at
                watch.pending = Alert(
                    rule.name, event.camera_id, rule.when, event.at, event.at, "observed", event.detail
                )

    def _may_tell(self, rule: AlertRule, watch: _Watch, now: datetime) -> bool:
        return watch.told is None or abs(now - watch.told) >= rule.cool_down

    @staticmethod
    def _tell(watch: _Watch, alert: Alert) -> Alert:
        watch.reset()
        watch.told = alert.at
        return alert

    def _value_of(self, rule: AlertRule, value: Value) -> float | None:
        """Return the number that a rule is about: a count, or 1 where its label is given and 0 where not."""
        spec = self._specs.get(str(rule.model))
        if spec is None or (rule.label is not None and rule.label not in spec.labels):
            return None
        place = None if rule.label is None else spec.labels.index(rule.label)
        if rule.when == "count_above":
            return float(value.sum() if place is None else value[place])
        assert place is not None
        if spec.task == "single_label":
            return float(int(np.argmax(value)) == place)
        return float(value[place] >= 0.5)


def _holds(rule: AlertRule, value: float) -> bool:
    return value > rule.above if rule.above is not None else value > 0.0


def _said(rule: AlertRule, value: float) -> str:
    if rule.when == "label_seen":
        return f"{rule.model} gives {rule.label}"
    return f"{rule.model} counts {value:g}{f' {rule.label}' if rule.label else ''}, more than {rule.above:g}"
