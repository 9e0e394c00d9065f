"""Quantised classifiers in TFLite files, run by ai-edge-litert (OpenCV 5's importer rejects their int8 layers)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camlink.models import device as machine
from camlink.models import images
from camlink.models.base import Inference, OutputSpec
from camlink.models.classes import Grouping, softmax
from camlink.pipeline.errors import ModelError
from camlink.pipeline.records import Frame


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the runtime's own note on its delegate, which no setting turns off, from spoiling the terminal.

    Only notes are lost: failures come as exceptions.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class TfliteClassifier:
    """A classifier with one ``(1, H, W, 3)`` RGB input, uint8 or float, as probabilities per label.

    The whole picture is squeezed into the input rather than its middle cut out: what a fixed camera shows at its edges
    counts too.
    """

    def __init__(self, spec: OutputSpec, path: Path, names: Sequence[str], groups: Mapping[str, Sequence[str]]) -> None:
        self.spec = spec
        self._path, self._names = path, tuple(names)
        self._grouping = Grouping(spec.model, spec.labels, groups, self._names)
        self._interpreter: Any = None

    def load(self) -> None:
        """Open the file. Raises `ModelError`."""
        if self._interpreter is not None:
            return
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ModelError(
                f'model "{self.spec.model}": needs the package ai-edge-litert (pip install ai-edge-litert)'
            ) from error
        try:
            with _quiet():
                interpreter = Interpreter(str(self._path), num_threads=machine.threads())
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f'model "{self.spec.model}": cannot load {self._path}: {error}') from error
        outputs = int(interpreter.get_output_details()[0]["shape"][-1])
        if outputs != len(self._names):
            raise ModelError(f'model "{self.spec.model}": {outputs} outputs but {len(self._names)} class names')
        self._interpreter = interpreter

    def unload(self) -> None:
        """Free the interpreter."""
        self._interpreter = None

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        """Return probabilities per label; the file's batch is one, so frames go in turn."""
        if self._interpreter is None:
            raise ModelError(f'model "{self.spec.model}": asked to run while not loaded; call load() first')
        return [Inference(self._grouping(self._probabilities(frame))) for frame in frames]

    def _probabilities(self, frame: Frame) -> NDArray[np.float32]:
        given, wanted = self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]
        _, height, width, _ = given["shape"]
        picture = images.stretch_rgb(images.picture_of(frame, self.spec.model), int(height), int(width))[None]
        # A float input takes EfficientNet-Lite's normalisation.
        tensor = picture if given["dtype"] == np.uint8 else (picture.astype(np.float32) - 127.0) / 128.0
        try:
            self._interpreter.set_tensor(given["index"], tensor)
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f'model "{self.spec.model}": failed on a frame of "{frame.camera_id}": {error}') from error
        raw = self._interpreter.get_tensor(wanted["index"])[0].astype(np.float32)
        scale, zero = wanted["quantization"]
        if not scale:  # a float output
            return softmax(raw)
        return np.asarray((raw - zero) * scale, np.float32)
