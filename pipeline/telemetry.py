"""Metrics for Prometheus: what a process has done, counted as records pass, and served as text.

    telemetry = Telemetry(specs)
    telemetry.observe(records)                  # results, decisions, promotions, drops, events
    pool.watch = telemetry.batch
    body, content_type = telemetry.render()

Labels are bounded: cameras beyond `CAMERAS` and reasons beyond `REASONS` share the label "other", so that no camera
id, and no text that a driver makes up, can fill a server's memory. docs/dashboard.md lists the metrics.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from camlink.models.base import OutputSpec
from camlink.operators.certificates import ALL, Ledger
from camlink.operators.evidence import Evidence, certify
from camlink.pipeline.records import (
    EXECUTIONS,
    AdaptationEvent,
    CameraEvent,
    Decision,
    Frame,
    FrameDropped,
    FrameResult,
    LinkPromotion,
    Record,
    RelabelRequest,
)

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from camlink.operators.throttle import Throttle
    from camlink.pipeline.embedded import Reading

CAMERAS = 1000
REASONS = 24
OTHER = "other"
TARGET_STATES = ("met", "not met", "not known")
EVERYTHING = "all"  # the label of a camera's agreement over all its models
AGREEMENT_SPAN = timedelta(days=1)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
DECODE_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
LAG_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
UP = {"recovered": 1.0, "thawed": 1.0, "down": 0.0, "frozen": 0.0, "ended": 0.0}


class Bounded:
    """Lets through the first ``most`` names, and calls all others `OTHER`.

    >>> names = Bounded(1)
    >>> names("hall"), names("yard"), names("hall")
    ('hall', 'other', 'hall')
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, name: str) -> str:
        if name not in self._known:
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(name)
        return name


class Telemetry:
    """The metrics of one process, in a registry of their own. Raises `ImportError` without prometheus-client."""

    def __init__(
        self,
        specs: Mapping[str, OutputSpec],
        *,
        now_s: Callable[[], float] | None = None,
        promoted: Callable[[str, str], int | None] = lambda camera_id, model: None,
    ) -> None:
        """``now_s``: seconds since 1970, where event time is the present; without it no lag is stated.

        ``promoted`` gives the version of a camera's links to a model that came into force before this process began;
        it is asked for as the camera's first record comes.
        """
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        self._specs = specs
        self._now_s, self._promoted = now_s, promoted
        self._camera, self._reason = Bounded(CAMERAS), Bounded(REASONS)
        self._ledgers: dict[str, Ledger] = {}
        self._counting = (
            threading.Lock()
        )  # whoever scrapes is another thread, and ledgers fold what they hold when read
        self._heard_of: set[str] = set()  # cameras of which it is known whether they are up
        self._gone: set[str] = set()  # let go; what they gave before may still come
        self._budgets: set[str] = set()  # that decisions have used anything of

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"camlink_{name}", about, labels, registry=self.registry)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"camlink_{name}", about, labels, registry=self.registry)

        def histogram(name: str, about: str, buckets: Iterable[float], *labels: str) -> Histogram:
            return Histogram(f"camlink_{name}", about, labels, buckets=tuple(buckets), registry=self.registry)

        self._frames = counter("frames", "Frames with all their outputs, by purpose", "camera", "purpose")
        self._outputs = counter("outputs", "Served outputs, by how they came about", "camera", "model", "how")
        self._executions = counter("executions", "Model executions for whatever purpose", "camera", "model", "purpose")
        self._failed = counter("failed_executions", "Executions that gave no answer", "camera", "model")
        self._dropped = counter("dropped_frames", "Frames that never reached the models", "camera", "reason")
        self._learnt = counter("adaptation_events", "What the adaptation did", "camera", "kind")
        self._versions = gauge("link_version", "Version of the links in force", "camera", "model")
        self._decided = gauge("decision_executes", "1 if the decision in force executes the model", "camera", "model")
        self._budget = gauge("decision_budget", "What the decision in force uses of a budget", "camera", "budget")
        self._target = gauge("target_state", "1 for the state of the accuracy target", "camera", "model", "state")
        self._up = gauge("camera_up", "0 while a camera is down, frozen or ended", "camera")
        self._last = gauge("last_frame_timestamp_seconds", "Capture time of the last frame with outputs", "camera")
        self._lag = histogram("lag_seconds", "From capture until the outputs are known", LAG_SECONDS)
        self._decoding = histogram("decode_seconds", "Decoding one frame, with the unsampled before it", DECODE_SECONDS)
        self._took = histogram("inference_seconds", "One batch through a model", SECONDS, "model")
        self._batches = histogram("batch_frames", "Frames in a batch", BATCH_SIZES, "model")
        self.registry.register(_Agreements(self))

    def observe(self, records: Iterable[Record]) -> tuple[RelabelRequest, ...]:
        """Count what has come; a listener of a `Session` that asks for nothing."""
        for record in records:
            if isinstance(record, FrameResult):
                self._result(record)
            elif isinstance(record, FrameDropped):
                labels = self._camera(record.camera_id), self._reason(record.reason)
                self._dropped.labels(*labels).inc(record.count)
            elif isinstance(record, Decision):
                self._decision(record)
            elif isinstance(record, LinkPromotion):
                camera = self._camera(record.camera_id)
                if camera not in self._gone:
                    self._versions.labels(camera, record.target).set(record.version)
            elif isinstance(record, AdaptationEvent):
                self._learnt.labels(self._camera(record.camera_id), record.kind).inc()
            elif isinstance(record, CameraEvent) and record.kind in UP:
                camera = self._camera(record.camera_id)
                if camera not in self._gone:
                    self._hear_of(record.camera_id, camera)
                    self._up.labels(camera).set(UP[record.kind])
        return ()

    def watched(self, cameras: Collection[str]) -> None:
        """Say which cameras there are by now: one that was let go is neither up nor down, its last frame is not late,
        and it has no links nor a decision in force.

        What it has done stays counted.
        """
        self._gone = (self._gone | self._heard_of) - set(cameras) - {OTHER}
        for camera in self._gone & self._heard_of:
            self._heard_of.discard(camera)
            self._up.remove(camera)
            self._last.remove(camera)
            for model in self._specs:
                self._decided.remove(camera, model)
                self._versions.remove(camera, model)
            for name in self._budgets:
                self._budget.remove(camera, name)
            self._target_states(camera, {})
            with self._counting:
                self._ledgers.pop(camera, None)

    def timed(self, readings: Iterable[Reading | None]) -> Iterator[Reading | None]:
        """Pass on what cameras give, and note how long each frame took to decode."""
        for reading in readings:
            if isinstance(reading, Frame) and reading.decode_s is not None:
                self._decoding.observe(reading.decode_s)
            yield reading

    def batch(self, model: str, frames: int, took_ms: float) -> None:
        """Count one batch through a model (`ModelPool.watch`)."""
        self._took.labels(model).observe(took_ms / 1000.0)
        self._batches.labels(model).observe(frames)

    def gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        """Add a number that is asked for whenever metrics are."""
        from prometheus_client import Gauge

        Gauge(f"camlink_{name}", about, registry=self.registry).set_function(value)

    def machine(self, throttle: Throttle | None) -> None:
        """Add what the machine has time for, where that is minded, and what each camera has of it."""
        if throttle is not None:
            about = "Share of executing every model on every frame that the machine has time for, at most 1"
            self.gauge("machine_time_share", about, lambda: throttle.share)
            self.registry.register(_TimeShares(self, throttle))

    def worker(self, step: str, counts: Callable[[], Mapping[str, int]], age_s: Callable[[], float]) -> None:
        """Add what a worker counts of itself, and how long ago its loop last went round."""
        self.registry.register(_WorkerCounts(step, counts))
        self.gauge("worker_loop_age_seconds", "Since the worker's loop last went round", age_s)

    def render(self) -> tuple[bytes, str]:
        """Return the metrics as Prometheus reads them, and the content type."""
        from prometheus_client import generate_latest
        from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def present(self, cameras: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield those of these cameras that were not let go, each with its label."""
        yield from ((camera, self._camera(camera)) for camera in cameras if camera not in self._gone)

    def evidence(self) -> Iterator[tuple[str, str, Evidence]]:
        """Yield camera, model (or ``ALL``) and evidence of all whose agreement is stated."""
        for camera, ledger in list(self._ledgers.items()):
            with self._counting:
                found = {model: ledger.evidence(model=model) for model in (ALL, *self._specs)}
            yield from ((camera, model, evidence) for model, evidence in found.items())

    def _result(self, result: FrameResult) -> None:
        camera = self._camera(result.camera_id)
        self._frames.labels(camera, result.purpose).inc()
        for output in result.outputs:
            if output.how in EXECUTIONS:
                self._executions.labels(camera, output.model, output.purpose).inc()
            if output.how == "failed":
                self._failed.labels(camera, output.model).inc()
            if output.served:
                self._outputs.labels(camera, output.model, output.how).inc()
        if result.purpose == "relabel" or camera in self._gone:
            return
        captured_s = result.captured_at.timestamp()
        self._last.labels(camera).set(captured_s)
        if self._hear_of(result.camera_id, camera):
            self._up.labels(camera).set(1.0)
        if self._now_s is not None:
            self._lag.observe(max(0.0, self._now_s() - captured_s))
        if camera != OTHER:
            with self._counting:
                ledger = self._ledgers.setdefault(camera, Ledger(self._specs, AGREEMENT_SPAN))
                ledger.observe(result)
                ledger.forget_before(result.captured_at - 2 * AGREEMENT_SPAN)

    def _hear_of(self, camera_id: str, camera: str) -> bool:
        """Note that a camera gives something; return whether it is for the first time."""
        if camera in self._heard_of:
            return False
        self._heard_of.add(camera)
        for model in self._specs if camera != OTHER else ():
            version = self._promoted(camera_id, model)
            if version is not None:
                self._versions.labels(camera, model).set(version)
        return True

    def _decision(self, decision: Decision) -> None:
        camera = self._camera(decision.camera_id)
        if camera in self._gone:
            return
        for model in self._specs:
            self._decided.labels(camera, model).set(float(model in decision.execute))
        for name, value in decision.budget.items():
            self._budgets.add(name)
            self._budget.labels(camera, name).set(value)
        if camera != OTHER:
            self._target_states(camera, decision.target_states)

    def _target_states(self, camera: str, states: Mapping[str, str]) -> None:
        """Show where each target stands; a target that is no longer asked for has no state, rather than its last."""
        for model in self._specs:
            for state in TARGET_STATES:
                if model in states:
                    self._target.labels(camera, model, state).set(float(states[model] == state))
                else:
                    self._target.remove(camera, model, state)


class _WorkerCounts:
    """A worker's own counts as they stand; "held", records waited for, is the one that also falls."""

    def __init__(self, step: str, counts: Callable[[], Mapping[str, int]]) -> None:
        self._step, self._counts = step, counts

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        done = CounterMetricFamily("camlink_worker_records", "Records by what became of them", labels=("step", "what"))
        held = GaugeMetricFamily("camlink_worker_held_records", "Records that wait for others", labels=("step",))
        counts = dict(self._counts())
        held.add_metric((self._step,), counts.pop("held", 0))
        for what, count in counts.items():
            done.add_metric((self._step, what), count)
        return (done, held)

    def describe(self) -> Iterable[Metric]:
        return ()


class _TimeShares:
    """What each camera may execute, since the machine has no time for everything on all of them."""

    def __init__(self, telemetry: Telemetry, throttle: Throttle) -> None:
        self._telemetry, self._throttle = telemetry, throttle

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        about = "Share of executing every model on a camera's frames that the machine has time for"
        found, shares = GaugeMetricFamily("camlink_camera_time_share", about, labels=("camera",)), self._throttle.shares
        for camera, label in self._telemetry.present(shares):
            if label != OTHER:
                found.add_metric((label,), shares[camera])
        return (found,)

    def describe(self) -> Iterable[Metric]:
        return ()


class _Agreements:
    """Certificates as gauges, made when they are asked for: of the present day and the one before, in event time."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        labels = ("camera", "model")
        mean = GaugeMetricFamily("camlink_agreement", "Agreement of predicted outputs with the models'", labels=labels)
        low = GaugeMetricFamily("camlink_agreement_low", "Lower bound, anytime-valid, 95 %", labels=labels)
        high = GaugeMetricFamily("camlink_agreement_high", "Upper bound, anytime-valid, 95 %", labels=labels)
        audits = GaugeMetricFamily("camlink_agreement_audits", "Audit frames behind the agreement", labels=labels)
        for camera, model, evidence in self._telemetry.evidence():
            found = certify(evidence)
            name = (camera, model or EVERYTHING)
            audits.add_metric(name, found.audits)
            if found.estimate is None or found.low is None or found.high is None:
                continue  # not measured is no number
            for family, value in ((mean, found.estimate), (low, found.low), (high, found.high)):
                family.add_metric(name, value)
        return (mean, low, high, audits)

    def describe(self) -> Iterable[Metric]:
        return ()
