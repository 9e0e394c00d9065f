"""Settings of a command: a configuration file, with what the command line says on top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from camlink.pipeline.config import SiteConfig, built_in_configs, load_config
from camlink.pipeline.config.yaml_lines import KeyPath
from camlink.pipeline.suggestions import suggest

OPTIONS = {  # by the key whose value they override
    "models": "--models",
    "period": "--period",
    "budgets.time_share": "--time-share",
    "target_agreement": "--target",
    "budgets.latency_ms": "--latency-ms",
    "budgets.memory_gb": "--memory-gb",
    "policy": "--policy",
    "links.bootstrap_frames": "--bootstrap",
    "audit.fraction": "--audit",
    "seed": "--seed",
    "device": "--device",
}


def built_in_site(models: str | None) -> str:
    """Return the site of `camera_configs` that a replay takes where none is named: the one for what ``--models`` says.

    >>> built_in_site("traffic"), built_in_site("objects,persons"), built_in_site(None)
    ('traffic', 'building', 'building')
    """
    from camlink.models import catalogue

    return models if models in catalogue.sets() and models in built_in_configs() else "building"


def load_settings(name: str, changes: Mapping[str, Any]) -> SiteConfig:
    """Return the configuration ``name`` without its cameras, changed by what is not None in ``changes``.

    Keys are those of `OPTIONS`; models are named as on the command line. A target for policy camlink takes the place of
    the file's time budget, for it is to find what that costs; policy all knows none. Raises `ConfigError` for the file
    and `typer.BadParameter` for a change that does not fit.
    """
    config = load_config(name, ignore_cameras=True)
    data = config.model_dump(mode="json")
    options: dict[KeyPath, str] = {}
    for key, value in changes.items():
        if value is not None:
            path = tuple(key.split("."))
            _set(data, path, _model_choice(value, config) if key == "models" else value)
            options[path] = OPTIONS[key]
    aims = ("target_agreement",) in options and data["policy"] == "camlink"
    if (aims or data["policy"] == "all") and ("budgets", "time_share") not in options:
        _set(data, ("budgets", "time_share"), None)
    try:
        changed = SiteConfig.model_validate(data)
    except ValueError as error:
        raise typer.BadParameter(_first_message(error)) from error
    return changed.read_from(config, options)


def on_device(site: SiteConfig, device: str | None) -> SiteConfig:
    """Return the configuration with what ``--device`` says, where that was given."""
    if device is None:
        return site
    return site.model_copy(update={"device": device}).read_from(site, {("device",): OPTIONS["device"]})


def _model_choice(text: str, config: SiteConfig) -> str | tuple[str | dict[str, Any], ...]:
    """Read ``--models``: one set by name, or a comma-separated list of models, of the catalogue or the file's own.

    Raises `typer.BadParameter`.
    """
    from camlink.models import catalogue

    entries = () if isinstance(config.models, str) else config.models
    own = {entry.name: entry.model_dump(mode="json") for entry in entries if not isinstance(entry, str)}
    if text in catalogue.sets() and text not in own:
        return text
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in own and name not in catalogue.names():
            sets = catalogue.sets() if len(names) == 1 else ()  # a set stands alone
            known = (*own, *sets, *catalogue.names())
            raise typer.BadParameter(f'"{name}" is no model here; {suggest(name, known)}', param_hint="--models")
    return tuple(own.get(name, name) for name in names)


def _set(data: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        data = data.setdefault(key, {})
    data[path[-1]] = value


def _first_message(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return str(error)
    first = errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "literal_error":
        choices = [word.strip("' ") for word in first["ctx"]["expected"].replace(" or ", ",").split(",")]
        given = str(first["input"])
        return f'{OPTIONS.get(key, key)}: "{given}" is not a choice here; {suggest(given, choices)}'
    said = first["msg"].removeprefix("Value error, ").replace("Input should", f"{first['input']} should")
    return f"{OPTIONS.get(key, key)}: {said}"
