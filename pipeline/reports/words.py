"""A model's output in words, for pages and for the terminal."""

from __future__ import annotations

from typing import Any

import numpy as np

from camlink.models.base import OutputSpec


def value_words(spec: OutputSpec, value: Any, entries: Any = None, most: int | None = 4) -> str:
    """Return ``value`` (size,) in words; of long vectors the first ``most`` of ``entries`` (None: all).

    >>> value_words(OutputSpec("objects", "vector", 2, "count", ("person", "chair")), np.array([2.0, 0.0]))
    '2 person, 0 chair'
    """
    names = spec.labels or tuple(f"entry {i}" for i in range(spec.size))
    entries = np.arange(spec.size) if entries is None else entries
    if spec.task == "single_label":
        top = int(value.argmax())
        return f"{names[top]} ({value[top]:.0%})"
    if spec.task == "multi_label":
        return ", ".join(names[i] for i in range(spec.size) if value[i] >= 0.5) or "none"
    listed = [
        f"{value[i]:g} {names[i]}" if spec.task == "count" else f"{names[i]} {value[i]:.3g}" for i in entries[:most]
    ]
    return ", ".join(listed) + (" …" if len(listed) < len(entries) else "")
