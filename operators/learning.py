"""What adaptation knows of one camera: frames to learn from, links in force, on trial and under watch. And snapshots.

A snapshot holds all of it, so that a camera whose worker died goes on in the middle of a trial.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from camlink.links.base import Array
from camlink.links.ensemble import Ensemble
from camlink.links.inputs import LinkInputs
from camlink.links.memory import Recall
from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.operators.recall import LastExecuted
from camlink.operators.relabelling import RelabelPolicy
from camlink.operators.snapshots import (
    EnsembleBytes,
    Snapshot,
    array_bytes,
    array_of,
    get_times,
    get_values,
    put_time,
    put_values,
    reading,
)
from camlink.pipeline.errors import StateError
from camlink.pipeline.records import Value

PLAIN = 3.0  # standard errors: a difference so large needs no more frames


@dataclass(frozen=True, eq=False)
class Version:
    """One training's links towards one target."""

    number: int
    ensemble: Ensemble


@dataclass
class Duel:
    """Two versions scored on the same later frames, as they would have been served."""

    old: Version
    new: Version
    old_scores: list[float] = field(default_factory=list)
    new_scores: list[float] = field(default_factory=list)

    def score(self, sources: Mapping[str, Array], recall: Recall | None, executed: Value) -> None:
        """Let both predict one frame that every model ran on."""
        for version, scores in ((self.old, self.old_scores), (self.new, self.new_scores)):
            value, _ = version.ensemble.predict(sources, recall)
            scores.append(float(agreement(version.ensemble.target, value[None], executed[None])[0]))

    def can_read(self, sources: Collection[str]) -> bool:
        """Say whether both versions have a link from any of ``sources``."""
        return all(not version.ensemble.links.keys().isdisjoint(sources) for version in (self.old, self.new))

    def margin(self) -> tuple[float, float]:
        """Return how much better the new version is, and the standard error of that."""
        difference = np.subtract(self.new_scores, self.old_scores)
        return float(difference.mean()), float(difference.std() / np.sqrt(len(difference)))

    def is_settled(self, frames: int) -> bool:
        """Say whether enough was seen: ``frames`` frames, or a third of them where the difference is plain."""
        seen = len(self.new_scores)
        better, error = self.margin() if seen else (0.0, 0.0)
        return seen >= frames or (3 * seen >= max(frames, 15) and abs(better) > PLAIN * error)

    def means(self) -> dict[str, float]:
        """Return the mean agreement of each version so far."""
        return {
            f"v{self.old.number}": float(np.mean(self.old_scores)),
            f"v{self.new.number}": float(np.mean(self.new_scores)),
        }


@dataclass
class TargetLinks:
    """The links towards one target of one camera: in force, on trial, and under watch after a promotion."""

    current: Version | None = None
    trial: Duel | None = None
    watch: Duel | None = None
    last_number: int = 0
    sources: tuple[str, ...] | None = None  # what the served predictions were made from, most recently


@dataclass(frozen=True, eq=False)
class Learnt:
    """What models said on one frame, and what links read of it, but for models that failed on it."""

    captured_at: datetime
    values: Mapping[str, Value]
    read: Mapping[str, Array]  # model -> (LinkInputs.sources[model].size,)

    def joined(self, later: Learnt) -> Learnt:
        """Return this with what the models said that ran on the same frame later."""
        return Learnt(self.captured_at, {**self.values, **later.values}, {**self.read, **later.read})


@dataclass
class CameraLearning:
    """All that adaptation knows of one camera."""

    relabel: RelabelPolicy
    history: deque[Learnt]
    targets: dict[str, TargetLinks]
    last: LastExecuted = field(default_factory=LastExecuted)
    fresh: int = 0  # frames learnt from since the last training
    pending: dict[int, Learnt] = field(default_factory=dict)  # to be relabelled: what executed when served
    has_started: bool = False  # links learnt elsewhere, where there are any, have had their turn

    def working(self) -> list[str]:
        """Return the models that answered on at least half of the frames since the last training."""
        fresh = list(self.history)[-max(self.fresh, 1) :]
        return [m for m in self.targets if 2 * sum(m in frame.values for frame in fresh) >= len(fresh)]


def to_snapshot(
    camera: CameraLearning, specs: Mapping[str, OutputSpec], inputs: LinkInputs, payloads: EnsembleBytes
) -> bytes:
    """Return all that is known of a camera as bytes; `restore` reads them."""
    parts, read_sizes = {}, _read_sizes(specs, inputs)
    for model, spec in specs.items():
        said = [frame for frame in camera.history if model in frame.values]
        parts[f"history/{model}"] = array_bytes([frame.values[model] for frame in said], (spec.size,))
        if model in read_sizes:
            parts[f"read/{model}"] = array_bytes([frame.read[model] for frame in said], (read_sizes[model],))
    for name, target in camera.targets.items():
        for version in _versions(target):
            parts[f"links/{name}/{version.number}"] = payloads.of(version.ensemble)
    told = {
        "times": [put_time(frame.captured_at) for frame in camera.history],
        "failed": {m: [row for row, frame in enumerate(camera.history) if m not in frame.values] for m in specs},
        "fresh": camera.fresh,
        "last": camera.last.state(),
        "targets": {name: _told_of(target) for name, target in camera.targets.items()},
    }
    return Snapshot(told, parts).to_bytes()


def restore(
    camera: CameraLearning,
    data: bytes,
    specs: Mapping[str, OutputSpec],
    inputs: LinkInputs,
    payloads: EnsembleBytes,
) -> None:
    """Fill a camera that is new here from its snapshot. Raises `StateError`, and leaves it as it was, for a bad one."""
    snapshot = Snapshot.from_bytes(data)
    told, sizes = snapshot.told, {model: spec.size for model, spec in specs.items()}
    with reading():
        if set(told["targets"]) != set(specs):
            raise StateError(f"a snapshot of other models: {', '.join(told['targets'])}")
        failed = {m: {int(row) for row in told.get("failed", {}).get(m, ())} for m in specs}
        history = _history_of(get_times(told["times"]), failed, snapshot.parts, specs, inputs)
        targets = {name: _target_of(name, told["targets"][name], snapshot.parts, payloads) for name in specs}
        last = LastExecuted.of_state(told["last"], sizes)
        fresh = int(told["fresh"])
    camera.history.extend(history)
    camera.targets, camera.last, camera.fresh = targets, last, fresh


def relabelling_of(camera: CameraLearning) -> dict[str, Any]:
    """Return what changes with every served frame, as plain values; `resume_relabelling` reads them."""
    return {
        "policy": camera.relabel.state(),
        "pending": [
            [index, put_time(frame.captured_at), put_values(frame.values), put_values(frame.read)]
            for index, frame in camera.pending.items()
        ],
        "sources": {name: target.sources for name, target in camera.targets.items()},
    }


def resume_relabelling(
    camera: CameraLearning, told: Mapping[str, Any], specs: Mapping[str, OutputSpec], inputs: LinkInputs
) -> None:
    """Go on where another worker stood. Raises `StateError`, and leaves the camera as it was, for what is amiss."""
    sizes, read_sizes = ({m: spec.size for m, spec in spaces.items()} for spaces in (specs, inputs.sources))
    with reading():
        pending = {
            int(index): Learnt(get_times([at])[0], get_values(values, sizes), get_values(read, read_sizes))
            for index, at, values, read in told["pending"]
        }
        sources = {name: None if named is None else tuple(map(str, named)) for name, named in told["sources"].items()}
        camera.relabel.resume(told["policy"])
    camera.pending = pending
    for name, target in camera.targets.items():
        target.sources = sources.get(name)


def _read_sizes(specs: Mapping[str, OutputSpec], inputs: LinkInputs) -> dict[str, int]:
    """Return the models of which links read more than the value, and how many numbers that is."""
    return {m: inputs.sources[m].size for m, spec in specs.items() if inputs.sources[m].size != spec.size}


def _history_of(
    times: Sequence[datetime],
    failed: Mapping[str, Collection[int]],
    parts: Mapping[str, bytes],
    specs: Mapping[str, OutputSpec],
    inputs: LinkInputs,
) -> list[Learnt]:
    """Return the frames in a snapshot's ``parts``. Raises `StateError` for what is not of these models and inputs.

    ``failed``: model -> the rows on which it has no value.
    """

    def columns(kind: str, sizes: Mapping[str, int]) -> dict[str, dict[int, Array]]:
        rows = {m: [row for row in range(len(times)) if row not in failed[m]] for m in sizes}
        found = {m: array_of(parts[f"{kind}/{m}"], len(rows[m]), (size,)) for m, size in sizes.items()}
        return {m: dict(zip(rows[m], found[m], strict=True)) for m in sizes}

    values = columns("history", {m: spec.size for m, spec in specs.items()})
    read = {**values, **columns("read", _read_sizes(specs, inputs))}
    return [
        Learnt(at, *({m: column[row] for m, column in kind.items() if row in column} for kind in (values, read)))
        for row, at in enumerate(times)
    ]


def _versions(target: TargetLinks) -> list[Version]:
    duels = [duel for duel in (target.trial, target.watch) if duel is not None]
    found = [target.current, *(version for duel in duels for version in (duel.old, duel.new))]
    return [version for version in found if version is not None]


def _told_of(target: TargetLinks) -> dict[str, Any]:
    def duel(named: Duel | None) -> list[Any] | None:
        return None if named is None else [named.old.number, named.new.number, named.old_scores, named.new_scores]

    current = None if target.current is None else target.current.number
    duels = {"trial": duel(target.trial), "watch": duel(target.watch)}
    return {"current": current, "last_number": target.last_number, **duels}


def _target_of(name: str, told: Mapping[str, Any], parts: Mapping[str, bytes], payloads: EnsembleBytes) -> TargetLinks:
    known: dict[int, Version] = {}

    def version(number: int) -> Version:
        if number not in known:
            known[number] = Version(number, payloads.read(parts[f"links/{name}/{number}"]))
        return known[number]

    def duel(named: Sequence[Any] | None) -> Duel | None:
        if named is None:
            return None
        old, new, old_scores, new_scores = named
        if len(old_scores) != len(new_scores):
            raise StateError(f"not a snapshot: {len(old_scores)} and {len(new_scores)} scores of the same frames")
        return Duel(version(old), version(new), [float(n) for n in old_scores], [float(n) for n in new_scores])

    return TargetLinks(
        None if told["current"] is None else version(told["current"]),
        duel(told["trial"]),
        duel(told["watch"]),
        int(told["last_number"]),
    )
