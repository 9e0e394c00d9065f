"""A site's configuration: YAML read, checked with line numbers, and watched for edits."""

from camlink.pipeline.config.sections import AdaptationConfig, Budgets, CameraConfig
from camlink.pipeline.config.site import (
    SiteConfig,
    built_in_configs,
    check_config,
    config_file,
    json_schema,
    load_config,
    model_names,
)
from camlink.pipeline.config.warnings import config_warnings, warnings_of

__all__ = [
    "AdaptationConfig",
    "Budgets",
    "CameraConfig",
    "SiteConfig",
    "built_in_configs",
    "check_config",
    "config_file",
    "config_warnings",
    "json_schema",
    "load_config",
    "model_names",
    "warnings_of",
]
