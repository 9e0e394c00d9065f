"""What a start would stumble over before it opens a camera, found beforehand and with the configuration's lines.

The same code reads labels, links, zoos and weights here and at the start: what `camlink config check` lets pass,
starts. Costs that nobody states are measured at the start only, and with them whether budgets allow anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from camlink.models import building, device
from camlink.models.catalogue import output_spec
from camlink.operators.selection import Costs
from camlink.pipeline.assembly import budget_faults
from camlink.pipeline.config import SiteConfig
from camlink.pipeline.config.checks import Found
from camlink.pipeline.errors import ConfigError, ModelError
from camlink.pipeline.learnt_elsewhere import read_lessons, read_policy_zoo, read_starting_links


def check_start(config: SiteConfig) -> None:
    """Raise `ConfigError` with everything that would fail once the models are there."""
    faults = list(start_faults(config))
    if faults:
        raise ConfigError([config.problem_at(path, message) for path, message in faults])


def known_memory_gb(config: SiteConfig) -> float | None:
    """Return what all models take together, as stated or measured before on this machine; None where one is unknown."""
    needed_gb = 0.0
    for definition in config.model_definitions():
        taken_gb = definition.memory_gb
        if taken_gb is None:
            try:
                measured = building.known_costs(definition, config.device)
            except ModelError:  # a device or a file that is not there is told of as what is wrong
                return None
            if measured is None:
                return None
            taken_gb = measured.memory_gb
        needed_gb += taken_gb
    return needed_gb


def start_faults(config: SiteConfig) -> Iterator[Found]:
    """Yield by key what is missing or does not fit: a device, weights, labels, a trace, links, a zoo, budgets."""
    definitions = config.model_definitions()
    if config.device.startswith("cuda"):  # others are there
        try:
            device.resolve(config.device)
        except ModelError as error:
            yield ("device",), str(error)
    for number, definition in enumerate(definitions):
        try:
            building.check_files(definition)
        except ModelError as error:
            yield ("models", number, "weights"), str(error).removeprefix(f'model "{definition.name}": ')
    specs = {definition.name: output_spec(definition) for definition in definitions}
    if config.oracle is not None:
        yield from read_lessons(config.oracle, specs)[1]
    yield from read_starting_links(config, specs)[1]
    yield from read_policy_zoo(config, specs)[1]
    time_ms = {d.name: d.time_ms for d in definitions if d.time_ms is not None}
    memory_gb = {d.name: d.memory_gb for d in definitions if d.memory_gb is not None}
    if len(time_ms) == len(memory_gb) == len(definitions):
        yield from budget_faults(config, Costs(time_ms, memory_gb))
