"""Certificates from a results folder: the evidence that `camlink.operators.certificates` gathers live, from rows.

rows = read_camera(RunResults(folder), "hall")
certify(model_evidence(rows.models["persons"]))            # predicted outputs of one model
certify(combined(camera_evidence(r) for r in cameras))     # all outputs of a fleet
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from camlink.models.scores import RULES
from camlink.operators.evidence import Evidence, gathered, known
from camlink.pipeline.accuracy import ABSTAINED, EXECUTES, Counted
from camlink.pipeline.records import JUDGED

if TYPE_CHECKING:
    from camlink.pipeline.reports.rows import CameraRows, ModelRows

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Answers:
    """One model's served outputs on serve and audit frames, by capture time: all arrays are (n,).

    ``agreement`` is NaN where only an audit would have told, and 1 where the model was to execute (``executes``);
    ``sampled`` says where it was predicted, so that a coin of ``chance`` decided about the audit.
    """

    frame_index: NDArray[np.int64]
    times_us: NDArray[np.int64]
    agreement: Floats
    sampled: Flags
    executes: Flags
    audited: Flags
    chance: Floats

    def only(self, chosen: Flags) -> Answers:
        """Return those that ``chosen`` (n,) says."""
        return Answers(**{name: values[chosen] for name, values in vars(self).items()})


def answers(rows: ModelRows) -> Answers:
    """Return what the rows say of each frame whose answers count."""
    chosen = np.flatnonzero(rows.served & np.isin(rows.purpose, JUDGED))
    how, audited = rows.how[chosen], rows.purpose[chosen] == "audit"
    agreement = np.where(how == "executed", 1.0, np.where(how == "abstained", 0.0, np.nan))
    sampled, executes = np.isin(how, ("linked", "reused")), how == "executed"
    chance = np.where(sampled & audited, 0.0, np.nan_to_num(rows.probability[chosen]))  # its model failed on the audit
    if rows.scores is not None and rows.audit.frame_index.size:
        place = np.searchsorted(rows.frame_index[chosen], rows.audit.frame_index)
        agreement[place] = rows.scores.camlink
        sampled[place] = (rows.audit.shadow != EXECUTES) & (rows.audit.shadow != ABSTAINED)
        executes[place] = rows.audit.shadow == EXECUTES
    return Answers(rows.frame_index[chosen], rows.times_us[chosen], agreement, sampled, executes, audited, chance)


def camera_answers(rows: CameraRows) -> dict[str, Answers]:
    """Return the answers of all models of a camera that can be scored."""
    return {name: answers(model) for name, model in rows.models.items() if model.spec.task in RULES}


def model_evidence(
    told: Answers, since_us: int | None = None, until_us: int | None = None, *, counted: Counted = "predicted"
) -> Evidence:
    """Return the evidence on one model's outputs, of frames captured in [since, until).

    Where all are ``counted``, those that a decision executes count 1.
    """
    return _evidence(told.only(_within(told, since_us, until_us) & _counting(told, counted)))


def camera_evidence(
    models: Iterable[Answers], since_us: int | None = None, until_us: int | None = None, *, counted: Counted = "all"
) -> Evidence:
    """Return the evidence on a camera's outputs: per frame the mean over its models (MLink Eq. 1).

    Models that do not count as ``counted`` says are left out, and frames on which none counts.
    """
    parts = list(models)
    if not parts:
        return Evidence()
    joined = Answers(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})
    return _evidence(frame_means(joined.only(_within(joined, since_us, until_us) & _counting(joined, counted))))


def _counting(told: Answers, counted: Counted) -> Flags:
    everything = np.ones(len(told.executes), bool)
    return {"all": everything, "predicted": ~told.executes, "answered": told.sampled}[counted]


def _within(told: Answers, since_us: int | None, until_us: int | None) -> Flags:
    inside = np.ones(len(told.times_us), bool) if since_us is None else told.times_us >= since_us
    return inside if until_us is None else inside & (told.times_us < until_us)


def frame_means(told: Answers) -> Answers:
    """Reduce several models' answers to one per frame: the mean, unknown where one is."""
    frames, first, inverse = np.unique(told.frame_index, return_index=True, return_inverse=True)
    mean = np.bincount(inverse, weights=told.agreement) / np.maximum(np.bincount(inverse), 1)
    sampled = np.bincount(inverse, weights=told.sampled) > 0
    lost = np.bincount(inverse, weights=told.sampled & told.audited & np.isnan(told.agreement)) > 0
    chance = np.where(lost, 0.0, told.chance[first])
    return Answers(frames, told.times_us[first], mean, sampled, ~sampled, told.audited[first], chance)


def _evidence(told: Answers) -> Evidence:
    sampled = told.only(told.sampled)
    exact = told.only(~told.sampled)
    total = gathered(sampled.chance, sampled.agreement)
    if not len(exact.agreement):
        return total
    mean = float(exact.agreement.mean())
    return total + known(mean, frames=len(exact.agreement), audits=int(exact.audited.sum()))
