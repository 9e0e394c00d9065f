"""What a baseline keeps of a camera's first frames, on which every model ran: what it is tuned on."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from camlink.operators.policy import FrameFacts
from camlink.pipeline.records import STATISTICS, Value

Array = NDArray[np.float32]
MOST_FRAMES = 20_000  # of the warm-up that are kept, the newest: memory stays flat


class WarmUp:
    """The newest fully executed frames: facts and values, in order.

    What is told of them leaves out models that failed on more than half, and frames on which any other one failed.
    """

    def __init__(self, models: tuple[str, ...]) -> None:
        self.models = models
        self._frames: deque[FrameFacts] = deque(maxlen=MOST_FRAMES)
        self._values: deque[Mapping[str, Value]] = deque(maxlen=MOST_FRAMES)

    def __len__(self) -> int:
        return len(self._whole())

    def add(self, frame: FrameFacts, executed: Mapping[str, Value]) -> None:
        """Keep a frame that all models ran on, if any of them gave a value."""
        if executed:
            self._frames.append(frame)
            self._values.append(executed)

    def clear(self) -> None:
        """Let go of everything, once tuned."""
        self._frames.clear()
        self._values.clear()

    def samples(self) -> dict[str, Array]:
        """Return model -> (n, size), of models that did not fail."""
        whole = [values for _, values in self._whole()]
        return {m: np.stack([v[m] for v in whole]) for m in self._working()} if whole else {}

    def times_s(self) -> NDArray[np.float64]:
        """Return the frames' event times (n,)."""
        return np.array([f.time_s for f, _ in self._whole()], np.float64)

    def features(self) -> dict[str, NDArray[np.float64]]:
        """Return feature -> (n,) as they were seen; nothing where a frame had no statistics."""
        stats = [f.stats for f, _ in self._whole()]
        known = [s for s in stats if s is not None]
        if not known or len(known) < len(stats):
            return {}
        return {name: np.array([getattr(s, name) for s in known], np.float64) for name in STATISTICS}

    def _working(self) -> list[str]:
        return [m for m in self.models if 2 * sum(m in values for values in self._values) > len(self._values)]

    def _whole(self) -> list[tuple[FrameFacts, Mapping[str, Value]]]:
        working = set(self._working())
        kept = zip(self._frames, self._values, strict=True)
        return [(frame, values) for frame, values in kept if working and values.keys() >= working]
