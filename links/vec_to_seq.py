"""The vec-to-seq link of MLink (Sec. 3.4): an MLP encodes, the decoder writes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from camlink.links.base import Array
from camlink.links.decoder import Decoder
from camlink.links.tokens import (
    Tokens,
    check_samples,
    check_tokens,
    check_vectors,
    fit_module,
    hidden_units,
    sequence_loss,
)
from camlink.models.base import OutputSpec

PLACES = 4  # states that the encoder leaves for the attention to choose from


class VecToSeq(nn.Module):
    """Values (n, source.size) -> tokens (n, target.max_steps)."""

    def __init__(self, source: OutputSpec, target: OutputSpec, seed: int) -> None:
        super().__init__()
        self.source, self.target = source, target
        self._hidden = hidden_units(target)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            wide = PLACES * self._hidden
            self.encoder = nn.Sequential(nn.Linear(source.size, wide), nn.ReLU(), nn.Linear(wide, wide))
            self.decoder = Decoder(target.size, self._hidden)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Scores (n, steps, target.size) of each token, given those before it."""
        scores: Tensor = self.decoder(*self._encode(x), tokens)
        return scores

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        memory = self.encoder(x).reshape(len(x), PLACES, self._hidden)
        return memory, torch.ones(memory.shape[:2], dtype=torch.bool), memory[:, 0]

    def fit(self, x: Array, tokens: Tokens, *, seed: int, epochs: int = 100) -> None:
        """Learn from values (n, source.size) and tokens (n, target.max_steps). Raises `LinkError`."""
        given, wanted = check_vectors(self.source, x), check_tokens(self.target, tokens)
        fit_module(
            self,
            lambda rows: sequence_loss(self(given[rows], wanted[rows]), wanted[rows]),
            check_samples(self.source, self.target, given, wanted),
            seed=seed,
            epochs=epochs,
        )

    @torch.no_grad()
    def predict(self, x: Array) -> Tokens:
        """Values (n, source.size) -> tokens (n, target.max_steps), greedily. Raises `LinkError`."""
        encoded = self._encode(check_vectors(self.source, x))
        return np.asarray(self.decoder.greedy(*encoded, self.target.max_steps).numpy(), dtype=np.int64)
