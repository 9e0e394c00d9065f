"""Links that a site does not learn from its own frames alone: from a person's labels, or from a federation."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from camlink.links.base import Array
from camlink.links.domain import FrameName, Labels, judge_oracle, link_to_oracle, read_labels
from camlink.links.ensemble import Ensemble
from camlink.links.train import MIN_FRAMES
from camlink.models.base import OutputSpec
from camlink.models.recorded import Trace, open_trace
from camlink.operators.oracle import OracleNode
from camlink.pipeline.accuracy import wilson
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.config_sections import OracleConfig
from camlink.pipeline.errors import LinkError
from camlink.pipeline.records import Frame

logger = logging.getLogger(__name__)

Lesson = tuple[str, dict[str, OutputSpec], dict[str, Array], Array]
NEAR = timedelta(seconds=1)  # a label by time is of the nearest frame, if one is so near


def oracle_node(config: SiteConfig, specs: Mapping[str, OutputSpec]) -> OracleNode | None:
    """Return the oracle node of a site, trained on its labels; None where it has none.

    Raises `LinkError` for labels that cannot be read or used, and `TraceError` for the trace.
    """
    if config.oracle is None:
        return None
    return OracleNode(train_oracle(config.oracle, specs, config.seed))


def train_oracle(oracle: OracleConfig, specs: Mapping[str, OutputSpec], seed: int) -> dict[str, Ensemble]:
    """Return camera -> links from the deployed models to the labels, for each camera with enough of them."""
    spec = oracle.spec()
    trained = {}
    for camera, sources, samples, values in _lessons(oracle, specs):
        trained[camera] = link_to_oracle(sources, samples, spec, values, seed=seed)
        logger.info(
            'camera "%s": "%s" learnt from %d labelled frames, agreement %.3f on held-out ones',
            *(camera, spec.model, len(values), trained[camera].held_out_agreement),
        )
    return trained


def judged_oracle(config: SiteConfig, specs: Mapping[str, OutputSpec]) -> dict[str, dict[str, Any]]:
    """Return, per labelled camera, how links taught with most labels do on those kept aside, beside what needs no
    links: ``taught``, ``frames``, ``agreement`` with its 95 % interval ``low`` and ``high``, ``constant``, and
    ``source``, the counter that says most often itself what the person does, with its ``own`` agreement.

    A camera with too few labels to keep any aside is left out. Raises like `train_oracle`.
    """
    if config.oracle is None:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for camera, sources, samples, values in _lessons(config.oracle, specs):
        judged = judge_oracle(sources, samples, config.oracle.spec(), values, seed=config.seed)
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


def _lessons(oracle: OracleConfig, specs: Mapping[str, OutputSpec]) -> Iterator[Lesson]:
    """Give each labelled camera with its sources, what they said, and the labels (n, size), oldest first."""
    spec = oracle.spec()
    labels = read_labels(Path(oracle.labels), spec)
    trace = open_trace(oracle.trace)
    sources = {name: specs[name] for name in oracle.sources or specs if name in specs}
    for name, source in sources.items():
        if trace.specs.get(name) != source:
            raise LinkError(f'{oracle.trace}: "{name}" is not there as it is deployed; record the trace anew')
    if not sources:
        raise LinkError(
            f"oracle.sources: none of {', '.join(oracle.sources)} is deployed; there are {', '.join(specs)}"
        )
    for camera in dict.fromkeys(camera for camera, _ in labels):
        frames, values = _labelled(camera, labels, trace, oracle)
        if len(frames) < MIN_FRAMES:
            raise LinkError(
                f'{oracle.labels}: camera "{camera}" has {len(frames)} labelled frames in {oracle.trace}; '
                f"{MIN_FRAMES} are needed"
            )
        samples = {m: np.stack([i.value for i in trace.model(m).run(frames)]) for m in sources}
        yield camera, sources, samples, values


def _labelled(
    camera: str, labels: Labels, trace: Trace, oracle: OracleConfig
) -> tuple[list[Frame], np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Return the labelled frames of a camera, oldest first, and their labels (n, size)."""
    there = [frame for frame in trace.frames if frame.camera_id == camera]
    if not there:
        known = ", ".join(dict.fromkeys(frame.camera_id for frame in trace.frames))
        raise LinkError(f'{oracle.labels}: camera "{camera}" is not in {oracle.trace}, which has {known}')
    by_index = {frame.index: frame for frame in there}
    found: dict[int, tuple[Frame, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]] = {}
    for (of, name), value in labels.items():
        if of == camera:
            frame = _frame_of(name, by_index, there)
            if frame is None:
                raise LinkError(f'{oracle.labels}: camera "{camera}": no frame {name} in {oracle.trace}')
            found[frame.index] = frame, value
    pairs = sorted(found.values(), key=lambda pair: pair[0].captured_at)
    return [frame for frame, _ in pairs], np.stack([value for _, value in pairs])


def _frame_of(name: FrameName, by_index: Mapping[int, Frame], frames: list[Frame]) -> Frame | None:
    if isinstance(name, int):
        return by_index.get(name)
    nearest = min(frames, key=lambda frame: abs(frame.captured_at - name))
    return nearest if abs(nearest.captured_at - name) <= NEAR else None


def starting_links(config: SiteConfig, specs: Mapping[str, OutputSpec]) -> dict[str, Ensemble]:
    """Return target -> links that every camera begins with (`links.start`). Raises `LinkError` where they do not fit.

    Links to models that are not deployed are left out.
    """
    if config.links.start is None:
        return {}
    links = {}
    for target, path in sorted((path.stem, path) for path in Path(config.links.start).glob("*.npz")):
        if target not in specs:
            continue
        ensemble = Ensemble.from_bytes(path.read_bytes())
        sources = {name: link.source for name, link in ensemble.links.items()}
        odd = [m for m, spec in {**sources, target: ensemble.target}.items() if specs.get(m) != spec]
        if odd:
            raise LinkError(f'{path}: links "{odd[0]}" as another model than is deployed; federate with these models')
        links[target] = ensemble
    if not links:
        raise LinkError(f"{config.links.start}: no links to any of {', '.join(specs)}; `camlink federate` writes them")
    return links
