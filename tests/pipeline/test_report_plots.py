"""The report's plots: thinned without hiding anything, valid for plotly, safe with any name."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from camlink.models.base import OutputSpec
from camlink.pipeline.reports import plots
from camlink.pipeline.reports.notes import ONE_LOOK
from camlink.pipeline.reports.rows import CameraRows, ModelRows
from camlink.pipeline.reports.series import ModelSeries
from camlink.pipeline.reports.series import thin as thin_between_gaps
from camlink.pipeline.reports.stretches import stretches
from camlink.pipeline.reports.strip import decision_strip

EVIL = "<a href='https://example.org'>x</a>"
START = datetime(2026, 3, 2, tzinfo=UTC)
START_US = int(START.timestamp()) * 1_000_000
COUNT = OutputSpec("objects", "vector", 2, "count", ("person", "chair"))
LABEL = OutputSpec("action", "vector", 3, "single_label", ("stand", "walk", "fall"))
TAGS = OutputSpec("tags", "vector", 2, "multi_label", ("wet", "dark"))


def model_rows(spec: OutputSpec, values: Any, how: str = "executed") -> ModelRows:
    """Rows one second apart; every second one predicted when ``how`` is "mixed"."""
    matrix = np.asarray(values, np.float32)
    count = len(matrix)
    hows = np.array(["executed", "linked"] * count)[:count] if how == "mixed" else np.full(count, how)
    return ModelRows(
        spec=spec,
        frame_index=np.arange(count),
        times_us=START_US + np.arange(count) * 1_000_000,
        values=matrix,
        how=hows,
        purpose=np.full(count, "serve"),
        served=np.full(count, True),
        probability=np.full(count, np.nan),
    )


def thin(rows: ModelRows, points: int) -> ModelSeries:
    return thin_between_gaps(rows, points, stretches(rows.times_us // 1000))


def camera(models: dict[str, ModelRows]) -> CameraRows:
    decision = {
        "start": START,
        "end": START + timedelta(hours=1),
        "execute": list(models)[:1],
        "predict": list(models)[1:],
        "reason": EVIL,
    }
    return CameraRows("hall", models, 100, [decision], [], [], [])


def agreement(mean: float | None) -> dict[str, Any]:
    baselines = {"constant": 0.5, "hourly_mode": 0.5, "persistence": 0.6}
    figure = {"mean": mean, "low": 0.7, "high": 0.9, "audit_frames": 40, "baselines": baselines}
    return {"agreement": {"predicted_only": figure}}


def painted(node: Any) -> Any:
    """Fill in colours as the page does, so that plotly's own validators can judge a figure."""
    if isinstance(node, str) and node.startswith("@"):
        return "Arial" if node == "@font" else "#123456"
    if isinstance(node, list):
        return [painted(item) for item in node]
    return {key: painted(value) for key, value in node.items()} if isinstance(node, dict) else node


def every_figure(name: str = "objects") -> list[plots.Figure]:
    rows = camera(
        {name: model_rows(COUNT, np.ones((50, 2)), "mixed"), "action": model_rows(LABEL, np.eye(3)[[0, 1, 2]])}
    )
    scores = {name: {"action": 0.9}, "action": {name: 0.4}}
    found = [
        plots.outputs_over_time(rows, 20),
        decision_strip(rows),
        plots.agreement_by_model({name: agreement(0.8), "action": agreement(None)}, ONE_LOOK),
        plots.link_matrix(scores, [name, "action"]),
    ]
    assert all(found)
    return [figure for figure in found if figure is not None]


def test_few_frames_are_all_drawn_as_they_are() -> None:
    series = thin(model_rows(COUNT, [[1, 2], [3, 0]], "mixed"), 100)
    assert series.executed.y.tolist() == [3.0]
    assert series.predicted.y.tolist() == [3.0]
    assert series.frames_per_point == 1
    assert len(series.low) == 0


def test_many_frames_are_joined_and_none_is_lost() -> None:
    series = thin(model_rows(COUNT, np.ones((10_000, 2)), "mixed"), 100)
    assert len(series.executed.y) <= 100
    assert series.executed.frames.sum() + series.predicted.frames.sum() == 10_000
    assert np.all(np.diff(series.line.times_ms) > 0)


def test_a_peak_of_one_frame_stays_visible_in_the_range() -> None:
    values = np.zeros((10_000, 2))
    values[5_000, 0] = 30
    series = thin(model_rows(COUNT, values), 100)
    assert series.high.max() == 30
    assert series.line.y.max() < 1


@pytest.mark.parametrize("spec", [LABEL, TAGS])
def test_a_label_that_came_once_keeps_its_marker(spec: OutputSpec) -> None:
    values = np.tile([0.9, *[0.0] * (spec.size - 1)], (5_000, 1))
    values[3_000] = [0.0] * (spec.size - 1) + [0.9]
    series = thin(model_rows(spec, values), 50)
    row = series.rows.index(spec.labels[-1])
    assert series.executed.frames[series.executed.y == row].tolist() == [1]


def test_several_labels_of_one_frame_have_a_marker_each_and_no_label_has_its_own_row() -> None:
    series = thin(model_rows(TAGS, [[0.9, 0.9], [0.1, 0.1]]), 10)
    named = sorted(series.rows[int(row)] for row in series.executed.y)
    assert named == ["dark", "none", "wet"]


def test_of_very_many_labels_the_rare_ones_share_a_row() -> None:
    spec = OutputSpec("things", "vector", 100, "single_label")
    series = thin(model_rows(spec, np.eye(100)), 1_000)
    assert series.rows[-1] == "92 others"
    assert series.executed.frames.sum() == 100


def test_abstained_outputs_are_marked_and_never_drawn_as_a_value() -> None:
    series = thin(model_rows(COUNT, np.full((3, 2), np.nan), "abstained"), 10)
    assert series.abstained.frames.sum() == 3
    assert len(series.executed.y) == len(series.predicted.y) == len(series.line.y) == 0


def test_every_figure_is_one_that_plotly_accepts() -> None:
    from plotly import graph_objects

    for figure in every_figure():
        graph_objects.Figure(painted(json.loads(json.dumps(figure))))  # raises ValueError on an unknown property


def test_names_cannot_bring_markup_into_a_plot() -> None:
    for figure in every_figure(EVIL):
        assert "<a" not in json.dumps(figure)


def test_both_plots_over_time_share_their_axis() -> None:
    outputs, strip, *_ = every_figure()
    assert outputs["layout"]["xaxis"]["range"] == strip["layout"]["xaxis"]["range"]
    assert outputs["layout"]["margin"]["l"] == strip["layout"]["margin"]["l"]


def test_link_matrix_orders_sources_and_targets_alike() -> None:
    figure = plots.link_matrix({"b": {"a": 0.1}, "a": {"b": 0.2}}, ["a", "b"])
    assert figure is not None
    trace = figure["data"][0]
    assert (trace["y"], trace["x"], trace["z"]) == (["a", "b"], ["a", "b"], [[None, 0.2], [0.1, None]])


def test_camera_without_anything_has_no_plots() -> None:
    empty = CameraRows("hall", {"objects": model_rows(COUNT, np.zeros((0, 2)))}, 0, [], [], [], [])
    assert plots.outputs_over_time(empty, 100) is None
    assert decision_strip(empty) is None
    assert plots.agreement_by_model({"objects": agreement(None)}, ONE_LOOK) is None
    assert plots.link_matrix({}, ["objects"]) is None


def test_long_runs_of_equal_decisions_are_drawn_as_one() -> None:
    hours = [
        {
            "start": START + timedelta(hours=i),
            "end": START + timedelta(hours=i + 1),
            "execute": ["objects"],
            "predict": [],
            "reason": "",
        }
        for i in range(1_000)
    ]
    values = np.ones((4_000, 2))
    rows = CameraRows("hall", {"objects": model_rows(COUNT, values)}, 4_000, hours, [], [], [])
    figure = decision_strip(rows)
    assert figure is not None
    assert sum(len(trace["x"]) for trace in figure["data"]) == 1
    for hour in hours[1:]:  # a model that nothing could predict in the first hour
        hour["predict"] = ["persons"]
    both = {"objects": model_rows(COUNT, values), "persons": model_rows(COUNT, values)}
    figure = decision_strip(replace(rows, models=both))
    assert figure is not None
    assert {t["name"]: list(t["y"]).count("persons") for t in figure["data"] if "persons" in t["y"]} == {
        "left out": 1,
        "predicted": 1,
    }


def clips(frames: int, count: int = 2, apart: timedelta = timedelta(days=4)) -> ModelRows:
    """Clips of one frame a second with nothing in between."""
    rows = model_rows(COUNT, np.ones((frames * count, 2)))
    shift = np.repeat(np.arange(count), frames) * int(apart.total_seconds()) * 1_000_000
    return replace(rows, times_us=rows.times_us + shift)


def test_slow_and_somewhat_irregular_frames_are_no_gap() -> None:
    times = np.cumsum(np.array([0, 2, 2, 5, 2, 1, 30, 2])) * 3_600_000
    assert len(stretches(times).starts_ms) == 1
    assert len(stretches(np.concatenate((times, times + 40 * 86_400_000))).starts_ms) == 2


@pytest.mark.parametrize("points", [1_000, 20])
def test_lines_break_where_there_is_no_footage(points: int) -> None:
    figure = plots.outputs_over_time(camera({"objects": clips(50)}), points)
    assert figure is not None
    line = next(trace for trace in figure["data"] if trace["mode"] == "lines" and trace["line"]["width"])
    assert line["y"].count(None) == 1
    gap = line["x"].index(None)
    assert line["x"][gap + 1] - line["x"][gap - 1] > 3 * 86_400_000


def test_no_decision_and_no_profiling_is_drawn_where_there_is_no_footage() -> None:
    rows = camera({"objects": clips(50)})
    first = rows.decisions[0] | {"start": START + timedelta(seconds=20), "end": START + timedelta(seconds=60)}
    second = first | {"start": START + timedelta(days=4, seconds=70), "end": START + timedelta(days=5)}
    figure = decision_strip(replace(rows, decisions=[first, second]))
    assert figure is not None
    bars = [(b, b + x) for trace in figure["data"] for b, x in zip(trace["base"], trace["x"], strict=True)]
    day = 86_400_000
    start = START_US // 1000
    assert len(bars) == 4  # profiled, then decided, in both clips
    assert all(high < start + day / 10 or low > start + 3.9 * day for low, high in bars)
    assert sum(high - low for low, high in bars) == pytest.approx(
        4 * day / 100 * 1.9, rel=0.01
    )  # long enough to be seen


def test_a_span_is_cut_at_the_gaps_and_keeps_its_true_start() -> None:
    footage = stretches(np.concatenate((np.arange(100), 200_000 + np.arange(100_000))))
    pieces = list(footage.pieces(50, 250_000))
    assert [piece[0] for piece in pieces] == [50, 200_000]
    assert pieces[1] == (200_000, 200_000, 250_000)


def test_row_titles_stay_short_enough_for_a_phone_whatever_the_names() -> None:
    spec = OutputSpec("objects", "vector", 1, "count", ("a label with a very long name that goes on and on",))
    figure = plots.outputs_over_time(camera({"model-" * 20: model_rows(spec, np.ones((3, 1)))}), 10)
    assert figure is not None
    (title,) = figure["layout"]["annotations"]
    assert len(title["text"].replace("<b>", "").replace("</b>", "")) <= 52


@pytest.mark.parametrize(
    ("execute", "predict", "states"),
    [
        (["a"], ["b"], {"executed", "predicted"}),
        (["a"], [], {"executed", "left out"}),
        ([], ["a", "b"], {"left out"}),  # announced as predicted, but from what?
    ],
)
def test_a_model_that_can_get_no_output_is_not_drawn_as_predicted(
    execute: list[str], predict: list[str], states: set[str]
) -> None:
    rows = camera({"a": model_rows(COUNT, np.ones((50, 2))), "b": model_rows(COUNT, np.ones((50, 2)))})
    decision = rows.decisions[0] | {"execute": execute, "predict": predict}
    figure = decision_strip(replace(rows, decisions=[decision]))
    assert figure is not None
    assert {trace["name"] for trace in figure["data"]} == states


def test_the_legend_names_abstaining_once_whichever_model_does_it() -> None:
    silent = model_rows(COUNT, np.full((3, 2), np.nan), "abstained")
    rows = camera({"a": model_rows(COUNT, np.ones((3, 2))), "b": silent, "c": silent})
    figure = plots.outputs_over_time(rows, 10)
    assert figure is not None
    named = [trace["name"] for trace in figure["data"] if trace["showlegend"]]
    assert named == ["executed", "abstained"]


def test_the_legend_names_predicted_marks_also_where_the_first_model_has_none() -> None:
    rows = camera({"a": model_rows(COUNT, np.ones((3, 2))), "b": model_rows(COUNT, np.ones((4, 2)), "mixed")})
    figure = plots.outputs_over_time(rows, 10)
    assert figure is not None
    named = {trace["name"]: trace for trace in figure["data"] if trace["showlegend"]}
    assert set(named) == {"executed", "predicted"}
    assert all(trace["x"] for trace in named.values()), "plotly leaves out of the legend what has no points"


def test_the_frames_before_the_first_decision_are_bootstrap_first_and_then_profiling() -> None:
    rows = camera({"a": replace(model_rows(COUNT, np.ones((60, 2))), purpose=np.full(60, "profile"))})
    later = rows.decisions[0] | {"start": START + timedelta(seconds=50)}
    figure = decision_strip(replace(rows, decisions=[later], bootstrap_frames=40))
    assert figure is not None
    seconds = {trace["name"]: sum(trace["x"]) / 1000 for trace in figure["data"]}
    assert seconds["bootstrap"] == pytest.approx(40) and seconds["profiling"] == pytest.approx(10)


def test_what_is_chosen_on_every_frame_is_drawn_as_the_share_of_frames_that_executed_it() -> None:
    served = model_rows(COUNT, np.ones((120, 2)), "mixed")
    served.how[:60] = "reused"
    never, audited = replace(served, how=np.full(120, "reused")), np.arange(120) % 10 == 0
    rare = replace(served, purpose=np.where(audited, "audit", "serve"), how=np.where(audited, "executed", "reused"))
    rows = camera({"half": served, "never": never, "audited": rare, "always": model_rows(COUNT, np.ones((120, 2)))})
    anew = rows.decisions[0] | {"execute": ["always"], "per_frame": True}
    figure = decision_strip(replace(rows, decisions=[anew]))
    assert figure is not None
    traces = {trace["name"]: trace for trace in figure["data"]}
    assert set(traces) == {"executed", "not executed", "executed on a share of frames"}
    shares = traces["executed on a share of frames"]
    whole = traces["executed"]["width"][0]
    assert set(traces["executed"]["y"]) == {"always"}, "its target is missed, so the decision executes it"
    assert set(shares["y"]) == {"half"}, "an audit frame is none that the policy chose to execute on"
    assert [high / whole for high in shares["width"]] == pytest.approx([0.5] * 6, abs=1e-3)
    assert {a + b for a, b in zip(shares["offset"], shares["width"], strict=True)} == {whole / 2}, (
        "all stand on one line"
    )
    assert min(shares["base"]) == pytest.approx(START_US // 1000 + 60_000, abs=1_000)
    assert set(shares["hovertext"]) == {"executed on 5 of 10 served frames (50%)"}
    assert {traces["not executed"]["y"].count(name) for name in ("half", "never", "audited")} == {12}
