"""What a decoding process is told: which camera to read, how, and how patiently."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

Decode = Literal["auto", "all", "keyframes"]


@dataclass(frozen=True, slots=True)
class Order:
    """One connection's order. ``address`` holds the password and is left out of the text form."""

    address: str | int = field(repr=False)
    fps: float | None  # sampling rate; None: every frame
    open_timeout_s: float
    read_timeout_s: float
    is_file: bool = False  # a clip that stands in for a camera: played once, at its own speed
    decode: Decode = "all"

    def plain(self) -> dict[str, Any]:
        """Return JSON data."""
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Self:
        """Return the order that `plain` gave."""
        return cls(**plain)
