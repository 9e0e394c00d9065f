"""What the benchmark of the per-frame policy measures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from benchmarks.policy import zoo as zoo_benchmark
from benchmarks.policy.hindsight import bound, in_hindsight, played, served_until
from benchmarks.policy.numbers import cover, nearest, place, said
from benchmarks.policy.speed import PARTS, Timed
from benchmarks.policy.zoo import WARM_UPS, beginning, cut, differences, members
from camlink.models.base import OutputSpec
from camlink.models.detection_arrays import detection_arrays
from camlink.models.trace_arrays import CameraTrace
from camlink.models.trace_writing import write_arrays
from camlink.operators.per_frame import PerFrame
from camlink.operators.policy import Answer, FrameFacts
from camlink.operators.selection import Budget
from camlink.operators.zoo import Zoo
from camlink.pipeline.lab.play import split
from camlink.pipeline.records import Value
from tests.lab_traces import random_trace, setup_of


class Counting(PerFrame):
    """Counts the calls, and how often the models that it chose executed."""

    calls: Counter[str]

    def begin(self, frame: FrameFacts) -> None:
        self.calls["begin"] += 1
        super().begin(frame)

    def answer(self, executed: Mapping[str, Value]) -> dict[str, Answer]:
        self.calls["answer"] += 1
        return super().answer(executed)

    def learn(self, executed: Mapping[str, Value], *, chosen: bool) -> None:
        self.calls["learn" if chosen else "warm-up"] += 1
        self.calls["executed"] += len(executed) if chosen else 0
        super().learn(executed, chosen=chosen)


def test_the_benchmark_times_a_policy_that_decides_on_every_frame_after_warm_up() -> None:
    trace = random_trace(3, 60, 3)
    policy = Counting(setup_of(trace, Budget(time_share=0.4)))
    policy.calls = Counter()
    run = Timed(trace.cameras[0], policy)
    executed = policy.calls.pop("executed")
    assert policy.calls == {"begin": 60, "warm-up": 6, "answer": 54, "learn": 54}
    assert 0 < executed < 3 * 54
    assert run.warm_up == 6
    assert tuple(run.spent_s) == ("warm-up", *PARTS) and min(run.spent_s.values()) >= 0.0


def brute_force(values: list[int], executions: int) -> int:
    """The most frames served right by repeating, over every choice of frames to execute; the first is given."""
    frames = range(1, len(values))
    return max(
        sum(values[max(i for i in (0, *chosen) if i <= j)] == values[j] for j in frames)
        for k in range(executions + 1)
        for chosen in combinations(frames, k)
    )


def test_hindsight_is_never_below_the_best_choice_of_frames_and_meets_it_where_prices_can() -> None:
    values = [0, 1, 1, 0, 2, 2, 2, 0, 1]
    spec = OutputSpec("people", "vector", 1, "count")
    until = served_until(spec, np.array(values, np.float32)[:, None])
    found = [bound({"people": until}, {"people": 10.0}, 10.0 * k) for k in range(6)]
    exact = [brute_force(values, k) for k in range(6)]
    assert all(f >= e - 1e-6 for f, e in zip(found, exact, strict=True))
    assert found[-1] == pytest.approx(8) == exact[-1]
    concave = [k for k in range(1, 5) if exact[k] - exact[k - 1] > exact[k + 1] - exact[k]]
    assert concave
    assert [found[k] for k in concave] == pytest.approx([exact[k] for k in concave], abs=1e-3)


def test_no_policy_that_repeats_outputs_does_better_than_hindsight() -> None:
    trace = random_trace(5, 120, 3)
    (camera,) = trace.cameras
    cut = split(camera, 1e9)
    setups = [setup_of(trace, Budget(time_share=share)) for share in (0.2, 0.5)]
    known = in_hindsight(camera, cut, setups[0].costs, (0.2, 0.5))
    for setup, most in zip(setups, known, strict=True):
        assert played("periodic", camera, cut, setup) <= most
    assert known == sorted(known)


def test_no_camera_is_in_the_zoo_that_it_starts_from_nor_is_it_judged_on_what_it_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = random_trace(5, 80, 2)
    cameras = [replace(made.cameras[0], camera_id=name) for name in ("east", "north", "west")]
    path = write_arrays(tmp_path / "trace", made.models, cameras)
    here = list(members([path], most=None))
    assert [member.taught.frames for member in here] == [40, 40, 40]
    assert all(member.later.index[0] == 40 for member in here)
    zoos: dict[str, set[str]] = {}

    def played(camera: CameraTrace, costs: object, warm_up: int, share: float, zoo: Zoo | None) -> tuple[float, object]:
        assert warm_up == 10 and len(camera) > 10
        if zoo is not None:
            zoos[camera.camera_id] = {known.camera_id for known in zoo.cameras}
        return (0.5 if zoo is None else 0.6), np.array([[1.0, 0.5, 0.5]] * 200)

    monkeypatch.setattr(zoo_benchmark, "played", played)
    agreement, errors = differences(here, 10, range(2), None)
    assert zoos["east"] == {"trace/north", "trace/west"} and len(zoos) == 3
    assert agreement.shape == (2, 3, 4) and errors.shape == (2, 4)
    assert agreement[1] - agreement[0] == pytest.approx(np.full((3, 4), 0.1))


def test_a_part_of_a_camera_has_the_boxes_of_its_frames() -> None:
    (camera,) = random_trace(5, 80, 2, with_detections=True).cameras
    part = cut(camera, 50, 60)
    assert len(part) == 10
    for model, drawn in camera.detections.items():
        assert len(part.detections[model]) == 10
        for row in range(10):
            assert part.detections[model].at(row).scores.tolist() == drawn.at(50 + row).scores.tolist()
            assert part.values[model][row].sum() <= len(part.detections[model].at(row).scores)


def test_a_warm_up_that_no_camera_outlasts_is_said_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = random_trace(5, 80, 2)
    cameras = [replace(made.cameras[0], camera_id=name) for name in ("east", "north")]
    path = write_arrays(tmp_path / "trace", made.models, cameras)
    monkeypatch.setattr(zoo_benchmark, "played", lambda *_: (0.5, np.array([[1.0, 0.5, 0.5]] * 200)))
    monkeypatch.setattr("sys.argv", ["zoo", str(path), "--warm-up", "100", "10"])
    zoo_benchmark.main()
    said = capsys.readouterr().out
    assert "warm-up of 100 frames: no camera has 15 frames that count after it" in said
    assert "warm-up of 10 frames, 2 cameras" in said


@pytest.mark.parametrize("warm_up", WARM_UPS)
def test_each_seed_begins_elsewhere_and_leaves_most_of_the_frames(warm_up: int) -> None:
    found = [beginning(400, warm_up, None, seed) for seed in range(5)]
    assert len(set(found)) == 5
    assert all(end == 400 and 400 - start - warm_up >= 0.75 * (400 - warm_up) - 1 for start, end in found)
    assert all(end - start == warm_up + 50 for start, end in (beginning(400, warm_up, 50, s) for s in range(5)))


def test_detectors_are_made_to_say_numbers_of_their_boxes() -> None:
    boxes = np.array([[0.0, 0.0, 0.5, 0.5], [0.75, 0.5, 1.0, 1.0]], np.float32)
    assert cover(boxes) == pytest.approx([0.25 + 0.125])
    assert place(boxes) == pytest.approx([(0.25 + 0.875) / 2, (0.25 + 0.75) / 2])
    assert nearest(boxes) == [0.0, 0.0, 0.5, 0.5]
    assert cover(boxes[:0]) == [0.0] and place(boxes[:0]) == [0.5, 0.5] and nearest(boxes[:0]) == [0.0] * 4
    rows = [[[0.0, 0.0, 0.5, 0.5, 0.9, 0.0], [0.0, 0.0, 1.0, 1.0, 0.2, 0.0]], []]
    assert said("count", detection_arrays(rows)).tolist() == [[1.0], [0.0]]  # one is not sure enough
