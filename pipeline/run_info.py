"""What a run was: the header of its results folder (``run.json``), written by the runner, read by reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from camlink.models.base import OutputSpec
from camlink.operators.gate import PER_FRAME_POLICIES
from camlink.operators.sampling import SamplingRules
from camlink.pipeline.durable import write_durably
from camlink.pipeline.errors import RequestError, ResultsError
from camlink.pipeline.quantities import parse_duration

FILE_NAME = "run.json"


@dataclass(frozen=True)
class RunInfo:
    """Everything a report needs to know of a run besides its rows.

    ``models``: name -> ``task, labels, size, time_ms, memory_gb, description, licence`` and, where they are not the
    defaults, ``kind``, ``scale``, ``max_steps``. ``cameras``: id -> ``domain, source, fps`` with passwords masked.
    ``captured`` counts sampled frames per camera, dropped ones included. ``complete`` is False until a run has ended
    by itself; ``stopped_by`` then says what ended it.
    """

    name: str
    camlink_version: str
    seed: int
    policy: str
    models: Mapping[str, Mapping[str, Any]]
    cameras: Mapping[str, Mapping[str, Any]]
    started_at: datetime
    config: Mapping[str, Any] = field(default_factory=dict)
    finished_at: datetime | None = None
    complete: bool = False
    stopped_by: str | None = None
    captured: Mapping[str, int] = field(default_factory=dict)
    wall_s: float = 0.0
    busy_ms: Mapping[str, float] = field(default_factory=dict)  # measured, per model
    loads: int = 0
    loaded: Sequence[str] = field(default_factory=list)  # models in memory at the time of writing
    batch_sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # frames in a batch -> batches
    oracle: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # camera -> how a person's labels are met
    synthetic: bool = False  # of a simulated trace: no camera has seen it
    live: bool = False  # frames are captured now, so that the age of the last one says something
    taken_up: Mapping[str, str] = field(default_factory=dict)  # camera -> until when it had learnt in earlier runs

    def specs(self) -> dict[str, OutputSpec]:
        """Return the models' output specs. Raises `ResultsError` when a model's entry does not describe one."""
        return {name: _spec(name, entry) for name, entry in self.models.items()}

    @property
    def per_frame(self) -> bool:
        """Whether its policy decides on every frame, and so predicts without trained links."""
        return self.policy in PER_FRAME_POLICIES

    def bootstrap_frames(self, camera_id: str) -> int:
        """Return how many of a camera's first frames every model runs on, to learn from; 0 where it is not told.

        None of one that went on from an earlier run.
        """
        if camera_id in self.taken_up:
            return 0
        return int((self.config.get("links") or {}).get("bootstrap_frames") or 0)

    def learning_frames(self, camera_id: str) -> int:
        """Return how many of a camera's first frames every model runs on, before there is a decision; 0: not told."""
        if camera_id in self.taken_up:
            return 0
        profile, fps = self.config.get("profile"), self.cameras.get(camera_id, {}).get("fps")
        if not profile:
            return 0
        period = parse_duration(self.config["period"])
        rules = SamplingRules(period, profile["fraction"], profile["min_frames"], 0.0, self.bootstrap_frames(camera_id))
        return rules.learning_frames(fps)

    def save(self, path: Path) -> None:
        """Write to ``path`` (the run folder or the file itself) in one step. Raises `ResultsError`."""
        text = json.dumps(asdict(self), default=_plain, indent=2, ensure_ascii=False)
        write_durably(_file(path), lambda temporary: _write_text(temporary, text))

    @classmethod
    def load(cls, path: Path) -> RunInfo:
        """Read from ``path`` (the run folder or the file itself). Raises `ResultsError` saying what is wrong."""
        file = _file(path)
        try:
            entries = json.loads(file.read_text(encoding="utf-8"))
            known = {f.name for f in fields(cls)}
            entries = {key: value for key, value in entries.items() if key in known}
            for key in ("started_at", "finished_at"):
                if entries.get(key):
                    entries[key] = datetime.fromisoformat(entries[key])
            return cls(**entries)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RequestError(f"{file}: not found; is this the folder of a camlink run?") from error
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise RequestError(f"{file}: not a readable run header: {error}") from error


def _file(path: Path) -> Path:
    return path / FILE_NAME if path.suffix != ".json" or path.is_dir() else path


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _plain(value: object) -> object:
    """Turn what JSON does not know into what it does: times, paths, numpy scalars, mappings."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    return str(value)


def described(spec: OutputSpec) -> dict[str, Any]:
    """Return what a header says of a model's outputs, from which `RunInfo.specs` makes the spec again."""
    told = {key: getattr(spec, key) for key in ("task", "kind", "size", "scale", "max_steps")}
    return told | {"labels": list(spec.labels)}


def _spec(name: str, entry: Mapping[str, Any]) -> OutputSpec:
    kind = {"tokens": "sequence", "detections": "set"}.get(entry.get("task", ""), "vector")
    try:
        return OutputSpec(
            model=name,
            kind=entry.get("kind", kind),
            size=int(entry["size"]),
            task=entry["task"],
            labels=tuple(entry.get("labels") or ()),
            max_steps=int(entry.get("max_steps", 1)),
            scale=float(entry.get("scale", 1.0)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f'{FILE_NAME}: model "{name}" has no usable output spec: {error!r}') from error
