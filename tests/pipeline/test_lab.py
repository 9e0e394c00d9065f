"""The lab's rules: what a hand can compute comes out, no budget is broken, and nobody sees the future."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from camlink.models.base import OutputSpec
from camlink.models.trace_arrays import TraceArrays
from camlink.operators.baselines.warm_links import LinkTrainer
from camlink.operators.policy import FramePolicy, PolicySetup
from camlink.operators.selection import Budget
from camlink.pipeline.errors import PolicyError, TraceError
from camlink.pipeline.lab.compare import Rules, compare
from camlink.pipeline.lab.play import play, split
from camlink.pipeline.lab.policies import find_policies, known_policies
from tests.lab_traces import Spy, random_trace, setup_of, trace_of

PERIOD_S = 20.0
BOUND = ("camlink", "standalone", "periodic", "reducto", "drls", "mlink", "mlink-exact", "mlink-paper", "oracle")
TRAINER = LinkTrainer(keep=64)
FEW = settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def rows_of(trace: TraceArrays, policy: str, budget: Budget, **more: Any) -> dict[str, Any]:
    rules = Rules([budget], [policy], period_s=PERIOD_S, **more)
    (result,) = compare(trace, rules, lambda said: None)
    return result.row()


def spied(trace: TraceArrays, policy: str, budget: Budget) -> tuple[Spy, PolicySetup]:
    """Play frame by frame and return what was seen."""
    camera, setup = trace.cameras[0], setup_of(trace, budget)
    candidate = known_policies(PERIOD_S, TRAINER)[policy]
    cut = split(camera, PERIOD_S)
    spies: list[Spy] = []

    def make(s: PolicySetup) -> FramePolicy:
        spies.append(Spy(candidate.make(camera, s, cut)))
        return spies[-1]

    play(camera, make, setup, cut, name=policy)
    return spies[-1], setup


@pytest.mark.parametrize("policy", BOUND)
def test_every_frame_is_accounted_for_and_paid(policy: str) -> None:
    row = rows_of(random_trace(5, 80, 3), policy, Budget(time_share=0.4))
    assert 0.0 < row["agreement"] <= 1.0 and row["cost"] <= 0.4 + 1e-6
    hows = ("executed", "linked", "reused", "abstained")
    assert sum(row[f"share_{how}"] for how in hows) == pytest.approx(1.0)


def test_everything_agrees_with_itself_and_costs_all() -> None:
    row = rows_of(random_trace(0, 60, 3), "all", Budget(time_share=0.2))
    assert (row["agreement"], row["cost"], row["executions_saved"]) == (1.0, pytest.approx(1.0), 0.0)
    assert row["frames"] == 54


def test_standalone_executes_the_cheapest_and_repeats_the_rest() -> None:
    changes = [0] * 11 + [1] * 9  # the warm-up ends after frame 1: nine frames right, nine wrong
    trace = trace_of({"a": range(20), "b": changes}, {"a": 10.0, "b": 30.0})
    row = rows_of(trace, "standalone", Budget(time_share=0.25))
    assert row["agreement_per_model"] == {"a": 1.0, "b": 0.5}
    assert (row["agreement"], row["cost"], row["executions_saved"], row["loads"]) == (0.75, 0.25, 0.5, 1)
    assert (row["share_executed"], row["share_reused"], row["share_abstained"]) == (0.5, 0.5, 0.0)


def test_where_nothing_fits_every_frame_the_cheapest_executes_as_often_as_it_is_paid() -> None:
    trace = trace_of({"a": range(20), "b": [0] * 20}, {"a": 10.0, "b": 30.0})
    spy, _ = spied(trace, "standalone", Budget(time_share=0.1))  # 4 ms a frame: 4, 8, 12 -> a, 6, 10 -> a, ...
    assert [bool(executed) for executed, _ in spy.seen[:8]] == [False, False, True, False, True, False, False, True]


def test_periodic_spends_where_values_go_stale() -> None:
    trace = trace_of({"flips": np.arange(100) % 2, "still": [3] * 100}, {"flips": 20.0, "still": 20.0})
    row = rows_of(trace, "periodic", Budget(time_share=0.5))
    assert (row["agreement"], row["cost"], row["loads"]) == (1.0, 0.5, 1)


def test_reducto_executes_when_the_picture_changes() -> None:
    steps = np.arange(100) // 5
    moved = np.diff(steps, prepend=0)
    trace = trace_of({"a": steps, "b": [3] * 100}, {"a": 20.0, "b": 20.0}, stats={"pixel_change": moved})
    row = rows_of(trace, "reducto", Budget(time_share=0.5))
    assert row["agreement"] == 1.0
    assert row["cost"] == pytest.approx(2 * 18 * 20.0 / (90 * 40.0))  # both at each of 18 changes


def test_reducto_without_statistics_refreshes_periodically() -> None:
    trace = trace_of({"a": np.arange(100) % 2, "b": [3] * 100}, {"a": 20.0, "b": 20.0})
    row = rows_of(trace, "reducto", Budget(time_share=0.5))
    assert (row["agreement"], row["cost"]) == (1.0, 0.5)


def test_the_agent_learns_which_model_changes() -> None:
    trace = trace_of({"still": [3] * 200, "flips": np.arange(200) % 2}, {"still": 20.0, "flips": 20.0})
    row = rows_of(trace, "drls", Budget(time_share=0.5))
    assert (row["agreement"], row["cost"]) == (1.0, 0.5)


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_the_agent_leaves_no_budget_that_pays_for_a_model(share: float) -> None:
    row = rows_of(trace := random_trace(7, 300, 4), "drls", Budget(time_share=share))
    assert row["cost"] > share - 1.0 / len(trace.cameras[0])


@pytest.mark.parametrize("policy", BOUND)
def test_slow_models_and_fast_ones_are_scheduled_alike(policy: str) -> None:
    trace = random_trace(3, 200, 3)
    found = set()
    for times in (0.01, 1.0, 1e4):
        scaled = {m: replace(entry, time_ms=entry.time_ms * times) for m, entry in trace.models.items()}
        row = rows_of(replace(trace, models=scaled), policy, Budget(time_share=0.5))
        found.add((round(row["agreement"], 6), round(row["cost"], 6)))
    assert len(found) == 1


@pytest.mark.parametrize("policy", ["mlink", "mlink-exact", "mlink-paper", "oracle"])
def test_links_predict_what_follows_from_the_cheap_model(policy: str) -> None:
    somebody = np.arange(600) // 3 % 2
    trace = trace_of({"cheap": somebody, "costly": somebody}, {"cheap": 10.0, "costly": 30.0})
    row = rows_of(trace, policy, Budget(time_share=0.25))
    assert row["agreement"] > 0.99
    assert (row["cost"], row["share_linked"]) == (0.25, 0.5)  # nothing is left to pay a profile frame with


def test_a_period_is_profiled_when_that_can_be_paid() -> None:
    people = np.arange(600) // 3 % 4
    trace = trace_of({"cheap": people, "costly": people}, {"cheap": 10.0, "costly": 30.0})
    spy, _ = spied(trace, "mlink-exact", Budget(time_share=0.5))
    whole = [i for i, (executed, _) in enumerate(spy.seen) if len(executed) == 2]
    assert whole[:3] == [20, 40, 60]  # the first frame of every period of twenty but the first


@pytest.mark.slow
@pytest.mark.parametrize("policy", BOUND)
@FEW
@given(
    seed=st.integers(0, 1000),
    frames=st.integers(20, 150),
    models=st.integers(1, 4),
    share=st.floats(0.05, 1.0),
    gb=st.one_of(st.none(), st.floats(0.05, 6.0)),
    task=st.sampled_from(["count", "single_label", "multi_label", "regression"]),
)
@example(seed=1, frames=20, models=2, share=0.5, gb=None, task="count")
def test_no_budget_is_ever_exceeded(
    policy: str, seed: int, frames: int, models: int, share: float, gb: float | None, task: str
) -> None:
    trace = random_trace(seed, frames, models, task=task)
    budget = Budget(gb, share)
    spy, setup = spied(trace, policy, budget)
    everything = setup.costs.time(setup.costs.models)
    spent = np.cumsum([setup.costs.time(tuple(executed)) for executed, _ in spy.seen])
    assert (spent <= share * everything * np.arange(1, len(spent) + 1) + 1e-4).all()
    ever = {m for executed, _ in spy.seen for m in executed}
    assert gb is None or all(setup.costs.memory_gb[m] <= gb + 1e-6 for m in ever)


@pytest.mark.slow
@pytest.mark.parametrize("policy", [p for p in BOUND if p != "oracle"])
@FEW
@given(seed=st.integers(0, 1000), models=st.integers(2, 4), share=st.floats(0.1, 0.9))
def test_what_is_to_come_changes_nothing_that_was(policy: str, seed: int, models: int, share: float) -> None:
    trace = random_trace(seed, 120, models)
    known = 60
    order = np.concatenate([np.arange(known), known + np.random.default_rng(seed).permutation(120 - known)])
    before, _ = spied(trace, policy, Budget(time_share=share))
    after, _ = spied(_reordered(trace, order), policy, Budget(time_share=share))
    past = known - 12
    assert before.seen[:past] == after.seen[:past]
    assume(before.seen[past:] != after.seen[past:])  # where the shuffle never changes anything, hypothesis complains


def _reordered(trace: TraceArrays, order: np.ndarray[Any, Any]) -> TraceArrays:
    (camera,) = trace.cameras
    moved = replace(
        camera,
        values={m: v[order] for m, v in camera.values.items()},
        stats={s: v[order] for s, v in camera.stats.items()},
    )
    return replace(trace, cameras=(moved,))


@pytest.mark.parametrize("policy", ["mlink", "mlink-exact"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 1.0])
def test_by_the_block_everything_is_as_it_is_frame_by_frame(policy: str, share: float) -> None:
    trace = random_trace(3, 250, 3)
    camera, setup = trace.cameras[0], setup_of(trace, Budget(time_share=share))
    candidate, cut = known_policies(PERIOD_S, TRAINER)[policy], split(camera, PERIOD_S)
    fast, slow = (
        play(camera, lambda s: candidate.make(camera, s, cut), setup, cut, name=policy, blocks=blocks)
        for blocks in (True, False)
    )
    for name in ("agreed", "hows", "within_one", "error", "total", "frames", "spent_ms"):
        np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(fast.stated.sum(axis=0), slow.stated.sum(axis=0), rtol=1e-5)
    assert fast.loads == slow.loads


class Spendthrift:
    """Executes everything, whatever it may spend."""

    def __init__(self, setup: PolicySetup) -> None:
        self.models = list(setup.specs)

    def begin(self, frame: object) -> None: ...

    def choose(self, executed: Mapping[str, object]) -> str | None:
        return next((m for m in self.models if m not in executed), None)

    def answer(self, executed: object) -> dict[str, Any]:
        return {}

    def learn(self, executed: object, *, chosen: bool) -> None: ...


def test_a_policy_that_overspends_is_stopped_and_named() -> None:
    with pytest.raises(PolicyError, match=r'Spendthrift" on camera "cam": on frame 6 chose "m\d" beyond its budget'):
        rows_of(random_trace(0, 60, 3), "tests.pipeline.test_lab:Spendthrift", Budget(time_share=0.5))


def test_a_model_too_large_for_the_memory_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"0\.01 GB, and it needs"):
        rows_of(random_trace(0, 60, 3), "tests.pipeline.test_lab:Spendthrift", Budget(memory_gb=0.01))


def test_loading_is_counted_and_charged() -> None:
    trace = trace_of({"a": range(40), "b": range(40)}, {"a": 10.0, "b": 10.0})
    free = rows_of(trace, "tests.pipeline.test_lab:Spendthrift", Budget(memory_gb=1.0))
    charged = rows_of(trace, "tests.pipeline.test_lab:Spendthrift", Budget(memory_gb=1.0), load_ms=5.0)
    assert (free["loads"], charged["loads"]) == (72, 72)  # each puts the other out, on each of 36 frames
    assert (free["cost"], charged["cost"]) == (1.0, 1.5)


def test_one_model_alone_is_played() -> None:
    for policy in BOUND:
        row = rows_of(random_trace(2, 80, 1), policy, Budget(time_share=0.5))
        assert 0.4 < row["cost"] <= 0.5 and row["agreement"] >= 0.5, policy


@pytest.mark.slow
def test_many_models_are_played() -> None:
    row = rows_of(random_trace(4, 150, 13), "mlink-exact", Budget(time_share=0.5))
    assert row["share_linked"] > 0.1 and row["cost"] <= 0.5


@pytest.mark.parametrize("policy", BOUND)
def test_every_task_is_played_and_unknown_ones_are_named(policy: str) -> None:
    rng, frames = np.random.default_rng(0), 60
    box = np.sort(rng.random((frames, 2, 2)), axis=1).reshape(frames, 4)  # x1 y1 below x2 y2
    values = {
        "words": rng.integers(0, 4, (frames, 5)), "box": box, "still": np.ones((frames, 2)),
        "level": rng.random((frames, 1)), "masks": np.zeros((frames, 3)),
        "found": np.tile(np.array([0, 0, 1, 1, 0.9, 2], np.float32), (frames, 1)),
    }  # fmt: skip
    specs = {
        "words": OutputSpec("words", "sequence", 9, "tokens", max_steps=5),
        "box": OutputSpec("box", "vector", 4, "box"),
        "still": OutputSpec("still", "vector", 2, "count"),
        "level": OutputSpec("level", "vector", 1, "regression", scale=0.5),
        "found": OutputSpec("found", "set", 3, "detections"),
        "masks": OutputSpec("masks", "vector", 3, "masks"),  # type: ignore[arg-type]
    }
    trace = trace_of(values, dict.fromkeys(values, 10.0), specs=specs)
    notes: list[str] = []
    (result,) = compare(trace, Rules([Budget(time_share=0.6)], [policy], period_s=PERIOD_S), notes.append)
    row = result.row()
    assert set(row["agreement_per_model"]) == set(values) - {"masks"} and row["cost"] <= 0.6
    (note,) = notes
    assert note.startswith('trace hand: camera "cam": masks: unknown task "masks"; known: count') and "left out" in note


def test_a_camera_without_any_outputs_is_left_out_and_named() -> None:
    trace = random_trace(0, 60, 2)
    (camera,) = trace.cameras
    silent = replace(camera, camera_id="dark", specs={}, values={})
    notes: list[str] = []
    rules = Rules([Budget()], ["all"], period_s=PERIOD_S)
    (result,) = compare(replace(trace, cameras=(camera, silent)), rules, notes.append)
    assert list(result.row()["per_camera"]) == ["cam"]
    assert notes == ['trace chance: camera "dark" has no outputs that can be scored; left out']


@pytest.mark.parametrize("policy", BOUND)
def test_models_that_cost_nothing_are_played(policy: str) -> None:
    trace = random_trace(1, 80, 2)
    free = {m: replace(entry, time_ms=0.0, memory_gb=0.0) for m, entry in trace.models.items()}
    row = rows_of(replace(trace, models=free), policy, Budget(time_share=0.5))
    assert 0.3 < row["cost"] <= 0.5 + 1e-4 and 0.0 < row["agreement"] <= 1.0


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (("m0", "m1"), "trace chance: time_ms is 0 for every model; all are taken to cost the same"),
        (("m1",), "trace chance: time_ms is 0 for m1: executing costs nothing there"),
    ],
)
def test_models_without_a_time_are_named(free: tuple[str, ...], said: str) -> None:
    trace = random_trace(1, 60, 2)
    entries = {m: replace(e, time_ms=0.0) if m in free else e for m, e in trace.models.items()}
    notes: list[str] = []
    list(compare(replace(trace, models=entries), Rules([Budget()], ["all"], period_s=PERIOD_S), notes.append))
    assert notes == [said]


@pytest.mark.parametrize("policy", ["camlink", "mlink", "mlink-paper"])
def test_labels_that_are_no_chances_are_played_without_links_and_named(policy: str) -> None:
    rng = np.random.default_rng(0)
    values = {"a": rng.integers(0, 3, (60, 1)), "percent": rng.uniform(0, 100, (60, 2)), "far": np.full((60, 1), 1e30)}
    specs = {
        "a": OutputSpec("a", "vector", 1, "count"),
        "percent": OutputSpec("percent", "vector", 2, "multi_label"),
        "far": OutputSpec("far", "vector", 1, "regression"),
    }
    notes: list[str] = []
    trace = trace_of(values, {"a": 10.0, "percent": 30.0, "far": 20.0}, specs=specs)
    (result,) = compare(trace, Rules([Budget(time_share=0.4)], [policy], period_s=PERIOD_S), notes.append)
    assert result.row()["cost"] <= 0.4
    (note,) = notes
    assert "percent: multi_label outputs are not all chances from 0 to 1" in note


def test_labels_are_also_judged_by_how_they_are_ranked() -> None:
    seen = np.array([[0.9, 0.1]] * 10 + [[0.2, 0.7], [0.8, 0.6]] * 5, np.float32)  # two of warm-up, 18 that count
    specs = {"a": OutputSpec("a", "vector", 1, "count"), "b": OutputSpec("b", "vector", 2, "multi_label")}
    trace = trace_of({"a": range(20), "b": seen}, {"a": 10.0, "b": 30.0}, specs=specs)
    row = rows_of(trace, "standalone", Budget(time_share=0.25))
    # b always says 0.9 and 0.1: what is equal ranks nothing, so each label's precision is its share of the 18 frames
    assert row["mean_average_precision"] == {"b": pytest.approx((13 / 18 + 10 / 18) / 2)}
    assert rows_of(trace, "all", Budget())["mean_average_precision"] == {"b": 1.0}


def test_a_camera_with_few_frames_is_left_out_and_named() -> None:
    with pytest.raises(TraceError, match="of its 1 camera none has 20 frames"):
        rows_of(random_trace(0, 10, 2), "all", Budget())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mlnk", 'unknown policy "mlnk"; did you mean'),
        ("no.such:Thing", "cannot import no.such"),
        ("tests.lab_traces:Nobody", "has no Nobody"),
        ("tests.pipeline.test_lab:BOUND", "cannot be called"),
    ],
)
def test_a_wrong_name_of_a_policy_says_what_is_wrong(name: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        find_policies([name], PERIOD_S)


def test_seeds_are_rows_of_their_own() -> None:
    rules = Rules([Budget(time_share=0.5)], ["periodic", "drls"], seeds=(1, 2), period_s=PERIOD_S)
    rows = [r.row() for r in compare(random_trace(0, 60, 2), rules, lambda said: None)]
    assert [(r["policy"], r["seed"]) for r in rows] == [("periodic", 1), ("periodic", 2), ("drls", 1), ("drls", 2)]


def test_the_example_in_the_documentation_keeps_to_its_budget(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    code = re.search(r"```python\n(.*?)```", (repository / "docs" / "compare.md").read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "example_policies.py").write_text(code[1])
    monkeypatch.syspath_prepend(str(tmp_path))  # as if started there
    row = rows_of(random_trace(0, 80, 3), "example_policies:RoundRobin", Budget(time_share=0.25))
    assert 0.15 < row["cost"] <= 0.25 and row["share_reused"] > 0.5


def test_a_policy_is_found_in_the_folder_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    (tmp_path / "policies_of_mine.py").write_text("class Mine:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    assert find_policies(["policies_of_mine:Mine"], PERIOD_S)[0].name == "policies_of_mine:Mine"
