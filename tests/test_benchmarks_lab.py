"""What the lab's benchmarks compute, on cases small enough to know the answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lab.multi_task import HEADS, answer, features_of, play_heads
from benchmarks.lab.road_counts import cameras_of
from benchmarks.lab.scalability import BUDGETS, figure_10, link_scores, regret, views
from tests.lab_traces import random_trace


def test_greedy_lies_between_standalone_and_the_optimum() -> None:
    for mean in figure_10(models=5, repeats=3, seed=0).values():
        assert mean["standalone"] <= mean["mlink-exact"] + 1e-9 and mean["mlink"] <= mean["mlink-exact"] + 1e-9
    reached = figure_10(models=5, repeats=3, seed=0)
    optimal = [reached["normal", share]["mlink-exact"] for share in BUDGETS]
    assert optimal == sorted(optimal) and optimal[-1] > optimal[0]


def test_with_all_sources_kept_there_is_nothing_to_regret() -> None:
    full, few = regret(models=8, kept=(2, 8), share=0.4, seed=0)
    assert few[1] == pytest.approx(full) and few[0] < full


def test_a_link_from_a_model_to_itself_explains_it_and_noise_explains_nothing() -> None:
    outputs = dict(views(2, seed=0))
    outputs["noise"] = np.random.default_rng(1).normal(size=outputs["m0"].shape).astype(np.float32)
    scores = link_scores(outputs)
    assert np.diag(scores).min() > 0.999 and scores[2, :2].max() < 0.05


def test_road_counts_become_three_models_per_camera(tmp_path: Path) -> None:
    table = tmp_path / "counts.csv"
    table.write_text(
        "camera_id,timestamp,md5,bicycle,car,motorcycle,bus,truck,total\n"
        "7,2022-10-01 00:07:00,b,0,12,2,0,1,15\n"
        "7,2022-10-01 00:02:00,a,1,14,0,3,0,18\n"
        "7,2022-10-01 00:02:00,a,1,14,0,3,0,18\n"
    )
    (camera,) = cameras_of(table)
    assert camera.camera_id == "road-7" and len(camera) == 2
    assert camera.time_s[0] == np.datetime64("2022-09-30T16:02:00", "s").astype(int)  # Singapore's midnight in UTC
    assert {m: v.tolist() for m, v in camera.values.items()} == {
        "cars": [[14.0], [12.0]],
        "two_wheelers": [[0.0, 1.0], [2.0, 0.0]],
        "heavy": [[3.0, 0.0], [0.0, 1.0]],
    }


def test_heads_answer_for_every_model_at_the_cost_of_the_backbone() -> None:
    trace = random_trace(0, 200, 2)
    (camera,) = trace.cameras
    seen = np.concatenate(list(camera.values.values()), axis=1)  # a backbone that sees all there is
    features = {("cam", i): row for i, row in zip(camera.index.tolist(), seen, strict=True)}
    for heads in HEADS:
        result, head_ms = play_heads(trace, features, heads, seed=0, share=0.2)
        row = result.row()
        assert (row["policy"], row["cost"], row["frames"]) == (heads, pytest.approx(0.2), 180)
        assert row["share_linked"] == 1.0 and head_ms > 0.0
    blind = {key: np.zeros_like(value) for key, value in features.items()}
    assert row["agreement"] > play_heads(trace, blind, heads, seed=0, share=0.2)[0].row()["agreement"]


def test_heads_learn_from_the_first_tenth_only() -> None:
    (camera,) = random_trace(0, 100, 2).cameras
    features = np.concatenate(list(camera.values.values()), axis=1)
    later = {m: np.concatenate([v[:20], v[20:] + 7.0]) for m, v in camera.values.items()}
    before, _ = answer(camera, features, "vec_to_vec", 0, warm_up=20)
    after, _ = answer(replace(camera, values=later), features, "vec_to_vec", 0, warm_up=20)
    for model, said in before.items():
        np.testing.assert_array_equal(said, after[model])


def test_footage_that_does_not_fit_the_trace_is_named() -> None:
    (camera,) = random_trace(0, 30, 1).cameras
    with pytest.raises(KeyError, match=r'no frame 0 of camera "cam" .30 are missing.; it has cameras gate'):
        features_of(camera, {("gate", 0): np.zeros(2, np.float32)})
