"""The seq-to-seq link of MLink (Sec. 3.4): embedding and LSTM encode, the decoder writes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from camlink.links.decoder import Decoder
from camlink.links.tokens import (
    Tokens,
    check_samples,
    check_tokens,
    fit_module,
    hidden_units,
    lengths,
    real_steps,
    sequence_loss,
)
from camlink.models.base import OutputSpec


class SeqToSeq(nn.Module):
    """Tokens (n, source.max_steps) -> tokens (n, target.max_steps). Padding is neither read nor attended to."""

    def __init__(self, source: OutputSpec, target: OutputSpec, seed: int) -> None:
        super().__init__()
        self.source, self.target = source, target
        hidden = hidden_units(target)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(source.size, hidden)
            self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
            self.decoder = Decoder(target.size, hidden)

    def forward(self, given: Tensor, tokens: Tensor) -> Tensor:
        """Scores (n, steps, target.size) of each token, given those before it."""
        scores: Tensor = self.decoder(*self._encode(given), tokens)
        return scores

    def _encode(self, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        memory, _ = self.lstm(self.embedding(given))  # (n, steps, hidden)
        last = lengths(given).clamp(max=given.shape[1] - 1)
        return memory, real_steps(given), memory[torch.arange(len(given)), last]

    def fit(self, given: Tokens, tokens: Tokens, *, seed: int, epochs: int = 100) -> None:
        """Learn from source and target tokens (n, max_steps). Raises `LinkError`."""
        x, wanted = check_tokens(self.source, given), check_tokens(self.target, tokens)
        fit_module(
            self,
            lambda rows: sequence_loss(self(x[rows], wanted[rows]), wanted[rows]),
            check_samples(self.source, self.target, x, wanted),
            seed=seed,
            epochs=epochs,
        )

    @torch.no_grad()
    def predict(self, given: Tokens) -> Tokens:
        """Source tokens (n, source.max_steps) -> tokens (n, target.max_steps), greedily. Raises `LinkError`."""
        encoded = self._encode(check_tokens(self.source, given))
        return np.asarray(self.decoder.greedy(*encoded, self.target.max_steps).numpy(), dtype=np.int64)
