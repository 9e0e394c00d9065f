"""`mtl`: one network with a shared backbone and a head per task in place of all models (MLink extended, Sec. 6.1).

    python -m benchmarks.lab.multi_task TRACE FOOTAGE [--fps all] [--seed 0] [--rows mtl.json]

FOOTAGE is the clip or folder of clips that TRACE was recorded from, at ``--fps``. The paper's backbone is ResNet50,
trained further; here it is EfficientNet-Lite3 (uint8), an ImageNet network that camlink can fetch; its 1,280 averaged
features stay as ImageNet left them: the tenth of a clip that heads may learn from is some dozen pictures. Heads are the
paper's fully connected layers with each task's activation and loss (``mtl``), and camlink's default ones, which predict
distributions of counts (``mtl-counts``). They learn what the models said on each camera's first tenth; every frame from
then on is predicted, by the protocol of `camlink compare` (docs/compare.md).

Cost is measured, not taken from the trace: backbone and models run on the same picture in one process, and one
processor time divided by the other is the share. On road clips the trace's ``condition`` is the same EfficientNet, so
that its head only has to read off what the backbone knows.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from camlink.links.train import LinkKind, train_ensembles
from camlink.models import catalogue, device, images
from camlink.models.base import OutputSpec
from camlink.models.trace_arrays import Array, CameraTrace, TraceArrays, open_arrays
from camlink.models.weights import fetch
from camlink.operators.selection import Budget
from camlink.pipeline.commands.console import parse_fps
from camlink.pipeline.commands.replay import find_cameras
from camlink.pipeline.ingest.merge import merge
from camlink.pipeline.ingest.opening import open_source
from camlink.pipeline.lab.compare import Result, default_period_s, usable_cameras
from camlink.pipeline.lab.play import split
from camlink.pipeline.lab.tally import HOWS, Tally
from camlink.pipeline.records import Frame

BACKBONE, FEATURES = "efficientnet_lite3.tflite", 1280
HEADS: dict[str, LinkKind] = {"mtl": "vec_to_vec", "mtl-counts": "count_distribution"}
WARM_UP_RUNS, TIMED_RUNS = 2, 15
Key = tuple[str, int]  # camera, frame index


class Backbone:
    """The shared part: a picture in, 1,280 features out."""

    def __init__(self) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that kept tensors take memory; one of them is what is wanted
            self._net: Any = Interpreter(
                str(fetch(BACKBONE)), num_threads=device.threads(), experimental_preserve_all_tensors=True
            )
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]
        pooled = [t for t in self._net.get_tensor_details() if tuple(t["shape"]) == (1, FEATURES)]
        if len(pooled) != 1:
            raise RuntimeError(f"{BACKBONE}: {len(pooled)} tensors of {FEATURES} features, wanted one")
        self._pooled = pooled[0]

    def __call__(self, frame: Frame) -> Array:
        """Return the features of one picture (1280,)."""
        _, height, width, _ = self._input["shape"]
        self._net.set_tensor(self._input["index"], images.stretch_rgb(frame.pixels, int(height), int(width))[None])
        self._net.invoke()
        scale, zero = self._pooled["quantization"]
        raw = self._net.get_tensor(self._pooled["index"])[0].astype(np.float32)
        return np.asarray((raw - zero) * scale, np.float32)


def frames_of(footage: Path, fps: str) -> list[Frame]:
    """Return the pictures as `camlink record` met them."""
    sources = [open_source(spec, live=False) for spec in find_cameras([footage], parse_fps(fps), "UTC", None)]
    return [reading for reading in merge(sources) if isinstance(reading, Frame)]


def answer(
    camera: CameraTrace, features: Array, kind: LinkKind, seed: int, warm_up: int
) -> tuple[dict[str, Array], float]:
    """Return what the heads say after the warm-up, model -> (n - warm_up, size), and their time per frame in ms.

    ``features`` (n, 1280) of the camera's frames. Sequences and boxes get no head: they are left out.
    """
    backbone = OutputSpec("backbone", "vector", features.shape[1], "regression")
    said, spent_s = dict[str, Array](), 0.0
    for target, spec in camera.specs.items():
        if spec.kind == "vector":
            specs = {"backbone": backbone, target: spec}
            taught = {"backbone": features[:warm_up], target: camera.values[target][:warm_up]}
            head = train_ensembles(specs, taught, seed=seed, targets=[target], kind=kind)[target]
            started = time.perf_counter()
            said[target] = np.stack([head.predict({"backbone": x})[0] for x in features[warm_up:]])
            spent_s += time.perf_counter() - started
    return said, 1000.0 * spent_s / max(len(features) - warm_up, 1)


def play_heads(
    trace: TraceArrays, features: Mapping[Key, Array], name: str, seed: int, share: float
) -> tuple[Result, float]:
    """Return the result of one kind of heads, and the heads' own ms per frame; the backbone costs ``share``."""
    tallies, heads_ms = {}, list[float]()
    cameras = usable_cameras(trace, lambda said: typer.echo(said, err=True))
    period_s = default_period_s(cameras)
    for camera in cameras:
        cut = split(camera, period_s)
        mine = features_of(camera, features)
        said, head_ms = answer(camera, mine, HEADS[name], seed, cut.warm_up)
        everything_ms = sum(trace.models[m].time_ms for m in camera.specs)
        tallies[camera.camera_id] = _tally(camera, cut.period, said, cut.warm_up, share * everything_ms)
        heads_ms.append(head_ms)
    return Result(trace.name, name, Budget(), seed, tallies, trace), float(np.mean(heads_ms))


def features_of(camera: CameraTrace, features: Mapping[Key, Array]) -> Array:
    """Return the features of a camera's frames (n, 1280). Raises `KeyError` that says what does not fit."""
    missing = [i for i in camera.index.tolist() if (camera.camera_id, i) not in features]
    if missing:
        known = sorted({c for c, _ in features})
        raise KeyError(
            f'the footage has no frame {missing[0]} of camera "{camera.camera_id}" ({len(missing)} are missing); '
            f"it has cameras {', '.join(known)}: is it the clip, and --fps the rate, of the trace?"
        )
    return np.stack([features[camera.camera_id, i] for i in camera.index.tolist()])


def _tally(
    camera: CameraTrace, period: NDArray[np.intp], said: Mapping[str, Array], warm_up: int, frame_ms: float
) -> Tally:
    tally, frames = Tally.empty(tuple(camera.specs), period), np.arange(len(period))
    nothing, linked = np.full(len(period), np.nan), np.full(len(period), HOWS.index("linked"))
    for place, (model, spec) in enumerate(camera.specs.items()):
        recorded = camera.values[model][warm_up:]
        if model in said:
            tally.add_answered(place, frames, spec, linked, said[model], recorded, nothing)
        else:
            tally.add_abstained(place, frames)
    tally.spend(frames, frame_ms)
    tally.loads = 1
    return tally


def cost_share(models: Sequence[str], backbone: Callable[[Frame], Array], frame: Frame) -> tuple[float, float]:
    """Return the backbone's time as a share of running ``models`` of the catalogue on the same picture, and in ms.

    Processor time, in turns: on a machine busy with other things, several threads wait longer than one.
    """
    built = [catalogue.build(catalogue.definition(name)) for name in models]
    for model in built:
        model.load()
    calls: list[Callable[[], object]] = [lambda: backbone(frame), *(partial(model.run, [frame]) for model in built)]
    rounds = [[_ms(call) for call in calls] for _ in range(WARM_UP_RUNS + TIMED_RUNS)]
    ours, *theirs = (median(times) for times in zip(*rounds[WARM_UP_RUNS:], strict=True))
    for model in built:
        model.unload()
    return ours / sum(theirs), ours


def _ms(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return 1000.0 * (time.process_time() - started)


def main(
    trace: Path,
    footage: Path,
    fps: Annotated[str, typer.Option(help="The rate that the trace was recorded at.")] = "all",
    seed: Annotated[list[int] | None, typer.Option()] = None,
    rows_to: Annotated[Path | None, typer.Option("--rows", help="Write rows as `camlink compare --json` does.")] = None,
) -> None:
    arrays, backbone, frames = open_arrays(trace), Backbone(), frames_of(footage, fps)
    share, ms = cost_share(list(arrays.models), backbone, frames[len(frames) // 2])
    features = {(frame.camera_id, frame.index): backbone(frame) for frame in frames}
    table = Table("policy", "seed", "agreement, %", "cost, %", *arrays.models, title=f"{arrays.name}: {BACKBONE}")
    rows = []
    for name in HEADS:
        for number in seed or [0]:
            result, head_ms = play_heads(arrays, features, name, number, share)
            row = result.row()
            rows.append(row)
            per_model = [f"{100 * row['agreement_per_model'][m]:.1f}" for m in arrays.models]
            table.add_row(name, str(number), f"{100 * row['agreement']:.1f}", f"{100 * row['cost']:.0f}", *per_model)
    console = Console(width=120)
    console.print(table)
    console.print(f"backbone {ms:.1f} ms a frame, {share:.0%} of all models; heads {head_ms:.2f} ms, not in the share")
    if rows_to is not None:
        rows_to.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
