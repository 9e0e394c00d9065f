"""The distributed benchmark feeds what it says and adds up what it claims to; every benchmark can be started."""

from __future__ import annotations

import cProfile
import importlib
from pathlib import Path

import pytest

from benchmarks.distributed.__main__ import LEAST_WARM, WARM_FRAMES, Measured, Scenario, scenarios, shown
from benchmarks.distributed.bare import Bare
from benchmarks.distributed.load import MODELS, cameras, jpeg_of, picture, write_trace
from benchmarks.distributed.requests import least_us, records
from benchmarks.distributed.soak import slope_mb_per_hour
from benchmarks.distributed.stages import part_of, shares
from camlink.models.recorded import open_trace
from camlink.pipeline.jpeg import JpegPicture
from camlink.pipeline.records import Frame, FrameResult, OutputReady, Settled

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(("jpeg_bytes", "shape"), [(50_000, (360, 640, 3)), (200_000, (720, 1280, 3))])
def test_pictures_take_the_bytes_that_were_asked_for(jpeg_bytes: int, shape: tuple[int, int, int]) -> None:
    pixels = picture(jpeg_bytes, seed=1)
    assert pixels.shape == shape and not pixels.flags.writeable
    assert len(jpeg_of(pixels)) == pytest.approx(jpeg_bytes, rel=0.02)
    assert JpegPicture.of(jpeg_of(pixels)).shape == shape


def test_a_size_that_no_noise_gives_is_refused() -> None:
    with pytest.raises(ValueError, match="no picture of 640x360 takes 100 bytes"):
        picture(100, seed=0)


def test_the_trace_answers_for_every_frame_that_is_fed(tmp_path: Path) -> None:
    write_trace(tmp_path / "trace", dict.fromkeys(cameras("x", 2), 5), seed=0)
    trace = open_trace(tmp_path / "trace")
    assert set(trace.specs) == set(MODELS)
    assert {camera for model in trace.models for camera in model._answers} == {"x-000", "x-001"}
    assert {len(frames) for model in trace.models for frames in model._answers.values()} == {5}


def test_every_scenario_has_answers_for_its_warm_up_its_load_and_its_timing() -> None:
    for scenario in scenarios(1000, [1, 200]):
        assert LEAST_WARM <= scenario.warm <= WARM_FRAMES
        assert scenario.last == scenario.warm + 6 * scenario.per_camera + scenario.timed_per_camera


def test_a_site_is_as_fast_as_its_busiest_worker_and_compared_with_the_busier_end_of_the_bare_loop() -> None:
    cpu_us, full_us = {"ingest": 500.0, "inference": 3000.0}, {"ingest": 500.0, "inference": 1000.0}
    got = Measured(cpu_us, full_us, 10.0, [10.0, 20.0, 30.0])
    row = shown(Scenario("x", 20, 50_000, "jpeg", 100), got, Bare(250.0, 500.0, 1.0, [1.0, 2.0, 3.0]))
    assert row[2:5] == ["1,000 (inference)", "2,000", "50%"]
    assert row[6].startswith("20 /") and row[7].startswith("2 /")


def test_a_leak_shows_as_a_slope() -> None:
    assert slope_mb_per_hour([0.0, 1800.0, 3600.0], [100.0, 150.0, 200.0]) == pytest.approx(100.0)


def test_time_is_counted_to_the_part_of_camlink_that_spent_it(tmp_path: Path) -> None:
    assert part_of("/x/camlink/pipeline/codec_fields.py") == "records <-> bytes"
    assert part_of("/x/site-packages/kafka/producer/kafka.py") == "Kafka client"
    assert part_of("/usr/lib/python3.11/json/encoder.py") == "other"
    profile = cProfile.Profile()
    profile.runcall(JpegPicture.of, jpeg_of(picture(50_000, 0)))
    profile.dump_stats(tmp_path / "one.prof")
    assert shares(tmp_path / "one.prof") == {"JPEG": pytest.approx(1.0)}


def test_the_costs_of_coding_are_told_of_every_record_that_travels_with_each_frame() -> None:
    assert {type(record) for record in records().values()} == {Frame, OutputReady, FrameResult, Settled}
    assert 0 < least_us(lambda: sum(range(100)), times=10) < least_us(lambda: sum(range(100_000)), times=10)


@pytest.mark.parametrize("path", sorted(BENCHMARKS.rglob("*.py")), ids=lambda path: str(path.relative_to(BENCHMARKS)))
def test_every_benchmark_can_be_started(path: Path) -> None:
    """Types say that what they import is there, not that importing it works."""
    parts = path.relative_to(BENCHMARKS.parent).with_suffix("").parts
    importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
