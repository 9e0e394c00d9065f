"""Where models run is there, or is refused; and a lack of memory is known by any of its names."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from camlink.models import device
from camlink.models.onnx import OnnxSession
from camlink.pipeline.errors import ModelError
from tests.models.tiny import write_classifier_onnx


@pytest.mark.parametrize(
    ("asked", "there", "found"),
    [("auto", 0, "cpu"), ("cpu", 2, "cpu"), ("auto", 2, "cuda:0"), ("cuda", 1, "cuda:0"), ("cuda:1", 2, "cuda:1")],
)
def test_a_device_is_found(asked: str, there: int, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cuda_devices", lambda: there)
    assert device.resolve(asked) == found


@pytest.mark.parametrize(
    ("asked", "there", "message"),
    [
        ("gpu", 1, '"gpu" is no device; write auto, cpu, cuda or cuda:N'),
        ("cuda", 0, "torch sees no CUDA device here"),
        ("cuda:2", 2, "device cuda:2: torch sees 2 CUDA devices here, from cuda:0 on"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    asked: str, there: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cuda_devices", lambda: there)
    with pytest.raises(ModelError, match=message):
        device.resolve(asked)


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "Failed to allocate memory for requested buffer of size 1024",
    ],
)
def test_a_lack_of_memory_is_known_by_its_names(said: str) -> None:
    error = ModelError("failed on 4 frames")
    error.__cause__ = RuntimeError(said)
    assert device.ran_out(error)
    assert not device.ran_out(ModelError("failed on 4 frames"))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_container_uses_as_many_threads_as_it_is_given_cores(
    files: dict[str, str], cores: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert device.core_limit(tmp_path) == cores
    monkeypatch.delenv("CAMLINK_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.setattr(device, "core_limit", lambda: cores)
    assert device.threads() == (cores or 64)


class Session:
    """Stands in for onnxruntime's, and keeps what it was asked for."""

    asked: list[object]

    def __init__(self, path: str, options: object, providers: list[object]) -> None:
        Session.asked = providers

    def get_inputs(self) -> list[object]:
        return [SimpleNamespace(shape=[1, 3, 32, 32], type="tensor(float)")]

    def get_modelmeta(self) -> object:
        return SimpleNamespace(custom_metadata_map={})


@pytest.mark.parametrize("knows_cuda", [True, False])
def test_onnxruntime_runs_on_the_device_that_was_named_or_says_that_it_cannot(
    knows_cuda: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known = ["CPUExecutionProvider", *(["CUDAExecutionProvider"] if knows_cuda else [])]
    options = SimpleNamespace(add_session_config_entry=lambda key, value: None)
    runtime = SimpleNamespace(
        SessionOptions=lambda: options, InferenceSession=Session, get_available_providers=lambda: known
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    with caplog.at_level(logging.WARNING):
        OnnxSession("own", write_classifier_onnx(tmp_path / "c.onnx"), "cuda:1").load()
    if knows_cuda:
        assert Session.asked == [("CUDAExecutionProvider", {"device_id": 1}), "CPUExecutionProvider"]
        assert not caplog.text
    else:
        assert Session.asked == ["CPUExecutionProvider"]
        assert "model own: onnxruntime here knows no CUDA, so that it runs on the CPU" in caplog.text
