"""Any classification architecture of torchvision, by name, with a state dict of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camlink.models import device as machine
from camlink.models import images
from camlink.models.base import Inference, OutputSpec
from camlink.models.classes import Grouping, Head
from camlink.pipeline.errors import ModelError
from camlink.pipeline.records import Frame


class TorchvisionClassifier:
    """``torchvision.models.<architecture>`` with the weights of ``path``, as probabilities per label.

    The state dict is read with ``weights_only=True``: it cannot run code. The number of classes is the number of
    ``names`` (default: the labels). Preprocessing is torchvision's own: shorter side to 256/224 of ``image_size``,
    middle cut out, ImageNet normalisation. "multi_label" takes the sigmoid of each output, "regression" the output
    itself, every other task the softmax.
    """

    def __init__(
        self,
        spec: OutputSpec,
        architecture: str,
        path: Path,
        names: Sequence[str] = (),
        groups: Mapping[str, Sequence[str]] | None = None,
        image_size: int = 224,
        device: str = "cpu",
    ) -> None:
        self.spec = spec
        self._architecture, self._path, self._device, self._size = architecture, path, device, image_size
        self._names = tuple(names) or spec.labels
        self._head = Head(spec.task, Grouping(spec.model, spec.labels, groups or {}, self._names), gives_logits=True)
        self._network: Any = None

    def load(self) -> None:
        """Build the architecture and fill it. Raises `ModelError` naming what does not fit."""
        if self._network is not None:
            return
        import torch
        import torchvision

        try:
            network = torchvision.models.get_model(self._architecture, weights=None, num_classes=len(self._names))
        except ValueError as error:
            raise ModelError(
                f'model "{self.spec.model}": torchvision has no architecture "{self._architecture}": {error}'
            ) from error
        try:
            network.load_state_dict(torch.load(self._path, map_location="cpu", weights_only=True))
        except Exception as error:  # missing file, foreign pickle, other shapes: each its own class
            raise ModelError(
                f'model "{self.spec.model}": {self._path} does not fit {self._architecture} with {len(self._names)} '
                f"classes: {error}"
            ) from error
        if self._device == "cpu":
            torch.set_num_threads(machine.threads())
        self._network = network.eval().to(self._device)

    def unload(self) -> None:
        """Drop the network; on CUDA, give its memory back to the device."""
        self._network = None
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    def run(self, frames: Sequence[Frame]) -> list[Inference]:
        """Return probabilities per label, the whole batch at once."""
        if self._network is None:
            raise ModelError(f'model "{self.spec.model}": asked to run while not loaded; call load() first')
        if not frames:
            return []
        import torch

        enlarged = self._size * 256 // 224
        pictures = [images.imagenet_planes(images.picture_of(f, self.spec.model), self._size, enlarged) for f in frames]
        try:
            with torch.inference_mode():
                output = (
                    self._network(torch.from_numpy(np.concatenate(pictures)).to(self._device)).float().cpu().numpy()
                )
        except Exception as error:  # torch raises RuntimeError and its children for everything
            raise ModelError(f'model "{self.spec.model}": failed on {len(frames)} frames: {error}') from error
        return [Inference(self._head(row)) for row in output]
