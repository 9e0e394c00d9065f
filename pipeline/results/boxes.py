"""The boxes behind executed outputs: those that counted, one by one for a page, or as rows for whoever reads a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from camlink.models.base import OutputSpec
from camlink.models.detections import MAX_BOXES
from camlink.pipeline.records import Detections, ModelOutput
from camlink.pipeline.results.tables import schema

if TYPE_CHECKING:
    import pyarrow as pa

GIVEN = 0.5  # score from which on one of several labels is given
CORNER_DIGITS, SCORE_DIGITS = 4, 3  # finer than what a detector knows, and stored in little


class Counted(NamedTuple):
    """Boxes of several outputs in their order, of each the surest first: (n,) each, and corners (n, 4) in 0..1."""

    owner: NDArray[np.intp]  # place of its output
    box: NDArray[np.intp]  # 0 for the surest of its output
    label: NDArray[np.int32]
    score: NDArray[np.float32]
    xyxy: NDArray[np.float32]


Behind = tuple[Detections, ModelOutput, OutputSpec]  # the boxes behind an output that has a value


def counted(found: Sequence[Behind], most: int = MAX_BOXES) -> Counted:
    """Return the boxes that gave the values, where these are counts or labels, else all; ``most`` of each output."""
    owner = np.repeat(np.arange(len(found)), [len(boxes.scores) for boxes, _, _ in found])
    label = np.concatenate([boxes.classes for boxes, _, _ in found])
    score = np.concatenate([boxes.scores for boxes, _, _ in found])
    sizes = np.array([spec.size for _, _, spec in found])
    least = np.array([GIVEN if spec.task == "multi_label" else 0.0 for _, _, spec in found])
    kept = np.flatnonzero((label >= 0) & (label < sizes[owner]) & (score >= least[owner]))
    kept = kept[np.lexsort((-score[kept], label[kept], owner[kept]))]
    kept = kept[_places(owner[kept] * sizes.max() + label[kept]) < _room(found, owner[kept], label[kept])]
    kept = kept[np.lexsort((-score[kept], owner[kept]))]
    box = _places(owner[kept])
    kept, box = kept[box < most], box[box < most]
    xyxy = np.concatenate([boxes.xyxy for boxes, _, _ in found])[kept]
    return Counted(owner[kept], box, label[kept], score[kept].round(SCORE_DIGITS), xyxy.round(CORNER_DIGITS))


def _room(found: Sequence[Behind], owner: NDArray[np.intp], label: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return how many boxes of a ``label`` (n,) the value of its ``owner`` (n,) counts; infinite, if it counts none."""
    counts = [output.value for _, output, spec in found if output.value is not None and spec.task == "count"]
    room = np.full(len(owner), np.inf)
    if counts:
        is_count = np.array([spec.task == "count" for _, _, spec in found])
        first = np.cumsum([0, *(value.size for value in counts)])[np.cumsum(is_count) - is_count]
        of_counts = is_count[owner]
        room[of_counts] = np.concatenate(counts)[first[owner[of_counts]] + label[of_counts]]
    return np.floor(room + 0.5)


def _places(groups: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return each entry's place among the equal ones, which follow each other.

    >>> _places(np.array([3, 3, 5, 7, 7, 7])).tolist()
    [0, 1, 0, 0, 1, 2]
    """
    begins = np.flatnonzero(np.diff(groups, prepend=-1))
    lengths = np.diff(begins, append=len(groups))
    return np.arange(len(groups)) - np.repeat(begins, lengths)


def label_names(spec: OutputSpec) -> tuple[str, ...]:
    """Return what a model's labels are called; their numbers where they have no names."""
    return spec.labels or tuple(map(str, range(spec.size)))


def boxes_table(
    times_us: Sequence[int], outputs: Sequence[ModelOutput], specs: Mapping[str, OutputSpec]
) -> pa.Table | None:
    """Return the rows of ``outputs``' boxes, of a repeated output once; None where there are none.

    ``times_us``: when each output's frame was captured.
    """
    import pyarrow as pa

    found, times, taken = [], [], set()
    for time_us, output in zip(times_us, outputs, strict=True):
        boxes, spec = output.detections, specs.get(output.model)
        key = (output.camera_id, output.frame_index, output.model)
        if boxes is None or spec is None or output.value is None or key in taken:
            continue
        taken.add(key)
        if len(boxes.scores):
            found.append((boxes, output, spec))
            times.append(time_us)
    rows = counted(found) if found else None
    if rows is None or not len(rows.owner):
        return None
    names = {spec.model: label_names(spec) for spec in specs.values()}
    first = dict(zip(names, np.cumsum([0, *map(len, names.values())]), strict=False))
    label = np.array([first[output.model] for _, output, _ in found])[rows.owner] + rows.label
    columns = {
        "camera_id": pa.array([output.camera_id for _, output, _ in found]).take(pa.array(rows.owner)),
        "frame_index": np.array([output.frame_index for _, output, _ in found])[rows.owner],
        "captured_at": np.array(times, "datetime64[us]")[rows.owner],
        "model": pa.array([output.model for _, output, _ in found]).take(pa.array(rows.owner)),
        "box": rows.box,
        "label": pa.array([name for of_model in names.values() for name in of_model]).take(pa.array(label)),
        "score": rows.score,
        **dict(zip(("x1", "y1", "x2", "y2"), rows.xyxy.T, strict=True)),
    }
    types = schema("boxes")
    return pa.Table.from_arrays([pa.array(columns[f.name]).cast(f.type) for f in types], schema=types)
