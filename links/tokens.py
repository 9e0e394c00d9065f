"""Sequences as links see them: token numbers, closed by an end token. What the sequence links share.

A sequence value is ``(max_steps,)``: token numbers in 1..size-1, then `END`, then `END` as padding. A sequence that
fills all its steps carries no end token.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from camlink.models.base import OutputSpec
from camlink.pipeline.errors import LinkError

END = 0
Tokens = NDArray[np.int64]


def check_tokens(spec: OutputSpec, tokens: NDArray[np.generic]) -> Tensor:
    """Return tokens (n, max_steps) as a tensor. Raises `LinkError` that names the model."""
    if tokens.ndim != 2 or tokens.shape[1] != spec.max_steps:
        raise LinkError(f'tokens of "{spec.model}" have shape {tokens.shape}, expected (n, {spec.max_steps})')
    whole = tokens.astype(np.int64)
    if (whole != tokens).any() or (whole < 0).any() or (whole >= spec.size).any():
        raise LinkError(f'tokens of "{spec.model}" must be whole numbers in 0..{spec.size - 1}')
    return torch.from_numpy(whole)


def check_vectors(spec: OutputSpec, values: NDArray[np.floating]) -> Tensor:
    """Return vectors (n, size) as a tensor. Raises `LinkError` that names the model."""
    if values.ndim != 2 or values.shape[1] != spec.size or not np.isfinite(values).all():
        raise LinkError(f'values of "{spec.model}" must be finite and of shape (n, {spec.size}), got {values.shape}')
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def check_samples(source: OutputSpec, target: OutputSpec, given: Tensor, wanted: Tensor) -> int:
    """Return how many samples there are to learn from. Raises `LinkError` for none, or for uneven numbers of them."""
    if not len(given) or len(given) != len(wanted):
        raise LinkError(
            f"link {source.model} -> {target.model}: needs samples, as many of one as of the other; "
            f"got {len(given)} and {len(wanted)}"
        )
    return len(given)


def lengths(tokens: Tensor) -> Tensor:
    """Number of tokens before the first end token: (n, steps) -> (n,)."""
    return (tokens != END).long().cumprod(dim=1).sum(dim=1)


def real_steps(tokens: Tensor) -> Tensor:
    """True for tokens and for the end token that closes them, False for padding: (n, steps) -> (n, steps)."""
    return torch.arange(tokens.shape[1]) <= lengths(tokens)[:, None]


def sequence_loss(scores: Tensor, tokens: Tensor) -> Tensor:
    """Mean cross entropy over real steps: scores (n, steps, size), tokens (n, steps) -> ()."""
    each = nn.functional.cross_entropy(scores.transpose(1, 2), tokens, reduction="none")  # (n, steps)
    real = real_steps(tokens)
    return (each * real).sum() / real.sum()


def hidden_units(target: OutputSpec) -> int:
    """Return twice the length of the output (Sec. 3.4), between 16 and 128."""
    return min(max(16, 2 * target.size), 128)


def fit_module(
    module: nn.Module,
    loss: Callable[[Tensor], Tensor],
    samples: int,
    *,
    seed: int,
    epochs: int = 100,
    batch: int = 32,
    rate: float = 0.01,
) -> None:
    """Train in place with RMSprop (Sec. 6.3): ``loss`` takes row numbers (batch,) and returns their mean loss."""
    shuffle = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.RMSprop(module.parameters(), lr=rate, alpha=0.9)
    steps = epochs * -(-samples // batch)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    module.train()
    for _ in range(epochs):
        order = torch.randperm(samples, generator=shuffle)
        for start in range(0, samples, batch):
            rows = order[start : start + batch]
            optimizer.zero_grad()
            loss(rows).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    module.eval()
