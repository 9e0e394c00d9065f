"""The gate before the models: one policy per camera that decides, frame by frame, what is let through to them.

Between `camlink.operators.inference`, which knows frames and rows, and `camlink.operators.policy`, which knows values.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from camlink.operators.certificates import ON_TRIAL
from camlink.operators.policy import (
    Expects,
    FrameFacts,
    FramePolicy,
    GoesOn,
    LooksAhead,
    MindsFailures,
    MindsLatency,
    MindsTime,
    ReadsDetections,
)
from camlink.operators.sampling import FramePlan
from camlink.operators.shares import Demand
from camlink.pipeline.clock import Clock
from camlink.pipeline.records import Decision, Detections, Frame, ModelOutput, Prospect, Value

logger = logging.getLogger(__name__)

UNKNOWN = "nothing is known of it yet"
TRIES = 3  # failures in a row, after which a model is not chosen until it answers on a frame that every model runs on
OLD_S = 600.0  # live frames are kept no longer than that where they wait (docs/distributed.md)
PER_FRAME_POLICIES = ("camlink", "reducto", "periodic")  # by their names in the configuration


class Gate:
    """The policies of all cameras of one inference worker."""

    def __init__(
        self, make: Callable[[str], FramePolicy], *, latency_ms: float | None = None, clock: Clock | None = None
    ) -> None:
        """``make``: from a camera's id to its policy.

        ``latency_ms``: what models may take on a frame. With a ``clock``, that by which live frames are captured, it
        counts from a frame's capture on, and what it has waited before counts too.
        """
        self._make = make
        self._latency_ms, self._clock = latency_ms, clock
        self._policies: dict[str, FramePolicy] = {}
        self._decisions: dict[str, Decision] = {}
        self._failures: dict[str, Counter[str]] = {}  # camera -> model -> failures in a row
        self._told: set[str] = set()  # cameras whose frames are too old
        self._share = 1.0  # of executing everything, that the machine has time for on the mean

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit on each frame, so that nothing executes on one but what its policy chooses."""
        return self._latency_ms is not None

    def demands(self) -> dict[str, Demand | None]:
        """Return what the policy of each camera would execute at which price, as far as it minds the time."""
        return {c: policy.demand() for c, policy in self._policies.items() if isinstance(policy, MindsTime)}

    def limit(self, share: float, shares: Mapping[str, float]) -> None:
        """Have policies choose no more than that of executing everything: the machine has no time for more.

        ``shares``: by camera; ``share``: of all others.
        """
        self._share = share
        for camera, policy in self._policies.items():
            if isinstance(policy, MindsTime):
                policy.limit(shares.get(camera, share))

    def decide(self, decision: Decision) -> None:
        """Take in which models are loaded, and which of them have to execute for their targets."""
        self._decisions[decision.camera_id] = decision
        self._allow(decision)

    def tell(self, camera_id: str, ran: Iterable[str], failed: Collection[str]) -> None:
        """Take in which models answered on a frame and which failed, so that none takes the turns of all others."""
        failures = self._failures.setdefault(camera_id, Counter())
        if not failed and not failures:
            return
        before = self._failing(camera_id)
        for model in ran:
            failures.pop(model, None)
        failures.update(list(failed))
        policy, decision, now = self._policy(camera_id), self._decisions.get(camera_id), self._failing(camera_id)
        if isinstance(policy, MindsFailures):
            policy.failed(failed)
        if now != before and decision is not None:
            self._allow(decision)
            logger.warning('camera "%s": not chosen while they fail: %s', camera_id, ", ".join(now) or "none any more")

    def _failing(self, camera_id: str) -> list[str]:
        return sorted(m for m, times in self._failures.get(camera_id, Counter()).items() if times >= TRIES)

    def _allow(self, decision: Decision) -> None:
        policy, failing = self._policy(decision.camera_id), self._failing(decision.camera_id)
        if isinstance(policy, GoesOn):
            loaded, required = ([m for m in part if m not in failing] for part in (decision.loaded, decision.execute))
            policy.allow(loaded, required=required)

    def forget(self, camera_id: str) -> None:
        """Drop a camera that another worker has now."""
        for known in (self._policies, self._decisions, self._failures):
            known.pop(camera_id, None)

    def snapshot(self, camera_id: str) -> bytes | None:
        """Return what the camera's policy knows, between its frames; None for one that starts anew with the worker.

        Which models fail is no part of it: a restart may be what mends them, and so may another machine. One that
        still fails is found out again within `TRIES` frames.
        """
        policy = self._policies.get(camera_id)
        return policy.snapshot() if isinstance(policy, GoesOn) else None

    def resume(self, camera_id: str, snapshot: bytes, *, account: bool = True) -> None:
        """Let the camera's policy go on from its snapshot, with or without the ``account`` of what it has spent.

        Raises `StateError`; it then starts anew.
        """
        policy = self._make(camera_id)
        if isinstance(policy, GoesOn):
            policy.resume(snapshot, account=account)
            self._policies[camera_id] = self._limited(policy)

    def _limited(self, policy: FramePolicy) -> FramePolicy:
        if self._share < 1.0 and isinstance(policy, MindsTime):
            policy.limit(self._share)
        return policy

    def begin(self, frame: Frame) -> None:
        """Show the camera's next frame to its policy."""
        self._policy(frame.camera_id).begin(FrameFacts(frame.index, frame.captured_at.timestamp(), frame.stats))

    def choose(self, frame: Frame, executed: Sequence[ModelOutput]) -> str | None:
        """Return the model to execute next, or None."""
        policy = self._policy(frame.camera_id)
        if self._latency_ms is not None and self._clock is not None and isinstance(policy, MindsLatency):
            waited_s = max((self._clock.now() - frame.captured_at).total_seconds(), 0.0)
            self._tell_of_old(frame, waited_s)
            policy.within(self._latency_ms - 1000.0 * waited_s)
        return policy.choose(_values(executed))

    def _tell_of_old(self, frame: Frame, waited_s: float) -> None:
        """Say, once per camera, why nothing executes on frames that no bus would have kept so long."""
        if waited_s > OLD_S and frame.camera_id not in self._told:
            self._told.add(frame.camera_id)
            logger.warning(
                'camera "%s": frame %d was captured %.0f s ago, so that no model can be in time (budgets.latency_ms); '
                "set this machine's clock, or for recorded frames start inference with --when-behind block",
                *(frame.camera_id, frame.index, waited_s),
            )

    def answer(
        self,
        frame: Frame,
        plan: FramePlan,
        executed: Sequence[ModelOutput],
        left: Iterable[str],
        trial: Mapping[str, tuple[str, ...]],
    ) -> tuple[ModelOutput, ...]:
        """Return rows for the models that are ``left``, shadows on audit frames; what has no answer abstains.

        On audit frames also for those that executed only because they had to (``trial``), marked as such.
        """
        audit = plan.purpose == "audit"
        values = _values(executed)
        policy = self._policy(frame.camera_id)
        answers = policy.answer({m: v for m, v in values.items() if not (audit and m in trial)})
        rows = []
        for model in dict.fromkeys((*answers, *left)):
            answer = answers.get(model)
            rows.append(
                ModelOutput(
                    frame.camera_id,
                    frame.index,
                    frame.captured_at,
                    model,
                    None if answer is None else answer.value,
                    plan.purpose,
                    "abstained" if answer is None else answer.how,
                    served=not audit,
                    sources=() if answer is None else answer.sources,
                    confidence=None if answer is None else answer.confidence,
                    audit_probability=plan.audit_probability,
                    reason=ON_TRIAL if model in values else UNKNOWN if answer is None else None,
                )
            )
        return tuple(rows)

    def explained(self, camera_id: str, executed: Sequence[ModelOutput]) -> tuple[ModelOutput, ...]:
        """Return what the policy chose to execute on the frame it was shown last, each with its reason."""
        policy = self._policy(camera_id)
        expected = policy.expected() if isinstance(policy, Expects) else {}
        return tuple(
            replace(o, reason=f"without executing, disagreement of {100.0 * expected[o.model]:.1f} % was expected")
            if o.model in expected
            else o
            for o in executed
        )

    def put_off(self, camera_id: str) -> Any:
        """Return what `learn_late` has to know of the frame that the policy was shown last."""
        policy = self._policy(camera_id)
        return policy.put_off() if isinstance(policy, GoesOn) else None

    def prospects(self, camera_id: str) -> Mapping[str, Prospect]:
        """Return what the camera's policy expects of its models, for the choice of those that are loaded."""
        policy = self._policy(camera_id)
        return policy.prospects() if isinstance(policy, LooksAhead) else {}

    def learn_late(self, camera_id: str, frame: Any, executed: Sequence[ModelOutput]) -> None:
        """Tell the policy what was executed on a frame that was put off, after later ones."""
        policy = self._policy(camera_id)
        if isinstance(policy, GoesOn):
            policy.learn_late(frame, _values(executed), _found(executed))

    def learn(self, camera_id: str, executed: Sequence[ModelOutput], *, chosen: bool) -> None:
        """Tell the policy what was executed on the frame it was shown last."""
        policy = self._policy(camera_id)
        if isinstance(policy, ReadsDetections):
            policy.found(_found(executed))
        policy.learn(_values(executed), chosen=chosen)

    def _policy(self, camera_id: str) -> FramePolicy:
        if camera_id not in self._policies:
            self._policies[camera_id] = self._limited(self._make(camera_id))
        return self._policies[camera_id]


def _values(executed: Sequence[ModelOutput]) -> dict[str, Value]:
    return {o.model: o.value for o in executed if o.value is not None}


def _found(executed: Sequence[ModelOutput]) -> dict[str, Detections]:
    return {o.model: o.detections for o in executed if o.detections is not None}
