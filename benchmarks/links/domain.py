"""The oracle node on real annotations: a detector's vehicle counts against what a person drew (MLink Fig. 7 to 9).

    python -m benchmarks.links.domain TRACE ANNOTATIONS [--seed 0]
    python -m benchmarks.links.domain TRACE ANNOTATIONS --labels labels.csv     for `oracle.labels` of a configuration
    python -m benchmarks.links.domain TRACE ANNOTATIONS --served RUN            what the pipeline made of them

TRACE was recorded from the jamcam clips, in the order of their names; ANNOTATIONS is the folder of CVAT files
(``*.xml.gz``), one per clip. Each clip's first half may teach, its second half judges; nothing else would be fair on
frames 40 ms apart. Scores are the share of frames on which the count of vehicles is exactly the annotated one, and
the mean absolute error.
"""

from __future__ import annotations

import gzip
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.links.samples import Array, CameraSamples, cameras_of
from camlink.links.domain import link_to_oracle
from camlink.links.federated import fuse, train_global
from camlink.links.federation import Plan, Server
from camlink.links.fit import FitJob, fit_links
from camlink.links.vec_to_vec import VecToVec
from camlink.models.base import OutputSpec
from camlink.operators.federation import CoordinatorOperator, RoundRules, SiteOperator
from camlink.pipeline.bus.memory import MemoryBus
from camlink.pipeline.clock import SteadyClock
from camlink.pipeline.federation import ROUNDS, UPDATES, Party
from camlink.pipeline.results import RunResults

ORACLE = OutputSpec("annotated", "vector", 1, "count", ("vehicle",))
GAP_S = 5.0  # a longer pause begins another clip
PAPER_BYTES = 528 * 32  # Sec. 6.6: 528 bytes per sample and three clients, batches of 32


@dataclass(frozen=True)
class Clip:
    """One annotated clip: model -> (n, size), and the annotated count (n, 1)."""

    camera: str
    values: dict[str, Array]
    truth: Array
    frames: NDArray[np.intp]  # their indexes in the trace

    def half(self, second: bool) -> Clip:
        """Return the first or the second half of the frames."""
        middle = len(self.truth) // 2
        rows = slice(middle, None) if second else slice(None, middle)
        return Clip(self.camera, {m: v[rows] for m, v in self.values.items()}, self.truth[rows], self.frames[rows])


def annotated_counts(path: Path) -> tuple[str, str, Array]:
    """Return camera, time of the clip as in its file name, and vehicles per frame (n, 1)."""
    root = ET.fromstring(gzip.decompress(path.read_bytes()))
    found = re.search(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)\.\d+_(\d+\.\d+)", path.name)
    if found is None:
        raise ValueError(f"{path.name}: wanted a name with date, time and camera")
    counts = np.zeros((int(root.findtext("meta/task/size") or 0), 1), np.float32)
    for box in root.iter("box"):
        if box.get("outside") == "0":
            counts[int(box.attrib["frame"])] += 1
    return found[2], found[1], counts


def clips_of(camera: CameraSamples, annotations: dict[tuple[str, str], Array]) -> list[Clip]:
    """Cut a camera's frames at long pauses, and keep the clips that are annotated."""
    starts = np.flatnonzero(np.diff(camera.times_s, prepend=-np.inf) > GAP_S).tolist()
    clips = []
    for start, end in zip(starts, [*starts[1:], len(camera.times_s)], strict=True):
        moment = str(np.datetime64(int(camera.times_s[start]), "s")).replace("T", "_").replace(":", "-")
        moment = moment[:10] + "_" + moment[11:]
        truth = annotations.get((camera.name, moment))
        if truth is not None:
            rows = slice(start, start + min(end - start, len(truth)))
            values = {m: v[rows] for m, v in camera.values.items()}
            indexes = np.array([frame.index for frame in camera.frames[rows]])
            clips.append(Clip(camera.name, values, truth[: end - start], indexes))
    return clips


def detected(clip: Clip) -> Array:
    """Count of all vehicles as the detector has it: (n, 1)."""
    count: Array = clip.values["vehicles"].sum(axis=1, keepdims=True)
    return count


def stack(clips: list[Clip]) -> Clip:
    models = clips[0].values
    values = {m: np.concatenate([c.values[m] for c in clips]) for m in models}
    truth, frames = np.concatenate([c.truth for c in clips]), np.concatenate([c.frames for c in clips])
    return Clip("all", values, truth, frames)


def score(predicted: Array, truth: Array) -> tuple[str, str]:
    error = np.abs(predicted - truth)
    return f"{(error < 0.5).mean():.3f}", f"{error.mean():.2f}"


def oracle_table(clips: list[Clip], specs: dict[str, OutputSpec], seed: int) -> Table:
    table = Table("training frames", "prediction from", "exact", "mean error", title="Oracle node (Fig. 7 and 9)")
    teach, judge = stack([c.half(False) for c in clips]), stack([c.half(True) for c in clips])
    mode = float(np.bincount(teach.truth[:, 0].astype(int)).argmax())
    table.add_row("0", "the detector alone", *score(detected(judge), judge.truth))
    table.add_row(str(len(teach.truth)), "constant", *score(np.full_like(judge.truth, mode), judge.truth))
    sources = {"vehicles": ("vehicles",), "vehicles + persons + condition": tuple(specs)}
    for count in (100, 200, 500):
        rows = np.linspace(0, len(teach.truth) - 1, min(count, len(teach.truth))).astype(int)
        for name, models in sources.items():
            some = {m: specs[m] for m in models}
            samples = {m: teach.values[m][rows] for m in models}
            for kind in ("vec_to_vec", "count_distribution"):
                ensemble = link_to_oracle(some, samples, ORACLE, teach.truth[rows], seed=seed, kind=kind)
                value, _ = ensemble.predict({m: judge.values[m] for m in models})
                table.add_row(str(len(rows)), f"{name}, {kind}", *score(value, judge.truth))
    return table


def aggregation_table(clips: list[Clip], spec: OutputSpec, seed: int) -> Table:
    columns = ("held-out camera", "detector", "other cameras' links", "global", "local, 50 frames", "local + global")
    table = Table(*columns, title="Aggregation over cameras, exact counts (Fig. 8)")
    means: list[NDArray[np.float64]] = []
    for held_out in sorted({c.camera for c in clips}):
        own = [c for c in clips if c.camera == held_out]
        sites = _sites([c for c in clips if c.camera != held_out])
        teach, judge = stack([c.half(False) for c in own]), stack([c.half(True) for c in own])
        rows = np.linspace(0, len(teach.truth) - 1, 50).astype(int)
        x, y = teach.values["vehicles"][rows], teach.truth[rows]
        others = fit_links([FitJob(spec, ORACLE, *site, seed + i) for i, site in enumerate(sites.values())])
        shared = train_global(spec, ORACLE, sites, seed=seed).link
        local = fit_links([FitJob(spec, ORACLE, x, y, seed)])[0]
        row = [
            _exact(detected(judge), judge.truth),
            float(np.mean([_exact_link(link, judge) for link in others])),
            *(_exact_link(link, judge) for link in (shared, local, fuse([local, shared], x, y))),
        ]
        means.append(np.array(row))
        table.add_row(held_out, *(f"{value:.3f}" for value in row))
    table.add_row("mean", *(f"{value:.3f}" for value in np.mean(means, axis=0)))
    return table


def _sites(clips: list[Clip]) -> dict[str, tuple[Array, Array]]:
    cameras = sorted({c.camera for c in clips})
    pooled = {camera: stack([c for c in clips if c.camera == camera]) for camera in cameras}
    return {camera: (clip.values["vehicles"], clip.truth) for camera, clip in pooled.items()}


def _exact(predicted: Array, truth: Array) -> float:
    return float((np.abs(predicted - truth) < 0.5).mean())


def _exact_link(link: VecToVec, clip: Clip) -> float:
    return _exact(link.predict(clip.values["vehicles"]), clip.truth)


def write_labels(clips: list[Clip], path: Path) -> None:
    """Write the labels of each clip's first half as `oracle.labels` wants them."""
    teach = [clip.half(False) for clip in clips]
    rows = [f"{c.camera},{index},{count:g}" for c in teach for index, (count,) in zip(c.frames, c.truth, strict=True)]
    path.write_text("\n".join(["camera_id,frame_index,vehicle", *rows, ""]))


def served_table(clips: list[Clip], run: Path) -> Table:
    """Score what a run's oracle node served on each clip's second half, beside what the detector was served as."""
    results = RunResults(run)
    table = Table("camera", "frames", "detector, exact", "calibrated, exact", "mean error", title=f"Served by {run}")
    for camera in dict.fromkeys(clip.camera for clip in clips):
        judge = stack([c.half(True) for c in clips if c.camera == camera])
        said = results.calibrated(camera)
        served = dict(zip(said["frame_index"].to_pylist(), said["value"].to_pylist(), strict=True))
        there = [i for i, index in enumerate(judge.frames) if index in served]
        value = np.array([served[judge.frames[i]] for i in there], np.float32)
        own = _exact(detected(judge)[there], judge.truth[there])
        table.add_row(camera, str(len(there)), f"{own:.3f}", *score(value, judge.truth[there]))
    return table


def wire_bytes(action: OutputSpec, oracle: OutputSpec, y: Array, sites: int) -> float:
    """Return what one round of `camlink federate` moves for one link, headers and all."""
    samples, bus, clock = {action.model: y, oracle.model: y}, MemoryBus(), SteadyClock()
    plan = Plan({action.model: action, oracle.model: oracle}, (oracle.model,), rounds=1)
    names = tuple(f"site-{i}" for i in range(sites))
    operator = CoordinatorOperator("bytes", "bytes", Server(plan), RoundRules(sites=names), clock)
    head = Party(operator, bus, bus.subscribe((UPDATES,), "coordinator"), clock)
    members = [
        Party(SiteOperator(n, "bytes", plan.specs, samples), bus, bus.subscribe((ROUNDS,), n), clock) for n in names
    ]
    while not operator.is_done:
        for party in (head, *members):
            party.once()
    return sites * (head.bytes_per_message("sent") + head.bytes_per_message("taken"))


def communication_table(seed: int) -> Table:
    """Three sites, links between action classifiers of two labels, as in the paper's Sec. 6.6."""
    action, oracle = (
        OutputSpec("action", "vector", 2, "single_label"),
        OutputSpec("oracle", "vector", 2, "single_label"),
    )
    rng = np.random.default_rng(seed)
    y = np.eye(2, dtype=np.float32)[rng.integers(0, 2, 64)]
    result = train_global(action, oracle, {f"site-{i}": (y, y) for i in range(3)}, seed=seed, rounds=1)
    table = Table("", "bytes per round", title="Communication, 3 sites, batches of 32 (Sec. 6.6)")
    table.add_row("paper: 528 bytes per sample", f"{PAPER_BYTES:,}")
    table.add_row("camlink: parameters out, one gradient back", f"{result.bytes_per_round:,}")
    table.add_row("camlink federate: the same as messages", f"{wire_bytes(action, oracle, y, 3):,.0f}")
    return table


def main(
    trace: Path,
    annotations: Path,
    seed: int = 0,
    labels: Annotated[Path | None, typer.Option(help="Write the labels of the first halves there, and end.")] = None,
    served: Annotated[Path | None, typer.Option(help="Score the calibrated outputs of this run, and end.")] = None,
) -> None:
    counts = {(c, t): truth for c, t, truth in map(annotated_counts, sorted(annotations.glob("*.xml.gz")))}
    cameras = list(cameras_of(trace))
    clips = [clip for camera in cameras for clip in clips_of(camera, counts)]
    if not clips:
        raise SystemExit(f"no clip of {trace} is annotated in {annotations}")
    specs = dict(cameras[0].specs)
    console = Console(width=130)
    if labels is not None:
        write_labels(clips, labels)
    if served is not None:
        console.print(served_table(clips, served))
    if labels is not None or served is not None:
        return
    frames = sum(len(clip.truth) for clip in clips)
    console.print(f"{len(clips)} annotated clips of {len({c.camera for c in clips})} cameras, {frames} frames")
    console.print(oracle_table(clips, specs, seed))
    console.print(aggregation_table(clips, specs["vehicles"], seed))
    console.print(communication_table(seed))


if __name__ == "__main__":
    typer.run(main)
