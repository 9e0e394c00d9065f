"""A latency limit in the lab: it is held against every policy, on every frame, and stated wherever figures are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from camlink.models.trace_writing import write_arrays
from camlink.operators.selection import Budget
from camlink.pipeline.cli import app
from camlink.pipeline.errors import PolicyError
from camlink.pipeline.lab.play import play, split
from camlink.pipeline.lab.policies import known_policies
from tests.lab_traces import random_trace, setup_of, trace_of
from tests.pipeline.test_lab import BOUND, PERIOD_S, TRAINER, rows_of, spied

FEW = settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow], derandomize=True, deadline=None)


def frames_of(policy: str, budget: Budget, time_ms: Sequence[float] = (10.0, 10.0, 10.0)) -> list[set[str]]:
    """Return which models a policy executed on each frame; all change on every fifth, when there is movement, too."""
    changes = np.arange(300) // 5
    values = {f"m{i}": changes * (i + 1) % 7 for i in range(len(time_ms))}
    moved = np.where(np.diff(changes, prepend=0) > 0, 0.5, 0.01)
    trace = trace_of(values, dict(zip(values, time_ms, strict=True)), stats={"pixel_change": moved})
    return [set(executed) for executed, _ in spied(trace, policy, budget)[0].seen]


@pytest.mark.parametrize("policy", BOUND)
@FEW
@given(
    seed=st.integers(0, 1000),
    models=st.integers(1, 4),
    share=st.one_of(st.none(), st.floats(0.1, 1.0)),
    gb=st.one_of(st.none(), st.floats(0.5, 6.0)),
    limit=st.floats(1.0, 100.0),
)
@example(seed=1, models=3, share=None, gb=None, limit=40.0)
def test_no_frame_is_ever_spent_more_on_than_the_limit(
    policy: str, seed: int, models: int, share: float | None, gb: float | None, limit: float
) -> None:
    spy, setup = spied(
        random_trace(seed, 60, models), policy, Budget(gb, share, limit)
    )  # stopped, were it to overspend
    spent = [setup.costs.time(tuple(executed)) for executed, _ in spy.seen]
    assert max(spent) <= limit + 1e-3
    if share is None and gb is None and min(setup.costs.time_ms.values()) <= limit:
        assert sum(map(bool, spent)) >= 2, "what has room is used"


@pytest.mark.parametrize("policy", ["camlink", "periodic", "reducto"])
def test_models_that_are_due_together_execute_as_many_as_fit_and_the_rest_next(policy: str) -> None:
    together, one_by_one = (frames_of(policy, Budget(time_share=0.5, latency_ms=limit)) for limit in (None, 10.0))
    assert max(map(len, together)) > 1 and max(map(len, one_by_one)) == 1
    for model in ("m0", "m1", "m2"):
        ran = [i for i, models in enumerate(one_by_one) if model in models]
        assert max(np.diff(ran)) <= 15, "none is starved"


@pytest.mark.parametrize("policy", BOUND)
def test_what_no_frame_has_time_for_keeps_nothing_else_from_executing(policy: str) -> None:
    frames = np.arange(300)
    trace = trace_of({"calm": frames // 9 % 3, "busy": frames * 5 % 7}, {"calm": 10.0, "busy": 12.0})
    ran = [set(executed) for executed, _ in spied(trace, policy, Budget(time_share=0.5, latency_ms=11.0))[0].seen]
    assert all(models <= {"calm"} for models in ran)
    assert sum(map(bool, ran)) >= 0.3 * len(ran)


def test_without_a_time_budget_what_has_room_is_used() -> None:
    for policy in ("camlink", "drls"):
        assert all(len(models) == 2 for models in frames_of(policy, Budget(latency_ms=20.0))), policy


@pytest.mark.parametrize("policy", ["camlink", "drls"])
def test_what_does_not_fit_into_the_rest_of_a_frame_leaves_it_to_what_does(policy: str) -> None:
    frames = np.arange(300)
    values = {"busy": frames // 3 % 5, "calm": frames // 90, "long": frames // 3 * 2 % 5}
    trace = trace_of(values, {"busy": 10.0, "calm": 10.0, "long": 12.0})
    ran = [set(executed) for executed, _ in spied(trace, policy, Budget(latency_ms=21.0))[0].seen]
    assert all(models == {"long"} or len(models) == 2 for models in ran)
    assert {"busy", "calm"} in ran


def test_an_agent_uses_its_budget_on_frames_of_limited_length() -> None:
    trace = random_trace(7, 300, 4)
    everything = sum(entry.time_ms for entry in trace.models.values())
    row = rows_of(trace, "drls", Budget(time_share=0.3, latency_ms=0.5 * everything))
    assert row["cost"] > 0.2


def test_credit_is_spent_on_several_frames_where_one_may_not_take_it() -> None:
    burst = frames_of("camlink", Budget(time_share=0.25))
    capped = frames_of("camlink", Budget(time_share=0.25, latency_ms=10.0))
    assert max(map(len, burst)) > 1 and max(map(len, capped)) == 1
    assert sum(map(len, capped)) > 0.9 * 0.75 * len(capped), "the share is used up all the same"


@pytest.mark.parametrize("policy", ["mlink", "mlink-exact"])
@pytest.mark.parametrize("limit", [20.0, 60.0, 90.0])
def test_by_the_block_everything_is_as_it_is_frame_by_frame(policy: str, limit: float) -> None:
    trace = random_trace(3, 250, 3)
    camera, setup = trace.cameras[0], setup_of(trace, Budget(time_share=0.6, latency_ms=limit))
    candidate, cut = known_policies(PERIOD_S, TRAINER)[policy], split(camera, PERIOD_S)
    fast, slow = (
        play(camera, lambda s: candidate.make(camera, s, cut), setup, cut, name=policy, blocks=blocks)
        for blocks in (True, False)
    )
    for name in ("agreed", "hows", "spent_ms"):
        np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), rtol=1e-6, err_msg=name)


def test_a_policy_that_takes_too_long_on_a_frame_is_stopped_and_told_why() -> None:
    said = r"beyond its budget: of the 60 ms that a frame may take -?\d+\.\d ms are left, and it costs"
    with pytest.raises(PolicyError, match=said):
        rows_of(random_trace(0, 60, 4), "tests.pipeline.test_lab:Spendthrift", Budget(latency_ms=60.0))


def test_what_loading_takes_counts_on_the_frame_that_waits_for_it() -> None:
    trace = trace_of({"a": np.arange(100) % 2, "b": np.arange(100) % 2}, {"a": 10.0, "b": 10.0})
    row = rows_of(trace, "standalone", Budget(latency_ms=20.0), load_ms=8.0)
    assert row["share_executed"] == pytest.approx(178 / 180)  # one is loaded on each of the first two frames


def camlink(*arguments: str) -> tuple[str, str]:
    done = CliRunner().invoke(app, ["compare", *arguments], env={"COLUMNS": "100", "NO_COLOR": "1"})
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = trace_of({"a": np.arange(80) % 3, "b": np.arange(80) % 2}, {"a": 10.0, "b": 30.0})
    return write_arrays(tmp_path_factory.mktemp("traces") / "hand", made.models, made.cameras)


def test_rows_tables_and_the_page_state_the_limit(trace: Path, tmp_path: Path) -> None:
    asked = [str(trace), "--policy", "periodic", "standalone", "--budget-time", "0.5", "--latency-ms", "none", "30"]
    out, _ = camlink(*asked, "--json", "--html", str(tmp_path / "page.html"), "--csv", str(tmp_path / "rows.csv"))
    assert [(r["policy"], r["budget_time"], r["latency_ms"]) for r in json.loads(out)] == [
        ("periodic", 0.5, None), ("periodic", 0.5, 30.0), ("standalone", 0.5, None), ("standalone", 0.5, 30.0),
    ]  # fmt: skip
    assert "50% time, 30 ms a frame</th>" in (tmp_path / "page.html").read_text()
    assert "latency_ms" in (tmp_path / "rows.csv").read_text().splitlines()[0]
    lines = camlink(*asked)[0].splitlines()
    assert [line for line in lines if "(cost)" in line] == [
        "hand: agreement (cost), in %",
        "hand, 30 ms a frame: agreement (cost), in %",
    ]


def test_targets_are_met_under_the_limit_or_said_to_be_missed(trace: Path) -> None:
    asked = [str(trace), "--policy", "camlink", "periodic", "--target", "0.99", "--latency-ms", "10"]
    assert "hand, 10 ms a frame: least cost (agreement), in %" in camlink(*asked)[0]
    rows = json.loads(camlink(*asked, "--json")[0])
    assert all(row["latency_ms"] == 10.0 and not row["target_met"] for row in rows)
    assert {row["chance_to_be_best"] for row in rows} == {None}, "costs are compared, not agreement"


def test_a_limit_that_is_none_or_leaves_nothing_is_said(trace: Path) -> None:
    out, said = camlink(str(trace), "--policy", "standalone", "--latency-ms", "40", "none", "5", "--json")
    assert [row["latency_ms"] for row in json.loads(out)] == [None, 5.0]
    assert "take 40 ms at most, so a latency limit of 40 ms is the same as none; played and counted once" in said
    assert "5 ms is less than the fastest model of a camera takes; none executes" in said
    _, said = camlink(str(trace), "--policy", "periodic", "--budget-gb", "0.001", "--budget-time", "0.5", "--json")
    assert "as rarely as the time budget asks" not in said, "time is not what is missing"
    assert "0.001 GB is less than the smallest model of a camera takes; none executes" in said
    refused = CliRunner().invoke(app, ["compare", str(trace), "--latency-ms", "0"])
    assert refused.exit_code == 2 and "--latency-ms" in refused.output
