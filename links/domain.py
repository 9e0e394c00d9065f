"""The oracle node: a link from deployed models to what a person says is there (MLink extended, Sec. 4.2).

A detector trained elsewhere errs in its own steady way on each camera; a few hundred labelled frames show how. The
person's labels are one more output space, so that the oracle is one more target and everything links offer (several
sources, distributions of counts, calibrated confidence) serves to correct the deployed model.

Labels come as CSV, one row per frame: ``camera_id``, the frame by ``frame_index`` or by time (``captured_at``, ISO
8601, UTC where it names no zone), and one column per label, named as in the spec.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array
from camlink.links.ensemble import Ensemble
from camlink.links.train import MIN_FRAMES, LinkKind, train_ensembles
from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.pipeline.errors import LinkError

KEPT_ASIDE = 0.2  # of the labelled frames, to judge on
FEWEST_JUDGED = 5  # frames; fewer say nothing
MCNEMAR = 1.96  # standard deviations that an offset must gain by, were it as good as links: 5 %
FrameName = int | datetime  # a frame's index, or when it was captured
Labels = dict[tuple[str, FrameName], Array]  # (camera, frame) -> value (size,)


def read_labels(path: Path, oracle: OutputSpec) -> Labels:
    """Read a person's labels in the oracle's output space. Raises `LinkError` with file and line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            by = "captured_at" if "captured_at" in (rows.fieldnames or ()) else "frame_index"
            columns = ("camera_id", by, *oracle.labels)
            missing = [c for c in columns if c not in (rows.fieldnames or ())]
            if missing or not oracle.labels:
                wanted = ", ".join(columns)
                raise LinkError(f"{path}:1: lacks the columns {', '.join(missing) or 'of labels'}; wanted {wanted}")
            labels: Labels = {}
            for row in rows:
                key, value = _row(row, by, oracle, f"{path}:{rows.line_num}")
                if key in labels:
                    raise LinkError(f"{path}:{rows.line_num}: frame {key[1]} of {key[0]} is labelled a second time")
                labels[key] = value
    except OSError as error:
        raise LinkError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LinkError(f"{path}: is not UTF-8 ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        raise LinkError(f"{path}:{rows.line_num + 1}: not CSV: {error}") from error
    return labels


def _row(row: Mapping[str, str | None], by: str, oracle: OutputSpec, where: str) -> tuple[tuple[str, FrameName], Array]:
    try:
        if None in row:  # where `csv` puts what has no column
            raise ValueError("more fields than columns")
        key = (str(row["camera_id"]), _moment(row[by] or "") if by == "captured_at" else int(row[by] or ""))
        value = np.array([float(row[label] or "") for label in oracle.labels], np.float32)
    except ValueError as error:
        raise LinkError(f"{where}: {error}; wanted a frame index or time, and one number per label") from error
    if not np.isfinite(value).all() or (oracle.task == "count" and (value < 0).any()):
        raise LinkError(f"{where}: labels must be finite, and counts not negative; got {value.tolist()}")
    return key, value


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def link_to_oracle(
    specs: Mapping[str, OutputSpec],
    samples: Mapping[str, Array],
    oracle: OutputSpec,
    labels: Array,
    *,
    seed: int,
    kind: LinkKind = "count_distribution",
) -> Ensemble:
    """Learn to say what a person would, from one deployed model or several (cross-task fusion).

    ``samples``: model -> (n, size) on the labelled frames; ``labels`` (n, oracle.size). Raises `LinkError`.
    """
    if oracle.model in specs:
        raise LinkError(f'the oracle needs a name of its own: "{oracle.model}" is a deployed model')
    everything = {**specs, oracle.model: oracle}
    values = {**{m: samples[m] for m in specs}, oracle.model: labels}
    trained = train_ensembles(everything, values, seed=seed, targets=[oracle.model], kind=kind)
    return trained[oracle.model]


@dataclass(frozen=True, eq=False)
class Offset:
    """What a person says, as what one deployed counter says plus a constant: a detector's steady error, undone.

    ``offset`` (target.size,) is in counts. It learns one number per label, so that it also holds for counts that no
    label showed, where links know nothing. It answers as an `Ensemble` of one source does, without memory.
    """

    source: OutputSpec
    target: OutputSpec
    offset: Array
    held_out_agreement: float  # of an offset learnt without the labels that it is judged by
    stated: float  # confidence, 0..1

    @property
    def links(self) -> Mapping[str, Offset]:
        """The one model that it reads."""
        return {self.source.model: self}

    def predict(self, values: Mapping[str, Array]) -> tuple[Array, NDArray[np.float64]]:
        """Return the value (..., target.size) and the confidence (...,). Raises `LinkError` without the source."""
        if self.source.model not in values:
            raise LinkError(f"{self.target.model} is told from {self.source.model}, which said nothing")
        read = values[self.source.model]
        own = own_value(self.source, read.reshape(-1, read.shape[-1]), self.target)
        assert own is not None, "an offset is learnt from counters only"
        told = np.maximum(own + self.offset, np.float32(0.0)).reshape(*read.shape[:-1], self.target.size)
        return told, np.full(read.shape[:-1], self.stated)


def learn_oracle(
    specs: Mapping[str, OutputSpec], samples: Mapping[str, Array], oracle: OutputSpec, labels: Array, *, seed: int
) -> Ensemble | Offset:
    """Learn to say what a person would: links, or a counter's plain offset where that is right more often.

    Both are taught with the first four fifths of the labels, oldest first, and compared on the rest; what wins is then
    taught with all: the offset only where it gains more than chance explains (McNemar's test), else links, as with too
    few labels to compare by. Raises as `link_to_oracle`.
    """
    taught = _taught_frames(len(labels))
    links = link_to_oracle(specs, samples, oracle, labels, seed=seed)
    if taught is None or oracle.task != "count":
        return links
    said = {m: own for m, spec in specs.items() if (own := own_value(spec, samples[m], oracle)) is not None}
    scores = {m: _scores_of_offset(oracle, own, labels, taught) for m, own in said.items()}
    best = max(scores, key=lambda m: float(scores[m].mean()), default=None)
    if best is None:
        return links
    tried = link_to_oracle(specs, {m: samples[m][:taught] for m in specs}, oracle, labels[:taught], seed=seed)
    by_links = agreement(oracle, tried.predict({m: samples[m][taught:] for m in specs})[0], labels[taught:])
    gain = scores[best] - by_links
    if gain.sum() <= MCNEMAR * float(np.sqrt((gain**2).sum())):
        return links
    stated = (float(scores[best].sum()) + 1.0) / (len(gain) + 2.0)  # rule of succession: few frames make nobody sure
    return Offset(specs[best], oracle, _usual_offset(said[best], labels), float(scores[best].mean()), stated)


def _scores_of_offset(oracle: OutputSpec, own: Array, labels: Array, taught: int) -> NDArray[np.floating]:
    """Return, for each of the rest, how right a counter plus the offset of the first ``taught`` frames is, 0..1."""
    told = np.maximum(own[taught:] + _usual_offset(own[:taught], labels[:taught]), np.float32(0.0))
    return agreement(oracle, told, labels[taught:])


def _usual_offset(own: Array, labels: Array) -> Array:
    """Return the commonest whole difference per label, which is right most often: (n, size) -> (size,)."""
    found = []
    for column in np.rint(labels - own).T:
        values, counts = np.unique(column, return_counts=True)
        found.append(values[counts.argmax()])
    return np.array(found, np.float32)


def _taught_frames(labelled: int) -> int | None:
    """Return how many labelled frames teach when the rest judges; None where too few would be left for either."""
    kept = round(KEPT_ASIDE * labelled)
    return None if labelled - kept < MIN_FRAMES or kept < FEWEST_JUDGED else labelled - kept


@dataclass(frozen=True)
class Judgement:
    """How often a person's labels were met on labelled frames that taught nothing (`models.scores.agreement`, 0..1).

    ``own``: what each deployed counter says itself, in the labels' terms; ``constant``: always the commonest label.
    """

    taught: int  # frames
    frames: int  # kept aside, the last ones
    calibrated: float
    own: Mapping[str, float]
    constant: float


def judge_oracle(
    specs: Mapping[str, OutputSpec], samples: Mapping[str, Array], oracle: OutputSpec, labels: Array, *, seed: int
) -> Judgement | None:
    """Teach with the first four fifths of the labelled frames, oldest first, and judge on the rest.

    Neighbouring frames are alike, so what is kept aside is one stretch. None where too few frames would be left to
    teach or to judge. Arguments as of `learn_oracle`.
    """
    taught = _taught_frames(len(labels))
    if taught is None:
        return None
    truth = labels[taught:]
    teach, judge = ({m: samples[m][part] for m in specs} for part in (slice(taught), slice(taught, None)))
    learnt = learn_oracle(specs, teach, oracle, labels[:taught], seed=seed)
    values, counts = np.unique(labels[:taught], axis=0, return_counts=True)
    usual = np.broadcast_to(values[counts.argmax()], truth.shape)
    said = {m: own for m, spec in specs.items() if (own := own_value(spec, judge[m], oracle)) is not None}
    return Judgement(
        taught,
        len(truth),
        float(agreement(oracle, learnt.predict(judge)[0], truth).mean()),
        {m: float(agreement(oracle, own, truth).mean()) for m, own in said.items()},
        float(agreement(oracle, usual, truth).mean()),
    )


def own_value(spec: OutputSpec, values: Array, oracle: OutputSpec) -> Array | None:
    """Return what a counter's output (n, size) says in the terms of the labels (n, oracle.size); None if it cannot.

    Entries of the same names are taken; for a single label, else, all things counted together.
    """
    if spec.task != "count":
        return None
    if set(oracle.labels) <= set(spec.labels):
        return values[:, [spec.labels.index(label) for label in oracle.labels]]
    return values.sum(axis=1, keepdims=True) if oracle.size == 1 else None
