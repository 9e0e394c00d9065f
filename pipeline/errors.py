"""Every error that camlink raises on purpose.

    CamlinkError
    ├── ConfigError        a site configuration is wrong; carries every problem found, with file and line
    ├── SourceError        a camera, clip or folder of stills cannot be read
    ├── ModelError         a model cannot be loaded or run
    │   └── WeightsError   a weight file is missing or its bytes are not the pinned ones
    ├── LinkError          a link was given values that do not fit its output spaces
    ├── BusError           records cannot be published or received
    │   └── CodecError     bytes are no well-formed record, or a record does not fit
    ├── StateError         the state store cannot be reached
    ├── ResultsError       the results log cannot be written or read
    │   └── RequestError   what is asked for is not there: a run, or a camera, model, frame or day of it
    ├── TraceError         a recorded trace is malformed
    ├── ZooError           a zoo's file cannot be read, or is of other models
    ├── DashboardError     the dashboard cannot be served as asked
    ├── AlertError         an alert could not be delivered
    └── PolicyError        a policy cannot be made, or broke its contract: over budget, or a model that is not there

Driver errors are translated at the edge, with their cause kept (``raise ... from``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class CamlinkError(Exception):
    """Root of camlink's errors: catch this to catch all that camlink raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a file: where, what, and what to do."""

    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.message}"


class ConfigError(CamlinkError):
    """A site configuration is wrong. ``problems`` lists all that was found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class SourceError(CamlinkError):
    """A camera, clip or folder of stills cannot be read."""


class ModelError(CamlinkError):
    """A model cannot be loaded or run."""


class WeightsError(ModelError):
    """A weight file is missing or its bytes are not the pinned ones."""


class LinkError(CamlinkError):
    """A link was given values that do not fit its output spaces."""


class BusError(CamlinkError):
    """Records cannot be published or received."""


class CodecError(BusError):
    """Bytes are no well-formed record of this schema, or a record does not fit the bus."""


class StateError(CamlinkError):
    """The state store cannot be reached."""


class ResultsError(CamlinkError):
    """The results log cannot be written or read."""


class RequestError(ResultsError):
    """A results folder is not what was asked for: no run, or one without that camera, model, frame or day, or taken.

    Nothing was done.
    """


class TraceError(CamlinkError):
    """A recorded trace is malformed."""


class ZooError(CamlinkError):
    """A zoo's file cannot be read, or is of other models."""


class DashboardError(CamlinkError):
    """The dashboard cannot be served as asked."""


class AlertError(CamlinkError):
    """An alert could not be delivered."""


class PolicyError(CamlinkError):
    """A policy cannot be made, or broke its contract: over budget, or a model that is not there."""
