"""`camlink simulate` as a user meets it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from camlink.models.trace_arrays import open_arrays
from camlink.pipeline.errors import TraceError
from camlink.pipeline.lab.city import City, rate_at, simulate
from tests.pipeline.test_compare_command import camlink


def test_a_simulated_city_is_labelled_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    arguments = ["--cameras", "3", "--days", "0.1", "--every", "1min", "--seed", "7"]
    assert camlink("simulate", str(tmp_path / "a"), *arguments).exit_code == 0
    assert "SYNTHETIC" in (tmp_path / "a" / "trace.yaml").read_text().splitlines()[0]
    camlink("simulate", str(tmp_path / "b"), *arguments)
    first, second = open_arrays(tmp_path / "a"), open_arrays(tmp_path / "b")
    assert [c.camera_id for c in first.cameras] == ["synthetic-building-02", "synthetic-road-03", "synthetic-street-01"]
    for one, other in zip(first.cameras, second.cameras, strict=True):
        for model, values in one.values.items():
            np.testing.assert_array_equal(values, other.values[model])
    again = camlink("simulate", str(tmp_path / "a"), *arguments)
    assert isinstance(again.exception, TraceError) and "--overwrite" in str(again.exception)


def test_the_city_sleeps_at_night_and_its_models_agree_more_by_day() -> None:
    hours = np.arange(0, 24 * 7, 0.5)
    noon, night = (hours % 24 >= 12) & (hours % 24 < 18), hours % 24 < 4
    assert rate_at("street", hours[noon]).mean() > 4 * rate_at("street", hours[night]).mean()
    assert rate_at("building", np.array([14.0])) > 10 * rate_at("building", np.array([14.0 + 24 * 5]))
    (camera,) = simulate(City(cameras=1, days=3, every_s=60.0))
    hour = (camera.time_s / 3600.0) % 24
    same = np.abs(camera.values["persons"][:, 0] - camera.values["objects"][:, 0]) < 0.5
    busy = camera.values["objects"][:, 0] > 1
    assert same[busy & (hour > 8) & (hour < 19)].mean() > same[busy & ((hour < 6) | (hour >= 20))].mean()
