"""One camera's rows as numpy arrays, model by model: what tables, figures and plots are computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.operators.certificates import ON_TRIAL
from camlink.operators.selection import IN_VAIN
from camlink.pipeline.accuracy import (
    ABSTAINED,
    EXECUTES,
    PREDICTED,
    AuditRows,
    AuditScores,
    Executions,
    NoiseFloor,
    noise_floor,
    score_audit,
)
from camlink.pipeline.records import EXECUTIONS, JUDGED
from camlink.pipeline.reports.stretches import Stretches, stretches
from camlink.pipeline.results import RunResults
from camlink.pipeline.results.tables import microseconds

if TYPE_CHECKING:
    import pyarrow as pa

Strings = NDArray[np.str_]


@dataclass(frozen=True)
class ModelRows:
    """Rows of one camera and model by capture time; ``values`` (n, size) holds NaN where there is no value."""

    spec: OutputSpec
    frame_index: NDArray[np.int64]
    times_us: NDArray[np.int64]
    values: NDArray[np.float32]
    how: Strings
    purpose: Strings
    served: NDArray[np.bool_]
    probability: NDArray[np.float64]  # NaN outside audit frames
    pixel_change: NDArray[np.float64] | None = None  # since the frame before; NaN where not measured
    on_trial: NDArray[np.bool_] | None = None  # shadows of models that have to execute; None: there are none
    known_us: NDArray[np.int64] | None = None  # as `Executions.known_us`
    usual_reason: str = ""  # the commonest one that served outputs give for abstaining

    def served_count(self, how: str) -> int:
        """Return how many served outputs came about this way."""
        return int((self.served & (self.how == how)).sum())

    def abstained_while(self, during: NDArray[np.bool_]) -> int:
        """Return how many served outputs abstained among the rows ``during`` (n,) holds true for."""
        return int((during & self.served & (self.how == "abstained")).sum())

    @property
    def tried(self) -> NDArray[np.bool_]:
        """Return which rows (n,) stand for an execution, be it one that failed."""
        return np.isin(self.how, EXECUTIONS)

    @property
    def executions_made(self) -> int:
        """Return how often the model ran, for whatever purpose, with or without an answer."""
        return int(self.tried.sum())

    @property
    def executions_failed(self) -> int:
        """Return how often it ran and gave nothing."""
        return int((self.how == "failed").sum())

    def executions(self) -> Executions:
        """Return all executed values, for the baselines to know."""
        ran = self.how == "executed"
        return Executions(self.times_us[ran], self.values[ran], None if self.known_us is None else self.known_us[ran])

    def noise_floor(self) -> NoiseFloor | None:
        """Return how far the model disagrees with itself on neighbouring frames that hardly differ."""
        if self.pixel_change is None:
            return None
        ran = self.how == "executed"
        return noise_floor(self.spec, self.frame_index[ran], self.values[ran], self.pixel_change[ran])

    def audit_rows(self) -> AuditRows:
        """Join, per audit frame, what the model said with what would have been served in its place.

        A frame without a shadow row is one whose decision executes the model: every other model leaves one, also
        where the policy gives no answer.
        """
        audited = self.purpose == "audit"
        truth = np.flatnonzero(audited & self.served & (self.how == "executed") & ~np.isnan(self.probability))
        on_trial = np.zeros(len(audited), bool) if self.on_trial is None else self.on_trial
        shadows = np.flatnonzero(audited & ~self.served & ~self.tried & ~on_trial)
        predicted = np.zeros_like(self.values[truth])
        state = np.full(len(truth), EXECUTES, np.int8)
        at = {int(index): row for row, index in enumerate(self.frame_index[truth])}
        for row in shadows:
            place = at.get(int(self.frame_index[row]))
            if place is not None:
                abstained = self.how[row] == "abstained" or bool(np.isnan(self.values[row]).any())
                state[place] = ABSTAINED if abstained else PREDICTED
                predicted[place] = 0.0 if abstained else self.values[row]
        return AuditRows(
            self.frame_index[truth], self.times_us[truth], self.values[truth], predicted, state, self.probability[truth]
        )

    @cached_property
    def audit(self) -> AuditRows:
        return self.audit_rows()

    @cached_property
    def scores(self) -> AuditScores | None:
        """Return agreement per audit frame; None when the task has none."""
        return score_audit(self.spec, self.audit, self.executions())


@dataclass(frozen=True)
class CameraRows:
    """Everything the results log holds of one camera."""

    camera_id: str
    models: dict[str, ModelRows]
    frames_seen: int
    decisions: list[dict[str, Any]]
    drops: list[dict[str, Any]]
    events: list[dict[str, Any]]
    adaptation: list[dict[str, Any]]
    bootstrap_frames: int = 0  # its first ones, by the configuration

    @cached_property
    def bootstrap_until_us(self) -> int:
        """Return when its bootstrap frames were over: when a profile frame came after so many, or one was served."""
        full, served = (self._times_of(purpose) for purpose in ("profile", "serve"))
        if self.bootstrap_frames < full.size:
            return int(min([full[self.bootstrap_frames], *served[:1]]))
        return int(served[0]) if served.size else int(full[-1]) + 1 if full.size else 0

    def _times_of(self, purpose: str) -> NDArray[np.int64]:
        found = [model.times_us[model.purpose == purpose] for model in self.models.values()]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)

    @cached_property
    def stretches(self) -> Stretches:
        """Return where the camera has footage."""
        seen = [model.times_us // 1000 for model in self.models.values()]
        return stretches(np.concatenate(seen) if seen else np.zeros(0, np.int64))

    def without_executions(self, times_us: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return, for each time (n,), whether the decision in force let nothing execute, and not as models failed."""
        found = decision_in_force(self.decisions, times_us)
        let_nothing = [
            not (decision["execute"] or decision.get("per_frame") or IN_VAIN in decision["reason"])
            for decision in self.decisions
        ]
        idle = np.array([*let_nothing, False])  # [-1]: none in force
        return np.asarray(idle[found])

    def expected_agreements(self) -> NDArray[np.float64]:
        """Return what the decision in force expected (over all models), per frame served under one that says it."""
        first = next((model for model in self.models.values() if model.served.any()), None)
        if first is None or not self.decisions:
            return np.zeros(0)
        promised = [decision["expected_agreement"] for decision in self.decisions]
        values = np.array([np.nan if value is None else value for value in promised] + [np.nan], np.float64)
        chosen = first.served & np.isin(first.purpose, JUDGED)
        found = values[decision_in_force(self.decisions, first.times_us[chosen])]
        return np.asarray(found[~np.isnan(found)])

    def scores(self) -> list[AuditScores]:
        """Return the audit scores of all models that can be scored."""
        return [rows.scores for rows in self.models.values() if rows.scores is not None]


def read_camera(results: RunResults, camera_id: str, day: date | None = None) -> CameraRows:
    """Read one camera, with its outputs of one day in UTC or all; those of models that the run's header does not know
    are left out.
    """
    table = results.outputs(camera_id, day=day)
    names = _strings(table, "model")
    served = table.column("served").to_numpy()
    return CameraRows(
        camera_id=camera_id,
        models={name: _model_rows(spec, table, names == name) for name, spec in results.info.specs().items()},
        frames_seen=len(np.unique(table.column("frame_index").to_numpy()[served])),
        decisions=sorted(results.decisions(camera_id).to_pylist(), key=lambda decision: decision["start"]),
        drops=results.drops(camera_id).to_pylist(),
        events=results.camera_events(camera_id).to_pylist(),
        adaptation=sorted(results.adaptation(camera_id).to_pylist(), key=_as_it_happened),
        bootstrap_frames=results.info.bootstrap_frames(camera_id),
    )


def decision_in_force(decisions: Sequence[Mapping[str, Any]], times_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each time (n,), the place of the last decision (by start) that covers it; -1 for none."""
    starts = np.array([microseconds(decision["start"]) for decision in decisions], np.int64)
    ends = np.array([microseconds(decision["end"]) for decision in decisions] + [0], np.int64)
    found = np.searchsorted(starts, times_us, side="right") - 1
    return np.where((found >= 0) & (times_us < ends[found]), found, -1)


def _as_it_happened(event: dict[str, Any]) -> tuple[Any, ...]:
    """Order events: of one moment, links are trained before they are judged."""
    return event["at"], event["target"], event["version"], event["kind"] != "trained"


def _model_rows(spec: OutputSpec, table: pa.Table, mask: NDArray[np.bool_]) -> ModelRows:
    import pyarrow as pa

    rows = table.filter(pa.array(mask))
    return ModelRows(
        spec=spec,
        frame_index=rows.column("frame_index").to_numpy(),
        times_us=rows.column("captured_at").cast(pa.int64()).to_numpy(),
        values=value_matrix(rows.column("value").combine_chunks(), spec.size),
        how=_strings(rows, "how"),
        purpose=_strings(rows, "purpose"),
        served=rows.column("served").to_numpy(),
        probability=rows.column("audit_probability").to_numpy().astype(np.float64),
        pixel_change=rows.column("pixel_change").to_numpy().astype(np.float64),
        on_trial=_on_trial(rows),
        known_us=known_us(rows),
        usual_reason=_usual_reason(rows),
    )


def known_us(rows: pa.Table) -> NDArray[np.int64]:
    """Return up to when captures were answered before each row was known (n,): its own, where it had not to wait."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pc.coalesce(rows.column("known_after"), rows.column("captured_at"))
    return np.asarray(known.cast(pa.int64()).to_numpy(), np.int64)


def _on_trial(rows: pa.Table) -> NDArray[np.bool_]:
    import pyarrow.compute as pc

    said = pc.fill_null(pc.starts_with(rows.column("reason"), ON_TRIAL), False)
    return np.asarray(np.asarray(said.to_numpy()) & ~rows.column("served").to_numpy(), dtype=np.bool_)


def _usual_reason(rows: pa.Table) -> str:
    import pyarrow.compute as pc

    given = rows.filter(pc.and_(rows.column("served"), pc.equal(rows.column("how"), "abstained"))).column("reason")
    counts = pc.value_counts(given.drop_null()).to_pylist()
    return str(max(counts, key=lambda entry: entry["counts"])["values"]) if counts else ""


def _strings(table: pa.Table, name: str) -> Strings:
    return np.asarray(table.column(name).to_numpy(), dtype=np.str_)


def value_matrix(values: Any, size: int) -> NDArray[np.float32]:
    """Return a list column as (n, size); null lists, and lists of another length, become NaN rows."""
    import pyarrow.compute as pc

    matrix = np.full((len(values), size), np.nan, np.float32)
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
    flat = values.flatten().to_numpy(zero_copy_only=False)  # null lists hold nothing here
    whole = lengths == size
    matrix[whole] = flat[np.repeat(whole, lengths)].reshape(-1, size)
    return matrix
