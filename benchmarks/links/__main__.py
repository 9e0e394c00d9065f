"""All link benchmarks in one command, one after another, each in a process of its own with one thread.

    python -m benchmarks.links TRACE... [--jamcam TRACE ANNOTATIONS] [--seed 0]

More threads only wait for each other at the size of links, and would measure that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer


def main(
    traces: list[Path],
    jamcam: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Trace of the jamcam clips, and the folder of their annotations.")
    ] = None,
    seed: int = 0,
) -> None:
    runs = [["training"], ["serving"], *([name, *map(str, traces)] for name in ("accuracy", "live"))]
    if jamcam is not None:
        runs.append(["domain", *map(str, jamcam)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for name, *arguments in runs:
        command = [sys.executable, "-m", f"benchmarks.links.{name}", *arguments, "--seed", str(seed)]
        print(f"== {name}", flush=True)
        subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    typer.run(main)
