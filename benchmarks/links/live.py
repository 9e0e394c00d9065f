"""Do better links survive the whole pipeline? All kinds in the running operators, on recorded traces.

    python -m benchmarks.links.live TRACE... [--seed 0]

Bootstrap, audits, relabelling, promotion and scheduling all take part, at a third and two thirds of the time of
executing everything; the score is the agreement of every linked value that was served with what the model had said.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from camlink.links.train import LinkKind
from camlink.models.pool import ModelPool
from camlink.models.recorded import Trace, open_trace
from camlink.models.scores import agreement
from camlink.pipeline.assembly import CameraFacts, build_embedded
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.records import FrameResult, Record

KINDS: tuple[LinkKind, ...] = ("vec_to_vec", "count_distribution", "set")


def site(trace: Trace, kind: LinkKind, share: float, seed: int) -> SiteConfig:
    """Return a configuration for clips of a minute or two: short periods, little bootstrap."""
    cameras = sorted({frame.camera_id for frame in trace.frames})
    return SiteConfig.model_validate(
        {
            "cameras": [{"id": camera, "source": "0"} for camera in cameras],
            "models": list(trace.specs),
            "policy": "mlink",  # which answers by these links
            "budgets": {"time_share": share},
            "period": "20s",
            "profile": {"fraction": 0.01, "min_frames": 5},
            "links": {"kind": kind, "bootstrap_frames": 60, "min_train_frames": 40},
            "adaptation": {"policy": "periodic", "interval": "10s", "frames": 5},
            "seed": seed,
        }
    )


def play(trace: Trace, config: SiteConfig) -> list[Record]:
    """Carry the trace through the pipeline and return what the results log would be given."""
    records: list[Record] = []
    cameras = {camera.id: CameraFacts(fps=None) for camera in config.cameras}
    build_embedded(config, ModelPool(list(trace.models)), cameras, records.extend).run(trace.frames)
    return records


def scores_of(trace: Trace, records: list[Record]) -> tuple[dict[str, list[float]], Counter[str]]:
    """Return the agreement of each linked value by model, and how many values came about how."""
    frames = {(frame.camera_id, frame.index): frame for frame in trace.frames}
    scores: dict[str, list[float]] = defaultdict(list)
    how: Counter[str] = Counter()
    for result in records:
        if not isinstance(result, FrameResult):
            continue
        for output in (o for o in result.outputs if o.served):
            how[output.how] += 1
            if output.how == "linked" and output.value is not None:
                (said,) = trace.model(output.model).run([frames[result.camera_id, result.frame_index]])
                agreed = agreement(trace.specs[output.model], output.value[None], said.value[None])
                scores[output.model].append(float(agreed[0]))
    return scores, how


def main(traces: list[Path], seed: int = 0) -> None:
    table = Table("trace", "time share", "links", "executed", "linked", "agreement of linked values", "by model")
    for path in traces:
        trace = open_trace(path)
        for share in (0.33, 0.67):
            for kind in KINDS:
                scores, how = scores_of(trace, play(trace, site(trace, kind, share, seed)))
                everything = [score for values in scores.values() for score in values]
                mean = f"{np.mean(everything):.3f}" if everything else "nothing was linked"
                by_model = ", ".join(f"{model} {np.mean(values):.3f}" for model, values in scores.items())
                counts = (str(how["executed"]), str(how["linked"]))
                table.add_row(path.name, f"{share:.2f}", kind, *counts, mean, by_model)
    Console(width=150).print(table)


if __name__ == "__main__":
    typer.run(main)
