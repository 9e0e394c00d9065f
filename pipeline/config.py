"""What a site consists of and how camlink shall run it: cameras, models, budgets, rules.

    config = load_config("site.yaml")        # or a built-in name: "building", "traffic", "webcam", "demo"
    config.cameras[0].source, config.period, config.budgets.memory_gb

Every problem of a file is found at once and named with its line (`ConfigError`). Units: a key whose name ends in a unit
(``memory_gb``, ``time_ms``) takes a bare number; durations say theirs (``20s``, ``1h``); ``fraction``, ``share`` and
``threshold`` lie in 0..1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PrivateAttr,
    Strict,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

import camlink
from camlink.pipeline import quantities
from camlink.pipeline.addresses import check_scheme, expand_environment, find_path, is_url
from camlink.pipeline.config_problems import read_section
from camlink.pipeline.errors import ConfigError, ModelError, Problem
from camlink.pipeline.ingest.masking import mask_url
from camlink.pipeline.suggestions import suggest

if TYPE_CHECKING:
    from camlink.models.catalogue import ModelDefinition

CAMERA_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")

Duration = Annotated[
    timedelta,
    BeforeValidator(quantities.parse_duration),
    PlainSerializer(quantities.format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": quantities.DURATION_PATTERN, "examples": ["20s", "10min", "1h"]}),
]
Rate = Annotated[
    float,
    BeforeValidator(quantities.parse_rate),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": quantities.RATE_PATTERN}]}
    ),
]
Gigabytes = Annotated[
    float,
    BeforeValidator(quantities.parse_gigabytes),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "examples": ["500 MB"]}]}),
]
Share = Annotated[
    float,
    BeforeValidator(quantities.parse_share),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1}),
]
Crop = Annotated[tuple[float, float, float, float], BeforeValidator(quantities.parse_crop)]
Names = Annotated[tuple[str, ...], Strict(False)]


class Section(BaseModel):
    """What all sections share: immutable, unknown keys refused, no silent conversion, no values in error texts."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class CameraConfig(Section):
    """One camera, or one piece of recorded footage."""

    id: str = Field(description="Name of the camera in results and reports: letters, digits, '_', '.', '-'; up to 64.")
    source: str | int = Field(
        repr=False,
        description="Where frames come from: an RTSP or HTTP address, a video file, a folder of stills, or a device "
        "number. ${NAME} is taken from the environment, so that passwords stay out of the file.",
    )
    fps: Rate = Field(default=2.0, description='Frames per second to look at, or a rate such as "1/min".')
    crop: Crop | None = Field(
        default=None,
        description="Part of the picture to look at: left, top, right, bottom as shares (0..1) of its size.",
    )
    domain: str = Field(
        default="default", description="Kind of scene; cameras of one domain can share what links have learnt."
    )
    _shown_source: str = PrivateAttr("")

    @field_validator("id")
    @classmethod
    def _check_id(cls, camera_id: str) -> str:
        if not CAMERA_ID.fullmatch(camera_id):
            tidy = re.sub(r"[^A-Za-z0-9_.-]+", "-", camera_id).strip("-")[:64] or "camera-1"
            raise ValueError(
                f'"{camera_id}" is not a camera id: use 1 to 64 letters, digits, "_", "." or "-", such as "{tidy}"'
            )
        return camera_id

    @field_validator("source")
    @classmethod
    def _resolve_source(cls, source: str | int, info: ValidationInfo) -> str | int:
        if isinstance(source, int):
            if source < 0:
                raise ValueError(f"device numbers start at 0, got {source}")
            return source
        opened = expand_environment(source)
        if opened.isdecimal():
            return int(opened)
        if is_url(opened):
            check_scheme(opened)
            return opened
        return find_path(opened, (info.context or {}).get("folder"))

    @model_validator(mode="wrap")
    @classmethod
    def _remember_source_as_written(cls, data: Any, handler: Any) -> Self:
        camera: Self = handler(data)
        if isinstance(data, dict):
            camera._shown_source = mask_url(str(data["source"]))
        return camera

    @property
    def shown_source(self) -> str:
        """The source as written, passwords masked: what logs, errors and pages may show."""
        return self._shown_source or mask_url(str(self.source))


class ModelConfig(Section):
    """A model that is not in the catalogue. Omitted fields take the adapter's own values."""

    name: str = Field(min_length=1, description="Name of the model in results and reports.")
    adapter: Literal["ultralytics", "onnx", "torchvision", "tflite"] = Field(description="What runs the weights.")
    weights: str = Field(min_length=1, description="Weight file (a path, or the name of a pinned file).")
    task: Literal["count", "single_label", "multi_label", "regression"] = Field(description="What the output means.")
    labels: Names = Field(default=(), description="Names of the output's entries, in order.")
    classes: Annotated[tuple[int, ...], Strict(False)] = Field(
        default=(), description="Class numbers to keep; none: all."
    )
    groups: dict[str, Names] = Field(default_factory=dict, description="New label: the model's labels it adds up.")
    confidence: Share = Field(default=0.25, description="Detections below this confidence are left out.")
    image_size: int = Field(default=640, ge=32, le=4096, description="Side in pixels to which pictures are scaled.")
    time_ms: float | None = Field(default=None, gt=0, description="Time per frame in ms; measured when absent.")
    memory_gb: Gigabytes | None = Field(default=None, description="Peak memory in GB; measured when absent.")


class Budgets(Section):
    """What the models may cost. An absent budget does not limit."""

    memory_gb: Gigabytes | None = Field(
        default=None, description="Memory for models held at once by one worker, in GB."
    )
    time_share: Share | None = Field(
        default=None,
        gt=0,
        description="Time per camera, as a share (0..1) of the time of executing every model on every frame.",
    )


class ProfileConfig(Section):
    """Frames at the start of a period on which every model runs, to score the links."""

    fraction: Share = Field(default=0.01, description="Share (0..1) of a period's frames.")
    min_frames: int = Field(default=10, ge=1, description="At least so many frames, for cameras with few of them.")


class AuditConfig(Section):
    """Randomly chosen frames on which every model runs; accuracy is estimated from these alone."""

    fraction: Share = Field(default=0.02, description="Share (0..1) of frames. 0: accuracy is not measured.")


class LinksConfig(Section):
    """How links get their first training."""

    bootstrap_frames: int = Field(default=100, ge=1, description="First frames of a camera, on which every model runs.")
    min_train_frames: int = Field(default=40, ge=2, description="No link is trained on fewer frames than these.")
    history_frames: int = Field(
        default=2000, ge=2, description="Newest fully executed frames kept per camera for training."
    )

    @field_validator("history_frames")
    @classmethod
    def _check_history(cls, history_frames: int, info: ValidationInfo) -> int:
        needed = info.data.get("min_train_frames", 0)
        if history_frames < needed:
            raise ValueError(
                f"{history_frames} is below min_train_frames ({needed}), so that no link could ever be trained; "
                "raise the one or lower the other"
            )
        return history_frames


class AdaptationConfig(Section):
    """How links are relearnt when the scene drifts."""

    policy: Literal["off", "periodic", "uncertainty"] = Field(
        default="periodic",
        description="When to run models on extra frames: at fixed intervals, or where links are unsure.",
    )
    interval: Duration = Field(default=timedelta(minutes=10), description="Event time between relearnings.")
    frames: int = Field(default=50, ge=1, description="Extra frames per interval (policy periodic).")
    label_fraction: Share = Field(
        default=0.01, description="Share (0..1) of frames that may be extra (policy uncertainty)."
    )
    confidence_threshold: Share = Field(default=0.6, description="A prediction below this confidence (0..1) is unsure.")
    retrain_after_frames: int = Field(
        default=50, ge=1, description="New fully executed frames that start a retraining."
    )
    shadow_frames: int = Field(
        default=30, ge=1, description="Later frames on which a new link must beat the present one."
    )

    @field_validator("policy", mode="before")
    @classmethod
    def _read_off(cls, policy: Any) -> Any:
        return "off" if policy is False else policy  # YAML 1.1 reads a bare `off` as false


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
    profile: ProfileConfig = Field(default=ProfileConfig(), description="Frames that score the links.")
    audit: AuditConfig = Field(default=AuditConfig(), description="Frames that measure accuracy.")
    links: LinksConfig = Field(default=LinksConfig(), description="First training of the links.")
    adaptation: AdaptationConfig = Field(default=AdaptationConfig(), description="How links are relearnt.")
    policy: Literal["mlink", "mlink-exact", "standalone", "all"] = Field(
        default="mlink",
        description="What to execute: the paper's greedy choice, the best choice by enumeration, as many models as "
        "fit without links, or everything.",
    )
    device: str = Field(
        default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="Where models run: auto, cpu, cuda or cuda:N."
    )
    seed: int = Field(
        default=0, ge=0, description="Seed of every random choice; the same seed repeats a replay exactly."
    )

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

    @field_validator("cameras")
    @classmethod
    def _check_unique_ids(cls, cameras: tuple[CameraConfig, ...]) -> tuple[CameraConfig, ...]:
        repeated = _repeated(camera.id for camera in cameras)
        if repeated:
            raise PydanticCustomError("duplicate_id", 'camera id "{id}" is used twice', {"id": repeated[0]})
        return cameras

    def with_cameras(self, cameras: Iterable[CameraConfig]) -> SiteConfig:
        """Return these settings over other cameras, as a replay of recorded footage needs them.

        Raises `ConfigError` if two of them have the same id.
        """
        replaced = tuple(cameras)
        repeated = _repeated(camera.id for camera in replaced)
        if repeated:
            where = ", ".join(camera.shown_source for camera in replaced if camera.id == repeated[0])
            raise ConfigError([Problem(where, None, f'camera id "{repeated[0]}" is used twice; rename one')])
        return self.model_copy(update={"cameras": replaced})

    def model_definitions(self) -> list[ModelDefinition]:
        """Return the definitions of the models to run, in order. Raises `ModelError` for an unknown name."""
        from camlink.models import catalogue

        names = catalogue.sets()[self.models] if isinstance(self.models, str) else self.models
        return [
            catalogue.definition(entry) if isinstance(entry, str) else catalogue.ModelDefinition(**entry.model_dump())
            for entry in names
        ]

    def masked(self) -> dict[str, Any]:
        """Return plain JSON data without passwords, for run.json and pages."""
        data = self.model_dump(mode="json")
        for camera, shown in zip(data["cameras"], self.cameras, strict=True):
            camera["source"] = shown.source if isinstance(shown.source, int) else shown.shown_source
        return data


def load_config(path: str | Path, *, ignore_cameras: bool = False) -> SiteConfig:
    """Return the configuration in the file at ``path``, or the built-in one of that name (``"building"``).

    ``ignore_cameras`` leaves out the file's cameras, unread: a replay brings its own, and must not fail for want of a
    live camera's password. Raises `ConfigError` with every problem found.
    """
    config, problems = _read(Path(path), ignore_cameras)
    if config is None or problems:
        raise ConfigError(problems)
    return config


def check_config(path: str | Path) -> list[Problem]:
    """Return everything that is wrong with a configuration file, in the order of its lines; nothing if it is right."""
    return _read(Path(path), ignore_cameras=False)[1]


def built_in_configs() -> dict[str, Path]:
    """Return the configurations that come with camlink, by name."""
    folder = Path(camlink.__file__).parent / "camera_configs"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def _read(path: Path, ignore_cameras: bool) -> tuple[SiteConfig | None, list[Problem]]:
    built_in = built_in_configs()
    file = path if path.exists() else built_in.get(str(path), path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        advice = f"{suggest(str(path), built_in)} (built in), or give the path of a YAML file"
        return None, [Problem(str(path), None, f"cannot be read as a configuration: {error}; {advice}")]
    return read_section(text, str(file), SiteConfig, leave_out="cameras" if ignore_cameras else "")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file, for editors and other tools."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **SiteConfig.model_json_schema()}
