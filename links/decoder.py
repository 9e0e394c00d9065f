"""The decoder of vec-to-seq and seq-to-seq links: embedding, LSTM, attention, linear (MLink Sec. 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from camlink.links.tokens import END


class Decoder(nn.Module):
    """Writes a sequence while attending to what the encoder left: memory (n, places, hidden)."""

    def __init__(self, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary + 1, hidden)  # the last one says "start"
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.scores = nn.Linear(2 * hidden, vocabulary)
        self._start = vocabulary

    def forward(self, memory: Tensor, usable: Tensor, state: Tensor, tokens: Tensor) -> Tensor:
        """Teacher forcing: predict each token from those before it -> scores (n, steps, vocabulary).

        ``usable`` (n, places) masks the memory; ``state`` (n, hidden) starts the LSTM; ``tokens`` (n, steps).
        """
        start = torch.full_like(tokens[:, :1], self._start)
        before = self.embedding(torch.cat([start, tokens[:, :-1]], dim=1))  # (n, steps, hidden)
        first = state[None].contiguous()  # (1, n, hidden)
        out, _ = self.lstm(before, (first, torch.zeros_like(first)))
        return self._attend(out, memory, usable)

    @torch.no_grad()
    def greedy(self, memory: Tensor, usable: Tensor, state: Tensor, max_steps: int) -> Tensor:
        """Take the best token at each step until the end token, at most ``max_steps``: -> (n, max_steps)."""
        token = torch.full((len(memory), 1), self._start)
        hidden = state[None].contiguous()
        carry = (hidden, torch.zeros_like(hidden))
        ended = torch.zeros(len(memory), dtype=torch.bool)
        written = torch.full((len(memory), max_steps), END)
        for step in range(max_steps):
            out, carry = self.lstm(self.embedding(token), carry)  # (n, 1, hidden)
            token = self._attend(out, memory, usable).argmax(dim=2)  # (n, 1)
            token[ended] = END  # nothing is written behind an end token
            written[:, step] = token[:, 0]
            ended |= token[:, 0] == END
            if bool(ended.all()):
                break
        return written

    def _attend(self, out: Tensor, memory: Tensor, usable: Tensor) -> Tensor:
        match = out @ memory.transpose(1, 2) / memory.shape[2] ** 0.5  # (n, steps, places)
        share = match.masked_fill(~usable[:, None, :], -torch.inf).softmax(dim=2)
        scores: Tensor = self.scores(torch.cat([out, share @ memory], dim=2))  # (n, steps, vocabulary)
        return scores
