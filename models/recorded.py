"""Models played back from a trace, so that a schedule can be judged without a GPU, weights or pictures.

`RecordedModel` answers from memory by (camera, frame index): equal values share one object, since count traces repeat a
few vectors hundreds of thousands of times. How a trace's files are read is in `camlink.models.trace_files`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from camlink.models.base import Inference, OutputSpec
from camlink.models.trace_files import read_frames, read_models, read_outputs
from camlink.pipeline.errors import ModelError, TraceError
from camlink.pipeline.records import Frame


class RecordedModel:
    """One model of a trace. Loading and unloading cost nothing; times and memory are those the trace states."""

    def __init__(
        self,
        spec: OutputSpec,
        time_ms: float,
        memory_gb: float,
        answers: Mapping[str, Mapping[int, Inference]],
        source: str,
    ) -> None:
        """``answers``: camera id -> frame index -> what the model gave; ``source``: the trace, for messages."""
        self.spec, self.time_ms, self.memory_gb = spec, time_ms, memory_gb
        self._answers, self._source = answers, source

    def load(self) -> None:
        """Do nothing: the answers already lie in memory."""

    def unload(self) -> None:
        """Do nothing: the answers stay, for they are also what predictions are judged by."""

    def knows(self, camera_id: str, index: int) -> bool:
        """Say whether the trace holds this model's output on that frame."""
        return index in self._answers.get(camera_id, {})

    def answer(self, camera_id: str, index: int) -> Inference:
        """Return what the model gave on a frame that it `knows`."""
        return self._answers[camera_id][index]

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        """Return what the model gave on these frames. Raises `ModelError` for a frame the trace does not hold."""
        answers = self._answers
        try:
            return [answers[frame.camera_id][frame.index] for frame in frames]
        except KeyError:
            raise ModelError(self._missing(frames)) from None

    def _missing(self, frames: Sequence[Frame]) -> str:
        frame = next(f for f in frames if f.index not in self._answers.get(f.camera_id, {}))
        where = f'trace {self._source}: model "{self.spec.model}" has no output'
        if frame.camera_id not in self._answers:
            return f'{where} for camera "{frame.camera_id}"; it knows {", ".join(sorted(self._answers)) or "none"}'
        return f'{where} for frame {frame.index} of camera "{frame.camera_id}": it failed there, or was not recorded'


@dataclass(frozen=True, slots=True)
class Trace:
    """A recorded trace in memory. ``frames`` have statistics but no pixels, and are in order of event time."""

    path: Path
    specs: Mapping[str, OutputSpec]
    models: tuple[RecordedModel, ...]
    frames: tuple[Frame, ...]

    def model(self, name: str) -> RecordedModel:
        """Return the model called ``name``. Raises `ModelError`."""
        for model in self.models:
            if model.spec.model == name:
                return model
        raise ModelError(f'trace {self.path}: no model "{name}"; it holds {", ".join(self.specs)}')


def open_trace(path: Path | str) -> Trace:
    """Read the trace folder ``path`` (design.md, "Traces"). Raises `TraceError` with the file and line at fault."""
    folder = Path(path)
    if not folder.is_dir():
        raise TraceError(f"{folder}: no such trace folder; record one with `camlink record`")
    recorded = read_models(folder)
    answers = read_outputs(folder, {name: entry.spec for name, entry in recorded.items()})
    models = tuple(
        RecordedModel(entry.spec, entry.time_ms, entry.memory_gb, answers[name], folder.name)
        for name, entry in recorded.items()
    )
    specs = {name: entry.spec for name, entry in recorded.items()}
    return Trace(folder, specs, models, read_frames(folder))
