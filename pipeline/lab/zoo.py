"""Zoos from recorded traces, for `camlink zoo build`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from camlink.models.base import OutputSpec
from camlink.models.trace_arrays import CameraTrace, check_folder, names_of, open_arrays
from camlink.operators.experience import Shown, experience_of
from camlink.operators.zoo import Experience, Zoo
from camlink.pipeline.errors import TraceError
from camlink.pipeline.lab.compare import costs_of, usable_cameras
from camlink.pipeline.lab.play import Facts


def build_zoo(
    paths: Iterable[Path],
    note: Callable[[str], None],
    step: Callable[[str], None] = lambda _: None,
    most: int | None = None,
) -> Zoo:
    """Return a zoo of all cameras of these traces, by their newest frames, ``most`` of each.

    Folders of one name are told apart, and one that is given twice is taken once. ``note`` is told what is left out,
    ``step`` which camera is played. Raises `TraceError` for traces that cannot be read, or that hold other models than
    the first one.
    """
    specs: dict[str, OutputSpec] = {}
    learnt: list[Experience] = []
    called = names_of(list(paths))
    for path in called:
        check_folder(path)  # all of them, before any is played
    for path, called_so in called.items():
        trace = open_arrays(path, name=called_so, detections=True)
        for text in trace.notes:
            note(text)
        for camera in usable_cameras(trace, note):
            specs = specs or dict(camera.specs)
            name = f"{trace.name}/{camera.camera_id}"
            if camera.specs != specs:
                here, there = ", ".join(camera.specs), ", ".join(specs)
                raise TraceError(
                    f"{path}: {name} has other models ({here}) than the first camera of this zoo ({there})"
                )
            step(f"{name}: {min(len(camera), most or len(camera)):,} frames")
            learnt.append(experience_of(name, shown(camera, most), specs, costs_of(trace, camera)))
    return Zoo(specs, tuple(learnt))


def shown(camera: CameraTrace, most: int | None = None) -> list[Shown]:
    """Return a camera's newest frames, ``most`` of them, as a policy is shown them, with what all models said."""
    facts = Facts(camera)
    rows = range(max(0, len(camera) - most) if most else 0, len(camera))
    return [
        Shown(
            facts.at(row),
            {m: v[row] for m, v in camera.values.items()},
            {m: drawn.at(row) for m, drawn in camera.detections.items()},
        )
        for row in rows
    ]
