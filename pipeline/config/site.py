"""What a site consists of and how camlink shall run it: cameras, models, budgets, rules.

    config = load_config("site.yaml")        # or a built-in name: "building", "traffic", "webcam", "demo"
    config.cameras[0].source, config.period, config.budgets.memory_gb

Every problem of a file is found at once and named with its line (`ConfigError`). Units: a key whose name ends in a unit
(``memory_gb``, ``time_ms``) takes a bare number; durations say theirs (``20s``, ``1h``); ``fraction``, ``share`` and
``threshold`` lie in 0..1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, PrivateAttr, Strict, Tag, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

import camlink
from camlink.pipeline.addresses import find_path
from camlink.pipeline.config.alerts import AlertsConfig, shown_place
from camlink.pipeline.config.checks import contradictions
from camlink.pipeline.config.problems import Origin, Read, in_order, read_section
from camlink.pipeline.config.sections import (
    AdaptationConfig,
    AuditConfig,
    Budgets,
    CameraConfig,
    Duration,
    LinksConfig,
    ModelConfig,
    OracleConfig,
    ProfileConfig,
    Section,
    Share,
)
from camlink.pipeline.config.yaml_lines import KeyPath
from camlink.pipeline.errors import ConfigError, ModelError, Problem
from camlink.pipeline.suggestions import suggest

if TYPE_CHECKING:
    from camlink.models.catalogue import ModelDefinition

STAND_IN = {"models": "building"}  # where a file's models are wrong, so that its other parts are looked at all the same
MOST_BYTES = 4_000_000  # a site of 20,000 cameras has half of that


def _model_kind(item: Any) -> str:
    return "<mapping>" if isinstance(item, dict | ModelConfig) else "<name>"


def _check_model_name(name: str) -> str:
    from camlink.models import catalogue

    try:
        catalogue.definition(name)
    except ModelError as error:
        raise ValueError(str(error)) from error
    return name


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _models_kind(value: Any) -> str:
    return "<list>" if isinstance(value, list | tuple) else "<set>"


def _abstain_kind(value: Any) -> str:
    return "<by model>" if isinstance(value, dict) else "<number>"


def _definitions(models: str | tuple[str | ModelConfig, ...]) -> list[ModelDefinition]:
    from camlink.models import catalogue

    names = catalogue.sets()[models] if isinstance(models, str) else models
    return [catalogue.definition(entry) if isinstance(entry, str) else entry.definition() for entry in names]


ModelEntry = Annotated[
    Annotated[str, AfterValidator(_check_model_name), Tag("<name>")] | Annotated[ModelConfig, Tag("<mapping>")],
    Discriminator(_model_kind),
]
ModelEntries = Annotated[tuple[ModelEntry, ...], Strict(False)]


class SiteConfig(Section):
    """A whole site. ``camlink config schema`` prints this as a JSON Schema for editors."""

    site: str = Field(default="site", min_length=1, description="Name of the site, shown in reports.")
    models: Annotated[
        Annotated[str, Tag("<set>")] | Annotated[ModelEntries, Tag("<list>")], Discriminator(_models_kind)
    ] = Field(description="A set of the catalogue (building, traffic), or a list of model names and own models.")
    cameras: Annotated[tuple[CameraConfig, ...], Strict(False)] = Field(
        default=(), description="The cameras. May be left out where footage is replayed with these settings."
    )
    budgets: Budgets = Field(default=Budgets(), description="What the models may cost.")
    period: Duration = Field(default=timedelta(hours=1), description="Event time for which one decision holds.")
    profile: ProfileConfig = Field(default=ProfileConfig(), description="Frames that open a period.")
    audit: AuditConfig = Field(default=AuditConfig(), description="Frames that measure accuracy.")
    target_agreement: Share | None = Field(
        default=None,
        description="Agreement (0..1) that predictions must reach; a model that provably misses it is executed instead "
        "of predicted. Cameras may set their own.",
    )
    targets: dict[str, Share] = Field(
        default={},
        description="Agreement (0..1) that predictions of single models must reach, by the model's name, in place of "
        "target_agreement. Where a camera sets one, too, the higher holds.",
    )
    abstain_below: (
        Annotated[
            Annotated[Share, Tag("<number>")] | Annotated[dict[str, Share], Tag("<by model>")],
            Discriminator(_abstain_kind),
        ]
        | None
    ) = Field(
        default=None,
        description="Confidence (0..1) below which no answer is given in place of an execution: the output abstains. "
        "One number, or several by the model's name.",
    )
    links: LinksConfig = Field(default=LinksConfig(), description="First training of the links.")
    adaptation: AdaptationConfig = Field(
        default=AdaptationConfig(), description="How links are relearnt, under policies mlink and mlink-exact."
    )
    oracle: OracleConfig | None = Field(
        default=None, description="A person's labels, to calibrate outputs by: docs/links.md."
    )
    alerts: AlertsConfig = Field(default=AlertsConfig(), description="Events that are told: docs/alerts.md.")
    policy: Literal["mlink", "mlink-exact", "standalone", "all", "camlink", "reducto", "periodic"] = Field(
        default="camlink",
        description="What to execute. On every frame: what is worth its time (camlink), what a frame filter lets "
        "through (reducto), or each model every so many frames (periodic). Per period: the paper's greedy choice "
        "(mlink), the best choice by enumeration (mlink-exact), as many models as fit without links (standalone), or "
        "everything (all).",
    )
    policy_zoo: str | None = Field(
        default=None,
        description="File of what other cameras with these models have learnt, as `camlink zoo build` writes it: where "
        "every camera's policy camlink starts from.",
    )
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="Where models run: auto, cpu, cuda or cuda:N."
    )
    seed: int = Field(
        default=0, ge=0, description="Seed of every random choice; the same seed repeats a replay exactly."
    )
    _origin: Origin = PrivateAttr(Origin())  # of nothing where settings are made from plain data

    @field_validator("models")
    @classmethod
    def _check_models(cls, models: str | tuple[str | ModelConfig, ...]) -> str | tuple[str | ModelConfig, ...]:
        from camlink.models import catalogue

        if isinstance(models, str):
            if models not in catalogue.sets():
                raise ValueError(f'"{models}" is not a set of models; {suggest(models, catalogue.sets())}')
            return models
        if not models:
            raise ValueError(f"name at least one model, or a set: {', '.join(catalogue.sets())}")
        names = [entry if isinstance(entry, str) else entry.name for entry in models]
        repeated = _repeated(names)
        if repeated:
            raise ValueError(f'"{repeated[0]}" is listed twice; give each model a name of its own')
        return models

    @field_validator("policy_zoo")
    @classmethod
    def _check_zoo(cls, zoo: str | None, info: ValidationInfo) -> str | None:
        return None if zoo is None else find_path(zoo, (info.context or {}).get("folder"), "file")

    @field_validator("cameras")
    @classmethod
    def _check_unique_ids(cls, cameras: tuple[CameraConfig, ...]) -> tuple[CameraConfig, ...]:
        repeated = _repeated(camera.id for camera in cameras)
        if repeated:
            raise PydanticCustomError("duplicate_id", 'camera id "{id}" is used twice', {"id": repeated[0]})
        return cameras

    def problem_at(self, path: KeyPath, message: str) -> Problem:
        """Return what is wrong with the value at ``path``: with file and line, where these settings are from a file, or
        with the option that has overridden it.
        """
        found = self._origin.problem(path, message)
        return found if found.file else replace(found, file=self.site)

    def states(self, *path: str | int) -> bool:
        """Say whether the file that these settings are from, or an option, gives the value at ``path``."""
        return self._origin.states(path)

    def shown_policy(self) -> str:
        """Return the policy as messages name it: whoever reads a file without one is told that it is the default."""
        is_default = self._origin.file and not self.states("policy")
        return f"policy {self.policy}" + (" (the default)" if is_default else "")

    @property
    def profile_frames(self) -> tuple[float, int]:
        """Share of a period's frames on which every model runs first, and how many they are at least."""
        from camlink.operators.gate import PER_FRAME_POLICIES

        needless = self.policy in PER_FRAME_POLICIES and self.budgets.memory_gb is None
        fraction, least = (0.0, 1) if needless else (0.01, 10)
        asked = self.profile
        return (
            fraction if asked.fraction is None else asked.fraction,
            least if asked.min_frames is None else asked.min_frames,
        )

    def target_of(self, camera_id: str, model: str) -> float | None:
        """Return the agreement that predictions of a model on a camera must reach; None where none is asked."""
        own = next((c.target_agreement for c in self.cameras if c.id == camera_id), None)
        named = [target for target in (own, self.targets.get(model)) if target is not None]
        return max(named) if named else self.target_agreement

    def least_confidence(self, model: str) -> float:
        """Return the confidence that an answer for a model must have to be given; 0 where none is asked."""
        asked = self.abstain_below
        return float((asked.get(model, 0.0) if isinstance(asked, dict) else asked) or 0.0)

    def read_from(self, other: SiteConfig, options: Mapping[KeyPath, str]) -> SiteConfig:
        """Return these settings as made from ``other``, so that problems point at its file.

        ``options`` have given the values at these paths, and are pointed at in place of the file.
        """
        copied = self.model_copy()
        copied._origin = replace(other._origin, options={**other._origin.options, **options})
        return copied

    def model_definitions(self) -> list[ModelDefinition]:
        """Return the definitions of the models to run, in order. Raises `ModelError` for an unknown name."""
        return _definitions(self.models)

    def masked(self) -> dict[str, Any]:
        """Return plain JSON data without passwords, for run.json and pages."""
        data = self.model_dump(mode="json")
        data["profile"] = dict(zip(("fraction", "min_frames"), self.profile_frames, strict=True))
        for camera, shown in zip(data["cameras"], self.cameras, strict=True):
            camera["source"] = shown.source if isinstance(shown.source, int) else shown.shown_source
        for places in (data["alerts"], *data["alerts"]["rules"]):
            places["to"] = [shown_place(place) for place in places["to"] or ()]
        return data


def model_names(models: str | Iterable[str | ModelConfig]) -> tuple[str, ...]:
    """Return the names of a set of models, or of a list of names and own models."""
    from camlink.models import catalogue

    entries = catalogue.sets()[models] if isinstance(models, str) else models
    return tuple(entry.name if isinstance(entry, ModelConfig) else str(entry) for entry in entries)


def load_config(path: str | Path, *, ignore_cameras: bool = False) -> SiteConfig:
    """Return the configuration in the file at ``path``, or the built-in one of that name (``"building"``).

    ``ignore_cameras`` leaves out the file's cameras, unread: a replay brings its own, and must not fail for want of a
    live camera's password. Raises `ConfigError` with every problem found.
    """
    read = read_config(path, ignore_cameras=ignore_cameras)
    if read.sound is None or read.problems:
        raise ConfigError(read.problems)
    return read.sound


def check_config(path: str | Path) -> list[Problem]:
    """Return everything that is wrong with a configuration file, in the order of its lines; nothing if it is right.

    That is all that would stop a start before it opens a camera, too.
    """
    from camlink.pipeline.config.start_checks import start_faults

    read = read_config(path)
    if read.sound is None or read.origin.left_out.touches("models"):
        return read.problems
    return in_order([*read.problems, *(read.origin.problem(*fault) for fault in start_faults(read.sound))])


def built_in_configs() -> dict[str, Path]:
    """Return the configurations that come with camlink, by name."""
    folder = Path(camlink.__file__).parent / "camera_configs"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def config_file(path: str | Path) -> Path:
    """Return the file that `load_config` reads: the one at ``path``, else the built-in one of that name.

    A folder of that name, of footage say, is no file.
    """
    named = Path(path)
    return named if named.exists() and not named.is_dir() else built_in_configs().get(str(path), named)


def read_config(path: str | Path, *, ignore_cameras: bool = False) -> Read[SiteConfig]:
    """Return what is sound of the file at ``path``, or of the built-in one of that name, and all that is not."""
    built_in, file = built_in_configs(), config_file(path)
    try:
        with file.open("rb") as opened:
            read = opened.read(MOST_BYTES + 1)  # of /dev/zero, say, there is no end
        if len(read) > MOST_BYTES:
            raise OSError(None, f"it is larger than {MOST_BYTES:,} bytes")
        text = read.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        advice = f"{suggest(str(path), built_in)} (built in), or give the path of a YAML file"
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        return Read(None, [Problem(str(path), None, f"cannot be read as a configuration: {why}; {advice}")])
    found = read_section(text, str(file), SiteConfig, leave_out="cameras" if ignore_cameras else "", stand_in=STAND_IN)
    if found.sound is None:
        return found
    found.sound._origin = origin = found.origin
    more = [origin.problem(*one) for one in contradictions(found.sound, origin.left_out, origin.document.data)]
    return replace(found, problems=in_order([*found.problems, *more]))


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file, for editors and other tools."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **SiteConfig.model_json_schema()}
