"""The runs that pages are asked for: opened when first looked at, kept fresh, dropped when there are many."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from camlink.pipeline.dashboard.fleet import FleetView
from camlink.pipeline.dashboard.rollups import RunRollups
from camlink.pipeline.dashboard.runs import RunLine, find_runs, run_lines
from camlink.pipeline.errors import ResultsError

logger = logging.getLogger(__name__)

REFRESH_S = 2.0
OPEN_RUNS = 4
LOOKED_S = 60.0  # a run that nobody has asked for since is nobody's concern: its figures may wait


class OpenRun:
    """One run in memory. ``problem`` says why its last refresh failed; what was read before stays readable."""

    def __init__(self, name: str, folder: Path, days: int) -> None:
        self.name = name
        self.rollups = RunRollups(folder, days)
        self.view = FleetView(self.rollups)
        self.problem = ""
        self._refreshing = threading.Lock()
        self._refreshed_s = self._looked_s = -REFRESH_S

    def look(self, now_s: float) -> None:
        """Somebody wants to see it: bring it up to date if that was not cared for."""
        if self.rollups.version and now_s - self._looked_s > LOOKED_S:
            self.rollups.catch_up()
        self._looked_s = now_s

    def refresh(self, now_s: float) -> None:
        """Read what is new, unless that was done a moment ago or is being done."""
        if now_s - self._refreshed_s < REFRESH_S or not self._refreshing.acquire(blocking=False):
            return
        try:
            watched = now_s - self._looked_s <= LOOKED_S
            if self.rollups.refresh(watched=watched) and watched:
                self.view.warm()
            self.problem = ""
        except ResultsError as error:
            if not self.problem:
                logger.warning("%s", error)
            self.problem = str(error)
        except Exception as error:  # a fault of ours: whoever follows all runs must outlive it, and pages tell of it
            if not self.problem:
                logger.exception("%s: cannot be followed", self.rollups.run_dir)
            self.problem = f"{self.rollups.run_dir}: cannot be followed: {type(error).__name__}: {error}"
        finally:
            self._refreshed_s = now_s
            self._refreshing.release()


class Library:
    """Runs by name. Safe to be used by many threads at once."""

    def __init__(
        self, folders: Sequence[Path], *, days: int = 7, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self.folders = tuple(folders)
        self._days = days
        self._seconds = seconds
        self._open: OrderedDict[str, OpenRun] = OrderedDict()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def lines(self) -> list[RunLine]:
        """Return all runs, newest first."""
        return run_lines(find_runs(self.folders))

    def run(self, name: str | None = None) -> OpenRun | None:
        """Return a run, the newest if none is named; None if there is none. Raises `ResultsError` if it is broken."""
        if name is None:
            name = next((line.name for line in self.lines() if line.info is not None), None)
        with self._lock:
            found = self._open.get(name) if name is not None else None
        if found is None:
            folder = find_runs(self.folders).get(name) if name is not None else None
            if folder is None or name is None:
                return None
            found = self._add(OpenRun(name, folder, self._days))
        found.look(self._seconds())
        if self._thread is None or not found.rollups.version:  # else the thread keeps it fresh
            found.refresh(self._seconds())
        return found

    def _add(self, run: OpenRun) -> OpenRun:
        with self._lock:
            run = self._open.setdefault(run.name, run)
            self._open.move_to_end(run.name)
            while len(self._open) > OPEN_RUNS:
                self._open.popitem(last=False)
        return run

    def follow(self) -> None:
        """Keep the open runs fresh in a thread of its own, so that no page waits for the disk."""
        self._thread = threading.Thread(target=self._follow, name="dashboard", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            self.run()
        except ResultsError as error:
            logger.warning("%s", error)
        while not self._stop.wait(REFRESH_S):
            with self._lock:
                opened = list(self._open.values())
            for run in opened:
                run.refresh(self._seconds())

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)
