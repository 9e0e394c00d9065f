"""A party of a federation as a process, or all of them in one: operators over a bus, and what each leaves on disk.

The coordinator writes where it stands before it tells: killed at any moment, it goes on with the round it was in.
"""

from __future__ import annotations

import io
import json
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from camlink.links.base import Array
from camlink.links.ensemble import Ensemble
from camlink.links.federation import Plan, Server
from camlink.models.base import OutputSpec
from camlink.models.recorded import open_trace
from camlink.models.scores import agreement
from camlink.operators.base import Operator
from camlink.operators.federation import CoordinatorOperator, Refusal, RoundRules
from camlink.pipeline.accuracy import usual_so_far
from camlink.pipeline.bus.base import Bus, Subscription
from camlink.pipeline.clock import Clock
from camlink.pipeline.codec import encode
from camlink.pipeline.durable import write_durably
from camlink.pipeline.errors import LinkError
from camlink.pipeline.graph import TOPIC_OF, topic_of
from camlink.pipeline.records import FederationRound, FederationUpdate, Record

if TYPE_CHECKING:
    from camlink.pipeline.results.read import RunResults

logger = logging.getLogger(__name__)

STATE_FILE = "federation.npz"
POLL_S = 0.05
ROUNDS, UPDATES = TOPIC_OF[FederationRound], TOPIC_OF[FederationUpdate]


class PartyOperator(Operator, Protocol):
    """A coordinator or a site."""

    @property
    def is_done(self) -> bool: ...

    def refused(self) -> list[Refusal]: ...


class Party:
    """One party at the bus. ``bytes`` counts rounds of gradients: ("sent" or "taken") -> bytes as encoded."""

    def __init__(
        self,
        operator: PartyOperator,
        bus: Bus,
        subscription: Subscription,
        clock: Clock,
        checkpoint: Callable[[], None] = lambda: None,
    ) -> None:
        """``checkpoint`` makes durable where the operator stands; called before others are told."""
        self.bytes: Counter[str] = Counter()
        self._messages: Counter[str] = Counter()
        self._operator, self._bus, self._subscription = operator, bus, subscription
        self._clock, self._checkpoint = clock, checkpoint

    def run(self, stop: Callable[[], bool]) -> bool:
        """Take part until the federation is done, or ``stop`` says so; return whether it is done."""
        try:
            while not (self._operator.is_done or stop()):
                self.once(POLL_S)
        finally:
            self._subscription.close()
        return self._operator.is_done

    def once(self, timeout_s: float = 0.0) -> None:
        """Take what has come and what is due, and tell what follows."""
        records = self._subscription.poll(timeout_s)
        told = list(self._operator.on_records(records))
        due = self._operator.next_time()
        if due is not None and due <= self._clock.now():
            told += self._operator.on_time(self._clock.now())
        if told:
            self._checkpoint()
        for record in told:
            self._bus.publish(topic_of(record), record)
        self._weigh("sent", told)
        self._weigh("taken", records)
        for record, why in self._operator.refused():
            self._bus.refuse(topic_of(record), record, why)
        if told or records:
            self._bus.flush()
            self._subscription.commit()

    def bytes_per_message(self, way: str) -> float:
        """Return the mean size of what was "sent" or "taken" in rounds of gradients; 0 before the first."""
        return self.bytes[way] / max(self._messages[way], 1)

    def _weigh(self, way: str, records: Iterable[Record]) -> None:
        for record in filter(_is_of_gradients, records):
            self.bytes[way] += len(encode(record))
            self._messages[way] += 1


def _is_of_gradients(record: Record) -> bool:
    if isinstance(record, FederationRound):
        return record.phase == "gradients"
    return isinstance(record, FederationUpdate) and record.gradient.size > 0


@dataclass(frozen=True)
class CoordinatorFolder:
    """Where a coordinator keeps its state and, at the end, the links: ``FOLDER/TARGET.npz``."""

    folder: Path

    def open(self, name: str, plan: Plan, rules: RoundRules, clip_norm: float, clock: Clock) -> CoordinatorOperator:
        """Return a coordinator that goes on where the one in this folder stood, or a new one. Raises `LinkError`."""
        server = Server(plan, clip_norm)
        header = _header(name, plan, clip_norm)
        path = self.folder / STATE_FILE
        run = secrets.token_hex(8)
        if path.exists():
            state = self._state(path)
            if state.get("header", np.array("")).item() != header:
                raise LinkError(
                    f"{path} is of a federation with other settings; go on with the same, or in a new folder"
                )
            server.resume(state)
            run = str(state["run"])
            logger.info('federation "%s": going on after %d rounds', name, server.number)
        return CoordinatorOperator(name, run, server, rules, clock)

    def save(self, name: str, clip_norm: float, operator: CoordinatorOperator) -> None:
        """Make durable where the coordinator stands; at the end the links too."""
        server = operator.server
        arrays = {"header": np.array(_header(name, server.plan, clip_norm)), "run": np.array(operator.run)}
        write_durably(self.folder / STATE_FILE, lambda path: _savez(path, {**arrays, **server.state()}))
        if server.phase == "done":
            save_links(self.folder, server.ensembles)

    @staticmethod
    def _state(path: Path) -> dict[str, np.ndarray]:
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except Exception as error:  # zip and array readers each have their own errors for damaged bytes
            raise LinkError(f"{path}: no state of a federation: {error}; begin anew in another folder") from error


def save_links(folder: Path, ensembles: Mapping[str, Ensemble]) -> None:
    """Write ``FOLDER/TARGET.npz`` for each target, as `links.start` of a site configuration reads them."""
    for target, ensemble in ensembles.items():
        payload = ensemble.to_bytes()
        write_durably(folder / f"{target}.npz", lambda path, payload=payload: _write(path, payload))  # type: ignore[misc]


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _savez(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _header(name: str, plan: Plan, clip_norm: float) -> str:
    specs = [[s.model, s.kind, s.size, s.task, list(s.labels), s.max_steps, s.scale] for s in plan.specs.values()]
    return json.dumps([name, specs, plan.targets, plan.seed, plan.rounds, plan.batch, clip_norm])


@dataclass(frozen=True)
class SiteFrames:
    """The outputs of all models on a site's frames: model -> (n, size), oldest first."""

    specs: Mapping[str, OutputSpec]
    samples: Mapping[str, Array]


def frames_of_trace(path: Path, models: Sequence[str] = ()) -> dict[str, SiteFrames]:
    """Return the frames of each camera of a trace. Raises `TraceError` or `ModelError`."""
    trace = open_trace(path)
    chosen = [trace.model(name) for name in models] or list(trace.models)
    specs = {m.spec.model: m.spec for m in chosen}
    cameras = {}
    for camera in dict.fromkeys(frame.camera_id for frame in trace.frames):
        frames = [f for f in trace.frames if f.camera_id == camera and all(m.knows(camera, f.index) for m in chosen)]
        samples = {m.spec.model: np.stack([i.value for i in m.run(frames)]) for m in chosen if frames}
        if samples:
            cameras[camera] = SiteFrames(specs, samples)
    return cameras


def frames_of_run(path: Path, models: Sequence[str] = ()) -> dict[str, SiteFrames]:
    """Return the frames of each camera of a results folder on which every model ran, as adaptation learns from.

    Raises `ResultsError` for a folder that is no run, and `LinkError` for models that it does not know.
    """
    from camlink.pipeline.results.read import RunResults

    results = RunResults(path)
    known = results.info.specs()
    unknown = [name for name in models if name not in known]
    if unknown:
        raise LinkError(f"{path}: no model {', '.join(unknown)}; the run has {', '.join(known)}")
    specs = {name: known[name] for name in models or known}
    cameras = {}
    for camera in results.cameras():
        samples = _complete_frames(results, camera, specs)
        if samples:
            cameras[camera] = SiteFrames(specs, samples)
    return cameras


def _complete_frames(results: RunResults, camera: str, specs: Mapping[str, OutputSpec]) -> dict[str, Array]:
    """Return model -> (n, size) of the frames on which all executed, few of a long run's; nothing without any."""
    named = ", ".join("'" + name.replace("'", "''") + "'" for name in specs)
    executed = f"FROM outputs WHERE how = 'executed' AND model IN ({named})"
    complete = f"SELECT frame_index {executed} GROUP BY frame_index HAVING count(DISTINCT model) = {len(specs)}"
    sql = f"SELECT frame_index, model, value {executed} AND frame_index IN ({complete}) ORDER BY captured_at"
    values: dict[str, dict[int, Array]] = {name: {} for name in specs}
    for row in results.query(sql, "outputs", camera).to_pylist():
        values[row["model"]][row["frame_index"]] = np.asarray(row["value"], np.float32)
    frames = list(next(iter(values.values())))
    return {name: np.stack([of[frame] for frame in frames]) for name, of in values.items()} if frames else {}


def frames_of(path: Path, models: Sequence[str] = ()) -> dict[str, SiteFrames]:
    """Return camera -> frames of a trace or of a results folder, whichever ``path`` is."""
    return frames_of_run(path, models) if (path / "run.json").is_file() else frames_of_trace(path, models)


def baselines(spec: OutputSpec, values: Array, held_out: NDArray[np.bool_]) -> dict[str, float]:
    """Return the agreement, on frames that were held out, of guesses that need no link: each is judged, then learnt.

    ``values`` (n, size), oldest first, all executed: "constant" is the usual value of all frames before, "persistence"
    that of the very frame before. The first frame has none before it and is not judged.
    """
    frames = np.flatnonzero(held_out)
    frames = frames[frames > 0]
    guesses = {"constant": usual_so_far(spec, values, frames), "persistence": values[frames - 1]}
    return {name: float(agreement(spec, guess, values[frames]).mean()) for name, guess in guesses.items()}


def joined(cameras: Mapping[str, SiteFrames]) -> SiteFrames:
    """Return the frames of several cameras as those of one site."""
    specs = next(iter(cameras.values())).specs
    return SiteFrames(specs, {m: np.concatenate([c.samples[m] for c in cameras.values()]) for m in specs})
