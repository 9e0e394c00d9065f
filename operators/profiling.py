"""How well each link does on frames that every model ran on: the scores behind every decision.

A frame is scored with the links in force when it arrives, before anything learns from it (design ruling 3). What is
kept per frame are the links' pre-activations, so that the ensemble of any subset of sources can be scored later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np

from camlink.links.base import Array
from camlink.links.ensemble import Ensemble
from camlink.models.base import OutputSpec
from camlink.models.scores import agreement
from camlink.operators.selection import CameraScores
from camlink.operators.snapshots import EnsembleBytes, array_bytes, array_of, get_times, put_time, reading
from camlink.pipeline.records import Value


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """One frame towards one target: what each source's link said, and what the model said."""

    captured_at: datetime
    ensemble: Ensemble
    pre_activations: Mapping[str, Array]
    executed: Value


class LinkScorer:
    """The recent scores of one camera's links. ``window`` bounds the frames that are kept per target."""

    def __init__(self, specs: Mapping[str, OutputSpec], window: int = 500) -> None:
        self._specs = specs
        self._recent: dict[str, deque[_Scored]] = {t: deque(maxlen=window) for t in specs}

    def observe(
        self,
        captured_at: datetime,
        values: Mapping[str, Value],
        ensembles: Mapping[str, Ensemble],
        read: Mapping[str, Array] | None = None,
    ) -> None:
        """Score one frame on which all models were to execute; targets without links or a value are left out.

        ``read`` is what links read of it, where that is more than the values.
        What a model said last is not used here: on consecutive profile frames it would be fresher than serving ever
        has it, and every link would look perfect.
        """
        read = values if read is None else read
        for target, ensemble in ensembles.items():
            pre = {s: link.predict(read[s]) for s, link in ensemble.links.items() if s in read}
            if pre and target in values:
                self._recent[target].append(_Scored(captured_at, ensemble, pre, values[target]))

    def forget_before(self, moment: datetime) -> None:
        """Drop frames that say nothing about the present any more."""
        for recent in self._recent.values():
            while recent and recent[0].captured_at < moment:
                recent.popleft()

    def frames(self, targets: Collection[str] | None = None) -> int:
        """Return the number of scored frames of the target, of some or of all, that has least."""
        chosen = self._recent if targets is None else targets
        return min((len(self._recent[target]) for target in chosen), default=0)

    def scores(self, until: datetime | None = None) -> CameraScores:
        """Return link scores as of now, or of ``until``. A link that was never scored counts 0: it is not trusted."""
        recent = {
            target: tuple(one for one in scored if until is None or one.captured_at <= until)
            for target, scored in self._recent.items()
        }

        @cache
        def subset(sources: tuple[str, ...], target: str) -> float:
            return self._mean_agreement(recent[target], sources, self._specs[target])

        pairs = {s: {t: subset((s,), t) for t in self._specs if t != s} for s in self._specs}
        return CameraScores(pairs, subset)

    def put_state(self, parts: dict[str, bytes], payloads: EnsembleBytes) -> dict[str, list[Any]]:
        """Add what was scored to a snapshot's ``parts``; return the rest of what `get_state` needs."""
        return {target: list(self._put_target(target, parts, payloads)) for target in self._recent}

    def get_state(self, told: Mapping[str, Any], parts: Mapping[str, bytes], payloads: EnsembleBytes) -> None:
        """Take up what another scorer had scored. Raises `StateError` for what is not of these models."""
        with reading():
            found = {t: list(self._get_target(t, told[t], parts, payloads)) for t in self._specs}
        for target, scored in found.items():
            self._recent[target].extend(scored)

    def _put_target(self, target: str, parts: dict[str, bytes], payloads: EnsembleBytes) -> Iterator[list[Any]]:
        """Store frames that share a link version as arrays: what each source's link said, and what the model said."""
        together = groupby(self._recent[target], key=_alike)
        for number, ((_, sources), group) in enumerate(together):
            frames, place = list(group), f"{target}/{number}"
            width = frames[0].ensemble.output.size
            parts[f"links/{place}"] = payloads.of(frames[0].ensemble)
            parts[f"executed/{place}"] = array_bytes([one.executed for one in frames], (self._specs[target].size,))
            for source in sources:
                said = [one.pre_activations[source] for one in frames]
                parts[f"said/{place}/{source}"] = array_bytes(said, (width,))
            yield [[put_time(one.captured_at) for one in frames], sources]

    def _get_target(
        self, target: str, told: Sequence[Any], parts: Mapping[str, bytes], payloads: EnsembleBytes
    ) -> Iterator[_Scored]:
        for number, (numbers, sources) in enumerate(told):
            place, times = f"{target}/{number}", get_times(numbers)
            ensemble = payloads.read(parts[f"links/{place}"])
            executed = array_of(parts[f"executed/{place}"], len(times), (self._specs[target].size,))
            shape = (ensemble.output.size,)
            said = {s: array_of(parts[f"said/{place}/{s}"], len(times), shape) for s in sources if s in self._specs}
            for row, at in enumerate(times):
                yield _Scored(at, ensemble, {s: rows[row] for s, rows in said.items()}, executed[row])

    @staticmethod
    def _mean_agreement(scored: tuple[_Scored, ...], sources: tuple[str, ...], target: OutputSpec) -> float:
        """Score the ensemble over ``sources``, batched over the frames that share a link version and sources."""
        total, frames = 0.0, 0
        for _, together in groupby(scored, key=_alike):
            part = list(together)
            ensemble = part[0].ensemble
            usable = [s for s in sources if s in part[0].pre_activations]
            frames += len(part)
            if usable:
                stacked = {s: np.stack([p.pre_activations[s] for p in part]) for s in usable}
                predicted = ensemble.finish(ensemble.combine(stacked))
                total += float(agreement(target, predicted, np.stack([p.executed for p in part])).sum())
        return total / frames if frames else 0.0


def _alike(one: _Scored) -> tuple[int, tuple[str, ...]]:
    """Return what frames that are scored or stored together share: the version of the links, and who gave a value."""
    return id(one.ensemble), tuple(one.pre_activations)
