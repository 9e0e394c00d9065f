"""What a site does not learn from its own frames alone: from a person's labels, a federation, or other cameras."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camlink.links.base import Array
from camlink.links.domain import FrameName, Labels, Offset, judge_oracle, learn_oracle, read_labels
from camlink.links.ensemble import Ensemble
from camlink.links.inputs import LinkInputs
from camlink.links.train import MIN_FRAMES
from camlink.models.base import OutputSpec
from camlink.models.recorded import Trace, open_trace
from camlink.operators.oracle import OracleNode
from camlink.pipeline.accuracy import wilson
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.config.checks import WITH_LINKS, Found
from camlink.pipeline.config.sections import OracleConfig
from camlink.pipeline.errors import ConfigError, LinkError, ModelError, TraceError, ZooError
from camlink.pipeline.quantities import counted
from camlink.pipeline.records import Frame
from camlink.pipeline.suggestions import suggest
from camlink.pipeline.zoo_file import open_zoo

if TYPE_CHECKING:
    from camlink.operators.zoo import Zoo

logger = logging.getLogger(__name__)

NEAR = timedelta(seconds=1)  # a label by time is of the nearest frame, if one is so near


def oracle_node(config: SiteConfig, specs: Mapping[str, OutputSpec]) -> OracleNode | None:
    """Return the oracle node of a site, trained on its labels; None where it has none.

    Raises `ConfigError` for labels or a trace that cannot be read or used.
    """
    if config.oracle is None:
        return None
    lessons, faults = read_lessons(config.oracle, specs)
    _refuse(config, faults)
    return OracleNode(_taught(config.oracle, lessons, config.seed))


def train_oracle(oracle: OracleConfig, specs: Mapping[str, OutputSpec], seed: int) -> dict[str, Ensemble | Offset]:
    """Return camera -> links or an offset from the deployed models to the labels. Raises `LinkError`."""
    lessons, faults = read_lessons(oracle, specs)
    if faults:
        raise LinkError("\n".join(message for _, message in faults))
    return _taught(oracle, lessons, seed)


def judged_oracle(config: SiteConfig, specs: Mapping[str, OutputSpec]) -> dict[str, dict[str, Any]]:
    """Return, per labelled camera, how links taught with most labels do on those kept aside, beside what needs no
    links: ``taught``, ``frames``, ``agreement`` with its 95 % interval ``low`` and ``high``, ``constant``, and
    ``source``, the counter that says most often itself what the person does, with its ``own`` agreement.

    A camera with too few labels to keep any aside is left out. Raises like `oracle_node`.
    """
    if config.oracle is None:
        return {}
    lessons, faults = read_lessons(config.oracle, specs)
    _refuse(config, faults)
    found: dict[str, dict[str, Any]] = {}
    for camera, lesson in lessons.items():
        judged = judge_oracle(lesson.specs, lesson.samples, config.oracle.spec(), lesson.labels, seed=config.seed)
        if judged is not None:
            low, high = wilson(judged.calibrated, judged.frames)
            best = max(judged.own, key=lambda source: judged.own[source], default=None)
            found[camera] = {
                "taught": judged.taught,
                "frames": judged.frames,
                "agreement": judged.calibrated,
                "low": low,
                "high": high,
                "constant": judged.constant,
                "source": best,
                "own": None if best is None else judged.own[best],
            }
    return found


@dataclass(frozen=True)
class Lesson:
    """What an oracle learns from at one camera, oldest first."""

    specs: Mapping[str, OutputSpec]
    samples: Mapping[str, Array]  # model -> (n, size)
    labels: Array  # (n, size of the oracle)


def read_lessons(oracle: OracleConfig, specs: Mapping[str, OutputSpec]) -> tuple[dict[str, Lesson], list[Found]]:
    """Return camera -> what is learnt from there, and everything that stands in the way, by key and message."""
    faults: list[Found] = [
        (("oracle", "sources", number), f'"{name}" is not deployed; {suggest(name, specs)}')
        for number, name in enumerate(oracle.sources)
        if name not in specs
    ]
    lessons: dict[str, Lesson] = {}
    try:
        trace = open_trace(oracle.trace)
        labels = read_labels(Path(oracle.labels), oracle.spec())
    except TraceError as error:
        return {}, [*faults, (("oracle", "trace"), str(error))]
    except LinkError as error:
        return {}, [*faults, (("oracle", "labels"), str(error))]
    sources = {name: specs[name] for name in oracle.sources or specs if name in specs}
    for name in [name for name, spec in sources.items() if trace.specs.get(name) != spec]:
        del sources[name]
        message = f'{oracle.trace}: "{name}" is not there as it is deployed; record the trace anew'
        faults.append((("oracle", "trace"), message))
    if not labels:
        faults.append((("oracle", "labels"), f"{oracle.labels}: no labels; {MIN_FRAMES} frames of a camera are needed"))
    for camera in dict.fromkeys(camera for camera, _ in labels):
        try:
            frames, values = _labelled(camera, labels, trace, oracle)
            samples = {m: np.stack([i.value for i in trace.model(m).run(frames)]) for m in sources}
        except LinkError as error:
            faults.append((("oracle", "labels"), str(error)))
        except ModelError as error:
            faults.append((("oracle", "trace"), str(error)))
        else:
            lessons[camera] = Lesson(sources, samples, values)
    return lessons, faults


def _taught(oracle: OracleConfig, lessons: Mapping[str, Lesson], seed: int) -> dict[str, Ensemble | Offset]:
    trained = {}
    for camera, lesson in lessons.items():
        trained[camera] = learnt = learn_oracle(lesson.specs, lesson.samples, oracle.spec(), lesson.labels, seed=seed)
        how = f"{learnt.source.model} {learnt.offset.tolist()}" if isinstance(learnt, Offset) else "links"
        logger.info(
            'camera "%s": "%s" learnt as %s from %d labelled frames, agreement %.3f on held-out ones',
            *(camera, oracle.name, how, len(lesson.labels), learnt.held_out_agreement),
        )
    return trained


def _labelled(camera: str, labels: Labels, trace: Trace, oracle: OracleConfig) -> tuple[list[Frame], Array]:
    """Return the labelled frames of a camera, oldest first, and their labels (n, size)."""
    there = [frame for frame in trace.frames if frame.camera_id == camera]
    if not there:
        known = ", ".join(dict.fromkeys(frame.camera_id for frame in trace.frames))
        raise LinkError(f'{oracle.labels}: camera "{camera}" is not in {oracle.trace}, which has {known}')
    by_index = {frame.index: frame for frame in there}
    found: dict[int, tuple[timedelta, Frame, Array]] = {}  # of several labels of a frame, the one nearest to it
    for (of, name), value in labels.items():
        if of == camera:
            frame = _frame_of(name, by_index, there)
            if frame is None:
                raise LinkError(f'{oracle.labels}: camera "{camera}": no frame {name} in {oracle.trace}')
            away = abs(frame.captured_at - name) if isinstance(name, datetime) else timedelta(0)
            if frame.index not in found or away < found[frame.index][0]:
                found[frame.index] = away, frame, value
    if len(found) < MIN_FRAMES:
        raise LinkError(
            f'{oracle.labels}: camera "{camera}" has {counted(len(found), "labelled frame")} in {oracle.trace}; '
            f"{MIN_FRAMES} are needed"
        )
    labelled = sorted(found.values(), key=lambda label: label[1].captured_at)
    return [frame for _, frame, _ in labelled], np.stack([value for _, _, value in labelled])


def _frame_of(name: FrameName, by_index: Mapping[int, Frame], frames: list[Frame]) -> Frame | None:
    if isinstance(name, int):
        return by_index.get(name)
    place = bisect_left(frames, name, key=lambda frame: frame.captured_at)
    nearest = min(frames[max(place - 1, 0) : place + 1], key=lambda frame: abs(frame.captured_at - name))
    return nearest if abs(nearest.captured_at - name) <= NEAR else None


def starting_links(config: SiteConfig, specs: Mapping[str, OutputSpec]) -> dict[str, Ensemble]:
    """Return target -> links that every camera begins with (`links.start`). Raises `ConfigError` where they do not fit.

    Links to models that are not deployed are left out.
    """
    links, faults = read_starting_links(config, specs)
    _refuse(config, faults)
    return links


def read_starting_links(config: SiteConfig, specs: Mapping[str, OutputSpec]) -> tuple[dict[str, Ensemble], list[Found]]:
    """Return target -> the links of `links.start`, and everything that stands in the way, by key and message."""
    if config.links.start is None:
        return {}, []
    links: dict[str, Ensemble] = {}
    faults: list[str] = []
    if config.policy not in WITH_LINKS:
        choice = f"leave `start` out, or choose policy {' or '.join(WITH_LINKS)}"
        faults.append(f"{config.shown_policy()} does not use these links; {choice}")
    read = LinkInputs(specs, boxes=config.links.kind == "set", context=config.links.context).sources
    files = {path.stem: path for path in sorted(Path(config.links.start).glob("*.npz")) if path.stem in specs}
    for target, path in files.items():
        try:
            links[target] = _fitting(path, target, specs, read)
        except LinkError as error:
            faults.append(str(error))
    if not files:
        faults.append(f"{config.links.start}: no links to any of {', '.join(specs)}; `camlink federate` writes them")
    return links, [(("links", "start"), fault) for fault in faults]


def policy_zoo(config: SiteConfig, specs: Mapping[str, OutputSpec]) -> Zoo | None:
    """Return what every camera's policy starts from (`policy_zoo`). Raises `ConfigError` where it does not fit."""
    zoo, faults = read_policy_zoo(config, specs)
    _refuse(config, faults)
    return zoo


def read_policy_zoo(config: SiteConfig, specs: Mapping[str, OutputSpec]) -> tuple[Zoo | None, list[Found]]:
    """Return the zoo of `policy_zoo`, and everything that stands in the way, by key and message."""
    if config.policy_zoo is None:
        return None, []
    if config.policy != "camlink":
        message = f"policy {config.policy} does not start from a zoo; leave it out, or choose policy camlink"
        return None, [(("policy_zoo",), message)]
    try:
        return open_zoo(Path(config.policy_zoo), specs), []
    except ZooError as error:
        return None, [(("policy_zoo",), str(error))]


def _fitting(path: Path, target: str, specs: Mapping[str, OutputSpec], read: Mapping[str, OutputSpec]) -> Ensemble:
    """Read links. Raises `LinkError` where they are of other models than are deployed, or read another part of them.

    ``read``: the spaces of what links read here of each model.
    """
    try:
        ensemble = Ensemble.from_bytes(path.read_bytes())
    except LinkError as error:
        raise LinkError(f"{path}: {error}; `camlink federate` writes links") from error
    sources = {name: link.source for name, link in ensemble.links.items()}
    odd = [m for m, spec in {**sources, target: ensemble.target}.items() if spec not in (specs.get(m), read.get(m))]
    if odd:
        raise LinkError(f'{path}: links "{odd[0]}" as another model than is deployed; federate with these models')
    if any(read[name] != source for name, source in sources.items()):
        raise LinkError(f"{path}: these links read outputs alone; leave out links.context, and links.kind: set")
    return ensemble


def _refuse(config: SiteConfig, faults: list[Found]) -> None:
    if faults:
        raise ConfigError([config.problem_at(path, message) for path, message in faults])
