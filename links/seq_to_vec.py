"""The seq-to-vec link of MLink (Sec. 3.4): embedding, LSTM, MLP."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from camlink.links.base import Array
from camlink.links.tokens import check_samples, check_tokens, check_vectors, fit_module, hidden_units, lengths
from camlink.models.base import OutputSpec
from camlink.models.scores import Loss, rules

_LOSSES: dict[Loss, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": nn.functional.mse_loss,
    "cross_entropy": nn.functional.cross_entropy,
    "binary_cross_entropy": nn.functional.binary_cross_entropy_with_logits,
}


class SeqToVec(nn.Module):
    """Tokens (n, source.max_steps) -> pre-activations (n, target.size). Padding behind the end token has no say."""

    def __init__(self, source: OutputSpec, target: OutputSpec, seed: int) -> None:
        super().__init__()
        self.source, self.target = source, target
        hidden = hidden_units(target)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(source.size, hidden)
            self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
            self.mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, target.size))

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(tokens))  # (n, steps, hidden)
        last = lengths(tokens).clamp(max=tokens.shape[1] - 1)  # the end token, or the last token of a full sequence
        out: Tensor = self.mlp(states[torch.arange(len(tokens)), last])
        return out

    def fit(self, tokens: NDArray[np.generic], y: Array, *, seed: int, epochs: int = 100) -> None:
        """Learn from tokens (n, source.max_steps) and values (n, target.size). Raises `LinkError`."""
        x, wanted = check_tokens(self.source, tokens), check_vectors(self.target, y)
        loss = _LOSSES[rules(self.target).loss]
        samples = check_samples(self.source, self.target, x, wanted)
        fit_module(self, lambda rows: loss(self(x[rows]), wanted[rows]), samples, seed=seed, epochs=epochs)

    @torch.no_grad()
    def predict(self, tokens: NDArray[np.generic]) -> Array:
        """Tokens (n, source.max_steps) -> pre-activations (n, target.size) float32. Raises `LinkError`."""
        return np.asarray(self(check_tokens(self.source, tokens)).numpy(), dtype=np.float32)
