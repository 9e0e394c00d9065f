"""From a definition to a model that can run: weights fetched, backend chosen, costs known.

On CPU a YOLO detector has two backends, torch and onnxruntime on an exported file. Until `measure_all` has timed both
on this machine, onnxruntime is taken; afterwards, whichever was faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from camlink.models import device as machine
from camlink.models.base import Model, OutputSpec
from camlink.models.catalogue import ModelDefinition, is_built_in, output_spec
from camlink.models.export import exported
from camlink.models.onnx import OnnxClassifier, OnnxDetector
from camlink.models.profile import (
    CostProfile,
    PricedModel,
    ProfileKey,
    Runner,
    cheaper,
    measure,
    store,
    stored,
    try_out,
)
from camlink.models.recorded import open_trace
from camlink.models.tflite import TfliteClassifier
from camlink.models.torchvision import TorchvisionClassifier
from camlink.models.ultralytics import UltralyticsModel
from camlink.models.weights import REGISTRY, Progress, cache_folder, fetch, sha256_of
from camlink.pipeline.errors import ModelError

BACKENDS = {"onnx": "onnxruntime", "torchvision": "torch", "tflite": "ai-edge-litert"}


def build(
    definition: ModelDefinition, device: str = "auto", cache_dir: Path | None = None, progress: Progress | None = None
) -> Model:
    """Return the model, unloaded, with its costs: those of the definition, else a stored profile, else measured now.

    A model of one's own is run once, so that what is wrong with it is found before the first camera is opened, and not
    on every frame. Raises `ModelError`, and `WeightsError` when its weights are nowhere to be had.
    """
    if definition.adapter == "recorded":
        return open_trace(definition.weights).model(definition.name)
    place, cache = machine.resolve(device), cache_folder(cache_dir)
    path = _weights_path(definition, cache, progress)
    profile = _stored(definition, sha256_of(path), place, cache)
    backend = backends(definition, place)[0] if profile is None else profile.key.backend
    runner = _runner(definition, path, place, backend, cache)
    time_ms, memory_gb = definition.time_ms, definition.memory_gb
    if profile is None and (time_ms is None or memory_gb is None):
        profile = _measured(runner, _key(definition, sha256_of(path), place, backend), path, cache, place)
    elif not is_built_in(definition):
        try_out(runner)
    if profile is not None:
        time_ms = profile.time_ms if time_ms is None else time_ms
        memory_gb = profile.memory_gb if memory_gb is None else memory_gb
    assert time_ms is not None
    assert memory_gb is not None
    return PricedModel(runner, time_ms, memory_gb)


def known_costs(definition: ModelDefinition, device: str = "auto", cache_dir: Path | None = None) -> CostProfile | None:
    """Return the measured costs that `build` would take, or None; nothing is fetched or measured for it.

    Raises `ModelError` for a device or a file of one's own that is not there.
    """
    if definition.adapter == "recorded":
        return None
    name = _weights_name(definition)
    sha256 = REGISTRY[name].sha256 if name in REGISTRY else sha256_of(fetch(name))
    return _stored(definition, sha256, machine.resolve(device), cache_folder(cache_dir))


def pull(definition: ModelDefinition, cache_dir: Path | None = None, progress: Progress | None = None) -> list[Path]:
    """Fetch all files that the model needs, so that a later `build` needs no network. Raises `WeightsError`."""
    if definition.adapter == "recorded":
        return [Path(definition.weights)]
    cache = cache_folder(cache_dir)
    names = [] if definition.class_names is None else [definition.class_names]
    paths = [fetch(name, cache_dir=cache, progress=progress) for name in names]
    return [_weights_path(definition, cache, progress), *paths]


def check_files(definition: ModelDefinition) -> None:
    """Raise `ModelError` where a file of one's own is not there. Pinned files are not looked for: they are fetched."""
    names = (_weights_name(definition), definition.class_names)
    for name in names:
        if name is not None and name not in REGISTRY:
            fetch(name)


def measure_all(
    definition: ModelDefinition,
    device: str = "auto",
    batch_sizes: Sequence[int] = (1, 4),
) -> list[tuple[CostProfile, CostProfile | None]]:
    """Measure every backend that can run the model here, on a stand-in picture, and store the profiles.

    Each comes with the one that it replaces, if there was one. `build` then takes the fastest. Raises `ModelError`.
    """
    if definition.adapter == "recorded":
        raise ModelError(f'model "{definition.name}" is recorded: its costs are those its trace states')
    place, cache = machine.resolve(device), cache_folder()
    path = _weights_path(definition, cache, None)
    profiles = []
    for backend in backends(definition, place):
        runner = _runner(definition, path, place, backend, cache)
        key = _key(definition, sha256_of(path), place, backend)
        before = stored(key, cache)
        profiles.append((_measured(runner, key, path, cache, place, batch_sizes), before))
    return profiles


def backends(definition: ModelDefinition, place: str) -> tuple[str, ...]:
    """Return the backends able to run the model on ``place``, the default first."""
    if definition.adapter != "ultralytics":
        return (BACKENDS[definition.adapter],)
    return ("onnxruntime", "torch") if place == "cpu" and definition.is_detector else ("torch",)


def _weights_path(definition: ModelDefinition, cache: Path, progress: Progress | None) -> Path:
    return fetch(_weights_name(definition), cache_dir=cache, progress=progress)


def _weights_name(definition: ModelDefinition) -> str:
    is_torchvision = definition.adapter == "torchvision"
    return _architecture_and_path(definition)[1] if is_torchvision else definition.weights


def _architecture_and_path(definition: ModelDefinition) -> tuple[str, str]:
    architecture, colon, path = definition.weights.partition(":")
    if not (architecture and colon and path):
        raise ModelError(
            f'model "{definition.name}": weights "{definition.weights}" should read ARCHITECTURE:PATH, '
            "for example resnet18:/data/gates.pt"
        )
    return architecture, path


def _class_names(definition: ModelDefinition, cache: Path) -> tuple[str, ...]:
    if definition.class_names is None:
        return ()
    text = fetch(definition.class_names, cache_dir=cache).read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _stored(definition: ModelDefinition, sha256: str, place: str, cache: Path) -> CostProfile | None:
    """Return what was measured of the fastest backend, or None where none was."""
    keys = [_key(definition, sha256, place, backend) for backend in backends(definition, place)]
    known = [profile for key in keys if (profile := stored(key, cache)) is not None]
    return cheaper(known) if known else None


def _key(definition: ModelDefinition, sha256: str, place: str, backend: str) -> ProfileKey:
    return ProfileKey(sha256, machine.described(place), backend, machine.threads(), definition.image_size)


def _measured(
    runner: Runner,
    key: ProfileKey,
    path: Path,
    cache: Path,
    place: str,
    batch_sizes: Sequence[int] = (1, 4),
) -> CostProfile:
    floor_gb = path.stat().st_size / 1e9  # growth of a process that has freed memory before can read as nothing
    profile = measure(runner, key, batch_sizes=batch_sizes, floor_gb=floor_gb, place=place)
    store(profile, cache)
    return profile


def _runner(definition: ModelDefinition, path: Path, place: str, backend: str, cache: Path) -> Runner:
    makers: dict[str, Callable[[], Runner]] = {
        "ultralytics": lambda: _yolo(definition, path, place, backend, cache),
        "onnx": lambda: _onnx(definition, path, place, cache),
        "torchvision": lambda: TorchvisionClassifier(
            output_spec(definition),
            _architecture_and_path(definition)[0],
            path,
            _class_names(definition, cache),
            definition.groups,
            _classifier_size(definition),
            place,
        ),
        "tflite": lambda: TfliteClassifier(
            output_spec(definition), path, _class_names(definition, cache) or definition.labels, definition.groups
        ),
    }
    return makers[definition.adapter]()


def _yolo(definition: ModelDefinition, path: Path, place: str, backend: str, cache: Path) -> Runner:
    spec = output_spec(definition)
    if backend == "onnxruntime":
        return _detector(definition, spec, exported(path, definition.image_size, cache), place)
    return UltralyticsModel(
        spec,
        path,
        definition.classes or definition.labels,
        definition.groups,
        definition.confidence,
        definition.image_size,
        place,
        cache,
    )


def _onnx(definition: ModelDefinition, path: Path, place: str, cache: Path) -> Runner:
    spec = output_spec(definition)
    if definition.is_detector:
        return _detector(definition, spec, path, place)
    names = _class_names(definition, cache)
    return OnnxClassifier(spec, path, definition.groups, names, _classifier_size(definition), place)


def _detector(definition: ModelDefinition, spec: OutputSpec, path: Path, place: str) -> OnnxDetector:
    classes = definition.classes or definition.labels
    return OnnxDetector(spec, path, classes, definition.confidence, definition.image_size, place)


def _classifier_size(definition: ModelDefinition) -> int:
    """640 is a detector's default; classifiers that say nothing get theirs."""
    return 224 if definition.image_size == 640 else definition.image_size
