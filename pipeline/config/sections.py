"""The sections of a site configuration, as pydantic models: cameras, own models, budgets, rules.

Descriptions appear in the JSON Schema, where editors show them. `camlink.pipeline.config` puts the sections together.
"""

from __future__ import annotations

import os
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PlainSerializer,
    PrivateAttr,
    Strict,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from camlink.models.base import OutputSpec
from camlink.pipeline import quantities
from camlink.pipeline.addresses import Kind, check_address, check_scheme, expand_environment, find_path, is_url
from camlink.pipeline.errors import LinkError, ModelError
from camlink.pipeline.ingest.base import CAMERA_ID, SourceSpec
from camlink.pipeline.ingest.masking import mask_url
from camlink.pipeline.ingest.names import camera_id_from

if TYPE_CHECKING:
    from camlink.models.catalogue import ModelDefinition

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
PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
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
        description="Part of the picture to look at: x, y, width, height as shares (0..1) of its size.",
    )
    domain: str = Field(default="default", description="Kind of scene, such as indoor or road; shown in reports.")
    target_agreement: Share | None = Field(
        default=None,
        description="Agreement (0..1) that predictions on this camera must reach, in place of the site's; a model "
        "that provably misses it is executed.",
    )
    timezone: str = Field(
        default="UTC", description='How times without a zone in names of recorded files are read, as "Asia/Singapore".'
    )
    decode: Literal["auto", "all", "keyframes"] = Field(
        default="all",
        description="Which frames are decoded: all; keyframes, which costs far less where frames are looked at less "
        "often than key frames come (needs PyAV); auto, key frames wherever they suffice.",
    )
    frozen_after: Duration | None = Field(
        default=None,
        description="How long a live camera's picture may stay the very same, to the last bit, before it counts as "
        "frozen; 4s when not given.",
    )
    _shown_source: str = PrivateAttr("")

    @field_validator("decode")
    @classmethod
    def _check_decode(cls, decode: str) -> str:
        if decode == "keyframes" and find_spec("av") is None:
            raise ValueError("keyframes needs PyAV, which is not installed: pip install 'camlink[keyframes]'")
        return decode

    @field_validator("id")
    @classmethod
    def _check_id(cls, camera_id: str) -> str:
        if not CAMERA_ID.fullmatch(camera_id):
            shown = camera_id if len(camera_id) <= 80 else f"{camera_id[:80]}..."
            raise ValueError(
                f'"{shown}" is not a camera id: use 1 to 64 letters of English, digits, "_", "." or "-", '
                f'such as "{camera_id_from(mask_url(camera_id))}"'
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
            check_address(opened)
            check_scheme(opened)
            return opened
        return find_path(opened, (info.context or {}).get("folder"))

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, timezone: str) -> str:
        return quantities.parse_timezone(timezone)

    @model_validator(mode="wrap")
    @classmethod
    def _remember_source_as_written(cls, data: Any, handler: Any) -> Self:
        camera: Self = handler(data)
        if isinstance(data, dict):
            camera._shown_source = mask_url(data["source"])
        return camera

    @property
    def shown_source(self) -> str:
        """The source as written, passwords masked: what logs, errors and pages may show."""
        return self._shown_source or mask_url(self.source)

    def source_spec(self) -> SourceSpec:
        """Return what ingest needs to know to open this camera."""
        return SourceSpec(
            camera_id=self.id,
            sources=(self.source,),
            fps=self.fps,
            crop=self.crop,
            timezone=self.timezone,
            domain=self.domain,
            shown=self.shown_source,
            decode=self.decode,
            frozen_after_s=None if self.frozen_after is None else self.frozen_after.total_seconds(),
        )


class ModelConfig(Section):
    """A model that is not in the catalogue."""

    name: str = Field(
        min_length=1, description="Name of the model in results and reports: letters, digits, '_', '.', '-'; up to 64."
    )
    adapter: Literal["ultralytics", "onnx", "torchvision", "tflite"] = Field(description="What runs the weights.")
    weights: str = Field(min_length=1, description="Weight file: a path, or the name of a pinned file.")
    task: Literal["count", "single_label", "multi_label", "regression"] = Field(description="What the output means.")
    labels: Names = Field(default=(), description="Names of the output's entries, in order.")
    classes: Annotated[tuple[str | int, ...], Strict(False)] = Field(
        default=(), description="For a detector: the class (name or number) that each label counts."
    )
    groups: dict[str, Names] = Field(
        default={}, description="For a classifier: the classes whose probabilities are summed into each label."
    )
    class_names: str | None = Field(
        default=None, description="Text file with one class per line, for weights that do not carry their own."
    )
    confidence: Share = Field(default=0.25, description="Detections below this confidence (0..1) are left out.")
    image_size: int = Field(default=640, ge=32, le=4096, description="Side in pixels to which pictures are scaled.")
    scale: PositiveFloat = Field(default=1.0, description="For a regression: the error at which it is entirely wrong.")
    time_ms: PositiveFloat | None = Field(default=None, description="Time per frame in ms; measured when absent.")
    memory_gb: Gigabytes | None = Field(default=None, description="Peak memory in GB; measured when absent.")
    description: str = Field(default="", description="What the model is, shown in reports.")
    licence: str = Field(default="as stated by its publisher", description="Licence of the weights, shown in reports.")

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not CAMERA_ID.fullmatch(name):  # links are kept in folders of that name
            raise ValueError(
                f'"{name[:80]}" cannot name a model: use 1 to 64 letters of English, digits, "_", "." or "-", '
                f'such as "{camera_id_from(name)}"'
            )
        return name

    @field_validator("weights", "class_names")
    @classmethod
    def _find_file(cls, name: str | None, info: ValidationInfo) -> str | None:
        """Point at a file that lies beside the configuration; any other name is for the weight search to find."""
        if name is None:
            return None
        folder = (info.context or {}).get("folder") or Path()
        is_torchvision = info.field_name == "weights" and info.data.get("adapter") == "torchvision"
        architecture, colon, path = name.partition(":") if is_torchvision else ("", "", name)  # ARCHITECTURE:PATH
        return f"{architecture}{colon}{folder / path}" if os.path.isfile(folder / path) else name

    @model_validator(mode="after")
    def _check_definition(self) -> Self:
        try:
            self.definition()
        except ModelError as error:
            raise ValueError(str(error).removeprefix(f'model "{self.name}": ')) from error
        return self

    def definition(self) -> ModelDefinition:
        """Return this model in the catalogue's form. Raises `ModelError` when labels, classes and groups disagree."""
        from camlink.models.catalogue import ModelDefinition

        return ModelDefinition(**self.model_dump())


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
    latency_ms: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Models are executed on a frame only as long as they can be expected to finish within so many ms "
        "of its capture; what would come later is linked or reused instead.",
    )


class ProfileConfig(Section):
    """Frames at the start of a period on which every model runs, to score the links, or to choose what is loaded."""

    fraction: Share | None = Field(
        default=None,
        description="Share (0..1) of a period's frames. By default 0.01; 0 where a policy decides on every frame "
        "and there is no memory budget, for then there is nothing to score and nothing to choose.",
    )
    min_frames: int | None = Field(
        default=None, ge=1, description="At least so many frames, for cameras with few of them: 10, or there 1."
    )


class AuditConfig(Section):
    """Randomly chosen frames on which every model runs; accuracy is estimated from these alone."""

    fraction: Share = Field(default=0.02, description="Share (0..1) of frames. 0: accuracy is not measured.")
    spend: Literal["fixed", "widest"] = Field(
        default="fixed",
        description="fixed: every frame has the same chance. widest: up to four times the share in periods that begin "
        "with a wide interval, paid for by down to a quarter of it where intervals are narrow.",
    )


class LinksConfig(Section):
    """Which links predict, and how they get their first training."""

    kind: Literal["count_distribution", "set", "vec_to_vec", "auto"] = Field(
        default="count_distribution",
        description="count_distribution: predicts how probable each count is, calibrated, and remembers what the "
        "model said last. set: the same, from all boxes of the detectors, doubtful ones included. vec_to_vec: the "
        "links of the MLink paper, which regress counts. auto: per model, whichever of count_distribution and "
        "vec_to_vec did better on frames held out from training.",
    )
    context: Annotated[tuple[Literal["time_of_day", "frame_statistics"], ...], Strict(False)] = Field(
        default=(),
        description="What links read beside other models' outputs: time_of_day (UTC), frame_statistics (change, edges "
        "and brightness of the picture).",
    )
    bootstrap_frames: int = Field(default=100, ge=1, description="First frames of a camera, on which every model runs.")
    min_train_frames: int = Field(default=40, ge=2, description="No link is trained on fewer frames than these.")
    history_frames: int = Field(
        default=2000, ge=2, description="Newest fully executed frames kept per camera for training."
    )

    start: str | None = Field(
        default=None,
        description="Folder of links that every camera begins with, as `camlink federate` writes them; later versions "
        "have to prove better.",
    )

    @field_validator("start")
    @classmethod
    def _check_start(cls, start: str | None, info: ValidationInfo) -> str | None:
        return None if start is None else find_path(start, (info.context or {}).get("folder"), "folder")

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


class OracleConfig(Section):
    """A person's labels, from which camlink learns to say what the person would: the oracle node (docs/links.md)."""

    name: str = Field(
        default="person",
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="How results call the calibrated output.",
    )
    labels: str = Field(
        description="CSV of labels: camera_id, frame_index or captured_at, and a column of numbers per counted thing."
    )
    trace: str = Field(description="Trace (`camlink record`) that holds the models' outputs on the labelled frames.")
    counts: Annotated[tuple[str, ...], Strict(False)] = Field(
        min_length=1, description="The CSV's columns that are predicted, each a count."
    )
    sources: Annotated[tuple[str, ...], Strict(False)] = Field(
        default=(), description="Models to predict from; all when not given."
    )

    @field_validator("labels", "trace")
    @classmethod
    def _check_path(cls, path: str, info: ValidationInfo) -> str:
        kind: Kind = "trace" if info.field_name == "trace" else "file"
        return find_path(path, (info.context or {}).get("folder"), kind)

    @field_validator("counts")
    @classmethod
    def _check_counts(cls, counts: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """Read the labels at once: a fault in them should stop a run before it begins, with file and line."""
        from camlink.links.domain import read_labels

        if "labels" in info.data and "name" in info.data:
            try:
                read_labels(Path(info.data["labels"]), _oracle_spec(info.data["name"], counts))
            except LinkError as error:
                raise ValueError(str(error)) from error
        return counts

    def spec(self) -> OutputSpec:
        """Return what the person says, as an output space."""
        return _oracle_spec(self.name, self.counts)


def _oracle_spec(name: str, counts: tuple[str, ...]) -> OutputSpec:
    return OutputSpec(name, "vector", len(counts), "count", counts)


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
