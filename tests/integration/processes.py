"""A site's workers as real processes, for the tests marked `broker`: started, killed and stopped by process id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from camlink.pipeline.errors import ResultsError
from camlink.pipeline.results import RunResults

PATIENCE_S = 300.0  # on a condition; all is far quicker when it works
STEPS = ("inference", "linking", "adaptation", "scheduler", "results")


class Processes:
    """The workers of one site. Use as a context manager: what still runs at its end is killed."""

    module = "camlink.pipeline.cli"  # what a worker's process runs

    def __init__(self, folder: Path, config: Path, bus: str, state: str, hold_s: float = 10.0) -> None:
        """``hold_s``: on a busy machine a worker may be slow, and rows are equal only if the others wait for it."""
        self.out = folder / "results"
        self._folder = folder
        self._config = config
        self._environment = {**os.environ, "CAMLINK_BUS": bus, "CAMLINK_STATE": state, "CAMLINK_OUT": str(self.out)}
        self._environment["CAMLINK_HOLD_S"] = str(hold_s)
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def start(self, step: str, *options: str, name: str | None = None, **environment: str) -> str:
        """Start a worker; return the name by which it is stopped."""
        name = name or step
        command = [
            sys.executable,
            "-m",
            self.module,
            "--verbose",
            "worker",
            step,
            str(self._config),
            *options,
        ]
        with (self._folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**self._environment, **environment}
            )
        return name

    def stop(self, name: str) -> None:
        """Ask a worker to stop, and expect a clean end."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        code = process.wait(PATIENCE_S)
        assert code == 0, f"{name} ended with {code}:\n{self.log(name)[-3000:]}"

    def kill(self, name: str) -> None:
        """Kill a worker as a pulled plug would."""
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def finish(self, name: str) -> None:
        """Wait for a worker that ends by itself."""
        process = self.running.pop(name)
        assert process.wait(PATIENCE_S) == 0, self.log(name)[-3000:]

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds; fail with what the workers say if one of them died or time is up."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            dead = [name for name, process in self.running.items() if process.poll() not in (None, 0)]
            late = time.monotonic() > deadline
            if dead or late:
                logs = "\n".join(f"--- {name}\n{self.log(name)[-1500:]}" for name in dead or self.running)
                raise AssertionError(f"{what}: {'too late' if late else f'{dead} died'}\n{logs}")
            time.sleep(0.2)

    def wait_until_joined(self) -> None:
        """Wait until every worker has its partitions, so that none is waited for once frames come."""
        self.wait_for(lambda: all("joined: " in self.log(name) for name in self.running), "all workers join")

    def rows(self) -> list[dict[str, Any]]:
        """Return the output rows that are on disk, keys once each."""
        try:
            found: list[dict[str, Any]] = RunResults(self.out).outputs().to_pylist()
        except ResultsError:
            return []  # nothing was written yet
        return found

    def frames_done(self) -> int:
        """Return the number of frames with served rows on disk."""
        return len({(row["camera_id"], row["frame_index"]) for row in self.rows() if row["served"]})
